//! The last panics that somebody else has caught. A task may be given one of them: by a thread that
//! it has started and waits for, by a library that collects panics, by its own `catch_unwind`.

use std::any::{Any, TypeId};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, TryLockError};

use crate::panic::payload::text;
use crate::panic::report::PanicReport;

/// By what a panic's payload is known again. The box that it is in is made after the hook was
/// called; but a text stays where it is as long as there is the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    Text {
        address: usize,
        bytes: usize,
        hash: u64,
        /// Memory that goes with the payload, and may have been another one's before.
        is_owned: bool,
    },
    /// A value that is no text: all of its type look alike.
    Value(TypeId),
}

impl Payload {
    pub(super) fn of(payload: &(dyn Any + Send)) -> Self {
        match text(payload) {
            Some(text) => {
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                Self::Text {
                    address: text.as_ptr().addr(),
                    bytes: text.len(),
                    hash: hasher.finish(),
                    is_owned: payload.is::<String>(),
                }
            }
            None => Self::Value(payload.type_id()),
        }
    }
}

/// How many are kept.
const MOST: usize = 16;

/// What is known of them, without their messages, the oldest first.
static RECENT: Mutex<VecDeque<(Payload, PanicReport)>> = Mutex::new(VecDeque::new());

/// Keeps the report on a panic that somebody else catches, for a while.
pub(super) fn remember(payload: Payload, report: PanicReport) {
    if matches!(payload, Payload::Value(_)) {
        return;
    }
    with(|recent| {
        if recent.len() >= MOST {
            recent.pop_front();
        }
        recent.push_back((payload, report));
    });
}

/// The report on the panic that this is the payload of, if that is certain.
pub(super) fn find(payload: Payload) -> Option<PanicReport> {
    let Payload::Text { is_owned, .. } = payload else {
        return None;
    };
    with(|recent| {
        let mut found = recent.iter().rev().filter(|(it, _)| *it == payload);
        let (_, report) = found.next()?;
        // A constant may be the message of several panics. What was in the same memory before is
        // gone.
        let is_only = is_owned || found.all(|(_, it)| it.location == report.location);
        is_only.then(|| report.clone())
    })
    .flatten()
}

/// Never waits: the thread that has the lock may be gone, in a forked process.
fn with<T>(body: impl FnOnce(&mut VecDeque<(Payload, PanicReport)>) -> T) -> Option<T> {
    let locked = if cfg!(test) {
        // Tests panic side by side, and none of them is forked.
        RECENT.lock().map_err(TryLockError::from)
    } else {
        RECENT.try_lock()
    };
    match locked {
        Ok(mut recent) => Some(body(&mut recent)),
        Err(TryLockError::Poisoned(poison)) => Some(body(&mut poison.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: &str) -> PanicReport {
        PanicReport {
            location: Some(place.to_owned()),
            ..PanicReport::default()
        }
    }

    /// The tests of this process share the list, so each has texts of its own.
    #[test]
    fn a_constant_of_two_places_is_neithers() {
        let constant = Payload::of(&"a constant message");
        remember(constant, at("here"));
        assert_eq!(find(constant), Some(at("here")));
        remember(constant, at("there"));
        assert_eq!(find(constant), None);
    }

    #[test]
    fn memory_that_is_used_again_is_the_last_ones() {
        let message = "a message of its own".to_owned();
        let owned = Payload::of(&message);
        remember(owned, at("here"));
        remember(owned, at("there"));
        assert_eq!(find(owned), Some(at("there")));
        assert_eq!(find(Payload::of(&message.clone())), None);
        assert_eq!(find(Payload::of(&7)), None);
    }
}
