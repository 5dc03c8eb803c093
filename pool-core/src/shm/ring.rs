//! A ring of bytes with one producer and one consumer, in memory that two processes share.
//!
//! The ring is a stream, like a pipe: a message larger than the ring goes through it in pieces.
//! Positions count bytes since the beginning and never wrap; the place in memory is the position
//! modulo the capacity. Each side keeps its own position to itself and only *publishes* it; of
//! the other side's it reads what was published, and checks it, because a worker may write
//! anything there. Nothing here blocks or makes a system call.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use super::region::{Region, RingSizes, Words};
use crate::sync::{
    self,
    atomic::{AtomicU64, Ordering},
};

/// The other side published a position that cannot be: its memory is corrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// Which of a region's words a ring's two positions live in.
#[derive(Clone, Copy)]
struct Positions {
    tail: fn(&Words) -> &AtomicU64,
    head: fn(&Words) -> &AtomicU64,
}

const REQUESTS: Positions = Positions {
    tail: |words| &words.request_tail,
    head: |words| &words.request_head,
};

const RESPONSES: Positions = Positions {
    tail: |words| &words.response_tail,
    head: |words| &words.response_head,
};

/// What has the size of a byte, and may be any.
trait Byte {}

impl Byte for u8 {}
impl Byte for MaybeUninit<u8> {}

/// One ring's memory, seen by either side.
struct Memory {
    region: Arc<Region>,
    first: NonNull<u8>,
    /// A power of two.
    capacity: usize,
    positions: Positions,
}

// SAFETY: `first` points into `region`, which is `Send` and outlives it.
unsafe impl Send for Memory {}

impl Memory {
    fn requests(region: Arc<Region>, rings: RingSizes) -> Self {
        let first = region.request_ring();
        Self::new(region, first, rings.requests, REQUESTS)
    }

    fn responses(region: Arc<Region>, rings: RingSizes) -> Self {
        let first = region.response_ring(rings);
        Self::new(region, first, rings.responses, RESPONSES)
    }

    fn new(region: Arc<Region>, first: NonNull<u8>, capacity: usize, positions: Positions) -> Self {
        assert!(
            capacity.is_power_of_two(),
            "a ring's capacity is a power of two"
        );
        Self {
            region,
            first,
            capacity,
            positions,
        }
    }

    fn tail(&self) -> &AtomicU64 {
        (self.positions.tail)(self.region.words())
    }

    fn head(&self) -> &AtomicU64 {
        (self.positions.head)(self.region.words())
    }

    /// The place of a position, and how many bytes follow it before the ring's end.
    #[inline]
    fn place(&self, position: u64) -> (*mut u8, usize) {
        let offset = position as usize & (self.capacity - 1);
        let place = self.first.as_ptr().wrapping_add(offset);
        (place, self.capacity - offset)
    }

    /// Copies the bytes that begin at a position out of the ring: into bytes, or into memory for
    /// such.
    ///
    /// # Panics
    /// When the ring is not so large.
    #[inline]
    fn copy_out<B: Byte>(&self, position: u64, into: &mut [B]) {
        assert!(into.len() <= self.capacity, "a ring is not so large");
        let (place, before_end) = self.place(position);
        let first = into.len().min(before_end);
        self.reads(position, into.len());
        // SAFETY: both pieces are within the ring, and as long together as `into`, whose elements
        // are bytes. The producer does not touch them, for it was not told that they were taken; a
        // worker that does so all the same changes bytes that we validate after the copy.
        unsafe {
            let to = into.as_mut_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(place, to, first);
            // (Each of the copies is a call.)
            if first < into.len() {
                let rest = into.len() - first;
                std::ptr::copy_nonoverlapping(self.first.as_ptr(), to.add(first), rest);
            }
        }
    }

    /// The same of a few bytes, without a call, if they are in one piece.
    #[inline]
    fn read<const COUNT: usize>(&self, position: u64) -> Option<[u8; COUNT]> {
        let (place, before_end) = self.place(position);
        if COUNT > before_end {
            return None;
        }
        self.reads(position, COUNT);
        // SAFETY: as in `copy_out`; bytes need no alignment.
        Some(unsafe { place.cast::<[u8; COUNT]>().read() })
    }

    /// Says that bytes are going to be read, to the models that look for races.
    #[inline(always)]
    fn reads(&self, position: u64, count: usize) {
        let offset = |at: u64| at as usize & (self.capacity - 1);
        sync::reads(self.first, count, |at| offset(position + at));
    }

    /// The same of bytes that are going to be written.
    #[inline(always)]
    fn writes(&self, position: u64, count: usize) {
        let offset = |at: u64| at as usize & (self.capacity - 1);
        sync::writes(self.first, count, |at| offset(position + at));
    }
}

