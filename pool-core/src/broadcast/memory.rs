//! A value's bytes in sealed memory, and which memory this process has.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytemuck::Pod;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::content_id::ContentId;
use super::decoded::{Decoded, decoding};
use super::listener;
use crate::codec::handle_context::{self, Arrival, Attachment};
use crate::codec::{self, CodecError, MAX_DEPTH, MAX_EXCESS};
use crate::panic::catch::catch_and_discard;
use crate::passing;
use crate::sys::fd::OwnedFd;
#[cfg(feature = "sandbox")]
use crate::sys::fd::{AsRawFd, RawFd};
use crate::sys::{self, NotSealed, Place, Sealed};

/// The bytes of one shared value. What is mapped here stays so until the last handle in this
/// process is gone.
pub struct SharedMemory {
    id: u128,
    /// `None` while it is dropped.
    sealed: Option<Sealed>,
    origin: Origin,
    /// The item in whose argument a handle of it came last; see [`running_item`].
    arrived: AtomicU64,
    /// The value, where that is not the bytes themselves.
    decoded: Decoded,
    /// Memory that handles in the value mean, as far as this process answers for it.
    inner: Vec<Arc<SharedMemory>>,
    /// How much memory has memory inside: 1 if there is none in this.
    rank: u32,
    /// What its content is called, once that was asked.
    content: OnceLock<ContentId>,
}

/// How much memory can have memory inside, with the innermost. A ticket has as many levels, and
/// a walk through all of it needs stack for each.
const MAX_RANK: u32 = 32;

static RUNNING_ITEM: OnceLock<fn() -> u64> = OnceLock::new();

/// In a worker: `running_item` names the item that runs. The first one counts.
pub(crate) fn name_items_by(running_item: fn() -> u64) {
    let _ = RUNNING_ITEM.set(running_item);
}

/// A name for the item that runs; 0 outside of a worker.
fn running_item() -> u64 {
    RUNNING_ITEM.get().map_or(0, |name| name())
}

impl Attachment for SharedMemory {
    /// How many values stand inside each other in the value, as far as that is known here.
    fn height(&self) -> u32 {
        match &self.origin {
            Origin::Here(shared) => shared.height,
            Origin::Parent(_) | Origin::Sent | Origin::Worker | Origin::Brought(_) => {
                self.decoded.height()
            }
        }
    }
}

/// The value that was put into memory in this process.
pub(super) struct Shared {
    pub(super) of: TypeId,
    /// How many values stand inside each other in it.
    pub(super) height: u32,
}

/// How a value is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Reading {
    /// By a handle that was decoded here, or was never anywhere else.
    Here,
    /// By a handle that is being decoded.
    Arriving(Arrival),
}

/// Where memory is from.
enum Origin {
    /// It was made in this process, of this.
    Here(Shared),
    /// It was opened in the parent, there.
    Parent(Place),
    /// The parent has sent it, and will report when it has freed it.
    Sent,
    /// It was opened in a worker, which may be gone.
    Worker,
    /// It was made in this process, of content from another machine.
    Brought(Brought),
}

/// What is known of content from another machine.
#[derive(Default)]
struct Brought {
    /// What the content was before the tickets in it were rebased, if they were.
    original: Option<ContentId>,
    /// The last memory with the same content but for its tickets, which mean this memory.
    rebased: Mutex<Option<Rebased>>,
}

/// Memory whose tickets mean that of these names.
type Rebased = (Vec<Name>, Arc<SharedMemory>);

impl Brought {
    fn lock(&self) -> MutexGuard<'_, Option<Rebased>> {
        self.rebased.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tickets call memory, in every process that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Name {
    id: u128,
    inode: u64,
}

/// How many bytes of a ticket stand before those of what is inside: the number, the process, the
/// descriptor and the inode.
pub(super) const TICKET_HEAD: usize = 32;

/// Where the inode is among them.
const INODE_AT: usize = 24;

impl Name {
    /// The bytes that a ticket begins with.
    pub(super) fn start(self) -> [u8; 16] {
        self.id.to_le_bytes()
    }

