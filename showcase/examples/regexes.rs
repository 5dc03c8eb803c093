//! Each worker compiles a set of patterns once, before its first line, and keeps it: `state_from`.
//! The patterns come from the program (here: its arguments), and travel once for each chunk of
//! lines.
//!
//! A set that cannot be compiled is the error of every line, and says why. `SpawnPool`'s workers
//! inherit nothing, so whatever is not in the arguments of a task is made in the worker.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example regexes
//! 100000 lines: 6250 match `timeout`, 6250 match `\bE[0-9]{4}\b`, 12500 match `user=\d+`
//! 2 workers compiled the set, once each
//! a broken set: what makes the worker's state for the task panicked: regex parse error: ...
//! ```

use std::collections::BTreeSet;
use std::error::Error;

use procpool::{Pool, ProcessPool, worker};
use regex::RegexSet;

/// Makes the state, in the worker.
fn compile(patterns: &Vec<String>) -> RegexSet {
    RegexSet::new(patterns).unwrap_or_else(|error| panic!("{error}"))
}

/// The task: which patterns match a line, and which worker says so.
fn matching(set: &mut RegexSet, line: String) -> (Vec<usize>, Option<u32>) {
    let worker = worker::current().map(|worker| worker.number());
    (set.matches(&line).into_iter().collect(), worker)
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let mut patterns: Vec<String> = std::env::args().skip(1).collect();
    if patterns.is_empty() {
        patterns = [r"timeout", r"\bE[0-9]{4}\b", r"user=\d+"]
            .map(String::from)
            .to_vec();
    }
    let pool = ProcessPool::new()?;
    let lines = (0..100_000).map(|n| match n % 16 {
        3 => format!("{n} timeout of request {n}"),
        5 => format!("{n} E{:04} while reading", n % 10_000),
        7 | 11 => format!("{n} user={n} is here"),
        _ => format!("{n} nothing to see"),
    });
    let mut counts = vec![0; patterns.len()];
    let mut workers = BTreeSet::new();
    let call = pool.call(matching).state_from(compile, patterns.clone());
    for found in call.imap_unordered(lines) {
        let (found, worker) = found?;
        found.iter().for_each(|&pattern| counts[pattern] += 1);
        workers.insert(worker);
    }
    let counts = patterns.iter().zip(counts);
    let counts: Vec<_> = counts
        .map(|(pattern, n)| format!("{n} match `{pattern}`"))
        .collect();
    println!("100000 lines: {}", counts.join(", "));
    println!("{} workers compiled the set, once each", workers.len());

    let broken = pool
        .call(matching)
        .state_from(compile, vec!["(".to_owned()]);
    let error = broken
        .apply("a line".to_owned())
        .expect_err("no such pattern");
    println!("a broken set: {error}");
    Ok(())
}
