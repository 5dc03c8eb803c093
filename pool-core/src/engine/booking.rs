//! What the records of a worker mean for the work that it has: each is booked in the scheduler.

use std::sync::Arc;

use super::peer::Peer;
use super::record_reader::{Due, Offering, Payload, Record};
use super::scheduler::Scheduler;
use super::slot_id::SlotId;
use super::work_unit::InFlight;
use crate::broadcast::Belongings;
use crate::codec::CodecError;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::process::worker_info::WorkerInfo;
use crate::shm::buffer::Buffer;
use crate::shm::item_timing::ItemTiming;
use crate::shm::protocol::RecordKind;
use crate::shm::region::Region;
use crate::shm::ring::Corrupt;
use crate::sys;
use crate::task::bytes::Bytes;
use crate::task::chunk::Chunk;
use crate::task::chunk_outcome::{CompletionSink, Outcomes, reported};

/// The records of one worker, on their way to the outcomes.
pub(super) struct Booking<'a> {
    pub(super) slot: SlotId,
    pub(super) peer: Peer<'a>,
    pub(super) scheduler: &'a mut Scheduler<Chunk>,
    pub(super) drained: &'a mut Drained,
}

/// What a look into a response ring brought.
#[derive(Default)]
pub(super) struct Drained {
    /// Something arrived.
    pub(super) news: bool,
    /// Chunks that are done, with the nanoseconds that they took.
    pub(super) finished: Vec<(InFlight<Chunk>, u64)>,
    /// Where values have come that somebody waits for.
    pub(super) awaited: Vec<Arc<dyn CompletionSink>>,
}

