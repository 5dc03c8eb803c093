//! From arguments to encoded items. User code runs here, the input's and serialisation's, and
//! may fail as it likes.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use serde::Serialize;

use super::bytes::Bytes;
use crate::broadcast::Attachments;
use crate::codec::{self, CodecError};
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::panic::catch::{catch, panic_scope, report_for};
use crate::panic::report::PanicReport;
use crate::shm::buffer::Buffer;
use crate::shm::protocol;
use crate::shm::protocol::{Head, LARGE_BYTES};
use crate::sys;

/// Encoded items, one behind the other.
#[derive(Default)]
pub(crate) struct Items {
    pub(crate) bytes: Buffer,
    pub(crate) count: usize,
    /// Whether to note how long each takes to encode.
    pub(crate) is_timed: bool,
    /// How long each has taken, in nanoseconds, if that is noted.
    pub(crate) times: Vec<u64>,
    /// What handles in them mean.
    pub(crate) attachments: Attachments,
}

/// How much is enough: whichever comes first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
    /// Time enough for one item at least.
    pub(crate) until: Option<Instant>,
}

impl Limit {
    pub(crate) const NONE: Self = Self {
        items: usize::MAX,
        bytes: usize::MAX,
        until: None,
    };

    #[inline(always)]
    pub(crate) fn is_reached(&self, count: usize, bytes: usize) -> bool {
        count >= self.items
            || bytes >= self.bytes
            || self
                .until
                .is_some_and(|until| count > 0 && until <= sys::now())
    }
}

/// Why [`Items::extend`] has stopped.
pub(crate) enum Stop {
    /// There is enough.
    Full,
    /// What there is, is wanted now.
    Wanted,
    /// The input has no more.
    Exhausted,
    /// The next argument cannot be encoded.
    Failed(TaskError),
    /// The input has panicked, with this.
    Panicked(Box<dyn Any + Send>),
}

impl Items {
    /// Takes arguments from `input` and encodes them up to the limit.
    pub(crate) fn extend<A, I>(&mut self, input: &mut I, limit: Limit) -> Stop
    where
        A: Serialize + 'static,
        I: Iterator<Item = A>,
    {
        let mut is_encoding = false;
        let mut before = self.bytes.len();
        // Caught once for all, since to catch costs as much as to encode a number.
        let stop = catch_unwind(AssertUnwindSafe(|| {
            if let Some(size) = codec::number_size::<A>() {
                let count = limit.items.min(limit.bytes / (4 + size) + 1);
                self.bytes
                    .make_room(count.min(input.size_hint().0) * (4 + size));
                if !self.is_timed && limit.until.is_none() {
                    return self.extend_with_numbers(input, size, limit);
                }
            }
            loop {
                if limit.is_reached(self.count, self.bytes.len()) {
                    return Stop::Full;
                }
                is_encoding = false;
                let Some(argument) = input.next() else {
                    return Stop::Exhausted;
                };
                is_encoding = true;
                before = self.bytes.len();
                let start = self.is_timed.then(sys::now_ns);
                if let Err(error) =
                    panic_scope(|| append(argument, &mut self.bytes, &mut self.attachments))
                {
                    return Stop::Failed(refused(&error));
                }
                self.count += 1;
                if let Some(start) = start {
                    self.times.push(sys::now_ns() - start);
                }
            }
        }));
        stop.unwrap_or_else(|payload| {
            if is_encoding {
                self.bytes.truncate(before);
                Stop::Failed(panicked(report_for(payload)))
            } else {
                Stop::Panicked(payload)
            }
        })
    }
}

/// How many numbers are encoded between two looks at the limit, at most.
const BLOCK: usize = 4096;

impl Items {
    /// The same where it is known that they are numbers, of this many bytes: encoding cannot go
    /// wrong and takes a nanosecond, so that all that is done for each item shows.
    #[inline]
    fn extend_with_numbers<A, I>(&mut self, input: &mut I, size: usize, limit: Limit) -> Stop
    where
        A: 'static,
        I: Iterator<Item = A>,
    {
        let head = Head::value(size).word().unwrap_or_default().to_le_bytes();
        let record = 4 + size;
        loop {
            let room = limit.bytes.saturating_sub(self.bytes.len());
            let most = room.div_ceil(record).min(limit.items - self.count);
            if most == 0 {
                return Stop::Full;
            }
            let count = most.min(BLOCK);
            let mut block = Block::of(self, count, record);
            let start = block.start;
            for place in block.items.bytes[start..].chunks_exact_mut(record) {
                let Some(number) = input.next() else {
                    return Stop::Exhausted;
                };
                let (first, rest) = place.split_at_mut(4);
                first.copy_from_slice(&head);
                rest.copy_from_slice(codec::number_bytes(&number).unwrap_or_default());
                block.written += 1;
            }
        }
    }
}

/// Room for some records. What was not written of it goes when the input ends, or panics.
struct Block<'a> {
    items: &'a mut Items,
    start: usize,
    record: usize,
    written: usize,
}

impl<'a> Block<'a> {
    fn of(items: &'a mut Items, count: usize, record: usize) -> Self {
        let start = items.bytes.len();
        items.bytes.resize(start + count * record, 0);
        Self {
            items,
            start,
            record,
            written: 0,
        }
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        self.items
            .bytes
            .truncate(self.start + self.written * self.record);
        self.items.count += self.written;
    }
}

/// The argument as an item; a small one without an allocation.
///
/// With it comes what handles in it mean.
#[inline]
pub(crate) fn encode_one<A: Serialize + 'static>(
    argument: A,
) -> Result<(Bytes, Attachments), TaskError> {
    if let Some(number) = codec::number_bytes(&argument) {
        // Nothing of that can fail, and all else takes longer than it.
        return Ok((Bytes::item_of_number(number), Attachments::default()));
    }
    encode_other(argument)
}

fn encode_other<A: Serialize + 'static>(argument: A) -> Result<(Bytes, Attachments), TaskError> {
    let mut attachments = Attachments::default();
    let argument = match codec::lend(argument, LARGE_BYTES) {
        Ok(large) => return Ok((Bytes::lent(large), attachments)),
        Err(argument) => argument,
    };
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut item = SCRATCH.take();
    item.clear();
    catch(|| append(argument, &mut item, &mut attachments))
        .map_err(panicked)?
        .map_err(|error| refused(&error))?;
    if item.len() > Bytes::INLINE {
        return Ok((Bytes::from(item), attachments));
    }
    let bytes = Bytes::from(&item[..]);
    SCRATCH.set(item);
    Ok((bytes, attachments))
}

#[inline]
pub(crate) fn append<A: Serialize + 'static>(
    argument: A,
    items: &mut Vec<u8>,
    attachments: &mut Attachments,
) -> Result<(), CodecError> {
    if let Some(bytes) = codec::number_bytes(&argument) {
        protocol::append_number(items, bytes);
        return Ok(());
    }
    attachments.begin_value();
    let encoded = protocol::append_item(items, |out| {
        codec::encode_attached(&argument, out, attachments)
    });
    drop(argument);
    encoded
}

#[cold]
pub(crate) fn refused(error: &CodecError) -> TaskError {
    TaskError::new(
        TaskErrorKind::Encode,
        format!("cannot serialise the argument: {error}"),
    )
}

#[cold]
pub(crate) fn panicked(panic: PanicReport) -> TaskError {
    TaskError::panicked(TaskErrorKind::Encode, "the argument's serialisation", panic)
}
