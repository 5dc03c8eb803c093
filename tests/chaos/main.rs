//! Nothing hangs and nothing is lost: random calls by several threads while workers and fork
//! servers are killed, stopped and continued, in a cluster also agents, the server and links, and a
//! ledger of what became of every item; and a soak that makes and drops pools and runs tasks until
//! a leak would show.
//!
//! `cargo test -p procpool-tests --test chaos` runs a little of both. `cargo xtask chaos --seconds
//! N --seed S` and `cargo xtask soak` run as much as one likes; see [`harness::command`].

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

#[cfg(any(feature = "fork", feature = "spawn"))]
mod harness;

#[cfg(any(feature = "fork", feature = "spawn"))]
fn main() -> std::process::ExitCode {
    if harness::meddling::is_tracer() {
        return std::process::ExitCode::SUCCESS;
    }
    procpool::init();
    harness::command::main()
}

#[cfg(not(any(feature = "fork", feature = "spawn")))]
fn main() {
    println!("test result: ok. without a backend there is nobody to kill");
}
