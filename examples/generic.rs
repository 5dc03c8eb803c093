//! A function that does not say which pool it runs on: it takes any `P: Pool`.
//!
//! Look at the findings, which are the same from all pools, and at the times: the pools of
//! processes need less of it than `SerialPool`, which runs every task in the caller. (Here on two
//! cores.)
//!
//! ```text
//! $ cargo run --release --example generic
//! ForkPool    2 at a time  0.32 s  Findings { primes: 148933, pi: 3.1416114, longest_collatz: 410011 }
//! SpawnPool   2 at a time  0.31 s  Findings { primes: 148933, pi: 3.1416114, longest_collatz: 410011 }
//! SerialPool  1 at a time  0.60 s  Findings { primes: 148933, pi: 3.1416114, longest_collatz: 410011 }
//! pools with the same answers: 3
//! ```

use std::error::Error;
use std::ops::Range;
use std::time::Instant;

use procpool::{Pool, SerialPool, TaskError};

/// What the same code finds out on every pool.
#[derive(Debug, PartialEq)]
struct Findings {
    primes: usize,
    pi: f64,
    longest_collatz: u64,
}

/// Three ways to hand out work.
fn explore<P: Pool>(pool: &P) -> Result<Findings, TaskError> {
    // One task in the background, while this thread hands out the others.
    let longest = pool.apply_async(longest_collatz, 1..500_000);

    // A result for each range, in the order of the ranges.
    let ranges = (0..2_000_000).step_by(50_000).map(|at| at..at + 50_000);
    let primes = pool.map(count_primes, ranges)?.into_iter().sum();

    // Results as they come, while there are still tasks to hand out. A task gets nothing but its
    // item: what a closure would capture, such as `points`, is a part of that.
    let (tasks, points) = (50, 400_000);
    let mut hits = 0;
    for inside in pool.imap_unordered(hit_circle, (0..tasks).map(move |seed| (seed, points))) {
        hits += inside?;
    }

    Ok(Findings {
        primes,
        pi: 4.0 * hits as f64 / (tasks * points) as f64,
        longest_collatz: longest.get()?,
    })
}

/// How many primes there are in a range.
fn count_primes(range: Range<u64>) -> usize {
    let has_divisor = |n: u64| {
        (2..)
            .take_while(|d| d * d <= n)
            .any(|d| n.is_multiple_of(d))
    };
    range.filter(|&n| n >= 2 && !has_divisor(n)).count()
}

/// How many of so many random points in a square lie in the circle inside it.
fn hit_circle((seed, points): (u64, u64)) -> u64 {
    // SplitMix64. Each task has numbers of its own, so it does not matter which worker runs it.
    let mut state = seed << 32;
    let mut random = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let is_inside = |_: &u64| random().powi(2) + random().powi(2) < 1.0;
    (0..points).filter(is_inside).count() as u64
}

/// The number with the longest Collatz sequence in a range.
fn longest_collatz(range: Range<u64>) -> u64 {
    let halve_or_triple = |&n: &u64| match n {
        1 => None,
        n if n.is_multiple_of(2) => Some(n / 2),
        n => Some(3 * n + 1),
    };
    let length = |&n: &u64| std::iter::successors(Some(n), halve_or_triple).count();
    range.max_by_key(length).unwrap_or(1)
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    // ForkPool is built first: it forks this program, which must not have other threads then.
    let findings = [
        #[cfg(feature = "fork")]
        report("ForkPool", &procpool::ForkPool::new()?)?,
        #[cfg(feature = "spawn")]
        report("SpawnPool", &procpool::SpawnPool::new()?)?,
        report("SerialPool", &SerialPool::new())?,
    ];
    for found in &findings {
        assert_eq!(found.primes, 148_933);
        assert!((found.pi - std::f64::consts::PI).abs() < 0.001);
        assert_eq!(found, &findings[0]);
    }
    println!("pools with the same answers: {}", findings.len());
    Ok(())
}

fn report<P: Pool>(name: &str, pool: &P) -> Result<Findings, TaskError> {
    let begin = Instant::now();
    let findings = explore(pool)?;
    let seconds = begin.elapsed().as_secs_f64();
    let processes = pool.processes();
    println!("{name:<10}  {processes} at a time  {seconds:.2} s  {findings:?}");
    Ok(findings)
}
