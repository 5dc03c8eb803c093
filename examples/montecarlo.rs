//! A simulation whose result does not depend on how many workers compute it, nor on which of them
//! has which part, nor on the chunks in which the parts travel: it can be repeated to the last bit.
//!
//! How large a share of a grid's cells must be open at random until one can cross it? (About 0.593
//! on large grids.) Each trial opens cells one by one until there is a way from top to
//! bottom. Two things make it reproducible:
//! - Each trial has random numbers of its own, made from the seed and the trial's number, and not
//!   from a generator that a worker keeps from one trial to the next.
//! - The sums are made by the parent, in the order of the trials: `map` and `imap` give the results
//!   in that order, whoever was first. (Floating-point sums depend on their order; those of
//!   `imap_unordered` would differ in the last digits.)
//!
//! Look at the columns: the times differ, the bits do not. (Two cores, which had other work as
//! well.)
//!
//! ```text
//! $ cargo run --release --example montecarlo
//! 1500 trials on a grid of 128 x 128 cells, seed 2024
//! in this process           3.79 s  0.592688 ± 0.000348  3fe2f74c1e098ead
//! 1 workers                 2.82 s  0.592688 ± 0.000348  3fe2f74c1e098ead
//! 2 workers                 1.72 s  0.592688 ± 0.000348  3fe2f74c1e098ead
//! 3 workers                 2.49 s  0.592688 ± 0.000348  3fe2f74c1e098ead
//! 3 workers, chunks of 1    0.97 s  0.592688 ± 0.000348  3fe2f74c1e098ead
//! 4 workers, chunks of 100  3.10 s  0.592688 ± 0.000348  3fe2f74c1e098ead
//! the same bits each time: 6
//! ```

use std::error::Error;
use std::time::Instant;

use procpool::{Pool, SerialPool};

/// Cells on each side of the grid.
const SIDE: usize = 128;
const TRIALS: u64 = 1500;
const SEED: u64 = 2024;

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    println!("{TRIALS} trials on a grid of {SIDE} x {SIDE} cells, seed {SEED}");
    let estimates = [
        report("in this process", &SerialPool::new(), None)?,
        #[cfg(feature = "spawn")]
        by_workers(1, None)?,
        #[cfg(feature = "spawn")]
        by_workers(2, None)?,
        #[cfg(feature = "spawn")]
        by_workers(3, None)?,
        #[cfg(feature = "spawn")]
        by_workers(3, Some(1))?,
        #[cfg(feature = "spawn")]
        by_workers(4, Some(100))?,
    ];
    assert!(estimates.iter().all(|bits| *bits == estimates[0]));
    println!("the same bits each time: {}", estimates.len());
    Ok(())
}

#[cfg(feature = "spawn")]
fn by_workers(workers: usize, chunksize: Option<usize>) -> Result<[u64; 2], Box<dyn Error>> {
    let pool = procpool::ProcessPool::builder()
        .processes(workers)
        .build()?;
    let chunks = chunksize.map_or(String::new(), |size| format!(", chunks of {size}"));
    report(&format!("{workers} workers{chunks}"), &pool, chunksize)
}

/// Prints the estimate, and returns its bits.
fn report(
    name: &str,
    pool: &impl Pool,
    chunksize: Option<usize>,
) -> Result<[u64; 2], Box<dyn Error>> {
    let begin = Instant::now();
    let mut call = pool.call(trial);
    if let Some(items) = chunksize {
        call = call.chunksize(items);
    }
    let shares = call.map((0..TRIALS).map(|number| (SEED, number)))?;
    let n = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / n;
    let variance = shares
        .iter()
        .map(|share| (share - mean).powi(2))
        .sum::<f64>()
        / (n - 1.0);
    let error = (variance / n).sqrt();
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{name:24} {seconds:5.2} s  {mean:.6} ± {error:.6}  {:016x}",
        mean.to_bits()
    );
    Ok([mean.to_bits(), error.to_bits()])
}

/// Opens cells at random until one can cross the grid, and says which share of them is open then.
fn trial((seed, number): (u64, u64)) -> f64 {
    let mut random = Random::new(seed, number);
    let mut cells: Vec<usize> = (0..SIDE * SIDE).collect();
    let mut grid = Grid::new();
    for opened in 0..cells.len() {
        // The next one of a shuffle.
        let other = opened + random.below(cells.len() - opened);
        cells.swap(opened, other);
        grid.open(cells[opened]);
        if grid.can_be_crossed() {
            return (opened + 1) as f64 / cells.len() as f64;
        }
    }
    1.0
}

/// The random numbers of one trial: SplitMix64, whose state any number may be.
struct Random(u64);

impl Random {
    fn new(seed: u64, trial: u64) -> Self {
        let mut random = Self(seed);
        // Mixed, for neighbouring states would give the same numbers one trial later.
        Self(random.next() ^ Self(trial).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

/// Which open cells are connected: disjoint sets, with one more cell above the grid and one below
/// it.
struct Grid {
    is_open: Vec<bool>,
    parent: Vec<usize>,
}

const ABOVE: usize = SIDE * SIDE;
const BELOW: usize = ABOVE + 1;

impl Grid {
    fn new() -> Self {
        Self {
            is_open: vec![false; SIDE * SIDE],
            parent: (0..=BELOW).collect(),
        }
    }

    fn open(&mut self, cell: usize) {
        self.is_open[cell] = true;
        let (row, column) = (cell / SIDE, cell % SIDE);
        let neighbours = [
            (row > 0).then(|| cell - SIDE),
            (row + 1 < SIDE).then(|| cell + SIDE),
            (column > 0).then(|| cell - 1),
            (column + 1 < SIDE).then(|| cell + 1),
        ];
        for neighbour in neighbours.into_iter().flatten() {
            if self.is_open[neighbour] {
                self.connect(cell, neighbour);
            }
        }
        if row == 0 {
            self.connect(cell, ABOVE);
        }
        if row + 1 == SIDE {
            self.connect(cell, BELOW);
        }
    }

    fn can_be_crossed(&mut self) -> bool {
        self.root(ABOVE) == self.root(BELOW)
    }

    fn connect(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.parent[one] = other;
    }

    fn root(&mut self, mut cell: usize) -> usize {
        while self.parent[cell] != cell {
            self.parent[cell] = self.parent[self.parent[cell]];
            cell = self.parent[cell];
        }
        cell
    }
}
