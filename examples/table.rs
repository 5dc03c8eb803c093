//! A large table that every worker reads, and that is in memory once: what was built before a
//! `ForkPool` is simply there, and to a `SpawnPool` it goes by `broadcast`. Beside them what it
//! costs to pass it as a value.
//!
//! What to look at is what a worker has for itself (`Private_Dirty` in `/proc/PID/smaps_rollup`).
//! Its resident size counts the table in every process, although all of them map the same pages;
//! the proportional size (Pss) divides each page by those who have it.
//!
//! ```text
//! $ cargo run --example table 1024
//! a table of 1024 MiB, read by 2 workers; in MiB:
//!                                     resident       Pss   private
//! ForkPool, built before
//!   PoolWorker-1                          1027       205         0
//!   PoolWorker-2                          1027       205         0
//! SpawnPool, broadcast
//!   PoolWorker-1                          1029       513         0
//!   PoolWorker-2                          1029       513         0
//! SpawnPool, passed to each worker
//!   PoolWorker-1                          1029      1025      1024
//!   PoolWorker-2                          1029      1025      1024
//! ```
//!
//! The first is divided by five: the program, the fork server, its standby and two workers.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::OnceLock;
use std::{env, fs};

use procpool::{Broadcast, ForkPool, Pool, SpawnPool, worker};

const WORKERS: usize = 2;
const MEBIBYTE: usize = 1 << 20;

/// Set before the `ForkPool` is built; in a worker of a `SpawnPool`, by its initializer.
static TABLE: OnceLock<Vec<u64>> = OnceLock::new();

fn build_table(mebibytes: usize) -> Vec<u64> {
    let scramble = |x: u64| x.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    (0..(mebibytes * MEBIBYTE / 8) as u64)
        .map(scramble)
        .collect()
}

/// What a task finds: the sum of all numbers, and the memory of its worker.
type Found = (u64, String, Memory);

/// Of a process, in MiB.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Memory {
    resident: usize,
    proportional: usize,
    private: usize,
}

impl Memory {
    fn of_this_process() -> Self {
        let sums = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        let mebibytes = |name: &str| {
            let line = sums.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            kibibytes.map_or(0, |kibibytes: usize| kibibytes / 1024)
        };
        Self {
            resident: mebibytes("Rss:"),
            proportional: mebibytes("Pss:"),
            private: mebibytes("Private_Dirty:"),
        }
    }
}

/// Reads all of the table. It is a sum so that every page is touched.
fn read(table: &[u64]) -> Found {
    let sum = table.iter().fold(0, |sum: u64, x| sum.wrapping_add(*x));
    let name = worker::current().map_or_else(|| "parent".to_owned(), |worker| worker.name());
    (sum, name, Memory::of_this_process())
}

fn read_what_is_there(_: ()) -> Found {
    read(TABLE.get().map_or(&[], |table| table))
}

fn read_broadcast(table: Broadcast<[u64]>) -> Found {
    read(&table)
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let mebibytes = match env::args().nth(1) {
        Some(size) => size.parse()?,
        None => 64,
    };
    let table = TABLE.get_or_init(|| build_table(mebibytes));
    let expected = read(table).0;
    println!("a table of {mebibytes} MiB, read by {WORKERS} workers; in MiB:");
    println!("{:<34}{:>10}{:>10}{:>10}", "", "resident", "Pss", "private");

    // Before anything starts a thread: the workers are copies of the program as it is now, and
    // share its pages.
    let pool = ForkPool::builder().processes(WORKERS).build()?;
    let found = pool
        .call(read_what_is_there)
        .chunksize(1)
        .map(vec![(); 8])?;
    let private = report("ForkPool, built before", &found, expected);
    assert!(private < mebibytes.div_ceil(4) + 8, "the table was copied");
    drop(pool);

    let pool = SpawnPool::builder().processes(WORKERS).build()?;
    let shared = pool.broadcast(&table[..])?;
    let found = pool
        .call(read_broadcast)
        .chunksize(1)
        .map(vec![shared; 8])?;
    let private = report("SpawnPool, broadcast", &found, expected);
    assert!(private < mebibytes.div_ceil(4) + 8, "the table was copied");
    drop(pool);

    let pool = SpawnPool::builder()
        .processes(WORKERS)
        .initializer(|table| TABLE.set(table).unwrap_or_default(), table.clone())
        .build()?;
    let found = pool
        .call(read_what_is_there)
        .chunksize(1)
        .map(vec![(); 8])?;
    report("SpawnPool, passed to each worker", &found, expected);
    Ok(())
}

/// Prints what each worker said last, and returns the most that one has for itself.
fn report(how: &str, found: &[Found], expected: u64) -> usize {
    assert!(found.iter().all(|it| it.0 == expected), "the same table");
    let workers: BTreeMap<_, _> = found.iter().map(|it| (&it.1, it.2)).collect();
    println!("{how}");
    for (name, memory) in &workers {
        let Memory {
            resident,
            proportional,
            private,
        } = memory;
        println!("  {name:<32}{resident:>10}{proportional:>10}{private:>10}");
    }
    workers.values().map(|it| it.private).max().unwrap_or(0)
}
