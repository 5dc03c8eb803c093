//! Large results that nobody copies: a task that writes its numbers into shared memory, and returns
//! a handle, gives them to the parent where they are. Beside it what a `Vec` costs.
//!
//! What to look at: how many bytes came through the rings, and how much memory the parent has for
//! itself for the results (anonymous memory, in `/proc/self/smaps_rollup`), into which they were
//! copied. Then other tasks, in another pool, read the same results, though the workers that made
//! them are gone.
//!
//! ```text
//! $ cargo run --example results 256
//! 4 columns, together 256 MiB; in MiB:
//!                            through the rings         copied here
//! Vec<f64>                                 256                 256
//! Broadcast<[f64]>                           0                   0
//! read once more by other workers: the sum is 7.730400e10
//! ```

use std::error::Error;
use std::{env, fs};

use procpool::{Broadcast, Pool, SpawnPool};

const WORKERS: usize = 2;
const COLUMNS: usize = 4;
const MEBIBYTE: usize = 1 << 20;

/// The number in a column at this row, which stands for something that takes long to work out.
fn number(column: usize, row: usize) -> f64 {
    ((column * 1_000_003 + row) as f64).sqrt()
}

fn column((column, rows): (usize, usize)) -> Vec<f64> {
    (0..rows).map(|row| number(column, row)).collect()
}

fn shared_column((column, rows): (usize, usize)) -> Broadcast<[f64]> {
    let fill = |numbers: &mut [f64]| {
        for (row, place) in numbers.iter_mut().enumerate() {
            *place = number(column, row);
        }
    };
    // A panic is this task's error.
    Broadcast::filled(rows, fill).expect("there is memory for a column")
}

fn sum(numbers: &[f64]) -> f64 {
    numbers.iter().sum()
}

fn sum_of_shared(numbers: Broadcast<[f64]>) -> f64 {
    sum(&numbers)
}

/// What this process has for itself, in MiB.
fn anonymous() -> usize {
    let sums = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = sums
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.map_or(0, |kibibytes: usize| kibibytes / 1024)
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let mebibytes: usize = match env::args().nth(1) {
        Some(size) => size.parse()?,
        None => 64,
    };
    let rows = mebibytes * MEBIBYTE / size_of::<f64>() / COLUMNS;
    let jobs = || (0..COLUMNS).map(|column| (column, rows));
    println!("{COLUMNS} columns, together {mebibytes} MiB; in MiB:");
    println!("{:<24}{:>20}{:>20}", "", "through the rings", "copied here");

    let pool = SpawnPool::builder().processes(WORKERS).build()?;
    let before = anonymous();
    let columns = pool.call(column).chunksize(1).map(jobs())?;
    let expected: f64 = columns.iter().map(|numbers| sum(numbers)).sum();
    let received = pool.stats().bytes_received as usize / MEBIBYTE;
    let copied = anonymous().saturating_sub(before);
    println!("{:<24}{received:>20}{copied:>20}", "Vec<f64>");
    assert_eq!(received, mebibytes);
    drop((pool, columns));

    let pool = SpawnPool::builder().processes(WORKERS).build()?;
    let before = anonymous();
    let columns = pool.call(shared_column).chunksize(1).map(jobs())?;
    let found: f64 = columns.iter().map(|numbers| sum(numbers)).sum();
    assert_eq!(found, expected, "the same numbers");
    let received = pool.stats().bytes_received as usize / MEBIBYTE;
    let copied = anonymous().saturating_sub(before);
    println!("{:<24}{received:>20}{copied:>20}", "Broadcast<[f64]>");
    assert!(
        received == 0 && copied < mebibytes.div_ceil(4) + 8,
        "they were copied"
    );
    drop(pool);

    let pool = SpawnPool::builder().processes(WORKERS).build()?;
    let sums = pool.call(sum_of_shared).chunksize(1).map(columns)?;
    assert_eq!(sums.iter().sum::<f64>(), expected);
    println!("read once more by other workers: the sum is {expected:.6e}");
    Ok(())
}
