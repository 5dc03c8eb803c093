//! What every item of a call needs, where the items run.
//!
//! A chunk brings its context in front of its items, as bytes. They are decoded when the first item
//! asks for the value, and dropped with the chunk: the memory that a handle in it means is kept by
//! the parent, and a worker that kept the value would keep that memory.

use std::any::Any;
use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::arguments::{Arguments, TakesContext};
use super::refusal::refuse;
use crate::broadcast::Broadcast;
use crate::codec::{self, CodecError};
use crate::panic::catch::{catch, catch_and_discard};
use crate::shm::protocol::{Failure, Stage};

/// What the first byte of a context says of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// They are the encoded value.
    Inline = 1,
    /// They are the name of the value's content, and a [`Broadcast`] of it.
    Shared = 2,
}

/// How long the name of a content is.
pub(crate) const CONTENT_BYTES: usize = 16;

thread_local! {
    /// That of the chunk that runs in this thread, the innermost of them.
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

struct Current {
    bytes: Rc<[u8]>,
    /// Handles of memory in it are believed.
    from_parent: bool,
    /// A [`Value`], once it was asked for.
    value: Option<Rc<dyn Any>>,
}

/// A decoded context.
pub(super) enum Value<C> {
    Inline(C),
    Shared(Broadcast<C>),
}

impl<C> Deref for Value<C>
where
    C: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Target = C;

    fn deref(&self) -> &C {
        match self {
            Self::Inline(value) => value,
            Self::Shared(value) => value,
        }
    }
}

/// Gives the items that run in this thread a context, until it is dropped.
pub(crate) struct Entered {
    outer: Option<Current>,
}

/// Gives the chunk that runs next in this thread its context. `None`: it has none, and gets none.
#[inline]
pub(crate) fn enter(bytes: &[u8], from_parent: bool) -> Option<Entered> {
    (!bytes.is_empty()).then(|| {
        let current = Current {
            bytes: bytes.into(),
            from_parent,
            value: None,
        };
        Entered {
            outer: CURRENT.replace(Some(current)),
        }
    })
}

impl Drop for Entered {
    fn drop(&mut self) {
        let ended = CURRENT.replace(self.outer.take());
        // The user's destructor.
        catch_and_discard(|| drop(ended));
    }
}

/// The value, decoded once for each chunk, and the bytes that tell it from others.
///
/// # Panics
/// When it cannot be decoded. [`take_refusal`](super::refusal::take_refusal) then says why.
pub(super) fn current<C>() -> Rc<Value<C>>
where
    C: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let found = CURRENT.with_borrow(|current| {
        let current = current.as_ref()?;
        match &current.value {
            Some(value) => value.clone().downcast().map_err(|_| None).into(),
            None => Some(Err(Some((current.bytes.clone(), current.from_parent)))),
        }
    });
    let (bytes, from_parent) = match found {
        Some(Ok(value)) => return value,
        Some(Err(Some(encoded))) => encoded,
        // A chunk's function and context are of one call.
        Some(Err(None)) | None => refuse(Failure::error(
            Stage::DecodeContext,
            "the task has come without it",
        )),
    };
    // The user's code runs, and may run another chunk in this thread meanwhile.
    let value = match catch(|| decode::<C>(&bytes, from_parent)) {
        Ok(Ok(value)) => Rc::new(value),
        Ok(Err(error)) => refuse(Failure::error(Stage::DecodeContext, error)),
        Err(panic) => refuse(Failure::panic(Stage::DecodeContext, panic)),
    };
    CURRENT.with_borrow_mut(|current| {
        if let Some(current) = current {
            current.value = Some(value.clone());
        }
    });
    value
}

/// What tells the context of this chunk from other values of its type: equal for equal values.
pub(super) fn identity() -> Option<Identity> {
    CURRENT.with_borrow(|current| current.as_ref().map(|it| Identity(it.bytes.clone())))
}

/// See [`identity`].
#[derive(Clone)]
pub(super) struct Identity(Rc<[u8]>);

impl Identity {
    fn distinctive(&self) -> &[u8] {
        match self.0.first() {
            Some(form) if *form == Form::Shared as u8 => {
                self.0.get(..1 + CONTENT_BYTES).unwrap_or_default()
            }
            _ => &self.0,
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0) || self.distinctive() == other.distinctive()
    }
}

fn decode<C>(bytes: &[u8], from_parent: bool) -> Result<Value<C>, CodecError>
where
    C: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (form, rest) = bytes.split_first().unwrap_or((&0, &[]));
    if *form == Form::Inline as u8 {
        return read(rest, from_parent).map(Value::Inline);
    }
    let handle = rest.get(CONTENT_BYTES..).unwrap_or_default();
    read(handle, from_parent).map(Value::Shared)
}

fn read<T: DeserializeOwned + 'static>(bytes: &[u8], from_parent: bool) -> Result<T, CodecError> {
    match from_parent {
        true => codec::decode_argument(bytes),
        false => codec::decode(bytes),
    }
}

/// The same function with the context of the call.
pub(crate) fn contextual<F, C, In, R>(
    function: F,
) -> impl for<'e> Fn(In::Of<'e>) -> R + Copy + Send + Sync + 'static
where
    F: TakesContext<C, In, R> + Copy + Send + Sync + 'static,
    C: Serialize + DeserializeOwned + Send + Sync + 'static,
    In: Arguments,
{
    move |arguments: In::Of<'_>| function.call_with(&current::<C>(), arguments)
}
