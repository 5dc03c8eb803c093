//! Counts words on two "machines", one of which is killed on the way.
//!
//! `ClusterPool::local(2)` starts a NATS server and two agents on this machine, so the example
//! needs no set-up but a `nats-server`. On real machines the lines of `main` stay as they are: see
//! `docs/cluster.md`.
//!
//! Look at the agents: the first of them is killed when a third of the texts is counted. What it
//! had begun is run again by the other one, since the call says `retries(1)`; and the counts are
//! those of a plain loop.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example cluster
//! 2 agents: agent-1 (pid 4711, 1 processes), agent-2 (pid 4713, 1 processes)
//! agent-1 is killed
//! 240 texts, 600000 words, 5 distinct: right
//! 1 agent is left: agent-2 (pid 4713, 1 processes)
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "it kills one of its agents, to show what becomes of that"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use procpool::{ClusterPool, Pool};
use rustix::process::{Pid, Signal, kill_process};

const TEXTS: usize = 240;

type Counts = BTreeMap<String, u64>;

fn text(number: usize) -> String {
    let words = ["map", "reduce", "crash", "retry", "done"];
    let chosen = (0..2_500).map(|at| words[(number + at * at) % words.len()]);
    chosen.collect::<Vec<_>>().join(" ")
}

fn count(text: String) -> Counts {
    let mut counts = Counts::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    // A larger text would take its time.
    std::thread::sleep(Duration::from_millis(5));
    counts
}

fn add(sum: &mut Counts, counts: Counts) {
    for (word, times) in counts {
        *sum.entry(word).or_default() += times;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let pool = match ClusterPool::local(2) {
        Ok(pool) => pool,
        Err(error) => {
            // It says how to get a server. Where there must be one, that is a failure.
            println!("left out: {error}");
            return match std::env::var_os("PROCPOOL_CI") {
                Some(_) => Err(error.into()),
                None => Ok(()),
            };
        }
    };
    pool.wait_for_processes(2, Duration::from_secs(10));
    let agents = pool.agents();
    let names: Vec<String> = agents.iter().map(ToString::to_string).collect();
    println!("{} agents: {}", agents.len(), names.join(", "));

    let mut sum = Counts::new();
    let call = pool.call(count).retries(1).chunksize(4);
    for (number, counts) in call.imap_unordered((0..TEXTS).map(text)).enumerate() {
        add(&mut sum, counts?);
        if number == TEXTS / 3 {
            println!("{} is killed", agents[0].machine);
            let pid = Pid::from_raw(agents[0].pid.cast_signed()).ok_or("it has a number")?;
            kill_process(pid, Signal::KILL)?;
        }
    }

    let mut expected = Counts::new();
    for number in 0..TEXTS {
        let text = text(number);
        for word in text.split_whitespace() {
            *expected.entry(word.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(sum, expected);
    let words: u64 = sum.values().sum();
    println!(
        "{TEXTS} texts, {words} words, {} distinct: right",
        sum.len()
    );
    let left = pool.agents();
    assert_eq!(left.len(), 1);
    println!("1 agent is left: {}", left[0]);
    Ok(())
}
