//! What the suites of [procpool](https://docs.rs/procpool) share that look at whole processes.
//!
//! - [`again`]: the test program, run again as another one, and what is left of it
//! - `browser`: pages as chromium shows them (with the feature `browser`)
//! - [`corpus`]: the inputs that are kept for fuzz targets
//! - [`file_barrier`]: places where tests meet tasks in other processes
//! - [`left_out`]: tests that need what not every machine has
//! - [`machine`]: other machines, made of network namespaces
//! - `nats`: a real NATS server (with the feature `nats`)
//! - [`procfs`]: what `/proc` says of processes
//! - [`watchdog`]: what ends a test that hangs, with the [stacks] of all that take part

pub mod again;
#[cfg(feature = "browser")]
pub mod browser;
pub mod corpus;
pub mod file_barrier;
pub mod left_out;
pub mod machine;
#[cfg(feature = "nats")]
pub mod nats;
pub mod procfs;
pub mod stacks;
pub mod watchdog;
