//! The records that a worker writes into its response ring, read one after the other.
//!
//! [`RecordReader`] is a parser: it takes bytes out of a ring and makes typed [`Record`]s of them.
//! It knows no scheduler and no lock, wakes nobody and gives no space back. All that it is told is
//! what the worker owes next ([`Due`]). Whatever else the worker writes is [`Corrupt`], and is
//! refused at its head: there may be no end to what follows. To book a record is for
//! [`Booking`](super::booking::Booking).

use crate::broadcast::MAX_OFFERED_BYTES;
use crate::codec::Memory;
use crate::shm::buffer::Buffer;
use crate::shm::item_timing::ItemTiming;
use crate::shm::protocol::{self, Head, LARGE_BYTES, MAX_FAILURE_BYTES, MAX_HEAD, RecordKind};
use crate::shm::ring::{Consumer, Corrupt};

/// See the module.
pub(super) struct RecordReader {
    /// The record of which only the beginning has come.
    partial: Option<Partial>,
    /// How many bytes a result may have.
    max_result: u64,
    /// How many bytes of a long record are taken at a time.
    max_copy: usize,
    /// Where a short record is copied to.
    short: [u8; SHORT as usize],
    /// How many bytes the last short record had, with its head.
    size: usize,
}

/// What a worker owes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing: it has no work.
    Nothing,
    /// The outcome of an item; if that is measured, behind what was measured. Before it, if it may
    /// emit values, one of these.
    Outcome { is_measured: bool, may_emit: bool },
    /// How long it took for all items of a chunk.
    Time,
    /// It was told to leave, and whatever it says is nobody's.
    LastWords,
}

/// What the reader has found that is no short record.
pub(super) enum Step {
    /// There is no more for now.
    End,
    /// A part of a long record; `more`: there is more.
    Part { more: bool },
    /// A whole record.
    Record(Record<'static>),
    /// The result of an item, or a value that it has emitted, and behind it what the worker offers
    /// with it.
    Offer(Offering),
    /// A value that an item has emitted. `Err`: it has so many bytes that there is no memory for
    /// them.
    Emitted(Result<Vec<u8>, u64>),
}

/// A record that comes with an offer.
pub(super) struct Offering {
    /// [`SharedResult`](RecordKind::SharedResult) or [`SharedEmitted`](RecordKind::SharedEmitted).
    pub(super) kind: RecordKind,
    pub(super) record: Memory,
}

/// A whole record.
#[derive(Debug)]
pub(super) enum Record<'a> {
    /// The result of an item.
    Value(Payload<'a>),
    /// The same, of which there is no copy to be made: the length that stands before the memory of
    /// a bulk value, and that.
    Bulk([u8; 8], Memory),
    /// The result of an item, or the reason why it has none, has so many bytes that there is no
    /// memory for them.
    NoMemory(u64),
    /// Why an item has no result.
    Failure(Payload<'a>),
    /// What was measured of the item whose outcome comes next.
    Timing(ItemTiming),
    /// All items of the chunk are done; they took so many nanoseconds.
    Time(u64),
    /// What the finalizer says, or how long it took.
    LastWords,
}

/// The bytes of a record.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    Short(&'a [u8]),
    Owned(Vec<u8>),
}

impl Payload<'_> {
    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A record of which only the beginning has come.
struct Partial {
    kind: RecordKind,
    /// Bytes that are still to come.
    left: u64,
    /// The length that stands before the memory of a bulk value.
    prefix: [u8; 8],
    /// `None`: there was no memory for it, and it is passed over.
    memory: Option<Memory>,
    /// All bytes of it, as they were announced.
    len: u64,
}

/// The longest record that is copied by way of the reader's own memory.
const SHORT: u64 = 64;

/// This many values are looked for first behind one that has come.
const FIRST_RUN: usize = 8;

/// How much room is made for the results of a chunk when the first of them come.
const ROOM: usize = 64 * 1024;

impl RecordReader {
    /// It takes so many bytes of a long record at a time.
    pub(super) fn new(max_copy: usize) -> Self {
        Self {
            partial: None,
            max_result: u64::MAX,
            max_copy,
            short: [0; SHORT as usize],
            size: 0,
        }
    }