/// The side that puts bytes in.
pub(crate) struct Producer {
    memory: Memory,
    /// Where the next byte goes; published up to `published`.
    tail: u64,
    published: u64,
    /// The consumer's position as last seen.
    head: u64,
}

impl Producer {
    /// The parent's side of the request ring.
    pub(crate) fn requests(region: Arc<Region>, rings: RingSizes) -> Self {
        Self::new(Memory::requests(region, rings))
    }

    /// The worker's side of the response ring.
    pub(crate) fn responses(region: Arc<Region>, rings: RingSizes) -> Self {
        Self::new(Memory::responses(region, rings))
    }

    fn new(memory: Memory) -> Self {
        Self {
            memory,
            tail: 0,
            published: 0,
            head: 0,
        }
    }

    /// The position after the last byte put in.
    pub(crate) fn position(&self) -> u64 {
        self.tail
    }

    /// How many bytes can be put in now.
    #[inline]
    pub(crate) fn free(&mut self) -> Result<usize, Corrupt> {
        let head = self.memory.head().load(Ordering::Acquire);
        if head > self.tail || head < self.head {
            return Err(Corrupt);
        }
        self.head = head;
        Ok(self.memory.capacity - (self.tail - head) as usize)
    }

    /// Puts in as many of the bytes as there is space for, and says how many. They can be taken
    /// out once [`publish`](Self::publish) was called.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        let mut free = self.memory.capacity - (self.tail - self.head) as usize;
        if free < bytes.len() {
            free = self.free()?;
        }
        let count = bytes.len().min(free);
        let (place, before_end) = self.memory.place(self.tail);
        let first = count.min(before_end);
        self.memory.writes(self.tail, count);
        // SAFETY: `place..place + first` is within the ring, and so are the `count - first` bytes
        // from its beginning. The consumer does not touch them: it published that it is past
        // them. (A worker that lies about that harms its own messages only; the copy is of plain
        // bytes, and no reference to them exists.)
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, first);
            // (Each of the copies is a call.)
            if first < count {
                std::ptr::copy_nonoverlapping(
                    bytes.as_ptr().add(first),
                    self.memory.first.as_ptr(),
                    count - first,
                );
            }
        }
        self.tail += count as u64;
        Ok(count)
    }

    /// Puts in a word and the bytes after it, if there is space for them in one piece. `false`:
    /// there is not, or not as far as is known.
    #[inline]
    pub(crate) fn put_small(&mut self, word: u32, bytes: &[u8]) -> bool {
        let count = 4 + bytes.len();
        let free = self.memory.capacity - (self.tail - self.head) as usize;
        let (place, before_end) = self.memory.place(self.tail);
        if count > free || count > before_end {
            return false;
        }
        self.memory.writes(self.tail, count);
        // SAFETY: as in `put`: `count` bytes from `place` are within the ring and free.
        unsafe {
            place.cast::<[u8; 4]>().write(word.to_le_bytes());
            let place = place.add(4);
            if let Ok(number) = <[u8; 8]>::try_from(bytes) {
                // The commonest case by far, without a call.
                place.cast::<[u8; 8]>().write(number);
            } else {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            }
        }
        self.tail += count as u64;
        true
    }

    /// The free space that is in one piece, from the next byte on.
    ///
    /// # Safety
    /// The space is not used after more was put in than [`advance`](Self::advance) was given.
    #[inline]
    pub(crate) unsafe fn room<'a>(&mut self) -> Result<&'a mut [u8], Corrupt> {
        let free = self.free()?;
        let (place, before_end) = self.memory.place(self.tail);
        // SAFETY: within the ring, whose memory was zero when it was made, and free: nobody else
        // touches it, the consumer because it has said so and this side by the contract.
        let room = unsafe { std::slice::from_raw_parts_mut(place, free.min(before_end)) };
        Ok(room)
    }

    /// This many bytes were written into the [`room`](Self::room), from its beginning or where the
    /// last ended.
    #[inline]
    pub(crate) fn advance(&mut self, count: usize) {
        self.memory.writes(self.tail, count);
        self.tail += count as u64;
    }

    /// Lets the consumer have all that was put in. `false`: it had it already.
    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        let news = self.published != self.tail;
        self.published = self.tail;
        self.memory.tail().store(self.tail, Ordering::Release);
        news
    }

    /// Whether the consumer has taken all that was published.
    pub(crate) fn is_drained(&mut self) -> Result<bool, Corrupt> {
        Ok(self.free()? == self.memory.capacity)
    }
}

/// The side that takes bytes out.
pub(crate) struct Consumer {
    memory: Memory,
    /// Where the next byte comes from; given back up to `released`.
    head: u64,
    released: u64,
    /// The producer's position as last seen.
    tail: u64,
}

