//! What users call: the [`Pool`](pool::Pool) trait, calls and their options, handles, iterators
//! and streams, and the pool that has no workers.

pub(crate) mod call;
pub(crate) mod decode;
pub(crate) mod handle;
pub(crate) mod imap;
pub(crate) mod input;
pub(crate) mod join_future;
pub(crate) mod measured;
pub(crate) mod mode;
pub(crate) mod observer;
pub(crate) mod pool;
#[cfg(not(feature = "progress"))]
#[path = "no_progress.rs"]
pub(crate) mod progress;
#[cfg(feature = "progress")]
pub mod progress;
mod ready;
pub(crate) mod retry;
pub(crate) mod serial;
#[cfg(feature = "stream")]
pub(crate) mod stream;
pub(crate) mod stream_handle;
pub(crate) mod trace;
pub(crate) mod weak_pool;