    /// The name that a ticket has which begins with these bytes. `None`: they are too few.
    pub(super) fn read(ticket: &[u8]) -> Option<Self> {
        Some(Self {
            id: u128::from_le_bytes(*ticket.first_chunk()?),
            inode: u64::from_le_bytes(*ticket.get(INODE_AT..)?.first_chunk()?),
        })
    }
}

/// A handle on its way: what it means, and where that can be had.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ticket {
    id: u128,
    pid: u32,
    descriptor: i32,
    inode: u64,
    /// What handles in the value mean, where that is said elsewhere than in these themselves.
    pub(super) inner: Vec<Ticket>,
}

impl Ticket {
    fn key(&self) -> Key {
        (self.id, self.inode)
    }

    fn place(&self) -> Place {
        Place {
            pid: self.pid,
            descriptor: self.descriptor,
            inode: self.inode,
        }
    }

    /// Opens the memory in the process with this number, whatever the ticket says.
    pub(super) fn open_in(&self, pid: u32) -> io::Result<Option<Sealed>> {
        Sealed::open(Place {
            pid,
            ..self.place()
        })
    }
}

/// Names memory in every process that has it: the number that was given to it, and its inode. The
/// number alone would be the sender's word alone.
type Key = passing::Key;

/// Memory that handles in this process mean.
struct Known {
    memory: Weak<SharedMemory>,
    /// What the parent has sent is kept for the next item, until the parent has freed it.
    kept: Option<Arc<SharedMemory>>,
}

static KNOWN: Mutex<BTreeMap<Key, Known>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<Key, Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(known: &BTreeMap<Key, Known>, key: Key) -> Option<Arc<SharedMemory>> {
    known.get(&key)?.memory.upgrade()
}

impl SharedMemory {
    /// Puts bytes into shared memory; handles in them mean the inner memory.
    pub(super) fn new(
        bytes: &[u8],
        inner: Vec<Arc<Self>>,
        shared: Shared,
    ) -> io::Result<Arc<Self>> {
        Self::made(Sealed::copy_of(bytes)?, inner, shared)
    }

