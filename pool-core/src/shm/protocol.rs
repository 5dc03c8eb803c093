//! What travels through the rings: frames to the worker, records from it.
//!
//! ```text
//! request ring   frame*   frame  = header (32 bytes) context item*
//!                         context = what each item of the call needs: often nothing
//!                         item   = length, bytes of the encoded argument
//! response ring  record*  record = kind and length, bytes: of the encoded result, a failure, a time,
//!                                  of a value that the task has emitted; or of the encoded result
//!                                  or value, and what it offers
//! ```
//!
//! Records carry no names: a worker runs its items in the order in which it got them, so the
//! parent, which knows that order, knows whose record it is. After the last item of a frame, or
//! in place of those that were taken back, comes a record of the time that the frame took. In a
//! frame that asks for it, each result comes behind a record of what was measured of its item.

use serde::{Deserialize, Serialize};

use crate::codec::MAX_NUMBER;
use crate::panic::foreign_text::cut;
use crate::panic::report::PanicReport;

/// A length as it stands before an item or in a record: 4 bytes, or 12 for what is too long.
/// The two low bits are free for the record's kind.
const LONG: u32 = u32::MAX >> 2;

/// In the eight bytes of a long length: it is an [`SharedResult`](RecordKind::SharedResult). That
/// kind is so rare that its length is always a long one.
const OFFERS: u64 = 1 << 63;

/// The same of an [`Emitted`](RecordKind::Emitted); with both, it is a
/// [`SharedEmitted`](RecordKind::SharedEmitted).
const EMITS: u64 = 1 << 62;

/// From how many bytes on a bulk value goes into a ring, or comes out of it, without a stop in
/// between.
pub(crate) const LARGE_BYTES: usize = 16 * 1024;

/// The most bytes that a head (see [`Head::write`]) takes.
pub(crate) const MAX_HEAD: usize = 12;

/// The head of an item or a record: what it is, and how many bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: RecordKind,
    pub(crate) len: u64,
}

/// What a record says. Items are always `Value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum RecordKind {
    /// The encoded result of the item whose turn it is.
    Value = 0,
    /// A [`Failure`]: why that item has no result.
    Failure = 1,
    /// Eight bytes: how many nanoseconds the frame that ends here took. Or, in a measured frame
    /// and before each result, the bytes of a [`ItemTiming`](super::item_timing::ItemTiming).
    Time = 2,
    /// A `Value` that is a large bulk value: eight bytes of its length and element, see
    /// [`put_element`], and its memory.
    Bulk = 3,
    /// A `Value` with handles of memory that the worker offers, and behind it what it offers, see
    /// `broadcast`. The worker begins nothing else before the parent has taken that.
    SharedResult = 4,
    /// A value that the item whose turn it is has emitted: its outcome is still to come.
    Emitted = 5,
    /// The same with what stands behind a [`SharedResult`](Self::SharedResult).
    SharedEmitted = 6,
}

impl Head {
    /// The head of an item.
    #[inline]
    pub(crate) fn value(len: usize) -> Self {
        Self {
            kind: RecordKind::Value,
            len: len as u64,
        }
    }

    /// The head as one word, if it is short.
    #[inline]
    pub(crate) fn word(self) -> Option<u32> {
        (self.len < u64::from(LONG) && self.kind < RecordKind::SharedResult)
            .then_some((self.len as u32) << 2 | self.kind as u32)
    }

    /// The length after a word that is the head of a value; `None`: it is something else.
    #[inline]
    pub(crate) fn value_len(word: u32) -> Option<usize> {
        (word & 3 == RecordKind::Value as u32 && word >> 2 != LONG).then_some((word >> 2) as usize)
    }

    /// Writes the head into `bytes` and says how many it took.
    #[inline]
    pub(crate) fn write(self, bytes: &mut [u8; MAX_HEAD]) -> usize {
        if let Some(word) = self.word() {
            bytes[..4].copy_from_slice(&word.to_le_bytes());
            4
        } else {
            let (kind, len) = match self.kind {
                RecordKind::SharedResult => (RecordKind::Value, self.len | OFFERS),
                RecordKind::Emitted => (RecordKind::Value, self.len | EMITS),
                RecordKind::SharedEmitted => (RecordKind::Value, self.len | OFFERS | EMITS),
                kind => (kind, self.len),
            };
            let word = LONG << 2 | kind as u32;
            bytes[..4].copy_from_slice(&word.to_le_bytes());
            bytes[4..].copy_from_slice(&len.to_le_bytes());
            12
        }
    }

