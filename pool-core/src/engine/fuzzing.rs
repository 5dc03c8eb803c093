//! A worker that writes anything into its region, at any time, as an input says.

use std::sync::{Arc, OnceLock, PoisonError};

use super::booking::{Booking, Drained};
use super::parent_channel::ParentChannel;
use super::peer::Peer;
use super::record_reader::{Due, Offering, Record, RecordReader, Step};
use super::scheduler::Scheduler;
use super::slot_id::SlotId;
use super::work::Delivery;
use crate::codec::AHEAD;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::fuzzing::Input;
use crate::observe::stats::Stats;
use crate::process::worker_info::WorkerInfo;
use crate::shm::buffer::Buffer;
use crate::shm::protocol::{Head, MAX_HEAD, RecordKind, append_item};
use crate::shm::region::{Region, RingSizes};
use crate::shm::ring::{Consumer, Corrupt, Producer};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::sys;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::task::bytes::Bytes;
use crate::task::call_id::CallId;
use crate::task::chunk::Chunk;
use crate::task::chunk_outcome::{ChunkOutcome, CompletionSink};
use crate::task::emissions::Emissions;
use crate::worker::function::FunctionId;

/// The capacity of each ring, the smallest that there is.
const BYTES: usize = 4096;
const RINGS: RingSizes = RingSizes::both(BYTES);
const SLOT: SlotId = SlotId::new(0);
/// Chunks of this many items are measured.
const MEASURED: usize = 11;
/// Chunks of this many may emit values, of which so many may be unread.
const EMITTING: usize = 1;
const UNREAD: u32 = 4;
/// The most items that one input makes.
const MAX_ITEMS: usize = 2000;

/// Lets a worker do what the input says to its region, while the parent hands it chunks, takes
/// them back, and drains.
///
/// # Panics
/// When an item has not exactly one outcome in the end, or the parent keeps more memory than
/// bytes have arrived.
pub fn drain(input: &[u8]) {
    let mut input = Input(input);
    let max_tasks = match input.byte() {
        0 => None,
        tasks => Some(u64::from(tasks)),
    };
    let mut rig = Rig::new(max_tasks);
    while !input.is_empty() {
        if rig.step(&mut input) == Err(Corrupt) {
            // As after a protocol violation: the records are not worth reading.
            rig.on_exit(false);
        }
    }
    rig.on_exit(true);
    rig.finish();
}

/// Has the reader of records read what the input says, with what it says is due. Nothing is
/// booked: whatever is read must be of the kind that was due, and no longer than what was written.
///
/// # Panics
/// When it is not, or the reader keeps more memory than bytes have arrived.
pub fn records(input: &[u8]) {
    let mut input = Input(input);
    let (region, _, mut worker) = launch();
    let mut ring = Consumer::responses(region, RINGS);
    let mut reader = RecordReader::new(BYTES / 8);
    let mut arrived = 0;
    let mut due = Due::Nothing;
    while !input.is_empty() {
        let next = match input.byte() % 8 {
            0 => Due::Nothing,
            1 => Due::Time,
            2 => Due::LastWords,
            next => Due::Outcome {
                is_measured: next == 3,
                may_emit: next == 7,
            },
        };
        if reader.is_at_head() {
            due = next;
        }
        let count = usize::from(input.byte()) << 2;
        arrived += worker.put(input.bytes(count)).expect("nobody lies");
        worker.publish();
        ring.available().expect("nobody lies");
        if read_all(&mut reader, &mut ring, due, input.byte()) == Err(Corrupt) {
            return;
        }
        ring.release();
        assert!(
            reader.memory() <= 2 * arrived + AHEAD as usize,
            "memory grows with what arrives"
        );
    }
}

fn read_all(
    reader: &mut RecordReader,
    ring: &mut Consumer,
    due: Due,
    open: u8,
) -> Result<(), Corrupt> {
    let is_outcome = matches!(due, Due::Outcome { .. });
    loop {
        let seen = ring.seen();
        if let Some(record) = reader.short(ring, due)? {
            check(&record, due);
            assert!(ring.seen() < seen, "something was taken");
            let mut records = Buffer::default();
            let count = reader.run(ring, u32::from(open), &mut records);
            assert!(count <= u32::from(open), "no more than are open");
            assert!(records.len() >= 4 * count as usize, "each has a head");
            continue;
        }
        match reader.long(ring, due)? {
            Step::End | Step::Part { more: false } => return Ok(()),
            Step::Part { more: true } => assert!(ring.seen() < seen, "something was taken"),
            Step::Record(record) => check(&record, due),
            Step::Offer(Offering {
                kind: RecordKind::SharedResult,
                ..
            }) => assert!(is_outcome, "not for {due:?}"),
            Step::Offer(_) | Step::Emitted(_) => {
                let may_emit = matches!(due, Due::Outcome { may_emit: true, .. });
                assert!(may_emit, "not for {due:?}");
            }
        }
    }
}

