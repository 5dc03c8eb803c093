//! Running the items of one chunk, in the worker.

use std::cell::Cell;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::serve::Wire;
use super::{caught, current, reporting};
use crate::codec;
use crate::protocol::{self, Failure, LARGE_BYTES, RecordKind, Stage};

/// The items of a frame, as the worker's loop hands them to the function's entry.
pub(crate) struct ChunkRun<'a> {
    pub(super) source: Source<'a>,
}

/// Where a chunk's items come from and where their results go.
pub(super) enum Source<'a> {
    /// A worker's rings.
    Wire {
        wire: &'a mut Wire,
        items: u32,
        deadline: bool,
    },
    /// Memory of the same process: [`SerialPool`](crate::SerialPool).
    Memory {
        items: &'a [u8],
        record: &'a mut dyn FnMut(RecordKind, &[u8]),
    },
}

impl<'a> ChunkRun<'a> {
    /// Items in the memory of this process; `record` gets each one's result.
    pub(crate) fn in_memory(items: &'a [u8], record: &'a mut dyn FnMut(RecordKind, &[u8])) -> Self {
        Self {
            source: Source::Memory { items, record },
        }
    }

    /// Runs `function` on every item that was not taken back.
    ///
    /// It is monomorphised for each function, so that the loop, the decoding, the call and the
    /// encoding of small items are one piece of straight code.
    pub(crate) fn run_all<F, A, R>(&mut self, function: &F)
    where
        F: Fn(A) -> R,
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        reporting(|| match &mut self.source {
            Source::Wire {
                wire,
                items,
                deadline,
            } => run_from_wire(function, wire, *items, *deadline),
            Source::Memory { items, record } => run_from_memory(function, items, *record),
        });
    }
}

fn run_from_wire<F, A, R>(function: &F, wire: &mut Wire, items: u32, deadline: bool)
where
    F: Fn(A) -> R,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    let mut out = wire.take_scratch();
    for done in 0..items {
        let Some(number) = wire.begin_item(deadline) else {
            wire.skip_items(items - done);
            break;
        };
        current::running(number);
        let argument = match wire.take_bulk::<A>() {
            Some(argument) => argument
                .ok_or_else(|| Failure::error(Stage::DecodeArgument, "the bytes are no text")),
            None => {
                let item = wire.next_item();
                let argument = decode_argument(item.bytes());
                wire.done_with(item);
                argument
            }
        };
        out.clear();
        match argument.and_then(|argument| run_item(function, argument, &mut out)) {
            Ok(None) => wire.put_record(RecordKind::Value, &out),
            Ok(Some(large)) => {
                if let Some((prefix, bytes)) = codec::bulk_parts(&large) {
                    wire.put_bulk(prefix, bytes);
                }
            }
            Err(failure) => wire.put_failure(&failure),
        }
    }
    wire.give_scratch(out);
}

fn run_from_memory<F, A, R>(
    function: &F,
    mut items: &[u8],
    record: &mut dyn FnMut(RecordKind, &[u8]),
) where
    F: Fn(A) -> R,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    let mut out = Vec::new();
    while let Some((bytes, rest)) = protocol::split_item(items) {
        items = rest;
        out.clear();
        match decode_argument(bytes).and_then(|argument| run_item(function, argument, &mut out)) {
            Ok(None) => record(RecordKind::Value, &out),
            Ok(Some(large)) => {
                let parts = codec::bulk_parts(&large);
                let bytes = parts.map(|(prefix, bytes)| [&prefix, bytes].concat());
                record(RecordKind::Value, &bytes.unwrap_or_default());
            }
            Err(failure) => record(RecordKind::Failure, &encode_failure(&failure)),
        }
    }
}

/// The argument, whose bytes are not needed after this: their space can be used while the
/// function runs.
#[inline]
fn decode_argument<A: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<A, Failure> {
    match caught(|| codec::decode::<A>(bytes)) {
        Ok(Ok(argument)) => Ok(argument),
        Ok(Err(error)) => Err(Failure::error(Stage::DecodeArgument, error)),
        Err(panic) => Err(Failure::panic(Stage::DecodeArgument, panic)),
    }
}

/// Runs the function and encodes what it returns, or gives that back if it is a large bulk value,
/// which is sent as it is.
#[inline]
fn run_item<F, A, R>(function: &F, argument: A, out: &mut Vec<u8>) -> Result<Option<R>, Failure>
where
    F: Fn(A) -> R,
    R: Serialize + 'static,
{
    let stage = Cell::new(Stage::Run);
    let done = caught(|| {
        let result = function(argument);
        if codec::bulk_bytes(&result).is_some_and(|bytes| bytes.len() >= LARGE_BYTES) {
            return Ok(Some(result));
        }
        stage.set(Stage::EncodeResult);
        codec::encode(&result, out)?;
        // A destructor is the task's code: its panic is a panic of the task.
        stage.set(Stage::Run);
        drop(result);
        Ok::<Option<R>, codec::CodecError>(None)
    });
    match done {
        Ok(Ok(large)) => Ok(large),
        Ok(Err(error)) => Err(Failure::error(stage.get(), error)),
        Err(panic) => Err(Failure::panic(stage.get(), panic)),
    }
}

pub(super) fn encode_failure(failure: &Failure) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(failure, &mut bytes).expect("strings and options can always be encoded");
    bytes
}
