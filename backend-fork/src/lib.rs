//! Workers forked from a fork server: a single-threaded copy of the program, made early.
//!
//! ```no_run
//! # mod procpool { pub use procpool_core::*; pub use procpool_fork::*; }
//! use procpool::ForkServer;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // While the program has one thread: before a runtime, a logger, another pool.
//!     let server = ForkServer::start()?;
//!
//!     // From here on there may be threads. Each pool gets a connection of its own.
//!     let launcher = server.connect()?;
//!     # let _ = launcher;
//!     Ok(())
//! }
//! ```
//!
//! # Why a server
//! `fork` copies the memory of a process, but only one of its threads. A lock that another thread
//! held at that moment (the allocator's, a logger's, one within a C library) stays locked in the
//! copy forever, and what it guarded may be half-way through a change. So [`ForkServer::start`]
//! counts the threads and forks once, while there is one; the server never starts a thread, and
//! every worker, a replacement years later too, is forked from *it*. What the program had set up
//! before the start is simply there in each worker.
//!
//! # The processes and what they do
//! ```text
//! parent                             fork server           workers
//! ServerFailover ── connect ───────▶ EventLoop ── fork ──▶ StandbyProcess, the standby
//! Connection ────── launch, reap ──▶ Client ───── fork ──▶ ForkedWorker, then `worker::serve`
//!            ◀───── how it ended ───    │                     │
//! ForkWorkerHandle ◀── hello (doorbell) ┘                     │
//!                  ◀── rings (doorbell) ──────────────────────┘
//! ```
//! The parent talks to a worker through the shared region and the doorbell alone; the server takes
//! no part in it. The server is the workers' parent process, so it alone can learn how one ended,
//! and it reaps a worker only when asked: until then the worker's process identifier stays
//! reserved, and a signal to it reaches no other process.
//!
//! # Who dies with whom
//! - A worker dies with the server: the kernel kills it (`PR_SET_PDEATHSIG`).
//! - The server dies with the parent, even with one killed by SIGKILL: it watches the parent's
//!   pidfd. It first kills the workers' process groups, so that what tasks have started goes too.
//! - A worker dies with the parent by a tie of its own, with all of its process group, whatever
//!   becomes of the server: [`bind_to_parent`](procpool_core::worker::bind_to_parent).
//! - A server that somebody has stopped is continued when the parent dies, by the parent-death
//!   signal and by a tie like that.
//! - A pool's workers die with its connection; other pools on the same server do not notice.
//! - The standby dies with the parent, like the server and by the same means. It does not die with
//!   the server, but takes its place; see below.
//!
//! # When the server is killed
//! Another one cannot be started from the parent, which has threads by then. So the server, before
//! it does anything else, makes a *standby*: a copy of itself, as pristine as itself, that sleeps.
//! It is a child of the parent (`CLONE_PARENT`), in the server's process group, and holds nothing
//! but the parent's pidfd, the tie to it and a socket, of which the server has sent the other end
//! to the parent. A standby that dies is made again by the server.
//!
//! When the server has died, the next launch of each pool connects to the standby, which makes one
//! of its own and serves. The pools do not fail: workers that had been asked for are asked for
//! again, those that were there are lost, and how they ended nobody can say any more
//! ([`ExitStatus::Orphaned`](procpool_core::ExitStatus::Orphaned)). Server and standby killed at
//! the same moment are the end: launches fail, and say so.
//!
//! `failover.rs` knows which process serves and which is next, under a lock. Whether a server is
//! dead is asked of its pidfd and not of its sockets: something that it was just forking may hold
//! copies of those. The parent's end of the standby's socket lies in the server's main socket until
//! the parent reads it, which works after the server's death too.
//!
//! # What a worker inherits
//! The server's memory, standard output and error (unless the pool has others for it), current
//! directory, environment, limits, and the files that the program had open when it started the
//! server. Not its standard input (that is `/dev/null`: a background process that reads the
//! terminal would be stopped), signal handlers or signal mask. The state of random number
//! generators is inherited as well, the same in every worker: seed them in the initializer, with
//! [`WorkerInfo::seed`](procpool_core::WorkerInfo::seed).
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(target_os = "linux")]
mod connection;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod failover;
#[cfg(target_os = "linux")]
mod fork_server;
#[cfg(all(target_os = "linux", any(fuzzing, test)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(target_os = "linux")]
mod hello;
#[cfg(target_os = "linux")]
mod launcher;
#[cfg(target_os = "linux")]
mod message;
#[cfg(target_os = "linux")]
mod pool;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod server_process;
#[cfg(target_os = "linux")]
mod socket;
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "there is one reason")
)]
mod start_error;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod threads;
#[cfg(target_os = "linux")]
mod wait;
#[cfg(target_os = "linux")]
mod worker_handle;

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{ForkBackend, ForkPool, ForkPoolBuilder, ForkServer};
#[cfg(target_os = "linux")]
pub use fork_server::ForkServer;
#[cfg(target_os = "linux")]
pub use launcher::ForkLauncher;
#[cfg(target_os = "linux")]
pub use pool::{ForkBackend, ForkPool, ForkPoolBuilder};
#[doc(hidden)]
#[cfg(target_os = "linux")]
pub use server::Serve;
pub use start_error::StartError;
#[cfg(target_os = "linux")]
pub use worker_handle::ForkWorkerHandle;
