//! The one place where the time of what runs within this program is taken and results are checked.

#![allow(
    clippy::disallowed_methods,
    reason = "what is measured is also what comes after a sleep"
)]

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{Unsupported, Wrong};
use crate::job::{Job, Measured};
use crate::spin::{Pace, Spin, check, even_item, tail_items};
use crate::tree::resident_bytes;

/// What a way to run functions over data can do. Everything but one task is optional.
pub trait Runner: Sync {
    /// One task: the square of `x`.
    ///
    /// # Errors
    /// When it fails.
    fn apply(&self, x: u64) -> Result<u64>;

    /// Submits the squares of `0..n`, then reads each result.
    ///
    /// # Errors
    /// When a task fails or this has no such thing.
    fn apply_async(&self, n: u64) -> Result<Vec<u64>> {
        let _ = n;
        bail!(Unsupported)
    }

    /// The squares of `0..n` by one call.
    ///
    /// # Errors
    /// When a task fails or this has no such thing.
    fn map_squares(&self, n: u64) -> Result<Vec<u64>> {
        let _ = n;
        bail!(Unsupported)
    }

    /// The results of these items by one call.
    ///
    /// # Errors
    /// When a task fails or this has no such thing.
    fn map_spins(&self, items: Vec<Spin>) -> Result<Vec<u64>> {
        let _ = items;
        bail!(Unsupported)
    }

    /// Gives the results of an endless sequence of items, in order, to `visit` until it says stop.
    ///
    /// # Errors
    /// When a task fails or this has no such thing.
    fn imap_spins(&self, steps: u64, visit: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let _ = (steps, visit);
        bail!(Unsupported)
    }

    /// Sends bytes and gets them back.
    ///
    /// # Errors
    /// When the task fails or this has no such thing.
    fn echo_bytes(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let _ = bytes;
        bail!(Unsupported)
    }

    /// Sends numbers and gets them back.
    ///
    /// # Errors
    /// When the task fails or this has no such thing.
    fn echo_floats(&self, floats: Vec<f64>) -> Result<Vec<f64>> {
        let _ = floats;
        bail!(Unsupported)
    }

    /// How many bytes the program has gained when `n` tasks wait behind workers that are all busy.
    ///
    /// # Errors
    /// When a task fails or this has no such thing.
    fn queue(&self, n: u64) -> Result<u64> {
        let _ = n;
        bail!(Unsupported)
    }
}

/// Runs a job, checks its results, and says what it took.
///
/// # Errors
/// [`Wrong`], [`Unsupported`], or why a task failed.
pub(crate) fn execute(runner: &impl Runner, job: Job, pace: Pace) -> Result<Measured> {
    let value = match job {
        Job::Apply { n } => seconds(apply(runner, n)?) / n as f64,
        Job::ApplyAfterSleep { n, pause_us } => {
            let mut total = Duration::ZERO;
            for x in 0..n {
                thread::sleep(Duration::from_micros(pause_us));
                let start = Instant::now();
                let result = runner.apply(x)?;
                total += start.elapsed();
                check_square(x, result)?;
            }
            seconds(total) / n as f64
        }
        Job::ApplyAsync { n } => {
            let start = Instant::now();
            let results = runner.apply_async(n)?;
            let elapsed = start.elapsed();
            check_squares(n, &results)?;
            seconds(elapsed) / n as f64
        }
        Job::MapSquares { n } => {
            let start = Instant::now();
            let results = runner.map_squares(n)?;
            let elapsed = start.elapsed();
            check_squares(n, &results)?;
            seconds(elapsed) / n as f64
        }
        Job::MapSpin { n, item_us } => {
            let steps = pace.steps(item_us);
            let items = (0..n).map(|index| even_item(index, steps)).collect();
            seconds(map_spins(runner, items)?) / n as f64
        }
        Job::MapTail {
            n,
            item_us,
            factor,
            heavy,
        } => {
            let items = tail_items(n, pace.steps(item_us), factor, heavy);
            seconds(map_spins(runner, items)?)
        }
        Job::Imap { n, item_us } => seconds(imap(runner, n, pace.steps(item_us))?) / n as f64,
        Job::Echo { n, bytes, floats } => {
            let total = if floats {
                echo_floats(runner, n, bytes)?
            } else {
                echo_bytes(runner, n, bytes)?
            };
            seconds(total) / n as f64
        }
        Job::Submitters { n, threads } => seconds(submitters(runner, n, threads)?) / n as f64,
        Job::Queue { n } => runner.queue(n)? as f64 / n as f64,
        Job::ImapMemory { n, item_us } => imap_memory(runner, n, pace.steps(item_us))?,
        Job::Hold => {
            map_squares_once(runner)?;
            0.0
        }
        Job::Start { .. } | Job::Workers { .. } => bail!(Unsupported),
    };
    Ok(Measured {
        value,
        n: job.items(),
    })
}