impl Consumer {
    /// The worker's side of the request ring.
    pub(crate) fn requests(region: Arc<Region>, rings: RingSizes) -> Self {
        Self::new(Memory::requests(region, rings))
    }

    /// The parent's side of the response ring.
    pub(crate) fn responses(region: Arc<Region>, rings: RingSizes) -> Self {
        Self::new(Memory::responses(region, rings))
    }

    fn new(memory: Memory) -> Self {
        Self {
            memory,
            head: 0,
            released: 0,
            tail: 0,
        }
    }

    /// How many bytes can be taken now.
    #[inline]
    pub(crate) fn available(&mut self) -> Result<usize, Corrupt> {
        let tail = self.memory.tail().load(Ordering::Acquire);
        self.accept(tail)
    }

    /// The producer's position when it was last looked at.
    pub(crate) fn last_seen(&self) -> u64 {
        self.tail
    }

    /// Takes it that the producer has put in all up to `tail`, though it did not publish that.
    pub(crate) fn accept(&mut self, tail: u64) -> Result<usize, Corrupt> {
        if tail < self.tail || tail < self.head || tail - self.head > self.memory.capacity as u64 {
            return Err(Corrupt);
        }
        self.tail = tail;
        Ok((tail - self.head) as usize)
    }

    /// The bytes seen by the last [`available`](Self::available) and not yet taken.
    #[inline]
    pub(crate) fn seen(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// Copies the next bytes out without taking them.
    ///
    /// # Panics
    /// When there are fewer than were [`seen`](Self::seen).
    #[inline]
    pub(crate) fn peek(&self, into: &mut [u8]) {
        assert!(into.len() <= self.seen(), "more bytes than there are");
        // The commonest case by far.
        if let Ok(number) = <&mut [u8; 8]>::try_from(&mut *into)
            && let Some(bytes) = self.memory.read(self.head)
        {
            *number = bytes;
        } else {
            self.memory.copy_out(self.head, into);
        }
    }

    /// Takes the next bytes out, as many as `into` has room for.
    ///
    /// # Panics
    /// When there are fewer than were [`seen`](Self::seen).
    pub(crate) fn take_into(&mut self, into: &mut [MaybeUninit<u8>]) {
        assert!(into.len() <= self.seen(), "more bytes than there are");
        self.memory.copy_out(self.head, into);
        self.head += into.len() as u64;
    }

    /// The next four bytes as a word, if they were seen and are in one piece.
    #[inline]
    pub(crate) fn peek_word(&self) -> Option<u32> {
        if self.seen() < 4 {
            return None;
        }
        self.memory.read(self.head).map(u32::from_le_bytes)
    }

    /// Takes `count` bytes out and appends them to `into`.
    ///
    /// # Panics
    /// When there are fewer than were [`seen`](Self::seen).
    #[inline]
    pub(crate) fn take(&mut self, count: usize, into: &mut Vec<u8>) {
        self.copy(count, into);
        self.head += count as u64;
    }

    /// Appends the next `count` bytes to `into` without taking them.
    ///
    /// # Panics
    /// When there are fewer than were [`seen`](Self::seen).
    #[inline]
    pub(crate) fn copy(&self, count: usize, into: &mut Vec<u8>) {
        assert!(count <= self.seen(), "more bytes than there are");
        into.reserve(count);
        let room = &mut into.spare_capacity_mut()[..count];
        self.memory.copy_out(self.head, room);
        // SAFETY: so many bytes were just written behind the others.
        unsafe { into.set_len(into.len() + count) };
    }

    /// Takes the next `count` bytes where they are, if they are in one piece.
    ///
    /// # Safety
    /// The producer is trusted not to touch bytes that were not released: this is for the
    /// worker, whose producer is the parent. The bytes are not used after the next
    /// [`release`](Self::release).
    #[inline]
    pub(crate) unsafe fn take_in_place<'a>(&mut self, count: usize) -> Option<&'a [u8]> {
        let (place, before_end) = self.memory.place(self.head);
        if count > before_end || count > self.seen() {
            return None;
        }
        self.memory.reads(self.head, count);
        self.head += count as u64;
        // SAFETY: within the ring, initialised by the producer, and left alone by it until
        // `release`, after which the caller does not use them.
        Some(unsafe { std::slice::from_raw_parts(place, count) })
    }

    /// The bytes that were seen and not taken, as far as they are in one piece.
    ///
    /// # Safety
    /// As for [`take_in_place`](Self::take_in_place).
    #[inline]
    pub(crate) unsafe fn in_place<'a>(&self) -> &'a [u8] {
        let (place, before_end) = self.memory.place(self.head);
        let count = self.seen().min(before_end);
        self.memory.reads(self.head, count);
        // SAFETY: as in `take_in_place`.
        unsafe { std::slice::from_raw_parts(place, count) }
    }

    /// Drops the next `count` bytes.
    ///
    /// # Panics
    /// When there are fewer than were [`seen`](Self::seen).
    #[inline]
    pub(crate) fn skip(&mut self, count: usize) {
        assert!(count <= self.seen(), "more bytes than there are");
        self.head += count as u64;
    }

    /// How many bytes were taken and not given back.
    #[inline]
    pub(crate) fn unreleased(&self) -> usize {
        (self.head - self.released) as usize
    }

    /// Gives the space of all that was taken back to the producer. `false`: it had it already.
    #[inline]
    pub(crate) fn release(&mut self) -> bool {
        let news = self.released != self.head;
        self.released = self.head;
        self.memory.head().store(self.head, Ordering::Release);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(bytes: usize) -> (Arc<Region>, Producer, Consumer) {
        let (region, _file) =
            Region::create(Region::bytes_for(RingSizes::both(bytes))).expect("memory");
        region.introduce(1, 0, RingSizes::both(bytes));
        let region = Arc::new(region);
        let producer = Producer::requests(region.clone(), RingSizes::both(bytes));
        let consumer = Consumer::requests(region.clone(), RingSizes::both(bytes));
        (region, producer, consumer)
    }

    #[test]
    fn what_is_not_published_is_not_seen() {
        let (_region, mut producer, mut consumer) = pair(4096);
        assert_eq!(producer.put(b"abc"), Ok(3));
        assert_eq!(consumer.available(), Ok(0));
        assert!(producer.publish());
        assert!(!producer.publish(), "nothing new");
        assert_eq!(consumer.available(), Ok(3));
    }

    #[test]
    fn what_is_not_released_is_not_overwritten() {
        let (_region, mut producer, mut consumer) = pair(4096);
        assert_eq!(producer.put(&[7; 5000]), Ok(4096));
        producer.publish();
        let mut out = Vec::new();
        let available = consumer.available().unwrap();
        consumer.take(available, &mut out);
        assert_eq!(producer.put(b"x"), Ok(0), "taken, but not released");
        assert!(consumer.release());
        assert_eq!(producer.put(b"x"), Ok(1));
    }

    #[test]
    fn positions_that_cannot_be_are_refused() {
        let (region, mut producer, mut consumer) = pair(4096);
        producer.put(&[1; 100]).unwrap();
        producer.publish();
        assert_eq!(consumer.available(), Ok(100));
        for wrong in [99, 0, 4097, u64::MAX, 1 << 63] {
            region.words().request_tail.store(wrong, Ordering::Relaxed);
            assert_eq!(consumer.available(), Err(Corrupt), "tail {wrong}");
        }
        for wrong in [101, u64::MAX] {
            region.words().request_head.store(wrong, Ordering::Relaxed);
            assert_eq!(producer.free(), Err(Corrupt), "head {wrong}");
        }
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            pieces in prop::collection::vec((0_usize..9000, 0_usize..9000), 1..60)
        ) {
            let (_region, mut producer, mut consumer) = pair(4096);
            let mut next_in = 0_u64;
            let mut next_out = 0_u64;
            let byte = |position: u64| (position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
            for (put, take) in pieces {
                let bytes: Vec<u8> = (next_in..next_in + put as u64).map(byte).collect();
                next_in += producer.put(&bytes).unwrap() as u64;
                producer.publish();
                let count = consumer.available().unwrap().min(take);
                let mut peeked = vec![0; count];
                consumer.peek(&mut peeked);
                let mut out = Vec::new();
                consumer.take(count, &mut out);
                consumer.release();
                prop_assert_eq!(&peeked, &out);
                for seen in out {
                    prop_assert_eq!(seen, byte(next_out));
                    next_out += 1;
                }
            }
        }
    }

    #[test]
    fn two_threads_stream_through_a_small_ring() {
        const BYTES: u64 = 1 << 20;
        let (_region, mut producer, mut consumer) = pair(4096);
        let sender = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
            let mut sent = 0;
            while sent < bytes.len() {
                sent += producer.put(&bytes[sent..]).unwrap();
                producer.publish();
                std::thread::yield_now();
            }
        });
        let mut out = Vec::new();
        while (out.len() as u64) < BYTES {
            let available = consumer.available().unwrap();
            consumer.take(available, &mut out);
            consumer.release();
            std::thread::yield_now();
        }
        sender.join().unwrap();
        assert!(
            out.iter()
                .enumerate()
                .all(|(n, &byte)| byte == (n % 251) as u8)
        );
    }
}