    /// Makes this many zero bytes shared memory, as `fill` changes them.
    pub(super) fn filled<N: Pod>(
        bytes: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> io::Result<Arc<Self>> {
        let shared = Shared {
            of: TypeId::of::<[N]>(),
            height: 0,
        };
        Self::made(Sealed::filled(bytes, fill)?, Vec::new(), shared)
    }

    fn made(sealed: Sealed, inner: Vec<Arc<Self>>, shared: Shared) -> io::Result<Arc<Self>> {
        // Never the same twice, in no process, so that nothing is mistaken for something else.
        let id = sys::random_id()?;
        let rank = rank_above(&inner).map_err(io::Error::other)?;
        let origin = Origin::Here(shared);
        Ok(Self::enter(&mut known(), id, sealed, origin, inner, rank))
    }

    /// Enters what is new in this process among what is known.
    fn enter(
        known: &mut BTreeMap<Key, Known>,
        id: u128,
        sealed: Sealed,
        origin: Origin,
        inner: Vec<Arc<Self>>,
        rank: u32,
    ) -> Arc<Self> {
        let key = (id, sealed.place().inode);
        let is_kept = matches!(origin, Origin::Parent(_) | Origin::Sent);
        let memory = Arc::new(Self {
            id,
            sealed: Some(sealed),
            origin,
            arrived: AtomicU64::new(0),
            decoded: Decoded::default(),
            inner,
            rank,
            content: OnceLock::new(),
        });
        let entry = Known {
            memory: Arc::downgrade(&memory),
            kept: is_kept.then(|| memory.clone()),
        };
        known.insert(key, entry);
        memory
    }

    /// The memory that a handle means which came from the parent or from a worker.
    ///
    /// Only what the parent has sent is looked for in another process. What a worker has made is
    /// known when its result is read, or never: see [`shared_result`](super::shared_result).
    pub(super) fn claim(ticket: &Ticket, from_parent: bool) -> Result<Arc<Self>, CodecError> {
        let found = find(&known(), ticket.key());
        if !from_parent {
            return found.ok_or_else(|| {
                CodecError::new(
                    "this process has not the memory of this broadcast: a handle comes from a \
                     worker only in the result that the worker returns",
                )
            });
        }
        let memory = match found {
            Some(memory) => memory,
            None => Self::fetch(ticket)?,
        };
        memory.arrived.store(running_item(), Ordering::Relaxed);
        Ok(memory)
    }

    /// Takes what the parent has sent, or opens what it has.
    fn fetch(ticket: &Ticket) -> Result<Arc<Self>, CodecError> {
        let inner: Result<Vec<_>, _> = ticket
            .inner
            .iter()
            .map(|it| Self::claim(it, true))
            .collect();
        let inner = inner?;
        let rank = rank_above(&inner).map_err(CodecError::new)?;
        let (sealed, origin) = Self::receive_or_open(ticket)
            .map_err(|error| unreachable_memory(ticket.place(), &error))?;
        let sealed = sealed
            .ok_or_else(|| CodecError::new("the broadcast was freed while it was on its way"))?;
        let mut known = known();
        // Another thread may have been as fast.
        if let Some(memory) = find(&known, ticket.key()) {
            drop(known);
            drop(sealed);
            return Ok(memory);
        }
        Ok(Self::enter(
            &mut known, ticket.id, sealed, origin, inner, rank,
        ))
    }

    /// What the parent has sent, or else what it has where the ticket says, and else what it sends
    /// yet.
    fn receive_or_open(ticket: &Ticket) -> io::Result<(Option<Sealed>, Origin)> {
        let receive = |waits| {
            let file = passing::take_memory(ticket.key(), waits)?;
            Some(match Sealed::received(file, Some(ticket.inode)) {
                Ok(sealed) => Ok((Some(sealed), Origin::Sent)),
                Err(NotSealed::Other(_)) => Ok((None, Origin::Sent)),
                Err(NotSealed::Refused(error)) => {
                    passing::memory_is_lost();
                    Err(error)
                }
            })
        };
        if let Some(received) = receive(false) {
            return received;
        }
        let place = ticket.place();
        match Sealed::open(place) {
            Ok(sealed) => Ok((sealed, Origin::Parent(place))),
            Err(error) => receive(true).unwrap_or(Err(error)),
        }
    }

    /// What another process needs to have it: its name and its file.
    pub(super) fn file(&self) -> (Key, Arc<OwnedFd>) {
        let sealed = self.sealed();
        ((self.id, sealed.place().inode), sealed.file().clone())
    }

    /// Memory that a worker has, unless this process has it already.
    ///
    /// # Errors
    /// In words, when there is too much memory inside of memory.
    pub(super) fn adopt(
        ticket: &Ticket,
        sealed: Sealed,
        inner: Vec<Arc<Self>>,
    ) -> Result<Arc<Self>, String> {
        let rank = rank_above(&inner)?;
        let mut known = known();
        // By its own inode, whatever the ticket says.
        let key = (ticket.id, sealed.place().inode);
        Ok(match find(&known, key) {
            Some(memory) => memory,
            None => {
                let origin = Origin::Worker;
                Self::enter(&mut known, ticket.id, sealed, origin, inner, rank)
            }
        })
    }

    /// How a handle of it travels. Its receiver may open what this process has.
    pub(super) fn ticket(&self) -> Ticket {
        match self.origin {
            // The handles in it say the same.
            Origin::Here(_) | Origin::Brought(_) => self.ticket_with(Vec::new()),
            // They speak of a process that may be gone.
            Origin::Parent(_) | Origin::Sent | Origin::Worker => {
                self.ticket_with(self.inner.iter().map(|it| it.ticket()).collect())
            }
        }
    }

    /// The same for the parent, which believes no handle.
    pub(super) fn offer(&self) -> Ticket {
        self.ticket_with(self.inner.iter().map(|it| it.offer()).collect())
    }

    fn ticket_with(&self, inner: Vec<Ticket>) -> Ticket {
        let place = self.sealed().place();
        Ticket {
            id: self.id,
            pid: place.pid,
            descriptor: place.descriptor,
            inode: place.inode,
            inner,
        }
    }

    /// What tickets call it.
    pub(super) fn name(&self) -> Name {
        Name {
            id: self.id,
            inode: self.sealed().place().inode,
        }
    }

    /// How a ticket of it begins: all but what is inside of it.
    pub(super) fn ticket_head(&self) -> [u8; TICKET_HEAD] {
        let place = self.sealed().place();
        let mut head = [0; TICKET_HEAD];
        head[..16].copy_from_slice(&self.id.to_le_bytes());
        head[16..20].copy_from_slice(&place.pid.to_le_bytes());
        head[20..24].copy_from_slice(&place.descriptor.to_le_bytes());
        head[INODE_AT..].copy_from_slice(&place.inode.to_le_bytes());
        head
    }

    /// Memory that handles in the value mean.
    pub(super) fn inner(&self) -> &[Arc<Self>] {
        &self.inner
    }

    /// What its content is called.
    pub(super) fn content_id(&self) -> ContentId {
        let bytes = || self.bytes().unwrap_or_default();
        *self.content.get_or_init(|| ContentId::of(bytes()))
    }

    /// Whether its content is from another machine.
    pub(super) fn was_brought(&self) -> bool {
        matches!(self.origin, Origin::Brought(_))
    }

    /// What the content was before its tickets were rebased, if they were.
    pub(super) fn original(&self) -> Option<ContentId> {
        match &self.origin {
            Origin::Brought(brought) => brought.original,
            _ => None,
        }
    }

    /// Puts content from another machine into memory; handles in it mean the inner memory.
    pub(super) fn brought(
        bytes: &[u8],
        inner: Vec<Arc<Self>>,
        original: Option<ContentId>,
    ) -> io::Result<Arc<Self>> {
        let id = sys::random_id()?;
        let rank = rank_above(&inner).map_err(io::Error::other)?;
        let origin = Origin::Brought(Brought {
            original,
            ..Brought::default()
        });
        let sealed = Sealed::copy_of(bytes)?;
        Ok(Self::enter(&mut known(), id, sealed, origin, inner, rank))
    }

    /// Memory like this in which `rebase` has made tickets mean the inner memory. It is kept, for
    /// the same is asked for again.
    pub(super) fn rebased(
        &self,
        inner: Vec<Arc<Self>>,
        rebase: impl FnOnce(&mut [u8]),
    ) -> Result<Arc<Self>, CodecError> {
        let names: Vec<Name> = inner.iter().map(|it| it.name()).collect();
        let kept = match &self.origin {
            Origin::Brought(brought) => Some(brought),
            _ => None,
        };
        if let Some((of, memory)) = kept.and_then(|kept| kept.lock().clone())
            && of == names
        {
            return Ok(memory);
        }
        let mut bytes = self.bytes()?.to_vec();
        rebase(&mut bytes);
        let memory = Self::brought(&bytes, inner, Some(self.content_id()))
            .map_err(|error| CodecError::new(format_args!("no memory for a broadcast: {error}")))?;
        let before = kept.and_then(|kept| kept.lock().replace((names, memory.clone())));
        // Not before the lock is free: this may be the last of it.
        drop(before);
        Ok(memory)
    }

    /// How much an offer of it would offer.
    pub(super) fn offers(&self) -> usize {
        let inner = self.inner.iter().map(|it| it.offers());
        inner.fold(1, usize::saturating_add)
    }

    /// Whether a handle of it came with the item that runs, so that the parent has it.
    pub(super) fn has_just_arrived(&self) -> bool {
        let item = running_item();
        item != 0 && item == self.arrived.load(Ordering::Relaxed)
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.sealed().len()
    }

    pub(super) fn bytes(&self) -> Result<&[u8], CodecError> {
        self.sealed().bytes().map_err(|error| {
            CodecError::new(format_args!(
                "the broadcast's {} bytes cannot be mapped: {error}",
                self.len()
            ))
        })
    }

    fn sealed(&self) -> &Sealed {
        self.sealed.as_ref().expect("only dropping takes it")
    }

    /// Whether a handle of this type can mean it, as far as this process knows. It does if the
    /// memory was made here; a handle of another type is a lie of the sender's.
    pub(super) fn can_be<T: ?Sized + 'static>(&self) -> Result<(), CodecError> {
        match &self.origin {
            Origin::Here(shared) if shared.of != TypeId::of::<T>() => Err(CodecError::new(
                "the broadcast is of another type than its handle",
            )),
            _ => Ok(()),
        }
    }