    /// From now on, results may have this many bytes. The worker keeps to that if it is honest.
    pub(super) fn limit_results(&mut self, bytes: u64) {
        self.max_result = bytes;
    }

    /// How many bytes of a long record are taken at a time.
    pub(super) fn max_copy(&self) -> usize {
        self.max_copy
    }

    /// The bytes of memory that the record takes which is only partly there.
    #[cfg(any(fuzzing, test))]
    pub(super) fn memory(&self) -> usize {
        let memory = self.partial.as_ref().and_then(|it| it.memory.as_ref());
        memory.map_or(0, Memory::capacity)
    }

    /// Whether the next byte is that of a head.
    #[cfg(any(fuzzing, test))]
    pub(super) fn is_at_head(&self) -> bool {
        self.partial.is_none()
    }

    /// Takes the next record out of the ring, if it is a short one and all of it was seen. Most
    /// are. `None`: [`long`](Self::long) says what there is.
    #[inline(always)]
    pub(super) fn short(
        &mut self,
        ring: &mut Consumer,
        due: Due,
    ) -> Result<Option<Record<'_>>, Corrupt> {
        if self.partial.is_some() {
            return Ok(None);
        }
        let Some((size, head)) = self.head(ring, due)? else {
            return Ok(None);
        };
        let is_short = head.len <= SHORT && head.kind < RecordKind::Bulk;
        if !is_short || head.len > (ring.seen() - size) as u64 {
            return Ok(None);
        }
        ring.skip(size);
        let short = &mut self.short[..head.len as usize];
        ring.peek(short);
        ring.skip(short.len());
        self.size = size + short.len();
        record(head.kind, Payload::Short(short), due).map(Some)
    }

    /// Takes a record out of the ring that is long or comes in pieces, or one piece of it.
    pub(super) fn long(&mut self, ring: &mut Consumer, due: Due) -> Result<Step, Corrupt> {
        if self.partial.is_some() {
            return self.go_on(ring, due);
        }
        match self.head(ring, due)? {
            Some((size, head)) => self.begin(ring, size, head),
            None => Ok(Step::End),
        }
    }

    /// Looks at the head that comes next, and says how many bytes that has, if all of them were
    /// seen.
    #[inline(always)]
    fn head(&self, ring: &Consumer, due: Due) -> Result<Option<(usize, Head)>, Corrupt> {
        let seen = ring.seen();
        if seen < 4 {
            return Ok(None);
        }
        let mut bytes = [0; 4];
        match ring.peek_word() {
            Some(word) => bytes = word.to_le_bytes(),
            None => ring.peek(&mut bytes),
        }
        let size = Head::size(bytes);
        if seen < size {
            return Ok(None);
        }
        let head = if size == bytes.len() {
            Head::read(&bytes)
        } else {
            let mut bytes = [0; MAX_HEAD];
            ring.peek(&mut bytes);
            Head::read(&bytes)
        };
        let head = head.filter(|head| self.is_due(*head, due)).ok_or(Corrupt)?;
        Ok(Some((size, head)))
    }

