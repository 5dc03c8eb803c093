//! Memory that one thread appends to while others read what is there, without a lock.
//!
//! Its size is fixed, so that nothing ever moves; what was published is never written again.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use crate::shm::buffer::Buffer;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{reads, writes};

/// See the module. Every holder of a reference reads; the one [`Appender`] writes.
pub(crate) struct Log {
    /// Where the memory begins. It is reached from here alone, until the buffer is taken out.
    base: NonNull<u8>,
    memory: Buffer,
    /// How many bytes are there.
    published: AtomicUsize,
}

// SAFETY: the memory is the log's own. Bytes below `published` are only read, by any thread; those
// above are only written, through the one `Appender`, which publishes them after that.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl Log {
    /// An empty log, and the one that writes it.
    pub(crate) fn with_capacity(capacity: usize) -> Appender {
        let mut memory = Buffer::default();
        memory.make_room(capacity.max(1));
        let base = NonNull::new(memory.as_mut_ptr()).expect("a vector's memory is somewhere");
        #[cfg(loom)]
        crate::sync::watch(base, memory.capacity());
        let log = Self {
            base,
            memory,
            published: AtomicUsize::new(0),
        };
        Appender { log: Arc::new(log) }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// How many bytes are there.
    pub(crate) fn len(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// The bytes that are there, without this many at the beginning.
    pub(crate) fn bytes(&self, from: usize) -> &[u8] {
        let len = self.len();
        assert!(from <= len, "what was seen before is still there");
        reads(self.base, len - from, |at| from + at as usize);
        // SAFETY: bytes below `published` were written before that was, with `Release`, and are
        // never written again; they live as long as the log.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(from), len - from) }
    }

    /// All that is there, in the memory in which it lies.
    fn into_buffer(self) -> Buffer {
        let len = self.len();
        reads(self.base, len, |at| at as usize);
        let mut memory = self.memory;
        // SAFETY: there is room for more, and the bytes up to `len` were written.
        unsafe { memory.set_len(len) };
        memory
    }
}

/// What appends to a [`Log`]: there is one for each.
pub(crate) struct Appender {
    log: Arc<Log>,
}

impl Appender {
    /// The log, for readers.
    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// How many bytes there is room for.
    pub(crate) fn room(&self) -> usize {
        self.log.capacity() - self.log.published.load(Ordering::Relaxed)
    }

    /// Appends these bytes and publishes them.
    ///
    /// # Panics
    /// When there is no room for them.
    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let len = self.log.published.load(Ordering::Relaxed);
        assert!(bytes.len() <= self.log.capacity() - len, "there is room");
        writes(self.log.base, bytes.len(), |at| len + at as usize);
        // SAFETY: there is room, as was just checked, and nobody looks at it before it is
        // published. Nobody else writes: this is the only appender, and is borrowed alone.
        unsafe {
            let place = self.log.base.as_ptr().add(len);
            place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        let after = len + bytes.len();
        self.log.published.store(after, Ordering::Release);
    }

    /// The bytes in the memory in which they lie, if nobody else has the log.
    pub(crate) fn into_buffer(self) -> Result<Buffer, Self> {
        match Arc::try_unwrap(self.log) {
            Ok(log) => Ok(log.into_buffer()),
            Err(log) => Err(Self { log }),
        }
    }

    /// Appends records of one head and a number each, of `size` bytes together, for as long as
    /// `next` gives numbers and there is room for one; after each, asks whether to `go_on`. Says
    /// why it ended.
    #[inline(always)]
    pub(crate) fn append_numbers<T>(
        &mut self,
        head: [u8; 4],
        size: usize,
        most: usize,
        mut next: impl FnMut() -> Option<T>,
        bytes_of: impl Fn(&T) -> &[u8],
        go_on: impl Fn() -> bool,
    ) -> Appended {
        let record = head.len() + size;
        let log = &*self.log;
        // Read once: the compiler must think that others change whatever they can reach.
        let base = log.base;
        let mut len = log.published.load(Ordering::Relaxed);
        let room = (log.capacity() - len) / record;
        for _ in 0..most.min(room) {
            let Some(number) = next() else {
                return Appended::End;
            };
            let bytes = bytes_of(&number);
            assert!(bytes.len() == size, "a number has its size");
            writes(base, record, |at| len + at as usize);
            // SAFETY: as in `append`: there is room for as many records as there are turns.
            unsafe {
                let place = base.as_ptr().add(len);
                place.copy_from_nonoverlapping(head.as_ptr(), head.len());
                place
                    .add(head.len())
                    .copy_from_nonoverlapping(bytes.as_ptr(), size);
            }
            len += record;
            log.published.store(len, Ordering::Release);
            if !go_on() {
                return Appended::Stopped;
            }
        }
        Appended::Full
    }
}

/// Why [`Appender::append_numbers`] has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// There is no room for another one, or there are as many as there should be.
    Full,
    /// There are no more.
    End,
    /// It was not to go on.
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_read_and_taken() {
        let mut appender = Log::with_capacity(10_000);
        assert!(appender.log().bytes(0).is_empty());
        appender.append(&[1, 2, 3]);
        let reader = appender.log().clone();
        appender.append(&[4]);
        assert_eq!(reader.bytes(0), [1, 2, 3, 4]);
        assert_eq!(reader.bytes(3), [4]);
        let appender = appender.into_buffer().expect_err("there is a reader");
        drop(reader);
        let place = appender.log().bytes(0).as_ptr();
        let buffer = appender.into_buffer().ok().expect("there is none");
        assert_eq!((buffer.as_ptr(), &buffer[..]), (place, &[1, 2, 3, 4][..]));
    }

    #[test]
    #[should_panic = "there is room"]
    fn no_more_is_appended_than_there_is_room_for() {
        let mut appender = Log::with_capacity(8);
        let room = appender.room();
        appender.append(&vec![0; room + 1]);
    }

    /// A reader in another thread sees whole records only.
    #[test]
    fn records_are_seen_whole() {
        const RECORDS: u64 = if cfg!(miri) { 100 } else { 100_000 };
        let mut appender = Log::with_capacity(RECORDS as usize * 12);
        let reader = appender.log().clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut seen = 0;
                while seen < RECORDS {
                    let bytes = reader.bytes(seen as usize * 12);
                    for record in bytes.chunks(12) {
                        assert_eq!(record[..4], [9; 4]);
                        assert_eq!(record[4..], seen.to_le_bytes());
                        seen += 1;
                    }
                }
            });
            let mut numbers = 0..RECORDS;
            let ended = appender.append_numbers(
                [9; 4],
                8,
                usize::MAX,
                || numbers.next().map(u64::to_le_bytes),
                |number| number,
                || true,
            );
            assert_ne!(ended, Appended::Stopped);
        });
    }
}
