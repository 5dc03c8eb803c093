//! The command `procpool`: see its README.

mod timeline;
mod top;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Shows what the pools of a running program do, draws traces, and makes this machine a part of
/// clusters.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what the pools of a running program do, live. The program has to allow it.
    Top(top::Options),
    /// Prints what each worker of a running program's pools is at, with its stack. The program has
    /// to allow it.
    Dump {
        /// The program's process identifier.
        pid: u32,
        /// Counters of the pool as well.
        #[arg(long)]
        stats: bool,
    },
    /// Draws what the workers of a pool did, from the trace that it has written: a picture, and a
    /// page to zoom into.
    Timeline(timeline::Options),
    /// Makes this machine a part of clusters.
    #[cfg(feature = "agent")]
    Agent(procpool_agent::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Top(options) => top::run(&options),
        Command::Dump { pid, stats } => dump(pid, stats),
        Command::Timeline(options) => timeline::run(&options),
        #[cfg(feature = "agent")]
        Command::Agent(options) => procpool_agent::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads it has enough, as `head` does.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("procpool: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn dump(pid: u32, with_stats: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    for pool in procpool_inspect::pools(pid)? {
        let snapshot = pool.snapshot()?;
        writeln!(out, "{}: {}", snapshot.name, pool.dump()?)?;
        if with_stats {
            writeln!(out, "{}", snapshot.stats)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Options;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Options::command().debug_assert();
    }
}
