//! A record from a worker, on its way to the outcomes.

use super::drained::Drained;
use super::peer::Peer;
use super::scheduler::Scheduler;
use super::slot_id::SlotId;
use crate::codec::{CodecError, Memory};
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::process::worker_info::WorkerInfo;
use crate::shm::item_timing::ItemTiming;
use crate::shm::protocol::RecordKind;
use crate::shm::ring::Corrupt;
use crate::sys;
use crate::task::chunk::{Chunk, Outcomes, reported};

/// The bytes of a whole record.
pub(super) enum RecordBytes<'a> {
    /// Where they were copied to first.
    Small(&'a [u8]),
    Owned(Vec<u8>),
    /// The length that stands before the memory of a bulk value, and that.
    Bulk([u8; 8], Memory),
    /// Of a result that came with an offer, or why that could not be had.
    Offered(Result<Vec<u8>, TaskError>),
}

impl RecordBytes<'_> {
    pub(super) fn len(&self) -> u64 {
        let prefix = if let Self::Bulk(prefix, _) = self {
            prefix.len()
        } else {
            0
        };
        (prefix + self.as_slice().len()) as u64
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Owned(bytes) | Self::Offered(Ok(bytes)) => bytes,
            Self::Bulk(_, memory) => memory.as_slice(),
            Self::Offered(Err(_)) => &[],
        }
    }
}

/// Books one whole record.
#[inline]
pub(super) fn accept(
    slot: SlotId,
    peer: Peer<'_>,
    scheduler: &mut Scheduler<Chunk>,
    drained: &mut Drained,
    kind: RecordKind,
    bytes: RecordBytes<'_>,
) -> Result<(), Corrupt> {
    if scheduler.is_retiring(slot) {
        // Of the finalizer, whose outcome is nobody's.
        return Ok(());
    }
    if kind == RecordKind::Time {
        if let Some(measure) = ItemTiming::read(bytes.as_slice()) {
            let open = scheduler.open_items(slot);
            let item_metrics = scheduler.item_metrics_mut(slot).filter(|_| open > 0);
            let item_metrics = item_metrics.ok_or(Corrupt)?;
            let measure = measure.within(item_metrics.submitted, sys::now_ns());
            return item_metrics.expect(measure).then_some(()).ok_or(Corrupt);
        }
        let time: [u8; 8] = bytes.as_slice().try_into().map_err(|_| Corrupt)?;
        let took_ns = u64::from_le_bytes(time);
        let done = scheduler.load_done(slot, took_ns).ok_or(Corrupt)?;
        drained.finished.push((done, took_ns));
        return Ok(());
    }
    if !scheduler.item_done(slot) {
        return Err(Corrupt);
    }
    if let Some(item_metrics) = scheduler.item_metrics_mut(slot) {
        let result_bytes = if kind == RecordKind::Failure {
            0
        } else {
            bytes.len()
        };
        if !item_metrics.ended(Some(peer.info), result_bytes) {
            return Err(Corrupt);
        }
    }
    let outcomes = scheduler.outcomes_mut(slot).ok_or(Corrupt)?;
    match (kind, bytes) {
        (RecordKind::Value, RecordBytes::Owned(bytes)) | (_, RecordBytes::Offered(Ok(bytes)))
            if matches!(outcomes, Outcomes::One(_)) =>
        {
            *outcomes = Outcomes::One(Some(Ok(bytes.into())));
        }
        (_, RecordBytes::Offered(Err(error))) => outcomes.push_error(error),
        (_, RecordBytes::Bulk(prefix, memory)) => outcomes.push_bulk(prefix, memory),
        (RecordKind::Value | RecordKind::SharedResult, bytes) => {
            outcomes.push_value(bytes.as_slice());
        }
        (_, bytes) => {
            let error = reported(bytes.as_slice());
            outcomes.push_error(error.with_worker(peer.info.clone()));
        }
    }
    Ok(())
}

#[cold]
pub(super) fn no_memory(bytes: u64, worker: &WorkerInfo) -> TaskError {
    let error = CodecError::no_memory(bytes);
    let message = format!("the result cannot be taken: {error}");
    TaskError::new(TaskErrorKind::Decode, message).with_worker(worker.clone())
}