/// It is of a kind that was due.
fn check(record: &Record<'_>, due: Due) {
    let is_due = match record {
        Record::LastWords => due == Due::LastWords,
        Record::Time(_) => due == Due::Time,
        Record::Timing(_) => matches!(
            due,
            Due::Outcome {
                is_measured: true,
                ..
            }
        ),
        Record::Value(_) | Record::Failure(_) | Record::Bulk(..) | Record::NoMemory(_) => {
            matches!(due, Due::Outcome { .. })
        }
    };
    assert!(is_due, "{record:?} for {due:?}");
}

struct Rig {
    region: Arc<Region>,
    channel: ParentChannel,
    worker: Producer,
    scheduler: Scheduler<Chunk>,
    info: WorkerInfo,
    item_metrics: Arc<ItemMetrics>,
    /// Where the values of items go that emit some.
    emissions: Vec<Arc<Emissions>>,
    items: usize,
    drains: usize,
    max_tasks: Option<u64>,
}

impl Rig {
    fn new(max_tasks: Option<u64>) -> Self {
        let (region, channel, worker) = launch();
        let mut scheduler = Scheduler::new(1, max_tasks);
        scheduler.up(SLOT);
        Self {
            region,
            channel,
            worker,
            scheduler,
            info: WorkerInfo::new(1, 0, 1),
            item_metrics: Arc::default(),
            emissions: Vec::new(),
            items: 0,
            drains: 0,
            max_tasks,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) -> Result<(), Corrupt> {
        let words = self.region.words();
        match input.byte() % 17 {
            // The worker, as a worker would.
            0 => {
                let count = usize::from(input.byte());
                let bytes = input.bytes(count);
                self.write(bytes);
            }
            1 => {
                let kind = match input.byte() % 10 {
                    7 | 8 => RecordKind::Emitted,
                    9 => RecordKind::SharedEmitted,
                    0 => RecordKind::Failure,
                    1 => RecordKind::Time,
                    2 => RecordKind::Bulk,
                    6 => RecordKind::SharedResult,
                    _ => RecordKind::Value,
                };
                let count = usize::from(input.byte());
                self.record(kind, input.bytes(count));
            }
            2 => self.write(&[input.byte(); BYTES]),
            3 => self.record(RecordKind::Time, &input.word().to_le_bytes()),
            4 => {
                let read = words.request_tail.load(Ordering::Relaxed);
                words.request_head.store(read, Ordering::Relaxed);
            }
            5 => {
                // A record that is longer than what follows.
                let len = input.word();
                let mut head = [0; MAX_HEAD];
                let kind = RecordKind::Value;
                let size = Head { kind, len }.write(&mut head);
                self.write(&head[..size]);
            }
            // The worker, as it should not.
            6 => lie(&words.response_tail, input),
            7 => lie(&words.request_head, input),
            8 => lie(&words.progress.staged, input),
            9 => self.region.lie_about_begun(input.word()),
            10 => {
                let begun = self.region.items_begun();
                let step = i64::from(input.byte().cast_signed());
                self.region.lie_about_begun(begun.wrapping_add_signed(step));
            }
            // The parent.
            11 | 12 => return self.drain(),
            13 => return self.hand(input),
            14 => {
                if !self.scheduler.is_reclaimed(SLOT) {
                    let begun = self.region.begin_reclaim();
                    self.scheduler.reclaimed_up_to(SLOT, begun);
                }
                let _ = self.scheduler.frozen_item(SLOT);
            }
            15 => {
                if let Some(emissions) = self.emissions.last() {
                    let _ = emissions.next();
                }
            }
            _ => {
                let drain = input.byte().is_multiple_of(2);
                self.on_exit(drain);
            }
        }
        Ok(())
    }

    /// Puts bytes into the response ring and publishes them.
    fn write(&mut self, bytes: &[u8]) {
        // As much as there is space for. The parent does not lie about that.
        let _ = self.worker.put(bytes);
        self.worker.publish();
        let staged = &self.region.words().progress.staged;
        staged.store(self.worker.position(), Ordering::Relaxed);
    }

    fn record(&mut self, kind: RecordKind, bytes: &[u8]) {
        let mut head = [0; MAX_HEAD];
        let len = bytes.len() as u64;
        let size = Head { kind, len }.write(&mut head);
        self.write(&head[..size]);
        self.write(bytes);
    }

    /// What [`Core`](super::core::Core) does when it looks into a worker's rings.
    fn drain(&mut self) -> Result<(), Corrupt> {
        self.drains += 1;
        let mut drain = Drained::default();
        let taken = self.channel.drain(&mut Booking {
            slot: SLOT,
            peer: Peer::dead(&self.info, None),
            scheduler: &mut self.scheduler,
            drained: &mut drain,
        });
        self.finished(drain);
        taken?;
        self.check_memory();
        let begun = self.region.items_begun();
        if let Some(item) = self.scheduler.running_item(SLOT, begun) {
            let _ = self.scheduler.unit_of(SLOT, item);
        }
        if self.channel.send_on(socket())? {
            self.scheduler.unchoke(SLOT);
        }
        if self.scheduler.is_reclaimed(SLOT) && self.channel.is_drained()? {
            self.scheduler.finish_reclaim(SLOT);
            self.region.finish_reclaim();
        }
        Ok(())
    }

    fn finished(&self, drain: Drained) {
        for (flight, took) in drain.finished {
            let done = flight.into_done();
            deliver(Delivery::new(done, took));
        }
        for emissions in &self.emissions {
            assert!(emissions.unread() <= UNREAD as usize, "no more than may be");
        }
    }

    fn check_memory(&self) {
        let arrived = self.drains * BYTES;
        assert!(
            self.channel.memory() <= 2 * arrived + AHEAD as usize,
            "memory grows with what arrives"
        );
    }

    /// Hands out a chunk: a new one, or what was taken back.
    fn hand(&mut self, input: &mut Input<'_>) -> Result<(), Corrupt> {
        let shape = input.byte();
        let count = usize::from(shape % 12);
        let length = usize::from(input.byte()) << (shape / 64 * 2);
        if count > 0 && self.items + count <= MAX_ITEMS {
            let chunk = self.chunk(count, &vec![shape; length]);
            self.scheduler.submit(chunk);
        }
        let mut abandoned = Vec::new();
        while self.scheduler.assign(&mut abandoned).is_some() {
            let chunk = self.scheduler.newest(SLOT).expect("it was just assigned");
            let all = self.channel.put(chunk, 0, socket())?;
            self.channel.publish();
            if !all {
                self.scheduler.choke(SLOT);
            }
        }
        Ok(())
    }

    fn chunk(&mut self, count: usize, item: &[u8]) -> Chunk {
        let mut items = Vec::new();
        for _ in 0..count {
            let appended = append_item(&mut items, |out| {
                out.extend_from_slice(item);
                Ok::<(), ()>(())
            });
            appended.expect("nothing fails");
        }
        let first = self.items;
        self.items += count;
        self.item_metrics.lock().resize(self.items, 0);
        let (function, items) = (FunctionId::of_nothing(), Bytes::from(items));
        let few = u32::try_from(count).expect("few");
        let mut chunk = Chunk::new(function, first, few, items, self.item_metrics.clone());
        chunk.attended = true;
        // Some are measured, and some emit values.
        if count == MEASURED {
            chunk.measure();
        }
        if count == EMITTING {
            let emissions = Arc::new(Emissions::new(UNREAD));
            self.emissions.push(emissions.clone());
            chunk.emit_to(emissions);
        }
        chunk
    }

    /// The worker is dead, and another one comes.
    fn on_exit(&mut self, drain_remains: bool) {
        if drain_remains {
            self.drains += 2;
            let mut drain = Drained::default();
            let _ = self.channel.drain_remains(&mut Booking {
                slot: SLOT,
                peer: Peer::dead(&self.info, None),
                scheduler: &mut self.scheduler,
                drained: &mut drain,
            });
            self.finished(drain);
            self.check_memory();
        }
        let salvaged = self.scheduler.down(SLOT, self.region.items_begun());
        for done in salvaged.finished {
            deliver(Delivery::new(done, 0));
        }
        if let Some(lost) = salvaged.lost {
            assert_eq!(lost.count(), 1, "one item is lost at most");
            deliver(Delivery::failed(lost, lost_error()));
        }
        (self.region, self.channel, self.worker) = launch();
        self.scheduler.up(SLOT);
        self.drains = 0;
    }

    /// Everything that was not run fails. After that each item must have had its outcome.
    fn finish(mut self) {
        assert_eq!(self.scheduler.busy(), 0);
        let queued: Vec<Chunk> = self.scheduler.drain_queue().collect();
        for chunk in queued {
            deliver(Delivery::failed(chunk, lost_error()));
        }
        let outcomes = self.item_metrics.lock();
        assert!(
            outcomes.iter().all(|count| *count == 1),
            "each item once: {outcomes:?} (at most {:?} tasks)",
            self.max_tasks
        );
    }
}

/// By which nothing is passed: these chunks have no descriptors.
fn socket() -> BorrowedFd<'static> {
    static PAIR: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();
    let (ours, _) = PAIR.get_or_init(|| sys::packet_pair().expect("descriptors"));
    ours.as_fd()
}

