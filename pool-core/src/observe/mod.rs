//! What a pool shows of itself: figures, stacks, traces, captured output and events.

pub(crate) mod call_span;
pub(crate) mod dump;
pub(crate) mod event_queue;
#[cfg(feature = "tracing")]
pub(crate) mod events;
pub(crate) mod item_run;
pub(crate) mod output;
pub(crate) mod running_calls;
pub(crate) mod stats;
pub(crate) mod task_metrics;
pub(crate) mod trace;
pub(crate) mod tracer;
pub(crate) mod worker_exit;