    /// The value that the bytes encode, decoded once in each process, unless several threads want
    /// it at the same time for the first time.
    #[inline]
    pub(super) fn decoded<T>(&self, reading: Reading) -> Result<&T, CodecError>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        match (self.decoded.get(), reading) {
            (Some((value, _)), Reading::Here) => Ok(value),
            (decoded, _) => self.decode(decoded, reading),
        }
    }

    #[cold]
    fn decode<'a, T>(
        &'a self,
        decoded: Option<(&'a T, u32)>,
        reading: Reading,
    ) -> Result<&'a T, CodecError>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let arrival = match reading {
            Reading::Here => Arrival {
                from_parent: false,
                depth: MAX_DEPTH,
                excess: MAX_EXCESS,
            },
            Reading::Arriving(arrival) => arrival,
        };
        let (value, height, excess) = match decoded {
            Some((value, height)) => (value, height, arrival.excess),
            None => decoding(self, || {
                let Arrival {
                    from_parent,
                    depth,
                    excess,
                } = arrival;
                let decoded = codec::decode_shared(self.bytes()?, from_parent, depth, excess)?;
                let (value, height, excess) = decoded;
                let (value, height) = self.decoded.add(value, height);
                Ok((value, height, excess))
            })?,
        };
        if matches!(reading, Reading::Arriving(_)) {
            handle_context::arrived(height, excess);
        }
        Ok(value)
    }

    /// The bytes as text; they are checked once in each process.
    pub(super) fn text(&self) -> Result<&str, CodecError> {
        /// The bytes were found to be text.
        struct IsText;

        if self.decoded.get::<IsText>().is_none() {
            std::str::from_utf8(self.bytes()?)
                .map_err(|_| CodecError::new("the broadcast is no text"))?;
            self.decoded.add(IsText, 0);
        }
        // SAFETY: these very bytes were checked above, now or earlier, and nobody can change them.
        Ok(unsafe { std::str::from_utf8_unchecked(self.bytes()?) })
    }
}

