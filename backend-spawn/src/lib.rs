//! Workers that are this executable, executed again.
//!
//! What a `fork` cannot give: a worker that starts from nothing, whatever threads, locks and
//! memory the parent has. The price is that the program's `main` runs again in every worker, up
//! to [`init()`], which is therefore its first line.
//!
//! # The bootstrap
//! The worker finds all that it needs when it begins, so neither side ever waits for the other:
//!
//! 1. The parent makes a sealed memory file for the region, a pipe, the doorbell, and a pair of
//!    sockets for the worker's hello. It executes `/proc/self/exe` with the doorbell's writing end
//!    as standard input. The memory, one of the sockets and what ties the worker to its parent are
//!    inherited descriptors. A variable in the environment names the caller, its doorbell, these
//!    descriptors, a nonce, and the build that is called.
//! 2. In the worker, [`init()`] finds the variable. `bootstrap.rs` ties the worker to its parent,
//!    maps the region, says hello by ipc-channel over that socket (version, process, nonce, build
//!    identity), and rings. From then on [`procpool_core::worker::serve`] has the process.
//! 3. The parent reads the hello when the doorbell rings, and checks it.
//!
//! The parent executes by `posix_spawn`, never by `fork`, which would copy the page tables of a
//! large program. The worker leads a process group, begins with all signals at their defaults and
//! none blocked, and has the program's command line. The parent's own descriptors are
//! close-on-exec, so nothing else that the program starts inherits them. A grandchild that has the
//! variable as well has another parent, and nothing under those inodes.
//!
//! What a worker sends before it is ready is not believed: messages on its doorbell have a longest
//! length, and its hello has one length and one head.
//!
//! # In a shared object
//! The code may be in a plugin or a Python extension, which the executable knows nothing of. Then
//! the loader is asked to load the object into the executable before all else (`LD_PRELOAD`), and
//! what the loader calls in it ([`init_at_load`]) becomes the worker. Or the pool names a program,
//! which loads the object and calls [`init()`] in it
//! ([`program`](procpool_core::PoolBuilder::program)). The variable says which of the three it is,
//! and which build is meant: a process may have several objects with a copy of this crate, and each
//! lets the calls for others pass. `program.rs` says what is executed, `remedy.rs` what to do when
//! it does not come to `init`.
//!
//! # What can go wrong
//! A worker that fails on the way writes the reason to the doorbell; one that dies closes it.
//! A deadline for all of this is the engine's, which kills.
//!
//! Nothing of all that has a name that another process could find, or that could be left behind.
//! Afterwards neither side holds a descriptor of the region, and nobody could resize it with one:
//! it is sealed.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(unix)]
mod bootstrap;
#[cfg(unix)]
mod bootstrap_env;
#[cfg(unix)]
mod doorbell;
#[cfg(not(unix))]
mod elsewhere;
#[cfg(all(unix, any(fuzzing, test)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(unix)]
mod hello;
#[cfg(unix)]
mod init;
#[cfg(all(target_os = "linux", not(procpool_portable)))]
mod ipc_hello;
#[cfg(unix)]
mod launcher;
#[cfg(all(unix, any(procpool_portable, not(target_os = "linux"))))]
mod plain_hello;
#[cfg(unix)]
mod pool;
#[cfg(unix)]
mod program;
#[cfg(unix)]
mod remedy;
#[cfg(unix)]
mod sys;
#[cfg(unix)]
mod worker_handle;

#[doc(hidden)]
#[cfg(not(unix))]
pub use elsewhere::init_at_load;
#[cfg(not(unix))]
pub use elsewhere::{SpawnBackend, SpawnPool, SpawnPoolBuilder, init};
#[doc(hidden)]
#[cfg(unix)]
pub use init::init_at_load;
#[cfg(unix)]
pub use init::{MissingInit, check_ready, init};
#[cfg(unix)]
pub use launcher::SpawnLauncher;
#[cfg(unix)]
pub use pool::{SpawnBackend, SpawnPool, SpawnPoolBuilder};