    /// How many bytes the head takes that begins with these.
    #[inline]
    pub(crate) fn size(first: [u8; 4]) -> usize {
        if u32::from_le_bytes(first) >> 2 == LONG {
            12
        } else {
            4
        }
    }

    /// Reads a head from exactly as many bytes as [`size`](Self::size) says. `None`: these bytes
    /// are no head.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let word = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let kind = match word & 3 {
            0 => RecordKind::Value,
            1 => RecordKind::Failure,
            2 => RecordKind::Time,
            _ => RecordKind::Bulk,
        };
        let len = match bytes.len() {
            4 => u64::from(word >> 2),
            12 => u64::from_le_bytes(bytes[4..].try_into().ok()?),
            _ => return None,
        };
        let kind = match (kind, len & OFFERS != 0, len & EMITS != 0) {
            (RecordKind::Value, true, false) => RecordKind::SharedResult,
            (RecordKind::Value, false, true) => RecordKind::Emitted,
            (RecordKind::Value, true, true) => RecordKind::SharedEmitted,
            _ => return Some(Self { kind, len }),
        };
        let len = len & !(OFFERS | EMITS);
        Some(Self { kind, len })
    }
}

/// Adds to the length that stands before the memory of a bulk value how large its elements are. The
/// highest byte of the length is free: no memory is that long.
pub(crate) fn put_element(prefix: &mut [u8; 8], bytes: usize) {
    let count = u64::from_le_bytes(*prefix);
    prefix[7] = (bytes as u64).checked_div(count).unwrap_or(1) as u8;
}

/// Takes it out again.
pub(crate) fn take_element(prefix: &mut [u8; 8]) -> usize {
    usize::from(std::mem::take(&mut prefix[7]))
}

/// Appends an encoded item to a chunk: `encode` appends the argument, and the head before it is
/// filled in afterwards. On an error nothing is appended.
#[inline]
pub(crate) fn append_item<E>(
    chunk: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = chunk.len();
    chunk.extend_from_slice(&[0; 4]);
    if let Err(error) = encode(chunk) {
        chunk.truncate(start);
        return Err(error);
    }
    let head = Head::value(chunk.len() - start - 4);
    match (head.word(), chunk[start..].first_chunk_mut()) {
        (Some(word), Some(first)) => *first = word.to_le_bytes(),
        _ => insert_long_head(chunk, start, head),
    }
    Ok(())
}

/// The same for the bytes of a number, in one step.
#[inline]
pub(crate) fn append_number(chunk: &mut Vec<u8>, bytes: &[u8]) {
    let mut item = [0; 4 + MAX_NUMBER];
    let end = 4 + bytes.len();
    item[..4].copy_from_slice(&((bytes.len() as u32) << 2).to_le_bytes());
    item[4..end].copy_from_slice(bytes);
    chunk.extend_from_slice(&item[..end]);
}

/// How many of these records, all of this size with their heads, are values before one is not.
pub(crate) fn count_values(records: &[u8], size: usize) -> usize {
    if are_values(records, size) {
        return records.len() / size;
    }
    let Some(word) = size.checked_sub(4).and_then(|len| Head::value(len).word()) else {
        return 0;
    };
    let is_value = |record: &&[u8]| record.first_chunk() == Some(&word.to_le_bytes());
    records.chunks_exact(size).take_while(is_value).count()
}

/// How many bytes the head of a value's record has.
pub(crate) const VALUE_HEAD: usize = 4;

/// Whether records, all of this size with their heads, are values. The common sizes are compared
/// many at a time.
pub(crate) fn are_values(records: &[u8], size: usize) -> bool {
    fn differ<'a>(heads: impl Iterator<Item = &'a [u8; 4]>, word: u32) -> bool {
        let differences = heads.map(|head| u32::from_le_bytes(*head) ^ word);
        differences.fold(0, std::ops::BitOr::bitor) != 0
    }
    fn differ_in<const SIZE: usize>(records: &[u8], word: u32) -> bool {
        let (records, _) = records.as_chunks::<SIZE>();
        differ(
            records.iter().filter_map(|record| record.first_chunk()),
            word,
        )
    }
    let Some(word) = size.checked_sub(4).and_then(|len| Head::value(len).word()) else {
        return false;
    };
    let differ = match size {
        8 => differ_in::<8>(records, word),
        12 => differ_in::<12>(records, word),
        _ => {
            let records = records.chunks_exact(size);
            differ(records.filter_map(|record| record.first_chunk()), word)
        }
    };
    !differ && records.len().is_multiple_of(size)
}

