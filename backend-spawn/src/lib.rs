//! Workers that are this executable, executed again.
//!
//! What a `fork` cannot give: a worker that starts from nothing, whatever threads, locks and
//! memory the parent has. The price is that the program's `main` runs again in every worker, up
//! to [`init()`], which is therefore its first line.
//!
//! # The bootstrap
//! It is arranged so that the parent, whose one thread serves many workers, never waits for any:
//!
//! 1. The parent makes a pipe, the doorbell, and executes `/proc/self/exe` with its writing end
//!    as standard input and a variable in the environment that says who called, by which
//!    doorbell, and a nonce.
//! 2. In the worker, [`init()`] finds itself called. It opens an ipc-channel one-shot server and
//!    writes a hello to the doorbell: versions, process, nonce, build identity, the server's name.
//! 3. The parent reads the hello when the doorbell is readable, checks it, connects to the server
//!    and sends the nonce and the region. Neither makes it wait: the server listens already, and
//!    where strangers fill its queue, a thread that is made for it waits instead.
//! 4. The worker accepts, refuses whoever does not know the nonce (with a new server and a new
//!    hello), maps the region, closes everything but the doorbell and says so on it. From then on
//!    [`pool_core::worker::serve`] has the process.
//!
//! A worker that fails on the way writes the reason to the doorbell; one that dies closes it.
//! A deadline for all of this is the engine's, which kills; the worker itself waits without one,
//! but dies with its parent.
//!
//! Afterwards neither side holds a descriptor of the region. That memory cannot be sealed (it is
//! ipc-channel's), and a descriptor would let a task shrink it and kill the parent by SIGBUS.

mod bootstrap;
mod folder;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod handover;
mod hello;
mod identity;
mod init;
mod launcher;
mod link;
mod pool;
mod summons;
mod sys;

pub use init::{MissingInit, check_ready, init};
pub use launcher::SpawnLauncher;
pub use pool::{SpawnPool, SpawnPoolBuilder};
