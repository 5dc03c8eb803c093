//! The end of an item for a reason that is not the task's own: a context that cannot be decoded, or
//! an emitted value that cannot be passed.

use std::cell::Cell;

use crate::shm::protocol::{Failure, Stage};

thread_local! {
    /// Why the item has ended, for who has caught the panic that says so.
    static REFUSAL: Cell<Option<Failure>> = const { Cell::new(None) };
}

/// Ends the item with this failure.
#[cold]
pub(super) fn refuse(failure: Failure) -> ! {
    let (stage, message) = (failure.stage, failure.message.clone());
    REFUSAL.set(Some(failure));
    // A program whose panics abort says this much.
    match stage {
        Stage::EncodeEmitted => panic!("cannot serialise an emitted value: {message}"),
        _ => panic!("cannot deserialise the context: {message}"),
    }
}

/// Why the panic that was just caught was one of [`refuse`]. `None`: it was none.
pub(super) fn take_refusal() -> Option<Failure> {
    REFUSAL.take()
}
