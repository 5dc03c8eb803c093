//! The heart of `procpool`: the [`Pool`] trait and its handles, and the engine that every pool of
//! processes shares. Users depend on the facade crate `procpool`; who writes a backend depends on
//! this one.
//!
//! ```
//! use pool_core::{Pool, SerialPool};
//!
//! let pool = SerialPool::new();
//! assert_eq!(pool.map(|x: u64| x * x, 0..5).unwrap(), [0, 1, 4, 9, 16]);
//! ```
//!
//! There are two seams. [`Pool`] is what users program against; underneath is an object-safe
//! [`Executor`] that takes encoded calls. [`Launcher`] is how one worker process is started and
//! reached; everything else about processes stands once, in [`Engine`].

mod append_log;
mod backtrace;
mod broadcast;
mod buffer;
mod build_error;
mod bytes;
mod call;
mod call_with;
mod care;
mod chunker;
#[doc(hidden)]
pub mod codec;
mod config;
mod dump;
mod encode;
mod engine;
mod entry;
mod error;
#[cfg(feature = "tracing")]
mod events;
mod executor;
mod extras;
mod feed;
mod feeder;
mod foreign_text;
mod fork;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod imap;
mod last_panic;
mod launch;
mod ledger;
mod measure;
mod open;
mod options;
mod origin;
mod orphans;
mod output;
mod pool;
#[cfg(feature = "progress")]
pub mod progress;
#[cfg(not(feature = "progress"))]
#[path = "no_progress.rs"]
mod progress;
mod protocol;
mod receipt;
mod region;
mod ring;
mod serial;
mod stats;
#[cfg(feature = "stream")]
mod stream;
mod sync;
mod sys;
mod tie;
mod trace;
pub mod worker;
mod worker_end;

pub use broadcast::{Broadcast, BroadcastError, IntoBroadcast, Shareable};
pub use build_error::{BuildError, BuildErrorKind, JoinError, ResizeError};
pub use call::{Chunk, TaskId};
pub use call_with::CallWith;
pub use codec::Number;
pub use config::PoolConfig;
pub use dump::{Dump, KernelState, RunningTask, WorkerDump, WorkerState};
pub use engine::Engine;
pub use entry::{Entry, ForeignFunction, Stateless, build_identity};
pub use error::{TaskError, TaskErrorKind};
pub use executor::{Cancel, Executor};
pub use feeder::wait_for_feeders;
pub use fork::forked_child;
pub use handle::{MapHandle, TaskHandle};
pub use imap::{Imap, ImapLocal};
pub use launch::{Advance, ExitStatus, LaunchError, LaunchSpec, Launcher, Link, Reaped};
pub use open::OpenChunk;
#[doc(hidden)]
pub use origin::Origin;
#[doc(hidden)]
pub use orphans::Orphans;
pub use output::{Output, OutputLine, OutputStream};
pub use pool::Pool;
pub use receipt::{
    CallWithReceipts, Collected, ImapReceipts, ImapReceiptsLocal, Receipt, ReceiptHandle, Receipted,
};
pub use region::{PROTOCOL_VERSION, Region};
pub use serial::SerialPool;
pub use stats::{Stats, WorkerStats};
#[cfg(feature = "stream")]
pub use stream::{ImapLocalStream, ImapStream};
#[doc(hidden)]
pub use sys::{be_signalled_by, failed, failed_in, off_standard, poll};
pub use trace::{Trace, Tracer};
pub use worker::{Resource, WorkerInfo};
pub use worker_end::{EndReason, WorkerEnd};

#[doc(hidden)]
pub use serde;
