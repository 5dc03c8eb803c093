//! Handles of calls that run in the background.

mod cell;
mod map;
mod pending;
mod task;

pub(crate) use cell::{Collector, TaskCell};
pub use map::MapHandle;
pub(crate) use pending::Pending;
pub use task::TaskHandle;

use serde::de::DeserializeOwned;

use crate::call::Piece;
use crate::codec;
use crate::error::{TaskError, TaskErrorKind};
use crate::protocol::PanicReport;
use crate::worker::{catch, caught, reporting};

/// A worker's encoded result as a value.
fn decode<R: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<R, TaskError> {
    guarded(|| codec::decode(bytes))
}

/// The same where the value may have the memory of the bytes.
fn decode_owned<R: DeserializeOwned + 'static>(bytes: Vec<u8>) -> Result<R, TaskError> {
    guarded(|| codec::decode_owned(bytes))
}

fn guarded<R>(decode: impl FnOnce() -> Result<R, codec::CodecError>) -> Result<R, TaskError> {
    catch(decode)
        .map_err(panicked)
        .and_then(|value| value.map_err(|error| undecodable(&error)))
}

/// Gives the value or error of each item of a piece, and its index, to `visit`.
pub(crate) fn decode_all<R: DeserializeOwned + 'static>(
    piece: &Piece,
    mut visit: impl FnMut(Result<R, TaskError>),
) {
    let mut next = piece.first;
    reporting(|| {
        // Once more for each item whose deserialisation panics, from behind that item.
        while let Err(panic) = caught(|| {
            piece.visit(next, |index, outcome| {
                next = index + 1;
                let value = outcome.and_then(|bytes| {
                    codec::decode::<R>(bytes).map_err(|error| undecodable(&error))
                });
                visit(value.map_err(|error| error.at_index(index)));
            });
        }) {
            visit(Err(panicked(panic).at_index(next - 1)));
        }
    });
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
