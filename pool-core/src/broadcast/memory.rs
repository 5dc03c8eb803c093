//! A value's bytes in sealed memory, and which memory this process has.
#![allow(unsafe_code)]

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::listener;
use crate::codec::{self, CodecError};
use crate::sys::{self, Place, Sealed};
use crate::worker::quietly;

/// The bytes of one shared value. What is mapped here stays so until the last handle in this
/// process is gone.
pub struct SharedMemory {
    id: u128,
    /// `None` while it is dropped.
    sealed: Option<Sealed>,
    /// Where it was opened; `None`: it was made here.
    source: Option<Place>,
    /// The value, where that is not the bytes themselves.
    decoded: OnceLock<Box<dyn Any + Send + Sync>>,
    decoding: Mutex<()>,
    /// SharedMemory that handles in the value mean.
    _attachments: Vec<Arc<SharedMemory>>,
}

/// A handle on its way: what it means, and where that can be had.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Ticket {
    id: u128,
    pid: u32,
    descriptor: i32,
    inode: u64,
}

/// SharedMemory that handles in this process mean.
struct Known {
    memory: Weak<SharedMemory>,
    /// What the parent has sent is kept for the next item, until the parent has freed it.
    kept: Option<Arc<SharedMemory>>,
}

static KNOWN: Mutex<BTreeMap<u128, Known>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<u128, Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedMemory {
    /// Puts bytes into shared memory; handles in them mean the attachments.
    pub(super) fn new(bytes: &[u8], attachments: Vec<Arc<Self>>) -> io::Result<Arc<Self>> {
        Self::of(Sealed::copy_of(bytes)?, attachments)
    }

    /// Makes so many zero bytes shared memory, as `fill` changes them.
    pub(super) fn filled(bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<Arc<Self>> {
        Self::of(Sealed::filled(bytes, fill)?, Vec::new())
    }

    fn of(sealed: Sealed, attachments: Vec<Arc<Self>>) -> io::Result<Arc<Self>> {
        let memory = Arc::new(Self {
            // Never the same twice, in no process, so that nothing is mistaken for something else.
            id: sys::random_id()?,
            sealed: Some(sealed),
            source: None,
            decoded: OnceLock::new(),
            decoding: Mutex::new(()),
            _attachments: attachments,
        });
        let entry = Known {
            memory: Arc::downgrade(&memory),
            kept: None,
        };
        known().insert(memory.id, entry);
        Ok(memory)
    }

    /// The memory that a handle means which came from the parent or from a worker.
    ///
    /// Only what the parent has sent is looked for in another process: a worker cannot make its
    /// parent open anything.
    pub(super) fn claim(ticket: Ticket, from_parent: bool) -> Result<Arc<Self>, CodecError> {
        // Held until the memory is there, so that nobody maps it a second time.
        let mut known = known();
        if let Some(memory) = known.get(&ticket.id).and_then(|it| it.memory.upgrade()) {
            return Ok(memory);
        }
        if !from_parent {
            return Err(CodecError::new(
                "no handle of this broadcast is left in this process, or it was made in a worker: \
                 keep a clone of the handle here, or return the value itself",
            ));
        }
        let place = Place {
            pid: ticket.pid,
            descriptor: ticket.descriptor,
            inode: ticket.inode,
        };
        let sealed = Sealed::open(place)
            .map_err(|error| unreachable_memory(place, &error))?
            .ok_or_else(|| CodecError::new("the broadcast was freed while it was on its way"))?;
        let memory = Arc::new(Self {
            id: ticket.id,
            sealed: Some(sealed),
            source: Some(place),
            decoded: OnceLock::new(),
            decoding: Mutex::new(()),
            _attachments: Vec::new(),
        });
        let entry = Known {
            memory: Arc::downgrade(&memory),
            kept: Some(memory.clone()),
        };
        known.insert(memory.id, entry);
        Ok(memory)
    }

    /// How a handle of it travels. Who gets it may open what this process has.
    pub(super) fn ticket(&self) -> Ticket {
        let place = self.sealed().place();
        Ticket {
            id: self.id,
            pid: place.pid,
            descriptor: place.descriptor,
            inode: place.inode,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.sealed().bytes()
    }

    fn sealed(&self) -> &Sealed {
        self.sealed.as_ref().expect("only dropping takes it")
    }

    /// The value that the bytes encode, decoded once in each process.
    pub(super) fn decoded<T>(&self, from_parent: bool) -> Result<&T, CodecError>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        if self.decoded.get().is_none() {
            let _once = self.decoding.lock().unwrap_or_else(PoisonError::into_inner);
            if self.decoded.get().is_none() {
                let value: T = if from_parent {
                    codec::decode_argument(self.bytes())?
                } else {
                    codec::decode(self.bytes())?
                };
                let _ = self.decoded.set(Box::new(value));
            }
        }
        let decoded = self.decoded.get().and_then(|value| value.downcast_ref());
        decoded.ok_or_else(|| CodecError::new("the broadcast is of another type"))
    }

    /// The bytes as text; they are checked once in each process.
    pub(super) fn text(&self) -> Result<&str, CodecError> {
        /// The bytes were found to be text.
        struct IsText;

        if self.decoded.get().is_none() {
            std::str::from_utf8(self.bytes())
                .map_err(|_| CodecError::new("the broadcast is no text"))?;
            let _ = self.decoded.set(Box::new(IsText));
        }
        if !self.decoded.get().is_some_and(|value| value.is::<IsText>()) {
            return Err(CodecError::new("the broadcast is of another type"));
        }
        // SAFETY: these very bytes were checked above, now or earlier, and nobody can change them.
        Ok(unsafe { std::str::from_utf8_unchecked(self.bytes()) })
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shared bytes", self.bytes().len())
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let mut known = known();
        // Somebody may have opened it again in the meantime.
        if known
            .get(&self.id)
            .is_some_and(|it| std::ptr::eq(it.memory.as_ptr(), self))
        {
            known.remove(&self.id);
        }
        drop(known);
        if let Some(value) = self.decoded.take() {
            // The user's destructor.
            quietly(|| drop(value));
        }
        // Those who look now find that it is gone.
        drop(self.sealed.take());
        listener::tell();
    }
}

/// In a worker: lets go of what the parent has freed.
pub(crate) fn forget_freed() {
    let kept: Vec<Arc<SharedMemory>> = known().values().filter_map(|it| it.kept.clone()).collect();
    for memory in kept {
        if !memory.source.is_some_and(|source| source.has_it()) {
            let forgotten = known()
                .get_mut(&memory.id)
                .map(|it| mem::take(&mut it.kept));
            // Not before the lock is free: this may be the last of it.
            drop(forgotten);
        }
    }
}

#[cold]
fn unreachable_memory(place: Place, error: &io::Error) -> CodecError {
    CodecError::new(format_args!(
        "cannot open the broadcast's memory by /proc/{}/fd: {error}; that needs a /proc that shows \
         the parent (hidepid), the same user, a parent that is dumpable (PR_SET_DUMPABLE; one that has \
         changed its user is not), and a free descriptor (ulimit -n); without them pass the value \
         itself, or set it up before a ForkPool is built",
        place.pid
    ))
}
