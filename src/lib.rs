//! Python's `multiprocessing.Pool` for Rust: run a function over data in other *processes*.
//!
#![cfg_attr(any(feature = "fork", feature = "spawn"), doc = "```no_run")]
#![cfg_attr(not(any(feature = "fork", feature = "spawn")), doc = "```ignore")]
//! use procpool::{Pool, ProcessPool};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     procpool::init(); // first line: the workers are this program, started again
//!     let pool = ProcessPool::builder().processes(3).build()?;
//!     let squares = pool.map(|x: u64| x * x, 0..10)?;
//!     assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
//!     Ok(())
//! }
//! ```
//!
//! Processes give what threads cannot: a crash (a segmentation fault in a C library, an abort,
//! the kernel's out-of-memory killer) costs one task and not the program; a task can be killed at
//! its deadline; libraries that are not thread-safe run side by side; memory is really given
//! back.
//!
//! # Ideas
//! - A **pool** has **workers**, each a process. [`Pool`] is the trait that all pools share: [`map`](Pool::map),
//!   [`apply_async`](Pool::apply_async), [`imap_unordered`](Pool::imap_unordered) and so on; it must be in scope.
//! - The **function** is a function item or a closure that captures nothing; what it needs
//!   besides its item, pass as part of the item. A closure that captures does not compile, and
//!   the message says what to do.
//! - **Arguments and results** are `Serialize + DeserializeOwned`. They travel through shared memory,
//!   in a compact form without names: types with `#[serde(flatten)]`, `untagged` or an internal tag are refused with
//!   an error that says so. A path that is not UTF-8 travels as an `OsString`.
//! - Every call **ends**: with its value, or with a [`TaskError`] that says why there is none.
//!
//! # Failure
//! A task that panics costs nothing: the error carries message, place and backtrace, and the worker
//! prints nothing. A task whose
//! worker dies (a crash, `exit`, a signal) ends as [`TaskErrorKind::WorkerLost`] with the signal or the exit
//! code, the worker is replaced, and no other task notices. In [`map`](Pool::map) the error of
//! the lowest failing index is returned; [`try_map`](Pool::try_map) gives each item's own result.
//!
#![cfg_attr(any(feature = "fork", feature = "spawn"), doc = "```no_run")]
#![cfg_attr(not(any(feature = "fork", feature = "spawn")), doc = "```ignore")]
//! # use procpool::{Pool, ProcessPool};
//! # procpool::init();
//! # let pool = ProcessPool::new().unwrap();
//! let error = pool
//!     .apply(|code: i32| -> () { std::process::exit(code) }, 42)
//!     .unwrap_err();
//! assert!(error.is_worker_lost());
//! assert_eq!(error.exit_code(), Some(42));
//! ```
//!
//! # Backends
//! | feature | pool | workers | choose it |
//! |---|---|---|---|
//! | `spawn` (default) | `SpawnPool` | this executable, executed again | by default: it does not matter what threads the program has |
//! | `fork` (default) | `ForkPool` | forked from a single-threaded *fork server* | for what was set up before and is costly to set up again: it is simply there |
//! | none needed | [`SerialPool`] | none: it runs tasks in the caller | for tests and debugging |
//!
//! Features only add. `ProcessPool` is `SpawnPool`, or `ForkPool` where only `fork` is on.
//!
//! A `ForkPool` that is built while the program has one thread needs nothing. A program with threads, or with
//! several such pools, starts the server first, as `let server = ForkServer::start()?` right after
//! [`init`], and gives it to each builder: `ForkPool::builder().fork_server(&server)`.
//!
//! # Tests
//! The harness of `#[test]` has a `main` of its own. Say [`test_support!`] once in the test file
//! (or, for unit tests, in the crate root under `#[cfg(test)]`), and both backends work under
//! `cargo test` and nextest.
//!
//! # Platform
//! Linux, 5.11 or later.

#[cfg(feature = "fork")]
pub use backend_fork::{ForkPool, ForkPoolBuilder, ForkServer, StartError};
#[cfg(feature = "spawn")]
pub use backend_spawn::{SpawnPool, SpawnPoolBuilder};
#[cfg(feature = "stream")]
pub use pool_core::ImapStream;
pub use pool_core::{
    BuildError, BuildErrorKind, CallWith, CallWithReceipts, Cancel, Chunk, Collected, EndReason,
    Executor, ExitStatus, Imap, ImapReceipts, JoinError, MapHandle, Output, OutputLine,
    OutputStream, Pool, Receipt, ReceiptHandle, Receipted, Resource, SerialPool, Stats, TaskError,
    TaskErrorKind, TaskHandle, TaskId, WorkerEnd, WorkerInfo, worker,
};

/// The pool of processes to use unless there is a reason for another one.
#[cfg(feature = "spawn")]
pub type ProcessPool = SpawnPool;
/// The pool of processes to use unless there is a reason for another one.
#[cfg(all(feature = "fork", not(feature = "spawn")))]
pub type ProcessPool = ForkPool;

#[doc(hidden)]
pub mod test_support;

/// Makes this program able to be a worker: the first line of `main`.
///
/// The workers of a `SpawnPool` are this executable, executed again. In a worker this function
/// becomes the worker and never returns; in the program itself it returns at once. Whatever
/// stands before it in `main` runs in every worker too. Without the feature `spawn` it does nothing.
///
/// ```
/// // fn main() {
/// procpool::init();
/// // the program
/// // }
/// ```
pub fn init() {
    #[cfg(feature = "spawn")]
    backend_spawn::init();
}