impl Booking<'_> {
    /// What the worker owes next.
    #[inline]
    pub(super) fn due(&self) -> Due {
        if self.scheduler.is_retiring(self.slot) {
            return Due::LastWords;
        }
        match self.scheduler.front(self.slot) {
            None => Due::Nothing,
            Some(front) if front.is_done() => Due::Time,
            Some(front) => match &front.unit.ext {
                None => Due::Outcome {
                    is_measured: false,
                    may_emit: false,
                },
                Some(ext) => Due::Outcome {
                    is_measured: ext.item_metrics.is_some(),
                    may_emit: ext.emissions.as_ref().is_some_and(|it| it.has_credit()),
                },
            },
        }
    }

    /// Books one whole record. What was due when its head was read may not be due any more: what
    /// the worker says of its beginnings may have been a lie, and items taken back since.
    #[inline(always)]
    pub(super) fn book(&mut self, record: Record<'_>) -> Result<(), Corrupt> {
        match record {
            Record::Value(bytes) => {
                let outcomes = self.outcome(bytes.as_slice().len())?;
                match bytes {
                    Payload::Owned(bytes) => take_value(outcomes, bytes),
                    Payload::Short(bytes) => outcomes.push_value(bytes),
                }
            }
            Record::Time(took_ns) => {
                let done = self.scheduler.unit_done(self.slot, took_ns);
                self.drained.finished.push((done.ok_or(Corrupt)?, took_ns));
            }
            Record::Timing(timing) => self.timing(timing)?,
            Record::Bulk(prefix, memory) => {
                let bytes = prefix.len() + memory.as_slice().len();
                self.outcome(bytes)?.push_bulk(prefix, memory);
            }
            Record::NoMemory(bytes) => {
                let error = no_memory(bytes, self.peer.info);
                self.outcome(0)?.push_error(error);
            }
            Record::Failure(bytes) => {
                let error = reported(bytes.as_slice()).with_worker(self.peer.info.clone());
                self.outcome(0)?.push_error(error);
            }
            // The outcome of a finalizer is nobody's.
            Record::LastWords => {}
        }
        Ok(())
    }

    /// Books a result, or an emitted value, that comes by this region with an offer of memory or
    /// descriptors, and takes that. Gives it back if the worker is dead, and took with it what it
    /// offered: the item is the one that was lost.
    pub(super) fn book_offer(
        &mut self,
        offer: Offering,
        region: &Arc<Region>,
    ) -> Result<Option<Offering>, Corrupt> {
        let flight = self.scheduler.front_flight_mut(self.slot);
        let flight = flight.filter(|it| !it.is_done()).ok_or(Corrupt)?;
        let number = flight.next_item();
        if flight.unit.is_initializer {
            return Err(Corrupt);
        }
        let mut belongings = Belongings::default();
        let record = offer.record.as_slice();
        let taken = self.peer.take_offering(record, number, &mut belongings)?;
        let Some(taken) = taken else {
            return Ok(Some(offer));
        };
        let taken = taken.map(|length| {
            let mut bytes = offer.record.into_bytes();
            bytes.truncate(length);
            bytes
        });
        if offer.kind == RecordKind::SharedEmitted {
            let value = taken.map(|bytes| Bytes::from(bytes).with(belongings));
            self.emitted(value, region)?;
            return Ok(None);
        }
        if !belongings.is_empty() {
            flight.unit.offered_mut().extend(belongings);
        }
        match taken {
            Ok(bytes) => take_value(self.outcome(bytes.len())?, bytes),
            Err(error) => self.outcome(0)?.push_error(error),
        }
        Ok(None)
    }

    /// Books a value that the running item has emitted, which came by this region. `Err`: it has so
    /// many bytes that there is no memory for them.
    pub(super) fn book_emitted(
        &mut self,
        value: Result<Vec<u8>, u64>,
        region: &Arc<Region>,
    ) -> Result<(), Corrupt> {
        let value = value.map(Bytes::from);
        let value = value.map_err(|bytes| no_memory(bytes, self.peer.info));
        self.emitted(value, region)
    }

    #[cold]
    fn emitted(
        &mut self,
        value: Result<Bytes, TaskError>,
        region: &Arc<Region>,
    ) -> Result<(), Corrupt> {
        let front = self.scheduler.front(self.slot);
        let front = front.filter(|front| !front.is_done()).ok_or(Corrupt)?;
        let item = front.next_item();
        let emissions = front.unit.emissions().ok_or(Corrupt)?;
        if emissions.push(value, region, item).map_err(|_| Corrupt)? {
            self.drained.awaited.extend(front.unit.sink().cloned());
        }
        Ok(())
    }

    /// Where the values of a chunk of many go, and how many may still come. `None`: it has not
    /// many, or each comes behind what was measured of it.
    #[inline]
    pub(super) fn values(&mut self) -> Option<(u32, &mut Buffer)> {
        let flight = self.scheduler.front_flight_mut(self.slot)?;
        let open = flight.open();
        if flight.unit.item_metrics().is_some() {
            return None;
        }
        match &mut flight.outcomes {
            Outcomes::Many(many) => Some((open, &mut many.bytes)),
            Outcomes::One(_) | Outcomes::All(_) => None,
        }
    }

    /// So many values were put there.
    pub(super) fn book_values(&mut self, count: u32) {
        self.scheduler.items_done(self.slot, count);
    }

    /// The next item has an outcome, of so many bytes. Gives the place for that.
    #[inline]
    fn outcome(&mut self, bytes: usize) -> Result<&mut Outcomes, Corrupt> {
        let (chunk, outcomes) = self.scheduler.item_done(self.slot).ok_or(Corrupt)?;
        if let Some(ext) = &mut chunk.ext {
            if let Some(item_metrics) = &mut ext.item_metrics
                && !item_metrics.ended(Some(self.peer.info), bytes as u64)
            {
                return Err(Corrupt);
            }
            if let Some(emissions) = &ext.emissions {
                emissions.leave_worker();
            }
        }
        Ok(outcomes)
    }

    fn timing(&mut self, timing: ItemTiming) -> Result<(), Corrupt> {
        let front = self.scheduler.front_flight_mut(self.slot);
        let front = front.filter(|front| !front.is_done()).ok_or(Corrupt)?;
        let item_metrics = front.unit.item_metrics_mut().ok_or(Corrupt)?;
        let timing = timing.within(item_metrics.submitted, sys::now_ns());
        item_metrics.expect(timing).then_some(()).ok_or(Corrupt)
    }
}

/// The bytes of a value that has memory of its own.
fn take_value(outcomes: &mut Outcomes, bytes: Vec<u8>) {
    if matches!(outcomes, Outcomes::One(_)) {
        *outcomes = Outcomes::One(Some(Ok(bytes.into())));
    } else {
        outcomes.push_value(&bytes);
    }
}

#[cold]
fn no_memory(bytes: u64, worker: &WorkerInfo) -> TaskError {
    let error = CodecError::no_memory(bytes);
    let message = format!("the result cannot be taken: {error}");
    TaskError::new(TaskErrorKind::Decode, message).with_worker(worker.clone())
}
