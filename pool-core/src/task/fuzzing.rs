//! Chunks and outcomes from elsewhere, as a function for fuzzing: any bytes must do.

use std::sync::{Arc, Mutex, PoisonError};

use super::call_id::CallId;
use super::chunk::Chunk;
use super::chunk_outcome::{ChunkOutcome, CompletionSink};
use super::encoded_chunk::EncodedChunk;
use super::outcome::{Outcome, to_bytes};
use crate::broadcast::BroadcastContent;
use crate::codec;
use crate::shm::build_identity::build_id;
use crate::shm::protocol;
use crate::worker::cancel_flag::CancelFlag;
use crate::worker::function::{FunctionId, Stateless};

/// What the function takes and gives: something of everything.
type Value = Vec<(u8, Option<String>)>;

fn function() -> FunctionId {
    fn of<F: Fn(Value) -> Value + Stateless>(function: F) -> FunctionId {
        FunctionId::of::<F, Value, Value>(&function).expect("it is of this executable")
    }
    of(|mut value| {
        assert!(value.len() != 3, "as every function may");
        value.pop();
        value
    })
}

/// Runs an input as a chunk from elsewhere, behind the build and the function that it needs to get
/// that far, and delivers it as an outcome.
///
/// # Panics
/// When an item has no outcome, or two.
pub fn chunk(input: &[u8]) {
    let number = function().number().to_le_bytes();
    let bytes = [&to_bytes(&build_id()), &number[..], input].concat();
    if let Ok(mut chunk) = EncodedChunk::from_bytes(&bytes) {
        if let Ok(content) = BroadcastContent::new(b"content") {
            chunk.provide(&content);
        }
        let end = chunk.first_index() + chunk.count();
        let mut next = chunk.first_index();
        let mut outcomes = Vec::new();
        chunk.run(&CancelFlag::new(), |index, outcome| {
            assert_eq!(index, next, "the items have their outcomes in order");
            next += 1;
            let outcome = Outcome::from_bytes(&outcome.to_bytes());
            outcomes.push(outcome.expect("it is one"));
        });
        assert_eq!(next, end, "each item has an outcome");
        deliver(outcomes);
    }
    if let Ok(outcome) = Outcome::from_bytes(input) {
        deliver(vec![outcome; 2]);
    }
}

/// Delivers them to items of a call that are as many.
fn deliver(outcomes: Vec<Outcome>) {
    let count = outcomes.len();
    let mut items = Vec::new();
    for _ in 0..count {
        protocol::append_number(&mut items, &[0; 8]);
    }
    let seen = Arc::new(Seen::default());
    let mut chunk = Chunk::new(function(), 0, count as u32, items.into(), seen.clone());
    chunk.measure();
    chunk.note_encoding(&vec![0; count]);
    let (_, completion) = chunk.into_parts();
    let again = outcomes[0].clone();
    completion
        .complete_from(0, outcomes)
        .expect("they have none");
    completion.complete(0, again).expect_err("it has one");
    drop(completion);
    let seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(*seen, Vec::from_iter(0..count), "each item has its outcome");
}

/// The indices of the items that have an outcome.
#[derive(Default)]
struct Seen(Mutex<Vec<usize>>);

impl CompletionSink for Seen {
    fn call(&self) -> CallId {
        CallId::NOBODY
    }

    fn complete(&self, part: ChunkOutcome) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        part.visit(0, |index, outcome| {
            seen.push(index);
            // Whatever it says of times, they can be added up.
            let metrics = part.task_metrics(index);
            let _ = metrics.queued.unwrap_or_default()
                + metrics.run.unwrap_or_default()
                + metrics.encode
                + metrics.decode;
            match outcome {
                Ok(bytes) => drop(codec::decode::<Value>(bytes)),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!text.contains('\u{1b}'), "it does something to a terminal");
                }
            }
        });
    }

    fn is_abandoned(&self) -> bool {
        false
    }
}
