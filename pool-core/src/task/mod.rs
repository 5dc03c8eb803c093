//! A task on its way: its argument encoded, items cut into chunks, and what came of each.

pub(crate) mod backoff;
pub(crate) mod bytes;
pub(crate) mod call_control;
pub(crate) mod call_id;
pub(crate) mod callbacks;
pub(crate) mod chunk;
pub(crate) mod chunk_ext;
pub(crate) mod chunk_outcome;
pub(crate) mod chunker;
pub(crate) mod chunking;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod emissions;
pub(crate) mod encode;
pub(crate) mod encoded_chunk;
pub(crate) mod end_watch;
pub(crate) mod executor;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
pub(crate) mod grain;
pub(crate) mod item_counts;
pub(crate) mod item_metrics;
pub(crate) mod open_input;
pub(crate) mod options;
pub(crate) mod outcome;
pub(crate) mod outcome_batch;
pub(crate) mod parking;
pub(crate) mod retry_rules;
pub(crate) mod target;
pub(crate) mod traced;

#[cfg(test)]
mod tests;