/// The item is of a gigabyte or more: its bytes move up by the rest of the head.
#[cold]
fn insert_long_head(chunk: &mut Vec<u8>, start: usize, head: Head) {
    let mut bytes = [0; MAX_HEAD];
    let size = head.write(&mut bytes);
    chunk.splice(start..start + 4, bytes[..size].iter().copied());
}

/// Takes the first item off an encoded chunk: its bytes, and what follows.
#[inline]
pub(crate) fn split_item(chunk: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = split_head(chunk)?;
    (head.kind == RecordKind::Value).then_some(())?;
    rest.split_at_checked(usize::try_from(head.len).ok()?)
}

/// The bytes of each item of an encoded chunk.
pub(crate) fn items(chunk: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = chunk;
    std::iter::from_fn(move || {
        let (item, after) = split_item(rest)?;
        rest = after;
        Some(item)
    })
}

/// How many items there are in an encoded chunk.
pub(crate) fn count_items(chunk: &[u8]) -> usize {
    let mut rest = chunk;
    let mut count = 0;
    while let Some((_, after)) = split_item(rest) {
        rest = after;
        count += 1;
    }
    count
}

/// The bytes of the first `count` items of an encoded chunk, and what follows.
pub(crate) fn split_items(chunk: &[u8], count: usize) -> (&[u8], &[u8]) {
    let mut rest = chunk;
    for _ in 0..count {
        rest = split_item(rest).map_or(&[], |(_, after)| after);
    }
    chunk.split_at(chunk.len() - rest.len())
}

/// Takes the head off the bytes that follow it.
#[inline]
pub(crate) fn split_head(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let first = bytes.first_chunk::<4>()?;
    let (head, rest) = bytes.split_at_checked(Head::size(*first))?;
    Some((Head::read(head)?, rest))
}

/// The bytes of a frame's header.
pub(crate) const FRAME_HEADER: usize = 32;

/// The header of a frame: items that one function is to be run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// The worker should note when each item begins, because the items have a deadline or are
    /// measured.
    pub(crate) deadline: bool,
    /// Each result is to come behind a [`ItemTiming`](super::item_timing::ItemTiming) of its item.
    pub(crate) measured: bool,
    /// Descriptors have been sent for some of the items.
    pub(crate) passes: bool,
    /// The number of the function's [`FunctionId`](crate::FunctionId).
    pub(crate) entry: u64,
    pub(crate) items: u32,
    /// How many bytes there are between the header and the items.
    pub(crate) context: u32,
    /// How many bytes the items have.
    pub(crate) bytes: u64,
}

/// What a frame asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Run the function on each item.
    Run = 1,
    /// Run the function on each item, if there is any, and then leave in good order.
    Retire = 2,
    /// Run the function, the initializer, and leave if it fails.
    Initialize = 3,
}

const DEADLINE: u32 = 1;
const MEASURED: u32 = 2;
const PASSES: u32 = 4;

impl FrameHeader {
    pub(crate) fn write(&self) -> [u8; FRAME_HEADER] {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.deadline, DEADLINE)
            | flag(self.measured, MEASURED)
            | flag(self.passes, PASSES);
        let mut bytes = [0; FRAME_HEADER];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.entry.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.items.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.context.to_le_bytes());
        bytes[24..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    pub(crate) fn read(bytes: &[u8; FRAME_HEADER]) -> Option<Self> {
        let word = |at: usize| bytes[at..].first_chunk().copied().map(u32::from_le_bytes);
        let long = |at: usize| bytes[at..].first_chunk().copied().map(u64::from_le_bytes);
        let flags = word(4)?;
        Some(Self {
            kind: match word(0)? {
                1 => FrameKind::Run,
                2 => FrameKind::Retire,
                3 => FrameKind::Initialize,
                _ => return None,
            },
            deadline: flags & DEADLINE != 0,
            measured: flags & MEASURED != 0,
            passes: flags & PASSES != 0,
            entry: long(8)?,
            items: word(16)?,
            context: word(20)?,
            bytes: long(24)?,
        })
    }
}