/// Fails if `result` is not the square of `x`.
pub(crate) fn check_square(x: u64, result: u64) -> Result<()> {
    ensure!(
        result == x.wrapping_mul(x),
        Wrong(format!("the square of {x} is not {result}"))
    );
    Ok(())
}

fn check_squares(n: u64, results: &[u64]) -> Result<()> {
    let wrong = || Wrong(format!("these are not the squares of 0..{n}"));
    ensure!(results.len() as u64 == n, wrong());
    let right = (0..n).zip(results).all(|(x, &y)| y == x.wrapping_mul(x));
    ensure!(right, wrong());
    Ok(())
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn apply(runner: &impl Runner, n: u64) -> Result<Duration> {
    let start = Instant::now();
    for x in 0..n {
        check_square(x, runner.apply(x)?)?;
    }
    Ok(start.elapsed())
}

fn map_squares_once(runner: &impl Runner) -> Result<()> {
    let n = 1000;
    match runner.map_squares(n) {
        Ok(results) => check_squares(n, &results),
        Err(error) if error.is::<Unsupported>() => check_square(3, runner.apply(3)?),
        Err(error) => Err(error),
    }
}

fn map_spins(runner: &impl Runner, items: Vec<Spin>) -> Result<Duration> {
    let kept = items.clone();
    let start = Instant::now();
    let results = runner.map_spins(items)?;
    let elapsed = start.elapsed();
    let right = results.len() == kept.len() && check(kept, &results);
    ensure!(right, Wrong("map of computations".to_owned()));
    Ok(elapsed)
}

fn imap(runner: &impl Runner, n: u64, steps: u64) -> Result<Duration> {
    let mut results = Vec::with_capacity(n as usize);
    let start = Instant::now();
    runner.imap_spins(steps, &mut |result| {
        results.push(result);
        (results.len() as u64) < n
    })?;
    let elapsed = start.elapsed();
    let items = (0..n).map(|index| even_item(index, steps));
    let right = results.len() as u64 == n && check(items, &results);
    ensure!(right, Wrong("imap of computations".to_owned()));
    Ok(elapsed)
}

fn imap_memory(runner: &impl Runner, n: u64, steps: u64) -> Result<f64> {
    let (mut count, mut early, mut late) = (0, 0, 0);
    runner.imap_spins(steps, &mut |result| {
        black_box(result);
        count += 1;
        if count == n / 10 {
            early = resident_bytes(None).unwrap_or_default();
        }
        if count == n {
            late = resident_bytes(None).unwrap_or_default();
        }
        count < n
    })?;
    ensure!(early > 0 && late > 0, "the kernel does not tell our memory");
    Ok(late.saturating_sub(early) as f64)
}

fn echo_bytes(runner: &impl Runner, n: u64, bytes: u64) -> Result<Duration> {
    let payload: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
    let mut total = Duration::ZERO;
    for _ in 0..n {
        let argument = payload.clone();
        let start = Instant::now();
        let echo = runner.echo_bytes(argument)?;
        total += start.elapsed();
        ensure!(echo == payload, Wrong(format!("echo of {bytes} bytes")));
    }
    Ok(total)
}

fn echo_floats(runner: &impl Runner, n: u64, bytes: u64) -> Result<Duration> {
    let payload: Vec<f64> = (0..bytes / 8).map(|index| index as f64 * 0.5).collect();
    let mut total = Duration::ZERO;
    for _ in 0..n {
        let argument = payload.clone();
        let start = Instant::now();
        let echo = runner.echo_floats(argument)?;
        total += start.elapsed();
        ensure!(
            echo == payload,
            Wrong(format!("echo of {bytes} bytes of numbers"))
        );
    }
    Ok(total)
}

fn submitters(runner: &impl Runner, n: u64, threads: u64) -> Result<Duration> {
    let each = (n / threads).max(1);
    let start = Instant::now();
    let outcomes: Vec<Result<Duration>> = thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| apply(runner, each)))
            .collect();
        spawned
            .into_iter()
            .map(|thread| thread.join().expect("a submitting thread does not panic"))
            .collect()
    });
    let elapsed = start.elapsed();
    for outcome in outcomes {
        outcome?;
    }
    // So that the caller's division by `n` is right also where `n` is no multiple.
    Ok(elapsed.mul_f64(n as f64 / (each * threads) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spin::spin;

    /// Does everything in the caller; `wrong` is the number of the item that it gets wrong.
    struct Liar {
        wrong: Option<u64>,
    }

    impl Liar {
        fn lie(&self, index: u64, result: u64) -> u64 {
            result ^ u64::from(self.wrong == Some(index))
        }
    }

    impl Runner for Liar {
        fn apply(&self, x: u64) -> Result<u64> {
            Ok(self.lie(x, x * x))
        }

        fn apply_async(&self, n: u64) -> Result<Vec<u64>> {
            (0..n).map(|x| self.apply(x)).collect()
        }

        fn map_squares(&self, n: u64) -> Result<Vec<u64>> {
            self.apply_async(n)
        }

        fn map_spins(&self, items: Vec<Spin>) -> Result<Vec<u64>> {
            let items = (0..).zip(items);
            Ok(items
                .map(|(index, item)| self.lie(index, spin(item)))
                .collect())
        }

        fn imap_spins(&self, steps: u64, visit: &mut dyn FnMut(u64) -> bool) -> Result<()> {
            let mut results = (0..).map(|index| self.lie(index, spin(even_item(index, steps))));
            while results.next().is_some_and(&mut *visit) {}
            Ok(())
        }

        fn echo_bytes(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
            bytes[0] ^= u8::from(self.wrong.is_some());
            Ok(bytes)
        }

        fn echo_floats(&self, mut floats: Vec<f64>) -> Result<Vec<f64>> {
            floats[0] += f64::from(u8::from(self.wrong.is_some()));
            Ok(floats)
        }
    }

    const JOBS: &[Job] = &[
        Job::Apply { n: 10 },
        Job::ApplyAfterSleep { n: 10, pause_us: 1 },
        Job::ApplyAsync { n: 10 },
        Job::MapSquares { n: 10 },
        Job::MapSpin { n: 10, item_us: 1 },
        Job::MapTail {
            n: 10,
            item_us: 1,
            factor: 3,
            heavy: 1,
        },
        Job::Imap { n: 10, item_us: 1 },
        Job::Echo {
            n: 1,
            bytes: 64,
            floats: false,
        },
        Job::Echo {
            n: 1,
            bytes: 64,
            floats: true,
        },
        Job::Submitters { n: 20, threads: 2 },
    ];

    #[test]
    fn a_single_wrong_result_is_found_in_every_job() {
        let pace = Pace::calibrate();
        for &job in JOBS {
            let honest = execute(&Liar { wrong: None }, job, pace);
            let measured = honest.unwrap_or_else(|error| panic!("{job:?}: {error}"));
            assert!(
                measured.value >= 0.0 && measured.n == job.items(),
                "{job:?}"
            );
            let lie = execute(&Liar { wrong: Some(7) }, job, pace);
            let error = lie
                .err()
                .unwrap_or_else(|| panic!("{job:?} believes everything"));
            assert!(error.is::<Wrong>(), "{job:?}: {error}");
        }
    }

    #[test]
    fn what_a_runner_does_not_have_is_no_failure() {
        let error = execute(
            &Liar { wrong: None },
            Job::Queue { n: 5 },
            Pace::calibrate(),
        );
        assert!(error.expect_err("it has no queue").is::<Unsupported>());
    }
}
