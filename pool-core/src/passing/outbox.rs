//! The parent's end: packets that wait for room in the socket of one worker.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use super::message::{Key, Kind, Message};
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
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

    /// The worker has nothing to do any more: what waits was for items that have ended without it,
    /// but for the names of what was freed.
    pub(crate) fn forget_items(&mut self) {
        let Self { packets, sent } = self;
        packets.retain(|it| {
            if it.message.kind == Kind::Memory {
                it.message
                    .keys
                    .iter()
                    .for_each(|key| drop(sent.remove(key)));
            }
            it.message.kind == Kind::Freed
        });
    }

    /// Sends as much as there is room for.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) {
        while let Some(packet) = self.packets.front_mut() {
            let files: Vec<_> = packet.files.iter().map(|it| it.as_fd()).collect();
            match sys::send_packet(socket, &packet.message.write(), &files) {
                Ok(()) => {
                    self.packets.pop_front();
                }
                Err(error) if sys::is_congested(&error) => return,
                // The system does not pass these at all. The worker hears of it: it must not wait.
                Err(_) if !packet.files.is_empty() => packet.files.clear(),
                Err(_) => {
                    // The worker has closed its end. It notices that when it wants the next one.
                    self.packets.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::MAX_BYTES;
    use super::*;
    use crate::sys::{packet_pair, receive_packet};

    fn file() -> Arc<OwnedFd> {
        Arc::new(std::io::pipe().expect("descriptors").0.into())
    }

    /// What comes next: its message, and how many descriptors are with it.
    fn next(socket: &OwnedFd) -> Option<(Message, usize)> {
        let mut bytes = [0; MAX_BYTES];
        let packet = receive_packet(socket.as_fd(), &mut bytes).expect("it is open")?;
        let message = Message::read(&bytes[..packet.bytes]).expect("a message");
        Some((message, packet.descriptors.len()))
    }

    fn add_memory(outbox: &mut Outbox, id: u128) -> Arc<dyn Any + Send + Sync> {
        let alive: Arc<dyn Any + Send + Sync> = Arc::new(id);
        let memory = ((id, 1), file(), Arc::downgrade(&alive));
        outbox.add_memory([memory].into_iter());
        alive
    }

    /// That of an `io_uring` is one. It costs its own item, and nobody waits for it.
    #[test]
    fn a_descriptor_that_is_refused_is_said_to_be() {
        let (here, there) = packet_pair().expect("descriptors");
        let mut outbox = Outbox::default();
        // More than the system takes at a time.
        let many = vec![file(); MAX_PASSED + 1];
        outbox.push(Kind::Item, 1, vec![(7, 0)], many);
        outbox.add_item(2, vec![((8, 0), file())]);
        outbox.send(here.as_fd());
        assert!(outbox.is_empty());
        let (refused, count) = next(&there).expect("it was sent");
        assert_eq!((refused.number, refused.keys, count), (1, vec![(7, 0)], 0));
        let (sent, count) = next(&there).expect("it was sent");
        assert_eq!((sent.number, sent.keys, count), (2, vec![(8, 0)], 1));
        assert_eq!(next(&there), None);
    }

    /// Or a worker without work would get none, as long as there is no room for what it needs no
    /// more.
    #[test]
    fn what_items_have_ended_without_is_forgotten() {
        let (here, there) = packet_pair().expect("descriptors");
        let mut outbox = Outbox::default();
        let (freed, used) = (add_memory(&mut outbox, 1), add_memory(&mut outbox, 2));
        outbox.send(here.as_fd());
        drop(freed);
        outbox.add_frees();
        let later = add_memory(&mut outbox, 3);
        outbox.add_item(5, vec![((7, 0), file())]);
        outbox.forget_items();
        outbox.send(here.as_fd());
        let all = std::iter::from_fn(|| next(&there));
        let all: Vec<_> = all.map(|(it, _)| (it.kind, it.keys)).collect();
        let expected = [(Kind::Memory, 1), (Kind::Memory, 2), (Kind::Freed, 1)];
        assert_eq!(all, expected.map(|(kind, id)| (kind, vec![(id, 1)])));
        // That it was not sent is known.
        let again = ((3, 1), file(), Arc::downgrade(&later));
        outbox.add_memory([again].into_iter());
        assert!(!outbox.is_empty());
        drop(used);
    }
}