/// Why an item has no result, in the worker's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    /// The error's text, or the panic's message.
    pub(crate) message: String,
    pub(crate) panic: Option<PanicReport>,
}

impl Failure {
    pub(crate) fn error(stage: Stage, error: impl std::fmt::Display) -> Self {
        Self {
            stage,
            message: cut(error.to_string()),
            panic: None,
        }
    }

    pub(crate) fn panic(stage: Stage, mut report: PanicReport) -> Self {
        report.message = cut(report.message);
        report.location = report.location.map(cut);
        Self {
            stage,
            message: report.message.clone(),
            panic: Some(report),
        }
    }
}

/// How many bytes the record of a failure has at most: its texts are cut where it is made.
pub(crate) const MAX_FAILURE_BYTES: u64 = 16 << 20;

/// What the worker was doing for the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    DecodeArgument,
    DecodeContext,
    MakeState,
    Run,
    /// The function is an initializer and has returned an error.
    Initialize,
    EncodeResult,
    /// A value that the function emits.
    EncodeEmitted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted() {
        for len in [1, 4, 8, 16] {
            let mut records = Vec::new();
            for value in 0..20_u8 {
                append_number(&mut records, &vec![value; len]);
            }
            let size = 4 + len;
            assert!(are_values(&records, size));
            assert_eq!(count_values(&records, size), 20);
            assert!(!are_values(&records[1..], size));
            for wrong in 0..20 {
                let mut records = records.clone();
                records[wrong * size] ^= RecordKind::Failure as u8;
                assert!(!are_values(&records, size));
                assert_eq!(count_values(&records, size), wrong);
            }
        }
        assert!(are_values(&[], 12) && !are_values(&[], 3));
        assert_eq!(count_values(&[1, 2], 0), 0);
    }
    use proptest::prelude::*;

    #[test]
    fn heads_survive() {
        for len in [
            0,
            1,
            1000,
            u64::from(LONG) - 1,
            u64::from(LONG),
            u64::from(LONG) + 1,
            u64::MAX >> 2,
        ] {
            for kind in [
                RecordKind::Value,
                RecordKind::Failure,
                RecordKind::Time,
                RecordKind::Bulk,
                RecordKind::SharedResult,
                RecordKind::Emitted,
                RecordKind::SharedEmitted,
            ] {
                let head = Head { kind, len };
                let mut bytes = [0; MAX_HEAD];
                let size = head.write(&mut bytes);
                assert_eq!(size, Head::size(*bytes.first_chunk().unwrap()));
                assert_eq!(Head::read(&bytes[..size]), Some(head));
            }
        }
    }

    #[test]
    fn frame_headers_survive() {
        let header = FrameHeader {
            kind: FrameKind::Retire,
            deadline: false,
            measured: true,
            passes: true,
            entry: 0x0123_4567_89AB_CDEF,
            items: 77,
            context: 0x8765_4321,
            bytes: 1 << 40,
        };
        assert_eq!(FrameHeader::read(&header.write()), Some(header));
    }

    proptest! {
        #[test]
        fn chunks_come_apart_as_they_were_put_together(
            items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)
        ) {
            let mut chunk = Vec::new();
            for item in &items {
                append_item(&mut chunk, |out| {
                    out.extend_from_slice(item);
                    Ok::<(), ()>(())
                })
                .unwrap();
                let before = chunk.clone();
                let failed = append_item(&mut chunk, |out| {
                    out.push(1);
                    Err(())
                });
                prop_assert_eq!(failed, Err(()));
                prop_assert_eq!(&chunk, &before);
            }
            let mut rest = &chunk[..];
            for item in &items {
                let (bytes, after) = split_item(rest).unwrap();
                prop_assert_eq!(bytes, &item[..]);
                rest = after;
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_are_too_strange_to_read(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = split_item(&bytes);
            if let Some(header) = bytes.first_chunk() {
                let _ = FrameHeader::read(header);
            }
        }
    }
}
