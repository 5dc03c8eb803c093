//! Outcomes as the caller reads them: decoded, and collected.

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
use crate::task::chunk_outcome::{ChunkOutcome, Outcomes};

/// A worker's encoded result as a value.
fn decode<R: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<R, TaskError> {
    if let Some(number) = codec::read_number(bytes) {
        // Nothing of that can panic.
        return Ok(number);
    }
    guarded(|| codec::decode(bytes))
}

/// The same of bytes that need not be in one piece.
pub(super) fn decode_bytes<R: DeserializeOwned + 'static>(bytes: &Bytes) -> Result<R, TaskError> {
    decode(&bytes.to_slice().map_err(|error| undecodable(&error))?)
}

/// The same where the value may have the memory of the bytes.
pub(super) fn decode_owned<R: DeserializeOwned + 'static>(bytes: Bytes) -> Result<R, TaskError> {
    // A small one stays where it is.
    if !bytes.is_bulk() {
        return decode_bytes(&bytes);
    }
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

/// The outcome of one item as the caller gets it: a `Result`, or a
/// [`Measured`](crate::Measured).
pub trait ItemOutcome: Sized {
    /// That of an item that was not run.
    #[doc(hidden)]
    fn refused(error: TaskError) -> Self;

    /// Puts those of a chunk's items behind those that are there.
    #[doc(hidden)]
    fn read_all(part: Arc<ChunkOutcome>, all: &mut Vec<Self>);

    /// How many bytes a value has, if all of them are numbers and nothing else is given.
    #[doc(hidden)]
    fn number_size() -> Option<usize> {
        None
    }

    /// That of an item whose value is the number with these bytes; nothing if there is no
    /// [`number_size`](Self::number_size), or if that is another.
    #[doc(hidden)]
    fn of_number(_bytes: &[u8]) -> Option<Self> {
        None
    }

    /// Whether it is a value.
    #[doc(hidden)]
    fn is_success(&self) -> bool;
}

impl<R: DeserializeOwned + 'static> ItemOutcome for Result<R, TaskError> {
    fn refused(error: TaskError) -> Self {
        Err(error)
    }

    fn read_all(part: Arc<ChunkOutcome>, all: &mut Vec<Self>) {
        match numbers(&part) {
            Some(values) => all.extend(values.map(Ok)),
            None => decode_each(&part, |outcome| all.push(outcome)),
        }
    }

    #[inline]
    fn number_size() -> Option<usize> {
        codec::number_size::<R>()
    }

    #[inline]
    fn of_number(bytes: &[u8]) -> Option<Self> {
        codec::read_number(bytes).map(Ok)
    }

    fn is_success(&self) -> bool {
        self.is_ok()
    }
}

/// The outcomes of many items as the caller gets them, added in their order.
pub trait Collect: Sized {
    /// None, with room for this many, unless that is more than there could be: an iterator may
    /// claim anything.
    #[doc(hidden)]
    fn with_room(items: usize) -> Self;

    /// Those of a call that cannot be made.
    #[doc(hidden)]
    fn refused(error: TaskError, items: impl Iterator) -> Self;

    /// Adds those of a chunk's items.
    #[doc(hidden)]
    fn add(&mut self, part: Arc<ChunkOutcome>);

    /// The call has ended before all its items had.
    #[doc(hidden)]
    fn fail(&mut self, error: TaskError);

    /// Whether all are values.
    #[doc(hidden)]
    fn is_success(&self) -> bool;
}

/// Each item's own outcome.
impl<T: ItemOutcome> Collect for Vec<T> {
    fn with_room(items: usize) -> Self {
        Self::with_capacity(items.min(1 << 20))
    }

    fn refused(error: TaskError, items: impl Iterator) -> Self {
        items
            .enumerate()
            .map(|(index, _)| T::refused(error.clone().at_index(index)))
            .collect()
    }

    fn add(&mut self, part: Arc<ChunkOutcome>) {
        T::read_all(part, self);
    }

