//! What reads bytes that a worker wrote, as functions for fuzzing: any input must do.
//!
//! There only for the fuzz targets in `fuzz/`, and for the tests, which run the same functions
//! on the inputs kept there.

pub(crate) mod watched;

use std::path::Path;

pub use crate::codec::fuzzing::values;
pub use crate::engine::fuzzing::{drain, records};
pub use crate::engine::stack_walk::fuzzing::stack;
#[cfg(feature = "tracing")]
pub use crate::observe::events::fuzzing::events;
pub use crate::shm::last_panic::fuzzing::last_panic;
pub use crate::task::fuzzing::chunk;

/// Takes an input apart. What is missing at its end reads as zero.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// This many bytes, or what is left.
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    pub(crate) fn word(&mut self) -> u64 {
        let mut word = [0; 8];
        let bytes = self.bytes(8);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }
}

/// Runs a fuzz target's function on each input that is kept for it in `corpus`, the folder
/// `fuzz/corpus` of a workspace, and says how many there are.
///
/// # Panics
/// When the target does, or there is no such folder.
pub fn replay(corpus: &Path, target: &str, run: impl Fn(&[u8])) -> usize {
    let folder = corpus.join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .flatten()
        .map(|entry| entry.path())
        .collect();
    inputs.sort();
    for path in &inputs {
        let input = std::fs::read(path).expect("it was there a moment ago");
        // Should it panic, this says for which.
        println!("{}", path.display());
        run(&input);
    }
    inputs.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus"))
    }

    #[test]
    fn the_corpus_of_values_is_survived() {
        assert!(replay(corpus(), "values", values) > 0);
    }

    #[test]
    fn the_corpus_of_drain_is_survived() {
        assert!(replay(corpus(), "drain", drain) > 0);
    }

    #[test]
    fn the_corpus_of_records_is_survived() {
        assert!(replay(corpus(), "records", records) > 0);
    }

    #[test]
    fn the_corpus_of_stack_is_survived() {
        assert!(replay(corpus(), "stack", stack) > 0);
    }

    #[test]
    fn the_corpus_of_last_panic_is_survived() {
        assert!(replay(corpus(), "last_panic", last_panic) > 0);
    }

    #[cfg(feature = "tracing")]
    #[test]
    fn the_corpus_of_events_is_survived() {
        assert!(replay(corpus(), "events", events) > 0);
    }

    #[test]
    fn the_corpus_of_chunk_is_survived() {
        assert!(replay(corpus(), "chunk", chunk) > 0);
    }

    #[test]
    fn the_end_of_an_input_reads_as_zeros() {
        let mut input = Input(&[1, 2, 3]);
        assert_eq!(input.byte(), 1);
        assert_eq!(input.word(), 0x0302);
        assert_eq!((input.byte(), input.is_empty()), (0, true));
    }
}
