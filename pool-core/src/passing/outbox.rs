//! The parent's end: packets that wait for room in the socket of one worker.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use super::message::{Key, Kind, Message};
use crate::sys::{self, MAX_PASSED};

/// What is on its way to one worker, and what it has.
#[derive(Default)]
pub(crate) struct Outbox {
    packets: VecDeque<Packet>,
    /// The memory that the worker was sent, and has not heard of that it was freed.
    sent: BTreeMap<Key, Weak<dyn Any + Send + Sync>>,
}

struct Packet {
    message: Message,
    /// Duplicates of what somebody else holds as well, but for memory that was just freed: nothing
    /// of the user's ends with them.
    files: Vec<Arc<OwnedFd>>,
}

impl Outbox {
    /// The descriptors of the item that has this number for the worker.
    pub(crate) fn add_item(&mut self, number: u64, descriptors: Vec<(Key, Arc<OwnedFd>)>) {
        self.add(Kind::Item, number, descriptors);
    }

    /// Memory that the worker is to have, unless it does.
    pub(crate) fn add_memory(
        &mut self,
        memory: impl Iterator<Item = (Key, Arc<OwnedFd>, Weak<dyn Any + Send + Sync>)>,
    ) {
        let new = memory.filter_map(|(key, file, alive)| {
            let is_new = self.sent.insert(key, alive).is_none();
            is_new.then_some((key, file))
        });
        let new: Vec<_> = new.collect();
        self.add(Kind::Memory, 0, new);
    }

    /// Lets the worker hear which memory that it was sent was freed.
    pub(crate) fn add_frees(&mut self) {
        let mut freed: Vec<Key> = Vec::new();
        self.sent.retain(|key, alive| {
            let is_alive = alive.strong_count() > 0;
            freed.extend((!is_alive).then_some(*key));
            is_alive
        });
        for keys in freed.chunks(MAX_PASSED) {
            self.push(Kind::Freed, 0, keys.to_vec(), Vec::new());
        }
    }

    fn add(&mut self, kind: Kind, number: u64, files: Vec<(Key, Arc<OwnedFd>)>) {
        for files in files.chunks(MAX_PASSED) {
            let (keys, files) = files.iter().cloned().unzip();
            self.push(kind, number, keys, files);
        }
    }

    fn push(&mut self, kind: Kind, number: u64, keys: Vec<Key>, files: Vec<Arc<OwnedFd>>) {
        let message = Message { kind, number, keys };
        self.packets.push_back(Packet { message, files });
    }

    /// Whether nothing waits for room.
    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The worker begins no items behind this one: they were taken back.
    pub(crate) fn forget_items_behind(&mut self, number: u64) {
        self.packets
            .retain(|it| it.message.kind != Kind::Item || it.message.number <= number);
    }

    /// Sends as much as there is room for.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) {
        while let Some(packet) = self.packets.front() {
            let files: Vec<_> = packet.files.iter().map(|it| it.as_fd()).collect();
            match sys::send_packet(socket, &packet.message.write(), &files) {
                Ok(()) => {
                    self.packets.pop_front();
                }
                Err(error) if sys::is_congested(&error) => return,
                Err(_) => {
                    // The worker has closed its end. It notices that when it wants the next one.
                    self.packets.clear();
                }
            }
        }
    }
}
