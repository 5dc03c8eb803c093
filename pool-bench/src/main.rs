//! Compares the pools with floors and rivals: `cargo run --release -p procpool-bench -- compare`.

use clap::Parser;
use procpool_bench::{compare, floor, serve};

/// Benchmarks of procpool.
#[derive(Debug, Parser)]
#[command(bin_name = "procpool-bench")]
enum Program {
    /// Run everybody interleaved, print a table, and write a report.
    Compare(compare::Options),
    /// Be a contender of another program, which says what to do on standard input.
    #[command(hide = true)]
    Serve {
        /// Who to be.
        name: String,
        /// With how many workers.
        #[arg(long)]
        workers: usize,
    },
}

fn main() -> anyhow::Result<()> {
    // Before anything else: a process of these three kinds goes no further.
    if floor::is_newborn() {
        return Ok(floor::newborn()?);
    }
    procpool::init();
    procspawn::init();
    match Program::parse() {
        Program::Compare(options) => compare::compare(&options),
        Program::Serve { name, workers } => serve::serve(&name, workers),
    }
}

#[cfg(test)]
mod tests {
    use super::Program;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Program::command().debug_assert();
    }
}
