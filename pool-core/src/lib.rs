//! The heart of `procpool`: the [`Pool`] trait and its handles, and the engine that every pool of
//! processes shares. Users depend on the facade crate `procpool`; who writes a backend depends on
//! this one.
//!
//! ```
//! use procpool_core::{Pool, SerialPool};
//!
//! let pool = SerialPool::new();
//! assert_eq!(pool.map(|x: u64| x * x, 0..5).unwrap(), [0, 1, 4, 9, 16]);
//! ```
//!
//! There are two seams. [`Pool`] is what users program against; underneath is an object-safe
//! [`Executor`] that takes encoded calls. [`Launcher`] is how one worker process is started and
//! reached; everything else about processes stands once, in
//! [`WorkerPool`] and its [`PoolBuilder`].
#![cfg_attr(docsrs, feature(doc_cfg))]

mod api;
mod backend;
mod broadcast;
#[doc(hidden)]
pub mod codec;
mod engine;
mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod observe;
mod panic;
mod passing;
mod process;
mod process_pool;
mod shm;
mod sync;
mod sys;
mod task;
mod value;
pub mod worker;

pub use api::call::{Call, MeasuredCall};
pub use api::decode::{Collect, ItemOutcome};
pub use api::handle::{FromOutcome, Handle, MapHandle, MeasuredHandle, TaskHandle};
pub use api::imap::{Imap, ImapLocal, ImapMeasured, ImapMeasuredLocal};
pub use api::input::feeder::wait_for_feeders;
pub use api::join_future::JoinFuture;
pub use api::measured::Measured;
pub use api::mode::{Mode, Plain, WithMetrics};
pub use api::observer::{Observer, PoolEvent, StopHandle};
pub use api::pool::Pool;
#[cfg(feature = "progress")]
pub use api::progress;
pub use api::serial::SerialPool;
#[cfg(feature = "stream")]
pub use api::stream::{ImapLocalStream, ImapStream, ValueStream};
pub use api::stream_handle::StreamHandle;
pub use api::trace::Trace;
pub use api::weak_pool::WeakPool;
pub use backend::launcher::{Backend, LaunchSpec, Launcher, Readiness, WorkerHandle};
#[doc(hidden)]
pub use backend::launcher::{Executing, ForkServing};
#[doc(hidden)]
pub use backend::worker_options::WorkerOptions;
pub use broadcast::{
    Broadcast, BroadcastContent, BroadcastError, ContentId, IntoBroadcast, Shareable,
};
pub use error::build_error::{BuildError, BuildErrorKind, JoinError, ResizeError};
pub use error::flatten::{CallError, FlattenErrors};
pub use error::launch_error::LaunchError;
pub use error::queue_full::QueueFull;
pub use error::remote_error::{RemoteError, remote_errors};
pub use error::task_error::{TaskError, TaskErrorKind};
#[doc(hidden)]
pub use observe::call_span::Origin;
pub use observe::dump::{Dump, KernelState, RunningTask, WorkerDump, WorkerState};
pub use observe::output::{Output, OutputLine, OutputStream};
pub use observe::running_calls::CallStatus;
pub use observe::stats::{Stats, WorkerStats};
pub use observe::task_metrics::TaskMetrics;
pub use observe::tracer::{Observe, Tracer};
pub use observe::worker_exit::{ExitReason, WorkerExit};
pub use passing::Fd;
pub use process::code::shared_object;
pub use process::exit_status::ExitStatus;
pub use process::fork::after_fork_in_child;
#[cfg(unix)]
#[doc(hidden)]
pub use process::orphans::Orphans;
pub use process::worker_info::WorkerInfo;
pub use process_pool::WorkerPool;
pub use process_pool::builder::PoolBuilder;
pub use shm::build_identity::PROTOCOL_VERSION;
pub use shm::build_identity::{BuildId, build_id, build_identity};
pub use shm::region::Region;
#[cfg(not(unix))]
#[doc(hidden)]
pub use sys::fd;
#[cfg(unix)]
#[doc(hidden)]
pub use sys::poll;
#[doc(hidden)]
pub use sys::{
    be_signalled_by, change_environment, failed, failed_in, ignore_signals_of_files, interpreter,
    is_in_program, leave, off_standard, own_pid, reset_signals, starter, tie_process,
};
pub use task::backoff::Backoff;
pub use task::call_control::Deadline;
pub use task::call_id::CallId;
pub use task::callbacks::Callbacks;
pub use task::chunk::Chunk;
pub use task::chunking::Chunking;
pub use task::completion::{Completion, Refused};
pub use task::encoded_chunk::{EncodedChunk, Submitted};
pub use task::executor::{Cancel, Executor};
pub use task::item_counts::ItemCounts;
pub use task::open_input::OpenInput;
pub use task::options::ChunkOptions;
pub use task::outcome::Outcome;
#[doc(hidden)]
pub use task::outcome_batch::OutcomeBatch;
#[cfg(feature = "json")]
pub use value::json::Json;
pub use value::portable::Portable;
pub use worker::arguments::{AndEmitter, Argument, Arguments, Emitting, TakesContext, TakesState};
pub use worker::cancel_flag::CancelFlag;
pub use worker::emitter::{Disconnected, Emitter};
#[doc(hidden)]
pub use worker::function::assert_captures_nothing;
pub use worker::function::{FunctionId, NotInObject, Stateless};
pub use worker::initializer::InitializerOutcome;
pub use worker::{EnvironmentChanges, Resource};
