//! What every pool of [procpool] promises, as tests that are generic over the kind of pool.
//!
//! A backend's author runs them with one line, in a test file without the harness of `#[test]`:
//!
//! ```no_run
//! procpool_conformance::main!("mine" => procpool::SpawnPool);
//! ```
//!
//! (With a pool of one's own for `SpawnPool`: a [`WorkerPool`](procpool::WorkerPool) of one's own
//! [`Backend`](procpool::backend::Backend).) In `Cargo.toml`, for `tests/conformance.rs`:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//!
//! [dev-dependencies]
//! procpool-conformance = "0.1"
//! ```
//!
//! `cargo test --test conformance` runs all tests, and
//! `cargo test --test conformance -- mine::deadline::` those of one section.
//!
//! A pool whose workers are no processes has an [`Executor`](procpool::executor::Executor) of its
//! own. The tests that make sense without processes run on it by way of [`Suite`], which also takes
//! several kinds of pools, and tests of one's own beside those of the suite.
//!
//! A test is a function that panics when the promise is broken. It waits as long as it takes: the
//! [`watchdog`] is what ends a test that hangs, and no test asserts how fast anything is. Tests
//! about whole processes run the test program again as another [`program`].

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

#[macro_use]
mod trial;
mod values;

mod backends;
mod backoff;
mod balance;
mod broadcast;
mod bulk;
mod call_deadline;
mod callback;
mod cancel;
mod context;
mod daemons;
mod deadline;
mod death;
mod death_mid_transfer;
mod descriptor_lifetimes;
mod descriptor_limits;
mod descriptors;
mod emitter;
mod events;
pub mod failure_modes;
mod forged_descriptors;
mod forged_results;
mod futures;
mod hooks;
mod hostile;
mod hostile_support;
mod imap;
mod join_async;
mod leaks;
mod lifecycle;
mod limits;
mod live_inputs;
mod max_queued;
mod memory;
mod metrics;
mod observe;
mod observer;
mod output;
mod panics;
mod priority;
pub mod procfs;
pub mod program;
mod progress;
mod readme_programs;
mod recycling;
mod refused;
mod restart_storm;
mod results;
mod retry;
mod settings;
mod shared_results;
mod shutdown;
mod signals;
mod spans;
mod start;
mod state;
mod suite;
mod target;
mod ties;
mod trace;
mod unkillable;
mod wakeups;

pub use procpool_testing::{file_barrier, watchdog};

#[doc(hidden)]
pub use crate::backends::Built;
pub use crate::backends::{Builder, Processes, Subject};
pub use crate::suite::Suite;
pub use crate::trial::Test;

/// The `main` of a program that runs all tests for one type of pool of processes. The string is
/// what its tests are called by. The [first page](crate) has an example.
#[macro_export]
macro_rules! main {
    ($name:literal => $pool:ty) => {
        $crate::subject!(PoolOfProcesses = $name: $pool);

        fn main() -> ::std::process::ExitCode {
            $crate::Suite::new().processes::<PoolOfProcesses>().run()
        }
    };
}
