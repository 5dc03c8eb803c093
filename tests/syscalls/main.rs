//! What becomes of a pool when the system refuses it something.
//!
//! Without more words, this program is a test: it runs itself again, in sandboxes that refuse one
//! system call each, and judges what that says. With `scenario fork` or `scenario spawn` it is what
//! is run: a pool that does a little of everything and says how each step ended. `cargo xtask
//! inject` runs that under `strace`, which lets single calls fail.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

mod refusals;
mod sandbox;
mod scenario;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    procpool::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [scenario, backend, more @ ..] if scenario == "scenario" => scenario::run(backend, more),
        _ => libtest_mimic::run(&Arguments::from_args(), refusals::trials()).exit_code(),
    }
}
