//! A bar for calls, in a style that shows what they have to say. Needs the feature `progress`.
//!
//! ```no_run
//! # use procpool_core as procpool;
//! use procpool::{Pool, SerialPool, progress};
//!
//! let pool = SerialPool::new();
//! let bar = progress::bar();
//! let roots = pool.call(f64::sqrt).progress(bar).map((0..1500).map(f64::from));
//! ```
//! Half through, and when it is over:
//! ```text
//!  52% ━━━━━━━━━━━━━━━━━━━━━━━╸───────────────────── 790/1,500 579/s 0:01, 0:01 left  9 failed
//! 100% ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 1,500/1,500 597/s 0:02  16 failed
//! ```
//!
//! Any other `ProgressBar` of the crate [`indicatif`] will do as well; see
//! [`Call::progress`](crate::Call::progress).
//
// Whatever draws does so in a thread that waits for results, in one of the bar's own or in the one
// for callbacks: a terminal may be stopped (Ctrl-S), and must not stop the pool.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use indicatif;
use indicatif::{ProgressBar, ProgressFinish, ProgressState, ProgressStyle};

use crate::observe::output::Output;

/// A bar for one call: how much is done, how fast, since when, how much longer, and what has
/// failed.
///
/// Its length is that of the call that it is given to. It is drawn on standard error, in the width
/// that the terminal has, and not at all if that is no terminal. When the call is through it stays.
#[must_use]
pub fn bar() -> ProgressBar {
    ProgressBar::no_length()
        .with_style(style())
        .with_finish(ProgressFinish::AndLeave)
}

/// The style of [`bar`], for bars of your own:
/// `ProgressBar::new(1000).with_style(progress::style())`. What stands in the bar's prefix comes
/// first.
///
/// # Panics
/// Never: the template is a fixed one.
#[must_use]
pub fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix}{done:>4} {wide_bar:.cyan/dim} {human_pos}/{total} {speed} {time}  {msg:.red}",
    )
    .expect("a template without mistakes")
    .progress_chars("━╸─")
    .with_key("done", |state: &ProgressState, out: &mut dyn fmt::Write| {
        if let Some(len) = state.len() {
            // Rounded down: it is 100 % only when all is done.
            let _ = write!(out, "{}%", percent(state.pos(), len));
        }
    })
    .with_key(
        "total",
        |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = match state.len() {
                Some(len) => write!(out, "{}", indicatif::HumanCount(len)),
                None => write!(out, "?"),
            };
        },
    )
    .with_key(
        "speed",
        |state: &ProgressState, out: &mut dyn fmt::Write| {
            let per_second = state.per_sec();
            let _ = if per_second >= 100.0 {
                write!(out, "{}/s", indicatif::HumanCount(per_second as u64))
            } else {
                write!(out, "{per_second:.1}/s")
            };
        },
    )
    .with_key("time", |state: &ProgressState, out: &mut dyn fmt::Write| {
        let elapsed = clock(state.elapsed());
        let _ = match state.len() {
            Some(_) if !state.is_finished() => {
                write!(out, "{elapsed}, {} left", clock(state.eta()))
            }
            _ => write!(out, "{elapsed}"),
        };
    })
}

/// What workers print, above a bar instead of through it: an [`Output`] for the builders' options
/// `stdout` and `stderr`. Each line comes on the program's standard error, with the worker's name
/// before it, also if the bar is not drawn because there is no terminal.
///
/// ```no_run
/// # use procpool_core as procpool;
/// use procpool::{Output, progress};
///
/// let bar = progress::bar();
/// let above: Output = progress::lines_above(&bar);
/// // procpool::ProcessPool::builder().stderr(above) ... pool.call(f).progress(bar)
/// # let _ = above;
/// ```
#[must_use]
pub fn lines_above(bar: &ProgressBar) -> Output {
    let bar = bar.clone();
    Output::lines(move |line| {
        bar.suspend(|| {
            // Nobody can be told that standard error is closed.
            let _ = writeln!(io::stderr(), "[{}] {line}", line.worker().name());
        });
    })
}

/// `1:02` or `1:00:02`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours == 0 {
        format!("{minutes}:{seconds:02}")
    } else {
        format!("{hours}:{minutes:02}:{seconds:02}")
    }
}

fn percent(done: u64, all: u64) -> u128 {
    u128::from(done) * 100 / u128::from(all.max(1))
}

/// How often a bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// What a call shows.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    has_begun: bool,
    /// The bar's length is that of the call.
    owns_length: bool,
}

impl Progress {
    /// Of a call that has not begun.
    pub(crate) fn on(bar: ProgressBar) -> Self {
        Self {
            bar: Some(bar),
            ..Self::default()
        }
    }

    pub(crate) fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Many items are going to be run, as many as an iterator says. Only the first time counts.
    pub(crate) fn begin(&mut self, hint: (usize, Option<usize>)) {
        let Some(bar) = &self.bar else {
            return;
        };
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        self.owns_length = bar.length().is_none();
        if self.owns_length && hint.1 == Some(hint.0) {
            bar.set_length(hint.0 as u64);
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
    }

    /// The number of items, which is known from now on.
    pub(crate) fn end_known(&mut self, items: usize) {
        if let Some(bar) = &self.bar
            && self.owns_length
            && bar.length() != Some(items as u64)
        {
            bar.set_length(items as u64);
        }
    }

    /// This many items have ended, and this many of them have failed.
    pub(crate) fn add(&self, items: u64, failed: u64) {
        self.count(items);
        self.count_failures(failed);
    }

    /// This many items have ended. It does not draw while the bar draws itself.
    pub(crate) fn count(&self, items: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(items);
        }
    }

    /// This many of them have failed.
    pub(crate) fn count_failures(&self, items: u64) {
        // Several calls may share a bar, and what it says is all that they know of each other.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let Some(bar) = &self.bar else {
            return;
        };
        if items > 0 {
            let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(before) = failures(&bar.message()) {
                bar.set_message(format!("{} failed", before + items));
            }
        }
    }

    /// The call is done.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take()
            && self.has_begun
            && (self.owns_length || bar.length().is_some_and(|len| len <= bar.position()))
            && !bar.is_finished()
        {
            bar.finish_using_style();
        }
    }

    /// The call was given up.
    pub(crate) fn abandon(&mut self) {
        if let Some(bar) = self.bar.take()
            && self.has_begun
            && self.owns_length
            && !bar.is_finished()
        {
            bar.abandon();
        }
    }
}

/// How many failures a message speaks of; `None`: it speaks of something else.
fn failures(message: &str) -> Option<u64> {
    if message.is_empty() {
        return Some(0);
    }
    message.strip_suffix(" failed")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [0, 59, 60, 3599, 3600, 90_061].map(Duration::from_secs);
        let expected = ["0:00", "0:59", "1:00", "59:59", "1:00:00", "25:01:01"];
        assert_eq!(shown.map(clock), expected);
    }

    #[test]
    fn all_is_done_only_when_it_is() {
        assert_eq!(percent(999_999, 1_000_000), 99);
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }

    #[test]
    fn what_a_message_says_of_failures() {
        assert_eq!(failures(""), Some(0));
        assert_eq!(failures("12 failed"), Some(12));
        assert_eq!(failures("pages failed"), None);
        assert_eq!(failures("a.pdf"), None);
    }
}