    /// Whether a record with this head is what comes next.
    #[inline]
    fn is_due(&self, head: Head, due: Due) -> bool {
        let is_of_item = matches!(due, Due::Outcome { .. });
        match head.kind {
            _ if due == Due::LastWords => true,
            RecordKind::Value => is_of_item && head.len <= self.max_result,
            RecordKind::Failure => is_of_item && head.len <= MAX_FAILURE_BYTES,
            RecordKind::Time if head.len == ItemTiming::BYTES as u64 => {
                matches!(
                    due,
                    Due::Outcome {
                        is_measured: true,
                        ..
                    }
                )
            }
            RecordKind::Time => due == Due::Time && head.len == 8,
            RecordKind::Bulk => {
                is_of_item && (LARGE_BYTES as u64..=self.max_result).contains(&head.len)
            }
            RecordKind::SharedResult => {
                is_of_item && head.len <= self.max_result.saturating_add(MAX_OFFERED_BYTES)
            }
            RecordKind::Emitted => {
                let may_emit = matches!(due, Due::Outcome { may_emit: true, .. });
                may_emit && head.len <= self.max_result
            }
            RecordKind::SharedEmitted => {
                let may_emit = matches!(due, Due::Outcome { may_emit: true, .. });
                may_emit && head.len <= self.max_result.saturating_add(MAX_OFFERED_BYTES)
            }
        }
    }

    /// Takes the head of a record that is long, or of which only a part is there.
    fn begin(&mut self, ring: &mut Consumer, size: usize, head: Head) -> Result<Step, Corrupt> {
        let mut prefix = [0; 8];
        let mut element = 1;
        let mut left = head.len;
        if head.kind == RecordKind::Bulk {
            if ring.seen() < size + prefix.len() {
                return Ok(Step::End);
            }
            ring.skip(size);
            ring.peek(&mut prefix);
            ring.skip(prefix.len());
            element = protocol::take_element(&mut prefix);
            // It is long enough, or will be nobody's.
            left = left.saturating_sub(prefix.len() as u64);
        } else {
            ring.skip(size);
        }
        self.partial = Some(Partial {
            kind: head.kind,
            left,
            prefix,
            memory: Some(Memory::new(element).ok_or(Corrupt)?),
            len: head.len,
        });
        Ok(Step::Part { more: true })
    }

    /// Takes more of a record of which only the beginning had come.
    fn go_on(&mut self, ring: &mut Consumer, due: Due) -> Result<Step, Corrupt> {
        let Some(partial) = &mut self.partial else {
            return Ok(Step::End);
        };
        let seen = ring.seen();
        // In pieces, so that the worker can fill one while the other is copied.
        let count = (partial.left).min(seen.min(self.max_copy) as u64) as usize;
        match &mut partial.memory {
            Some(_) if due == Due::LastWords => ring.skip(count),
            // The length is the worker's word: memory grows with what arrives, not with that, but
            // not beyond it. And there may be none.
            Some(memory) => {
                let fill = |room: &mut [_]| ring.take_into(room);
                if memory.extend(count, partial.left, fill).is_err() {
                    partial.memory = None;
                    ring.skip(count);
                }
            }
            None => ring.skip(count),
        }
        partial.left -= count as u64;
        if partial.left > 0 {
            return Ok(Step::Part { more: count < seen });
        }
        let Some(partial) = self.partial.take() else {
            return Ok(Step::End);
        };
        let record = match (partial.kind, partial.memory) {
            _ if due == Due::LastWords => Record::LastWords,
            (RecordKind::Emitted, memory) => {
                let bytes = memory.map(Memory::into_bytes);
                return Ok(Step::Emitted(bytes.ok_or(partial.len)));
            }
            (RecordKind::SharedEmitted, None) => return Ok(Step::Emitted(Err(partial.len))),
            (_, None) => Record::NoMemory(partial.len),
            (kind @ (RecordKind::SharedResult | RecordKind::SharedEmitted), Some(record)) => {
                return Ok(Step::Offer(Offering { kind, record }));
            }
            (RecordKind::Bulk, Some(memory)) => Record::Bulk(partial.prefix, memory),
            (kind, Some(memory)) => record(kind, Payload::Owned(memory.into_bytes()), due)?,
        };
        Ok(Step::Record(record))
    }

    /// What is offered cannot be taken now: it is what comes next again.
    #[cold]
    pub(super) fn put_back(&mut self, offer: Offering) {
        self.partial = Some(Partial {
            kind: offer.kind,
            left: 0,
            prefix: [0; 8],
            len: offer.record.as_slice().len() as u64,
            memory: Some(offer.record),
        });
    }

