//! `procpool-agent nats://host:4222 --trusted-key U…` makes this machine a part of procpool
//! clusters: it fetches and executes the programs that clients publish.

use std::process::ExitCode;

use clap::Parser;
use procpool_agent::Options;

fn main() -> ExitCode {
    match procpool_agent::run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("procpool-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
