//! Handles of calls that run in the background.

mod map;
mod pending;
mod result_cell;
mod task;
mod watch;

pub use map::MapHandle;
pub(crate) use pending::Pending;
pub(crate) use result_cell::{Collector, ResultCell, SingleResult};
pub use task::TaskHandle;

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::observe::task_metrics::TaskMetrics;
use crate::panic::catch::catch;
use crate::panic::report::PanicReport;
use crate::sys;
use crate::task::bytes::Bytes;
use crate::task::chunk::{ChunkOutcome, Outcomes};

/// A worker's encoded result as a value.
fn decode<R: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<R, TaskError> {
    guarded(|| codec::decode(bytes))
}

/// The same of bytes that need not be in one piece.
fn decode_bytes<R: DeserializeOwned + 'static>(bytes: &Bytes) -> Result<R, TaskError> {
    decode(&bytes.to_slice().map_err(|error| undecodable(&error))?)
}

/// The same where the value may have the memory of the bytes.
fn decode_owned<R: DeserializeOwned + 'static>(bytes: Bytes) -> Result<R, TaskError> {
    match bytes.into_bulk() {
        Ok((prefix, memory)) => guarded(|| codec::decode_bulk(prefix, memory)),
        Err(bytes) => decode_bytes(&bytes),
    }
}

fn guarded<R>(decode: impl FnOnce() -> Result<R, codec::CodecError>) -> Result<R, TaskError> {
    catch(decode)
        .map_err(panicked)
        .and_then(|value| value.map_err(|error| undecodable(&error)))
}

/// Where the outcomes of many items go, in their order.
pub(crate) trait Receiver<R> {
    fn put(&mut self, outcome: Result<R, TaskError>);

    /// The same for many that succeeded.
    fn put_values(&mut self, values: impl ExactSizeIterator<Item = R>);
}

impl<R> Receiver<R> for Vec<Result<R, TaskError>> {
    fn put(&mut self, outcome: Result<R, TaskError>) {
        self.push(outcome);
    }

    fn put_values(&mut self, values: impl ExactSizeIterator<Item = R>) {
        self.extend(values.map(Ok));
    }
}

/// For how many bytes of values room is made beforehand. As long as it is not touched it takes
/// addresses, not memory.
const MAX_ROOM: usize = 1 << 30;

/// All values, or the first error.
pub(crate) struct AllOrFirst<R>(Result<Vec<R>, TaskError>);

impl<R> AllOrFirst<R> {
    /// With room for this many values, unless that is more than there could be: an iterator may
    /// claim anything.
    pub(crate) fn with_capacity(count: usize) -> Self {
        let mut values = Vec::new();
        if count <= MAX_ROOM / size_of::<R>().max(1) && values.try_reserve_exact(count).is_ok() {
            sys::expect_use(values.spare_capacity_mut());
        }
        Self(Ok(values))
    }

    pub(crate) fn into_result(self) -> Result<Vec<R>, TaskError> {
        self.0
    }
}

impl<R> Receiver<R> for AllOrFirst<R> {
    #[inline]
    fn put(&mut self, outcome: Result<R, TaskError>) {
        if let Ok(values) = &mut self.0 {
            match outcome {
                Ok(value) => values.push(value),
                Err(error) => self.0 = Err(error),
            }
        }
    }

    fn put_values(&mut self, values: impl ExactSizeIterator<Item = R>) {
        if let Ok(all) = &mut self.0 {
            all.extend(values);
        }
    }
}

/// Gives the value or error of each item of a chunk's outcome to `receiver`.
pub(crate) fn decode_all<R: DeserializeOwned + 'static>(
    piece: &ChunkOutcome,
    receiver: &mut impl Receiver<R>,
) {
    if let Some(size) = codec::number_size::<R>()
        && let Some(numbers) = piece.values_of(size)
    {
        receiver.put_values(numbers.map(|bytes| {
            codec::read_number(bytes).expect("a number, and as many bytes as it has")
        }));
        return;
    }
    let mut next = piece.first;
    // Once more for each item whose deserialisation panics, from behind that item.
    while let Err(panic) = catch(|| {
        piece.visit(next, |index, outcome| {
            next = index + 1;
            let value = outcome
                .and_then(|bytes| codec::decode::<R>(bytes).map_err(|error| undecodable(&error)));
            receiver.put(value.map_err(|error| error.at_index(index)));
        });
    }) {
        receiver.put(Err(panicked(panic).at_index(next - 1)));
    }
}

/// Gives the outcome of each item of a chunk's outcome to `put`, with its index and its metrics.
pub(crate) fn decode_measured<R: DeserializeOwned + 'static>(
    piece: Arc<ChunkOutcome>,
    mut put: impl FnMut(usize, Result<R, TaskError>, TaskMetrics),
) {
    // A single large value is taken, not copied.
    match Arc::try_unwrap(piece) {
        // An outcome of one item may be what was left of a larger one, and its outcome among
        // several.
        Ok(piece) if matches!(piece.outcomes, Outcomes::One(_)) => {
            let (index, mut receipt) = (piece.first, piece.task_metrics(piece.first));
            let bytes = piece.into_single();
            let outcome = timed(&mut receipt, || bytes.and_then(decode_owned));
            put(index, outcome, receipt);
        }
        piece => {
            let piece = piece.map_or_else(|shared| shared, Arc::new);
            piece.visit(piece.first, |index, outcome| {
                let mut receipt = piece.task_metrics(index);
                let outcome = timed(&mut receipt, || outcome.and_then(decode));
                put(index, outcome, receipt);
            });
        }
    }
}

fn timed<T>(receipt: &mut TaskMetrics, decode: impl FnOnce() -> T) -> T {
    let start = sys::now_ns();
    let value = decode();
    receipt.decode += Duration::from_nanos(sys::now_ns() - start);
    value
}

#[cold]
fn undecodable(error: &codec::CodecError) -> TaskError {
    TaskError::new(
        TaskErrorKind::Decode,
        format!("cannot deserialise the result: {error}"),
    )
}

#[cold]
fn panicked(panic: PanicReport) -> TaskError {
    TaskError::panicked(TaskErrorKind::Decode, "the result's deserialisation", panic)
}
