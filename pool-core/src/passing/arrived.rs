//! Descriptors that have arrived in this process with a value that was not decoded yet.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::closing::close_elsewhere;
use super::message::Key;
use super::outgoing::Outgoing;
use crate::codec::CodecError;
use crate::sys::fd::OwnedFd;

type Waiting = BTreeMap<Key, io::Result<OwnedFd>>;

static WAITING: Mutex<Waiting> = Mutex::new(BTreeMap::new());

fn waiting() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A descriptor that waits for the value to be decoded in which it stands. Without that it is
/// closed when this is dropped. Nobody guesses its name, which is random: no other value takes it.
#[derive(Debug)]
pub(crate) struct Arrived(Key);

impl Arrived {
    /// Something that came from a worker, which has named it. `Err`: so is something else.
    pub(crate) fn received(key: Key, descriptor: OwnedFd) -> Result<Self, OwnedFd> {
        match waiting().entry(key) {
            Entry::Vacant(place) => {
                place.insert(Ok(descriptor));
                Ok(Self(key))
            }
            Entry::Occupied(_) => Err(descriptor),
        }
    }

    /// A value was encoded in this very process, and will be decoded here.
    fn here(outgoing: &Outgoing) -> Self {
        // The same value may be run again.
        let before = waiting().insert(outgoing.key, outgoing.file.try_clone());
        drop(before);
        Self(outgoing.key)
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        let unclaimed = waiting().remove(&self.0);
        close_elsewhere(unclaimed.and_then(Result::ok));
    }
}

/// Lets values that are decoded in this process have copies of their descriptors, as long as what
/// is returned lives.
#[inline]
pub(crate) fn lend(descriptors: &[(u32, Arc<Outgoing>)]) -> Vec<Arrived> {
    if descriptors.is_empty() {
        return Vec::new();
    }
    let all = descriptors.iter();
    all.map(|(_, descriptor)| Arrived::here(descriptor))
        .collect()
}

/// The same of a result that was encoded in this process, as long as the result lives.
pub(crate) fn arrived_here(descriptors: &[Arc<Outgoing>]) -> Vec<Arc<Arrived>> {
    let all = descriptors.iter();
    all.map(|it| Arc::new(Arrived::here(it))).collect()
}

/// The descriptor with this name, which is given once.
pub(super) fn claim(key: Key) -> Result<OwnedFd, CodecError> {
    let found = waiting().remove(&key);
    match found {
        Some(Ok(descriptor)) => Ok(descriptor),
        Some(Err(error)) => Err(CodecError::new(format_args!(
            "a descriptor cannot be duplicated: {error}"
        ))),
        None => Err(CodecError::new(
            "no descriptor has come with it, or it was taken already: one goes only between a pool \
             and its workers, not to another machine, and can be taken once",
        )),
    }
}