    fn fail(&mut self, error: TaskError) {
        self.push(T::refused(error));
    }

    fn is_success(&self) -> bool {
        self.iter().all(T::is_success)
    }
}

/// For how many bytes of values room is made beforehand. As long as it is not touched it takes
/// addresses, not memory.
const MAX_ROOM: usize = 1 << 30;

/// All values, or the first error.
impl<R: DeserializeOwned + 'static> Collect for Result<Vec<R>, TaskError> {
    fn with_room(items: usize) -> Self {
        let mut values = Vec::new();
        if items <= MAX_ROOM / size_of::<R>().max(1) && values.try_reserve_exact(items).is_ok() {
            sys::expect_use(values.spare_capacity_mut());
        }
        Ok(values)
    }

    fn refused(error: TaskError, _items: impl Iterator) -> Self {
        Err(error)
    }

    fn add(&mut self, part: Arc<ChunkOutcome>) {
        match (numbers(&part), &mut *self) {
            (Some(values), Ok(all)) => all.extend(values),
            (Some(_), Err(_)) => {}
            (None, _) => decode_each(&part, |outcome| {
                if let Ok(all) = self {
                    match outcome {
                        Ok(value) => all.push(value),
                        Err(error) => *self = Err(error),
                    }
                }
            }),
        }
    }

    fn fail(&mut self, error: TaskError) {
        *self = Err(error);
    }

    fn is_success(&self) -> bool {
        self.is_ok()
    }
}

/// The values of a chunk's items, if all are numbers of one size and none has failed.
fn numbers<R: DeserializeOwned + 'static>(
    part: &ChunkOutcome,
) -> Option<impl ExactSizeIterator<Item = R>> {
    let numbers = part.values_of(codec::number_size::<R>()?)?;
    Some(
        numbers
            .map(|bytes| codec::read_number(bytes).expect("a number, and as many bytes as it has")),
    )
}

/// Gives the value or error of each item of a chunk's outcome to `put`.
fn decode_each<R: DeserializeOwned + 'static>(
    part: &ChunkOutcome,
    mut put: impl FnMut(Result<R, TaskError>),
) {
    let mut next = part.first;
    // Once more for each item whose deserialisation panics, from behind that item.
    while let Err(panic) = catch(|| {
        part.visit(next, |index, outcome| {
            next = index + 1;
            let value = outcome
                .and_then(|bytes| codec::decode::<R>(bytes).map_err(|error| undecodable(&error)));
            put(value.map_err(|error| error.at_index(index)));
        });
    }) {
        put(Err(panicked(panic).at_index(next - 1)));
    }
}

/// Gives the outcome of each item of a chunk's outcome to `put`, with its index and its metrics.
pub(super) fn decode_measured<R: DeserializeOwned + 'static>(
    part: Arc<ChunkOutcome>,
    mut put: impl FnMut(usize, Result<R, TaskError>, TaskMetrics),
) {
    // A single large value is taken, not copied.
    match Arc::try_unwrap(part) {
        // An outcome of one item may be what was left of a larger one, and its outcome among
        // several.
        Ok(part) if matches!(part.outcomes, Outcomes::One(_)) => {
            let (index, mut metrics) = (part.first, part.task_metrics(part.first));
            let bytes = part.into_single();
            let outcome = timed(&mut metrics, || bytes.and_then(decode_owned));
            put(index, outcome, metrics);
        }
        part => {
            let part = part.map_or_else(|shared| shared, Arc::new);
            part.visit(part.first, |index, outcome| {
                let mut metrics = part.task_metrics(index);
                let outcome = timed(&mut metrics, || outcome.and_then(decode));
                put(index, outcome, metrics);
            });
        }
    }
}

fn timed<T>(metrics: &mut TaskMetrics, decode: impl FnOnce() -> T) -> T {
    let start = sys::now_ns();
    let value = decode();
    metrics.decode += Duration::from_nanos(sys::now_ns() - start);
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
