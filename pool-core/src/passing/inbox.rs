//! The worker's end: packets are taken when a value is decoded that needs what is in them.
//!
//! They come in the order of the frames. Of the packets of items, the next one alone is looked at,
//! and stays for its item: a worker has no more descriptors than the running item's, however many
//! items wait in its ring.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::mem::ManuallyDrop;

use super::message::{Key, Kind, MAX_BYTES, Message};
use crate::codec::CodecError;
use crate::error::hint::hint;
use crate::sys;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};

/// How long an item waits for its descriptors, in nanoseconds. They come before its frame, unless
/// the system allows no more on their way. Then the parent tries again every few milliseconds, and
/// only those of others can keep them away for so long: see `README.md`, "No room".
const PATIENCE_NS: u64 = 10_000_000_000;

thread_local! {
    /// That of the worker that serves in this thread. It is never dropped: a task may have closed
    /// what it has, and then the numbers are nobody's, or those of files of the task's.
    static INBOX: RefCell<Option<ManuallyDrop<Inbox>>> = const { RefCell::new(None) };
}

/// See the module.
struct Inbox {
    /// `None`: it is closed.
    socket: Option<OwnedFd>,
    /// By which it is known whether that number still is the socket.
    inode: Option<(u64, u64)>,
    /// The number of the item that was begun last.
    running: Box<dyn Fn() -> u64>,
    /// Descriptors were sent for items of the frame that runs, or will be.
    expects_descriptors: bool,
    /// The packet of an item that was not begun before this or is running.
    item: Option<ItemPacket>,
    /// Memory that no handle has asked for yet.
    memory: BTreeMap<Key, OwnedFd>,
    /// Some of it was lost: this process could have no more descriptors, or not look at it, or the
    /// parent could not send it.
    has_lost_memory: bool,
    /// Memory that the parent has freed.
    freed: Vec<Key>,
}

struct ItemPacket {
    number: u64,
    descriptors: BTreeMap<Key, OwnedFd>,
    /// This process may have no more of them.
    is_cut: bool,
    /// The parent could send none of them.
    is_refused: bool,
}

/// What the inbox may wait for.
enum Awaited {
    Item(u64),
    Memory(Key),
}

/// This thread takes its packets from there from now on. One that it had before was that of a
/// worker that this process is a mere copy of.
pub(crate) fn open_inbox(socket: OwnedFd, running: impl Fn() -> u64 + 'static) {
    INBOX.set(Some(ManuallyDrop::new(Inbox {
        inode: sys::inode(socket.as_fd()),
        socket: Some(socket),
        running: Box::new(running),
        expects_descriptors: false,
        item: None,
        memory: BTreeMap::new(),
        has_lost_memory: false,
        freed: Vec::new(),
    })));
}

/// Descriptors come, or have come, for items of the next frame.
#[cold]
pub(crate) fn expect_descriptors() {
    INBOX.with_borrow_mut(|inbox| {
        if let Some(inbox) = inbox {
            inbox.expects_descriptors = true;
        }
    });
}

/// The descriptor with this name, of the item that runs. It is given once.
pub(super) fn claim(key: Key) -> Result<OwnedFd, CodecError> {
    INBOX.with_borrow_mut(|inbox| {
        let inbox = inbox.as_mut().ok_or_else(|| {
            CodecError::new("this worker has no connection by which descriptors come")
        })?;
        inbox.claim(key)
    })
}

/// Memory that the parent has sent. `None`: it has sent none with this name.
pub(crate) fn take_memory(key: Key, waits: bool) -> Option<OwnedFd> {
    INBOX.with_borrow_mut(|inbox| {
        let inbox = inbox.as_mut()?;
        let patience = if waits && !inbox.has_lost_memory {
            PATIENCE_NS
        } else {
            0
        };
        // What goes wrong is reported by whoever looks elsewhere next.
        inbox.receive(&Awaited::Memory(key), patience).ok()?;
        inbox.memory.remove(&key)
    })
}

/// Some memory had come, and was lost. It will not come again, so nobody waits for any from now on.
pub(crate) fn memory_is_lost() {
    INBOX.with_borrow_mut(|inbox| {
        if let Some(inbox) = inbox {
            inbox.has_lost_memory = true;
        }
    });
}

/// Throws away what has come for items up to this one: they have ended, or were taken back.
/// `false`: there are packets for others, and what may come behind these was not looked at.
pub(crate) fn discard_packets(through: u64) -> bool {
    INBOX.with_borrow_mut(|inbox| {
        let Some(inbox) = inbox else {
            return true;
        };
        inbox.expects_descriptors = false;
        // A connection that is closed has no more.
        let _ = inbox.receive(&Awaited::Item(through + 1), 0);
        inbox.item.is_none()
    })
}