    /// Takes the values that follow all at once, as far as they are of as many bytes, with their
    /// heads, as the short record that was read last: `count` of them at most. Says how many there
    /// were.
    pub(super) fn run(&mut self, ring: &mut Consumer, count: u32, records: &mut Buffer) -> u32 {
        let size = self.size;
        let mut done = 0;
        // More and more at a time, since results of changing sizes would be copied in vain again
        // and again.
        let mut left = ring.seen().min(count as usize * size) / size;
        let mut step = FIRST_RUN;
        while left > 0 {
            let start = records.len();
            // For what is likely to come, too.
            records.make_room((left * size).min(ROOM));
            // Copied first and looked at then: the worker may go on writing into its ring.
            ring.copy(left.min(step) * size, records);
            let taken = protocol::count_values(&records[start..], size);
            records.truncate(start + taken * size);
            ring.skip(taken * size);
            done += taken as u32;
            if taken < step {
                break;
            }
            left -= taken;
            step *= 8;
        }
        done
    }
}

/// What the bytes say, which have all come.
#[inline(always)]
fn record(kind: RecordKind, bytes: Payload<'_>, due: Due) -> Result<Record<'_>, Corrupt> {
    Ok(match kind {
        _ if due == Due::LastWords => Record::LastWords,
        RecordKind::Value => Record::Value(bytes),
        RecordKind::Time => match ItemTiming::read(bytes.as_slice()) {
            Some(timing) => Record::Timing(timing),
            None => {
                let time = bytes.as_slice().try_into().map_err(|_| Corrupt)?;
                Record::Time(u64::from_le_bytes(time))
            }
        },
        RecordKind::Failure => Record::Failure(bytes),
        // Never short, and not without memory of their own.
        RecordKind::Bulk
        | RecordKind::SharedResult
        | RecordKind::Emitted
        | RecordKind::SharedEmitted => return Err(Corrupt),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codec::AHEAD;
    use crate::shm::region::{Region, RingSizes};
    use crate::shm::ring::Producer;

    const BYTES: usize = 4096;
    const RINGS: RingSizes = RingSizes::both(BYTES);
    const OUTCOME: Due = Due::Outcome {
        is_measured: false,
        may_emit: false,
    };
    const MEASURED: Due = Due::Outcome {
        is_measured: true,
        may_emit: false,
    };
    const STREAM: Due = Due::Outcome {
        is_measured: false,
        may_emit: true,
    };
    const ALL_DUE: [Due; 6] = [
        Due::Nothing,
        OUTCOME,
        MEASURED,
        STREAM,
        Due::Time,
        Due::LastWords,
    ];

    /// A reader, the ring that it reads, and a worker that writes into that.
    struct Rig {
        reader: RecordReader,
        ring: Consumer,
        worker: Producer,
    }

    /// What was read: which record, and its bytes.
    type Read = (&'static str, Vec<u8>);

    impl Rig {
        fn new() -> Self {
            let (region, _file) = Region::create(Region::bytes_for(RINGS)).expect("memory");
            region.introduce(1, 0, RINGS);
            let region = Arc::new(region);
            Self {
                reader: RecordReader::new(BYTES / 8),
                ring: Consumer::responses(region.clone(), RINGS),
                worker: Producer::responses(region, RINGS),
            }
        }

        fn write(&mut self, bytes: &[u8]) {
            assert_eq!(self.worker.put(bytes), Ok(bytes.len()), "there is space");
            self.worker.publish();
            self.ring.available().expect("nobody lies");
        }

        /// Reads all that there is.
        fn read(&mut self, due: Due) -> Result<Vec<Read>, Corrupt> {
            let mut all = Vec::new();
            loop {
                if let Some(record) = self.reader.short(&mut self.ring, due)? {
                    all.push(read(record));
                    continue;
                }
                match self.reader.long(&mut self.ring, due)? {
                    Step::Record(record) => all.push(read(record)),
                    Step::Offer(offer) => {
                        let name = match offer.kind {
                            RecordKind::SharedEmitted => "emitted offer",
                            _ => "offer",
                        };
                        all.push((name, offer.record.as_slice().to_vec()));
                    }
                    Step::Emitted(bytes) => all.push(("emitted", bytes.expect("memory"))),
                    Step::Part { more: true } => {}
                    Step::Part { more: false } | Step::End => break,
                }
            }
            self.ring.release();
            Ok(all)
        }
    }

    fn read(record: Record<'_>) -> Read {
        match record {
            Record::Value(bytes) => ("value", bytes.as_slice().to_vec()),
            Record::Failure(bytes) => ("failure", bytes.as_slice().to_vec()),
            Record::Bulk(prefix, memory) => ("bulk", [&prefix, memory.as_slice()].concat()),
            Record::NoMemory(bytes) => ("no memory", bytes.to_le_bytes().to_vec()),
            Record::Timing(timing) => ("timing", timing.write().to_vec()),
            Record::Time(took) => ("time", took.to_le_bytes().to_vec()),
            Record::LastWords => ("last words", Vec::new()),
        }
    }

    fn head(kind: RecordKind, len: u64) -> Vec<u8> {
        let mut head = [0; MAX_HEAD];
        let size = Head { kind, len }.write(&mut head);
        head[..size].to_vec()
    }

    fn bytes_of(kind: RecordKind, bytes: &[u8]) -> Vec<u8> {
        [head(kind, bytes.len() as u64), bytes.to_vec()].concat()
    }

    /// The length of numbers of one byte each, as it stands before their memory.
    fn prefix(bytes: usize) -> [u8; 8] {
        let mut prefix = (bytes as u64).to_le_bytes();
        protocol::put_element(&mut prefix, bytes);
        prefix
    }

    /// Records of each kind that an item may have, some around the length that is short.
    fn outcomes() -> Vec<(Vec<u8>, Read)> {
        let mut all = Vec::new();
        for len in [0, 1, 3, 4, 8, 63, 64, 65, 600, 1500] {
            let bytes: Vec<u8> = (0..len).map(|it| it as u8).collect();
            let value = bytes_of(RecordKind::Value, &bytes);
            all.push((value, ("value", bytes.clone())));
            let failure = bytes_of(RecordKind::Failure, &bytes);
            all.push((failure, ("failure", bytes.clone())));
            let offer = bytes_of(RecordKind::SharedResult, &bytes);
            all.push((offer, ("offer", bytes.clone())));
            let emitted = bytes_of(RecordKind::Emitted, &bytes);
            all.push((emitted, ("emitted", bytes.clone())));
            let emitted = bytes_of(RecordKind::SharedEmitted, &bytes);
            all.push((emitted, ("emitted offer", bytes)));
        }
        let numbers = [&prefix(LARGE_BYTES)[..], &[7; LARGE_BYTES]].concat();
        let mut expected = numbers.clone();
        expected[..8].copy_from_slice(&(LARGE_BYTES as u64).to_le_bytes());
        let bulk = bytes_of(RecordKind::Bulk, &numbers);
        all.push((bulk, ("bulk", expected)));
        all
    }

    #[test]
    fn each_record_is_read_however_it_comes() {
        for (written, expected) in outcomes() {
            for piece in [1, 2, 3, 5, 7, 64, 511, 1000, 2000] {
                let mut rig = Rig::new();
                // So that it also lies across the end of the ring.
                for _ in 0..7 {
                    let mut all = Vec::new();
                    for part in written.chunks(piece) {
                        rig.write(part);
                        all.extend(rig.read(STREAM).expect("it is what is due"));
                    }
                    let is_it = all == [expected.clone()];
                    assert!(is_it, "{} of {}, by {piece}", expected.0, written.len());
                    assert_eq!(rig.reader.memory(), 0, "nothing is left of it");
                }
            }
        }
    }

    #[test]
    fn nothing_is_read_before_all_of_it_is_there() {
        for (written, _) in outcomes() {
            for end in 0..written.len().min(200) {
                let mut rig = Rig::new();
                rig.write(&written[..end]);
                let found = rig.read(STREAM);
                assert_eq!(found, Ok(Vec::new()), "{end} of {}", written.len());
            }
        }
    }

    #[test]
    fn only_what_is_due_is_read() {
        let timing = [9; ItemTiming::BYTES];
        for (kind, bytes, wanted) in [
            (
                RecordKind::Value,
                &[1; 8][..],
                &[OUTCOME, MEASURED, STREAM][..],
            ),
            (RecordKind::Failure, &[1; 8], &[OUTCOME, MEASURED, STREAM]),
            (
                RecordKind::SharedResult,
                &[1; 8],
                &[OUTCOME, MEASURED, STREAM],
            ),
            (RecordKind::Emitted, &[1; 8], &[STREAM]),
            (RecordKind::Emitted, &[], &[STREAM]),
            (RecordKind::SharedEmitted, &[1; 8], &[STREAM]),
            (RecordKind::Time, &[1; 8], &[Due::Time]),
            (RecordKind::Time, &timing, &[MEASURED]),
            (RecordKind::Time, &[], &[]),
            (RecordKind::Time, &[1; 7], &[]),
            (RecordKind::Time, &[1; 9], &[]),
            // Too short for a bulk value.
            (RecordKind::Bulk, &[1; 16], &[]),
        ] {
            for due in ALL_DUE {
                let mut rig = Rig::new();
                rig.write(&bytes_of(kind, bytes));
                let is_wanted = wanted.contains(&due) || due == Due::LastWords;
                let found = rig.read(due);
                let len = bytes.len();
                assert_eq!(found.is_ok(), is_wanted, "{kind:?} of {len} for {due:?}");
                if due == Due::LastWords {
                    assert_eq!(found, Ok(vec![("last words", Vec::new())]), "{kind:?}");
                }
            }
        }
    }

    /// There may be no end to what follows such a head, so nothing of it is waited for.
    #[test]
    fn a_length_beyond_what_may_be_is_refused_at_the_head() {
        const LIMIT: u64 = 1 << 20;
        for (kind, longest) in [
            (RecordKind::Value, LIMIT),
            (RecordKind::Bulk, LIMIT),
            (RecordKind::SharedResult, LIMIT + MAX_OFFERED_BYTES),
            (RecordKind::Failure, MAX_FAILURE_BYTES),
            (RecordKind::Emitted, LIMIT),
            (RecordKind::SharedEmitted, LIMIT + MAX_OFFERED_BYTES),
        ] {
            for (len, is_read) in [
                (longest, true),
                (longest + 1, false),
                (u64::MAX >> 2, false),
            ] {
                let mut rig = Rig::new();
                rig.reader.limit_results(LIMIT);
                rig.write(&head(kind, len));
                let expected = if is_read {
                    Ok(Vec::new())
                } else {
                    Err(Corrupt)
                };
                assert_eq!(rig.read(STREAM), expected, "{kind:?} of {len}");
            }
        }
    }

    /// Memory grows with what arrives, not with what is announced.
    #[test]
    fn an_endless_record_takes_no_memory_before_it_comes() {
        for kind in [
            RecordKind::Value,
            RecordKind::SharedResult,
            RecordKind::Emitted,
            RecordKind::SharedEmitted,
        ] {
            let mut rig = Rig::new();
            rig.write(&head(kind, u64::MAX >> 2));
            for arrived in 1..50 {
                rig.write(&[7; 1000]);
                assert_eq!(rig.read(STREAM), Ok(Vec::new()));
                let memory = rig.reader.memory();
                assert!(memory <= 2000 * arrived + AHEAD as usize, "{memory}");
            }
        }
    }

    /// A finalizer may say what it likes, for as long as it likes.
    #[test]
    fn last_words_take_no_memory_however_long_they_are() {
        for kind in [RecordKind::Value, RecordKind::Failure, RecordKind::Bulk] {
            let mut rig = Rig::new();
            rig.write(&head(kind, 1 << 40));
            rig.write(&prefix(8));
            for _ in 0..50 {
                rig.write(&[7; 1000]);
                assert_eq!(rig.read(Due::LastWords), Ok(Vec::new()));
                assert_eq!(rig.reader.memory(), 0);
            }
        }
    }

    #[test]
    fn numbers_of_no_size_are_refused() {
        for element in [0, 3, 5, 17, 255] {
            let mut rig = Rig::new();
            rig.write(&head(RecordKind::Bulk, LARGE_BYTES as u64));
            rig.write(&[1, 0, 0, 0, 0, 0, 0, element]);
            assert_eq!(rig.read(OUTCOME), Err(Corrupt), "{element}");
        }
    }

    #[test]
    fn what_was_put_back_comes_next_again() {
        for (kind, name) in [
            (RecordKind::SharedResult, "offer"),
            (RecordKind::SharedEmitted, "emitted offer"),
        ] {
            let mut rig = Rig::new();
            rig.write(&bytes_of(kind, &[5; 100]));
            rig.write(&bytes_of(RecordKind::Value, &[6]));
            let Rig { reader, ring, .. } = &mut rig;
            assert!(matches!(
                reader.long(ring, STREAM),
                Ok(Step::Part { more: true })
            ));
            for _ in 0..3 {
                assert!(matches!(reader.short(ring, STREAM), Ok(None)));
                let Ok(Step::Offer(offer)) = reader.long(ring, STREAM) else {
                    panic!("it is an offer");
                };
                assert_eq!(offer.record.as_slice(), [5; 100]);
                reader.put_back(offer);
            }
            let all = [(name, vec![5; 100]), ("value", vec![6])];
            assert_eq!(rig.read(STREAM), Ok(all.to_vec()));
        }
    }

    /// Values of one size are taken together, and nothing else is.
    #[test]
    fn a_run_ends_before_what_is_no_value_of_that_size() {
        let value = bytes_of(RecordKind::Value, &[3; 8]);
        for (behind, name) in [
            (Vec::new(), "nothing"),
            (bytes_of(RecordKind::Value, &[3; 7]), "a shorter value"),
            (bytes_of(RecordKind::Value, &[3; 9]), "a longer value"),
            (bytes_of(RecordKind::Failure, &[3; 8]), "a failure"),
            (bytes_of(RecordKind::Time, &[3; 8]), "a time"),
            (value[..11].to_vec(), "a part of one"),
        ] {
            for count in [0, 1, 7, 8, 9, 71, 72, 73, 200] {
                let mut rig = Rig::new();
                rig.write(&value);
                rig.write(&value.repeat(count));
                rig.write(&behind);
                let Rig { reader, ring, .. } = &mut rig;
                let first = reader.short(ring, OUTCOME).map(|it| it.map(read));
                assert_eq!(first, Ok(Some(("value", vec![3; 8]))));
                let mut records = Buffer::default();
                let taken = reader.run(ring, 500, &mut records);
                assert_eq!(taken as usize, count, "{count} before {name}");
                assert_eq!(records[..], value.repeat(count), "{count} before {name}");
                assert_eq!(ring.seen(), behind.len(), "{count} before {name}");
            }
        }
    }

    /// The worker may write more values than it was given items.
    #[test]
    fn a_run_is_no_longer_than_what_is_open() {
        let value = bytes_of(RecordKind::Value, &[3; 8]);
        for open in [0, 1, 8, 9, 50] {
            let mut rig = Rig::new();
            rig.write(&value.repeat(100));
            let Rig { reader, ring, .. } = &mut rig;
            assert!(matches!(reader.short(ring, OUTCOME), Ok(Some(_))));
            let mut records = Buffer::default();
            assert_eq!(reader.run(ring, open, &mut records), open);
            assert_eq!(ring.seen(), (99 - open as usize) * value.len());
        }
    }
}