fn launch() -> (Arc<Region>, ParentChannel, Producer) {
    let (region, _file) = Region::create(Region::bytes_for(RINGS)).expect("memory");
    region.introduce(1, 0, RINGS);
    let region = Arc::new(region);
    let channel = ParentChannel::new(region.clone(), RINGS);
    let worker = Producer::responses(region.clone(), RINGS);
    (region, channel, worker)
}

/// Writes a position that is near the true one, or anything.
fn lie(word: &AtomicU64, input: &mut Input<'_>) {
    let now = word.load(Ordering::Relaxed);
    let lie = match input.byte() {
        255 => input.word(),
        254 => now.wrapping_add(BYTES as u64),
        step => now.wrapping_add_signed(i64::from(step.cast_signed())),
    };
    word.store(lie, Ordering::Relaxed);
}

fn lost_error() -> TaskError {
    TaskError::new(TaskErrorKind::WorkerLost, "lost")
}

fn deliver(delivery: Option<Delivery>) {
    if let Some(delivery) = delivery {
        delivery.count_in(&mut Stats::default());
        delivery.deliver();
    }
}

/// How many outcomes each item has had.
#[derive(Default)]
struct ItemMetrics(Mutex<Vec<u32>>);

impl ItemMetrics {
    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CompletionSink for ItemMetrics {
    fn call(&self) -> CallId {
        CallId::NOBODY
    }

    fn complete(&self, part: ChunkOutcome) {
        let mut outcomes = self.lock();
        part.visit(0, |index, outcome| {
            outcomes[index] += 1;
            // Whatever the worker says of times, they can be added up.
            let metrics = part.task_metrics(index);
            let _ = metrics.queued.unwrap_or_default()
                + metrics.run.unwrap_or_default()
                + metrics.encode
                + metrics.decode;
            if let Ok(bytes) = outcome {
                let _ = crate::codec::decode::<Vec<(u8, Option<String>)>>(bytes);
            }
        });
        drop(part.into_single());
    }

    fn is_abandoned(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shm::item_timing::ItemTiming;
    use crate::task::emissions::Next;

    proptest! {
        #[test]
        fn any_bytes_are_read(input in proptest::collection::vec(any::<u8>(), 0..3000)) {
            records(&input);
        }
    }

    fn head(kind: RecordKind, len: u64) -> Vec<u8> {
        let mut head = [0; MAX_HEAD];
        let size = Head { kind, len }.write(&mut head);
        head[..size].to_vec()
    }

    /// An answer that nobody waits for is refused at its head; nobody knows when it would end.
    #[test]
    fn what_nobody_has_asked_for_takes_no_memory() {
        for (kind, len) in [
            (RecordKind::Value, u64::MAX),
            (RecordKind::Failure, 1 << 40),
            (RecordKind::Time, u64::MAX),
            (RecordKind::Emitted, 1 << 40),
            (RecordKind::SharedEmitted, 1 << 40),
        ] {
            let mut rig = Rig::new(None);
            rig.write(&head(kind, len));
            assert_eq!(rig.drain(), Err(Corrupt), "{kind:?}");
            assert_eq!(rig.channel.memory(), 0);
        }
    }

    /// Values that are taken together have their outcomes as those that are taken one by one.
    #[test]
    fn every_value_of_a_chunk_is_booked() {
        for count in [1, 2, 9, 10, 100] {
            let mut rig = Rig::new(None);
            let chunk = rig.chunk(count, &[]);
            rig.scheduler.submit(chunk);
            assert_eq!(rig.scheduler.assign(&mut Vec::new()), Some(SLOT));
            for _ in 0..count {
                rig.record(RecordKind::Value, &[7; 8]);
            }
            rig.record(RecordKind::Time, &[0; 8]);
            assert_eq!(rig.drain(), Ok(()), "{count}");
            assert!(!rig.scheduler.is_busy(SLOT), "{count}");
            rig.finish();
        }
    }

    /// A chunk of one item that may emit values was handed out.
    fn emitting() -> Rig {
        let mut rig = Rig::new(None);
        let chunk = rig.chunk(EMITTING, &[]);
        rig.scheduler.submit(chunk);
        assert_eq!(rig.scheduler.assign(&mut Vec::new()), Some(SLOT));
        rig
    }

    /// What a task emits is taken as far as it may be, and before its outcome.
    #[test]
    fn values_are_emitted_as_far_as_there_is_credit() {
        let mut rig = emitting();
        for length in [0, 1, 8, 3000] {
            rig.record(RecordKind::Emitted, &vec![7; length]);
            assert_eq!(rig.drain(), Ok(()), "{length}");
        }
        assert_eq!(rig.emissions[0].unread(), UNREAD as usize);
        let too_many = |rig: &mut Rig| {
            rig.record(RecordKind::Emitted, &[7]);
            assert_eq!(rig.drain(), Err(Corrupt), "nobody has read any");
            assert_eq!(rig.channel.memory(), 0);
        };
        too_many(&mut rig);

        let mut rig = emitting();
        for _ in 0..20 {
            for _ in 0..UNREAD {
                rig.record(RecordKind::Emitted, &[7; 100]);
                assert_eq!(rig.drain(), Ok(()));
            }
            for _ in 0..UNREAD {
                assert!(matches!(rig.emissions[0].next(), Next::Value(Ok(_))));
            }
        }
        rig.record(RecordKind::Value, &[7; 8]);
        rig.record(RecordKind::Time, &[0; 8]);
        assert_eq!(rig.drain(), Ok(()));
        rig.record(RecordKind::Emitted, &[7]);
        assert_eq!(rig.drain(), Err(Corrupt), "behind the end");
        rig.finish();

        let mut late = emitting();
        late.record(RecordKind::Value, &[7; 8]);
        late.record(RecordKind::Emitted, &[7]);
        assert_eq!(late.drain(), Err(Corrupt), "behind the outcome");
        let mut unasked = Rig::new(None);
        let chunk = unasked.chunk(2, &[]);
        unasked.scheduler.submit(chunk);
        assert_eq!(unasked.scheduler.assign(&mut Vec::new()), Some(SLOT));
        unasked.record(RecordKind::Emitted, &[7]);
        assert_eq!(unasked.drain(), Err(Corrupt), "nobody has asked for any");
    }

    /// A worker that was asked to measure puts what it measured before each result, and nothing
    /// else.
    #[test]
    fn measures_come_one_before_each_result() {
        let measure = |rig: &mut Rig| rig.record(RecordKind::Time, &[255; ItemTiming::BYTES]);
        let value = |rig: &mut Rig| rig.record(RecordKind::Value, &[7; ItemTiming::BYTES]);
        let measured = || {
            let mut rig = Rig::new(None);
            let chunk = rig.chunk(MEASURED, &[]);
            rig.scheduler.submit(chunk);
            assert_eq!(rig.scheduler.assign(&mut Vec::new()), Some(SLOT));
            rig
        };
        let mut rig = measured();
        for _ in 0..MEASURED {
            measure(&mut rig);
            value(&mut rig);
        }
        rig.record(RecordKind::Time, &[0; 8]);
        assert_eq!(rig.drain(), Ok(()));
        rig.finish();

        let mut none = measured();
        value(&mut none);
        assert_eq!(none.drain(), Err(Corrupt), "a result without a measure");
        let mut second = measured();
        measure(&mut second);
        value(&mut second);
        value(&mut second);
        assert_eq!(second.drain(), Err(Corrupt), "one of several without");
        let mut two = measured();
        measure(&mut two);
        measure(&mut two);
        assert_eq!(two.drain(), Err(Corrupt), "two measures of one item");
        let mut late = measured();
        for _ in 0..MEASURED {
            measure(&mut late);
            value(&mut late);
        }
        measure(&mut late);
        assert_eq!(late.drain(), Err(Corrupt), "a measure of no item");
        let mut unasked = Rig::new(None);
        let chunk = unasked.chunk(2, &[]);
        unasked.scheduler.submit(chunk);
        assert_eq!(unasked.scheduler.assign(&mut Vec::new()), Some(SLOT));
        measure(&mut unasked);
        assert_eq!(unasked.drain(), Err(Corrupt), "nobody has asked for it");
    }

    /// What the finalizer says is for nobody.
    #[test]
    fn last_words_take_no_memory() {
        let mut rig = Rig::new(None);
        rig.scheduler.retiring(SLOT);
        rig.write(&head(RecordKind::Value, 1 << 40));
        for _ in 0..100 {
            rig.write(&[7; 1000]);
            assert_eq!(rig.drain(), Ok(()));
        }
        assert_eq!(rig.channel.memory(), 0);
    }
}