/// The rank of memory that has this inside. The error says that it is too much.
fn rank_above(inner: &[Arc<SharedMemory>]) -> Result<u32, String> {
    let rank = 1 + inner.iter().map(|it| it.rank).max().unwrap_or(0);
    if rank > MAX_RANK {
        return Err(format!(
            "more than {MAX_RANK} broadcasts inside each other: share the value in fewer"
        ));
    }
    Ok(rank)
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shared bytes", self.len())
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let key = (self.id, self.sealed().place().inode);
        let mut known = known();
        // Somebody may have opened it again in the meantime.
        if known
            .get(&key)
            .is_some_and(|it| std::ptr::eq(it.memory.as_ptr(), self))
        {
            known.remove(&key);
        }
        drop(known);
        if let Some(value) = self.decoded.take() {
            // The user's destructor.
            catch_and_discard(|| drop(value));
        }
        // A look from now on finds that it is gone.
        drop(self.sealed.take());
        listener::tell();
    }
}

/// The descriptors of all shared memory that this process has.
#[cfg(feature = "sandbox")]
pub(crate) fn descriptors() -> Vec<RawFd> {
    let memory = known();
    let memory = memory.values().filter_map(|it| it.memory.upgrade());
    memory.map(|it| it.file().1.as_raw_fd()).collect()
}

/// In a worker: lets go of what the parent has freed.
pub(crate) fn forget_freed() {
    let freed = passing::take_freed();
    let kept: Vec<Arc<SharedMemory>> = known().values().filter_map(|it| it.kept.clone()).collect();
    for memory in kept {
        let is_there = match memory.origin {
            Origin::Parent(place) => place.has_it(),
            _ => !freed.contains(&memory.file().0),
        };
        if !is_there {
            let key = (memory.id, memory.sealed().place().inode);
            let forgotten = known().get_mut(&key).map(|it| mem::take(&mut it.kept));
            // Not before the lock is free: this may be the last of it.
            drop(forgotten);
        }
    }
}

#[cold]
fn unreachable_memory(place: Place, error: &io::Error) -> CodecError {
    CodecError::new(format_args!(
        "cannot open the broadcast's memory by /proc/{}/fd: {error}; that needs a /proc that shows \
         the parent (hidepid), the same user, a parent that is dumpable (PR_SET_DUMPABLE; one \
         that has changed its user is not), and a free descriptor (ulimit -n); without them pass \
         the value itself, or set it up before a ForkPool is built",
        place.pid
    ))
}
