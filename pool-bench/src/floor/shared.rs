//! The memory that this program and the other side of the floors share.
#![allow(unsafe_code)]

use std::hint;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use anyhow::Result;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::thread::futex;

/// How many bytes can be on their way in one direction: half of what fits into a usual second-level
/// cache, so that what one side writes is still there when the other reads.
pub(super) const BUFFER: usize = 512 << 10;

/// How much is copied before the other side is notified: small enough that both copy at the same
/// time.
const PIECE: usize = 64 << 10;

/// Each on a cache line of its own (two, for processors that fetch pairs).
#[repr(C, align(128))]
pub(super) struct Line<T>(T);

/// One direction.
#[repr(C)]
pub(super) struct Lane {
    /// The number of the message, for ping-pong.
    turn: Line<AtomicU32>,
    word: Line<AtomicU64>,
    /// How many bytes have ever been written, and read.
    written: Line<AtomicU64>,
    read: Line<AtomicU64>,
    buffer: [AtomicU64; BUFFER / 8],
}

/// Both directions.
#[repr(C)]
pub(super) struct Shared {
    pub(super) there: Lane,
    pub(super) back: Lane,
}

impl Shared {
    /// New memory, which children made by `fork` have as well. It stays for as long as the program.
    pub(super) fn map() -> Result<&'static Self> {
        let (length, protection) = (size_of::<Self>(), ProtFlags::READ | ProtFlags::WRITE);
        let hint = std::ptr::null_mut();
        // SAFETY: the kernel chooses a place where nothing is.
        let place = unsafe { mmap_anonymous(hint, length, protection, MapFlags::SHARED)? };
        let place = NonNull::new(place.cast::<Self>()).expect("the kernel maps no null page");
        // SAFETY: it is long enough, aligned to a page, zero, which is a value of every atomic, and
        // never unmapped.
        Ok(unsafe { place.as_ref() })
    }
}

impl Lane {
    /// The number of the last message.
    pub(super) fn turn(&self) -> u32 {
        self.turn.0.load(Ordering::Relaxed)
    }

    /// Publishes `word` as message number `turn`.
    pub(super) fn say(&self, turn: u32, word: u64) {
        self.word.0.store(word, Ordering::Relaxed);
        self.turn.0.store(turn, Ordering::Release);
    }

    /// Spins until message number `turn` is there.
    pub(super) fn hear(&self, turn: u32) -> u64 {
        while self.turn.0.load(Ordering::Acquire) != turn {
            hint::spin_loop();
        }
        self.word.0.load(Ordering::Relaxed)
    }

    /// Publishes and wakes who sleeps.
    pub(super) fn say_aloud(&self, turn: u32, word: u64) {
        self.say(turn, word);
        // An error means that nobody can be woken because nobody sleeps.
        let _ = futex::wake(&self.turn.0, futex::Flags::empty(), 1);
    }

    /// Sleeps until message number `turn` is there.
    pub(super) fn sleep_until(&self, turn: u32) -> u64 {
        loop {
            let seen = self.turn.0.load(Ordering::Acquire);
            if seen == turn {
                return self.word.0.load(Ordering::Relaxed);
            }
            // Woken, or it has changed meanwhile: the loop looks.
            let _ = futex::wait(&self.turn.0, futex::Flags::empty(), seen, None);
        }
    }

    /// Streams bytes through the buffer, as far as the reader keeps up.
    pub(super) fn send(&self, mut bytes: &[u8]) {
        let mut written = self.written.0.load(Ordering::Relaxed);
        while !bytes.is_empty() {
            let place = written as usize % BUFFER;
            let piece = bytes.len().min(PIECE).min(BUFFER - place);
            wait_until(|| {
                written + piece as u64 - self.read.0.load(Ordering::Acquire) <= BUFFER as u64
            });
            // SAFETY: the place is within the buffer; the reader has read what was there, and will
            // not look again before it is notified; the source is ours and elsewhere.
            unsafe {
                let target = self.buffer.as_ptr().cast_mut().cast::<u8>().add(place);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, piece);
            }
            written += piece as u64;
            self.written.0.store(written, Ordering::Release);
            bytes = &bytes[piece..];
        }
    }

    /// Streams this many bytes out of the buffer into memory that is allocated for them.
    pub(super) fn receive(&self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::<u8>::with_capacity(length);
        let mut read = self.read.0.load(Ordering::Relaxed);
        while bytes.len() < length {
            wait_until(|| self.written.0.load(Ordering::Acquire) != read);
            let there = (self.written.0.load(Ordering::Acquire) - read) as usize;
            let place = read as usize % BUFFER;
            let piece = there.min(BUFFER - place).min(length - bytes.len());
            // SAFETY: this many bytes are there and within the buffer; the writer leaves them alone
            // until it is notified that they were read. The vector has room for all of them.
            unsafe {
                let source = self.buffer.as_ptr().cast::<u8>().add(place);
                let end = bytes.as_mut_ptr().add(bytes.len());
                std::ptr::copy_nonoverlapping(source, end, piece);
                bytes.set_len(bytes.len() + piece);
            }
            read += piece as u64;
            self.read.0.store(read, Ordering::Release);
        }
        bytes
    }
}

/// Spins, and after a while lets others have the processor: with more programs than processors the
/// other side may wait for this one.
fn wait_until(condition: impl Fn() -> bool) {
    let mut looks = 0_u32;
    while !condition() {
        looks += 1;
        if looks > 20_000 {
            thread::yield_now();
        } else {
            hint::spin_loop();
        }
    }
}
