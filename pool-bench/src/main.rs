//! Compares the pools with sequential map, in one run: `cargo run --release -p pool-bench`.
//!
//! Every round runs every contender, so that a machine whose speed drifts is as fair or unfair
//! to each; the medians over the rounds are printed, and beside them the ratio to sequential map. A result that is
//! wrong ends the program.

mod contender;
mod workload;

use std::time::Duration;

use clap::Parser;

use crate::contender::Contender;
use crate::workload::{WORKLOADS, Workload};

/// Compares the pools with sequential map.
#[derive(Parser)]
struct Arguments {
    /// How many times each contender runs each workload.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many workers the pools have.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Only the workloads whose name contains this.
    #[arg(default_value = "")]
    filter: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    procpool::init();
    let arguments = Arguments::parse();
    let contenders = contender::all(arguments.workers)?;
    for workload in WORKLOADS
        .iter()
        .filter(|workload| workload.name.contains(&arguments.filter))
    {
        compare(workload, &contenders, arguments.rounds.max(1));
    }
    Ok(())
}

fn compare(workload: &Workload, contenders: &[Contender], rounds: usize) {
    println!("{}", workload.name);
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for (contender, times) in contenders.iter().zip(&mut times) {
            times.push((workload.run)(contender));
        }
    }
    let medians: Vec<Duration> = times.into_iter().map(median).collect();
    let sequential = medians[0].as_secs_f64();
    for (contender, time) in contenders.iter().zip(&medians) {
        println!(
            "  {:<12} {:>12.1} ns an item   {:>9.3} x sequential",
            contender.name(),
            time.as_secs_f64() * 1e9 / workload.items as f64,
            time.as_secs_f64() / sequential,
        );
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