/// The names of memory that the parent has freed since this was last asked.
pub(crate) fn take_freed() -> Vec<Key> {
    INBOX.with_borrow_mut(|inbox| match inbox {
        Some(inbox) => std::mem::take(&mut inbox.freed),
        None => Vec::new(),
    })
}

impl Inbox {
    fn claim(&mut self, key: Key) -> Result<OwnedFd, CodecError> {
        let running = (self.running)();
        let patience = if self.expects_descriptors {
            PATIENCE_NS
        } else {
            0
        };
        self.receive(&Awaited::Item(running), patience)
            .map_err(|error| {
                CodecError::new(format_args!(
                    "its descriptor cannot be received: {error}{}",
                    hint(&error)
                ))
            })?;
        let packet = self.item.as_mut().filter(|it| it.number == running);
        let Some(packet) = packet else {
            return Err(CodecError::new(if patience == 0 {
                "no descriptor has come with it: one goes only between a pool and its workers, not \
                 to another machine"
            } else {
                "its descriptor has not come: the system lets no more of them be on their way to \
                 other processes (ETOOMANYREFS: more than ulimit -n of this user)"
            }));
        };
        packet.descriptors.remove(&key).ok_or_else(|| {
            CodecError::new(if packet.is_cut {
                "this process may have no more descriptors: raise the limit (ulimit -n), or close \
                 what earlier tasks have left open"
            } else if packet.is_refused {
                "the system passes this descriptor to no other process (one of an io_uring, for \
                 instance)"
            } else {
                "it is no descriptor of this argument, or was taken already"
            })
        })
    }

    /// Takes packets until what is awaited is there, or cannot be among them any more. It waits for
    /// so long at most, and no longer than the parent has its end of the socket.
    fn receive(&mut self, awaited: &Awaited, patience: u64) -> io::Result<()> {
        let running = match awaited {
            Awaited::Item(number) => *number,
            Awaited::Memory(_) => (self.running)(),
        };
        let mut waited_since = None;
        loop {
            if self.item.as_ref().is_some_and(|it| it.number < running) {
                self.item = None;
            }
            let is_there = match awaited {
                Awaited::Item(_) => false,
                Awaited::Memory(key) => self.memory.contains_key(key),
            };
            // Behind a packet for this item, or a later one, there is nothing for this one.
            if is_there || self.item.is_some() {
                return Ok(());
            }
            if self.receive_one()? {
                continue;
            }
            let now = sys::now_ns();
            let left = (*waited_since.get_or_insert(now) + patience).saturating_sub(now);
            if left == 0 {
                return Ok(());
            }
            sys::wait_for_packet(self.socket()?, left)?;
        }
    }

    /// The socket, if no task has closed it. Its number may be that of a file of a task's by now.
    fn socket(&mut self) -> io::Result<BorrowedFd<'_>> {
        let number = self.socket.as_ref();
        let is_ours =
            number.is_some_and(|it| self.inode.is_some() && sys::inode(it.as_fd()) == self.inode);
        if !is_ours && let Some(socket) = self.socket.take() {
            let _not_ours = ManuallyDrop::new(socket);
        }
        let socket = self.socket.as_ref().map(AsFd::as_fd);
        socket.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotConnected,
                "a task has closed the connection by which descriptors go",
            )
        })
    }

    /// Takes the next packet. `false`: there is none.
    fn receive_one(&mut self) -> io::Result<bool> {
        let mut bytes = [0; MAX_BYTES];
        let Some(packet) = sys::receive_packet(self.socket()?, &mut bytes)? else {
            return Ok(false);
        };
        let Some(message) = Message::read(&bytes[..packet.bytes]) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let is_refused = packet.descriptors.is_empty() && !packet.is_cut;
        let with_keys = message.keys.iter().copied().zip(packet.descriptors);
        match message.kind {
            Kind::Item => {
                self.item = Some(ItemPacket {
                    number: message.number,
                    descriptors: with_keys.collect(),
                    is_cut: packet.is_cut,
                    is_refused,
                });
            }
            Kind::Memory => {
                self.has_lost_memory |= packet.is_cut || is_refused;
                self.memory.extend(with_keys);
            }
            Kind::Freed => {
                for key in message.keys {
                    self.memory.remove(&key);
                    self.freed.push(key);
                }
            }
            // The parent sends none.
            Kind::Result => {}
        }
        Ok(true)
    }
}

/// Does something with the socket, by which results go as well.
///
/// # Errors
/// Those of what is done, and when there is none any more.
pub(super) fn with_socket<T>(body: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
    INBOX.with_borrow_mut(|inbox| match inbox {
        Some(inbox) => body(inbox.socket()?),
        None => Err(io::ErrorKind::NotConnected.into()),
    })
}
