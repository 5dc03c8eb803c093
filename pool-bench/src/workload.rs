//! What is run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use procpool::Pool;

use crate::contender::Contender;

/// A piece of work, and how many items it has.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) items: u64,
    /// Runs it, checks the result, and says how long it took.
    pub(crate) run: fn(&Contender) -> Duration,
}

pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "apply of x*x, one in flight",
        items: APPLIES,
        run: |contender| on(contender, Apply),
    },
    Workload {
        name: "apply_async of x*x, all submitted, then all read",
        items: APPLIES,
        run: |contender| on(contender, ApplyAsync),
    },
    Workload {
        name: "map of x*x over 10 million u64",
        items: SQUARES,
        run: |contender| on(contender, MapSquares),
    },
    Workload {
        name: "map over 2,000 items of 100 us",
        items: SPINS,
        run: |contender| on(contender, MapSpins),
    },
    Workload {
        name: "imap of x*x over an endless iterator, the first million",
        items: LAZY,
        run: |contender| on(contender, Imap),
    },
    Workload {
        name: "echo of a 16 MiB Vec<u8>",
        items: ECHOES,
        run: |contender| on(contender, Echo),
    },
];

const APPLIES: u64 = 20_000;
const SQUARES: u64 = 10_000_000;
const SPINS: u64 = 2_000;
const LAZY: u64 = 1_000_000;
const ECHOES: u64 = 4;
const ECHO_BYTES: usize = 16 << 20;

/// The same work with and without a pool.
trait Work {
    fn sequential(&self);
    fn pool<P: Pool>(&self, pool: &P);
}

fn on(contender: &Contender, work: impl Work) -> Duration {
    let start = Instant::now();
    match contender {
        Contender::Sequential => work.sequential(),
        Contender::Serial(pool) => work.pool(pool),
        Contender::Fork(pool) => work.pool(pool),
        Contender::Spawn(pool) => work.pool(pool),
    }
    start.elapsed()
}

fn square(x: u64) -> u64 {
    black_box(x).wrapping_mul(x)
}

/// Computes for 100 microseconds.
fn spin(x: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(100) {
        std::hint::spin_loop();
    }
    x
}

struct Apply;

impl Work for Apply {
    fn sequential(&self) {
        for x in 0..APPLIES {
            assert_eq!(square(x), x.wrapping_mul(x));
        }
    }

    fn pool<P: Pool>(&self, pool: &P) {
        for x in 0..APPLIES {
            assert_eq!(pool.apply(square, x), Ok(x.wrapping_mul(x)));
        }
    }
}

struct ApplyAsync;

impl Work for ApplyAsync {
    fn sequential(&self) {
        Apply.sequential();
    }

    fn pool<P: Pool>(&self, pool: &P) {
        let handles: Vec<_> = (0..APPLIES).map(|x| pool.apply_async(square, x)).collect();
        for (x, handle) in (0..).zip(handles) {
            assert_eq!(handle.get(), Ok(u64::wrapping_mul(x, x)));
        }
    }
}

struct MapSquares;

impl Work for MapSquares {
    fn sequential(&self) {
        check_squares(&(0..SQUARES).map(square).collect::<Vec<_>>());
    }

    fn pool<P: Pool>(&self, pool: &P) {
        check_squares(&pool.map(square, 0..SQUARES).expect("squares do not fail"));
    }
}

fn check_squares(squares: &[u64]) {
    assert_eq!(squares.len() as u64, SQUARES);
    assert!(
        (0..)
            .zip(squares)
            .all(|(x, &y)| y == u64::wrapping_mul(x, x))
    );
}

struct MapSpins;

impl Work for MapSpins {
    fn sequential(&self) {
        assert!((0..SPINS).map(spin).eq(0..SPINS));
    }

    fn pool<P: Pool>(&self, pool: &P) {
        let spins = pool.map(spin, 0..SPINS).expect("spinning does not fail");
        assert!(spins.into_iter().eq(0..SPINS));
    }
}

struct Imap;

impl Work for Imap {
    fn sequential(&self) {
        assert!(
            (0..)
                .map(square)
                .take(LAZY as usize)
                .eq((0..LAZY).map(square))
        );
    }

    fn pool<P: Pool>(&self, pool: &P) {
        let squares = pool.imap(square, 0_u64..).take(LAZY as usize);
        assert!(squares.eq((0..LAZY).map(|x| Ok(square(x)))));
    }
}

struct Echo;

impl Work for Echo {
    fn sequential(&self) {
        for _ in 0..ECHOES {
            let bytes = vec![7_u8; ECHO_BYTES];
            assert_eq!(black_box(bytes.clone()).len(), ECHO_BYTES);
        }
    }

    fn pool<P: Pool>(&self, pool: &P) {
        for _ in 0..ECHOES {
            let bytes = vec![7_u8; ECHO_BYTES];
            let echo = pool.apply(|bytes: Vec<u8>| bytes, bytes);
            assert!(echo.is_ok_and(|echo| echo.len() == ECHO_BYTES && echo[ECHO_BYTES - 1] == 7));
        }
    }
}
