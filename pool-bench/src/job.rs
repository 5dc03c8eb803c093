//! What a contender is asked to do, in the words that also travel to contenders in other programs.

use serde::{Deserialize, Serialize};

/// A piece of work with its size. As JSON, one line, it is what a
/// [`Remote`](crate::contender::Remote) contender reads: `{"job":"apply","n":1000}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are explained where their kind is")]
pub enum Job {
    /// `n` times: one small task, and wait for its result.
    Apply { n: u64 },
    /// The same, each after a pause that is long enough for everybody to fall asleep and is not
    /// counted.
    ApplyAfterSleep { n: u64, pause_us: u64 },
    /// Submit `n` small tasks, then read the result of each.
    ApplyAsync { n: u64 },
    /// Square `n` numbers with one call of `map`.
    MapSquares { n: u64 },
    /// `map` over `n` items, each of which computes for `item_us` microseconds.
    MapSpin { n: u64, item_us: u64 },
    /// `map` over `n` light items with `heavy` items, `factor` times as long, at the start, in the
    /// middle and at the end.
    MapTail {
        n: u64,
        item_us: u64,
        factor: u64,
        heavy: u64,
    },
    /// Take `n` results from a lazy map over an endless input.
    Imap { n: u64, item_us: u64 },
    /// `n` times: send a vector of `bytes` bytes and get it back.
    Echo { n: u64, bytes: u64, floats: bool },
    /// Build a pool and wait until all of its workers can answer, in a program that has `resident`
    /// bytes.
    Start { workers: u64, resident: u64 },
    /// `n` times `Apply` in all, from so many threads at once.
    Submitters { n: u64, threads: u64 },
    /// How much memory the program needs for each of `n` queued tasks, in bytes.
    Queue { n: u64 },
    /// How much memory the program gains between the first and the last tenth of `n` results of a
    /// lazy map, in bytes.
    ImapMemory { n: u64, item_us: u64 },
    /// Have a pool that has worked and now is idle. What it costs is seen from outside.
    Hold,
    /// Use pools of this many workers from now on.
    Workers { workers: u64 },
}

impl Job {
    /// A tenth of it, for warming up; `None` where there is nothing to warm.
    #[must_use]
    pub fn warm_up(self) -> Option<Self> {
        let tenth = |n: u64| (n / 10).max(1);
        Some(match self {
            Self::Apply { n } => Self::Apply { n: tenth(n) },
            Self::ApplyAfterSleep { n, pause_us } => Self::ApplyAfterSleep {
                n: tenth(n),
                pause_us,
            },
            Self::ApplyAsync { n } => Self::ApplyAsync { n: tenth(n) },
            Self::MapSquares { n } => Self::MapSquares { n: tenth(n) },
            Self::MapSpin { n, item_us } => Self::MapSpin {
                n: tenth(n),
                item_us,
            },
            Self::Imap { n, item_us } => Self::Imap {
                n: tenth(n),
                item_us,
            },
            Self::Echo { bytes, floats, .. } => Self::Echo {
                n: 1,
                bytes,
                floats,
            },
            Self::Submitters { n, threads } => Self::Submitters {
                n: tenth(n),
                threads,
            },
            Self::MapTail { .. }
            | Self::Start { .. }
            | Self::Queue { .. }
            | Self::ImapMemory { .. }
            | Self::Hold
            | Self::Workers { .. } => return None,
        })
    }

    /// How many items it has: what a time is divided by.
    #[must_use]
    pub fn items(self) -> u64 {
        match self {
            Self::Apply { n }
            | Self::ApplyAfterSleep { n, .. }
            | Self::ApplyAsync { n }
            | Self::MapSquares { n }
            | Self::MapSpin { n, .. }
            | Self::Imap { n, .. }
            | Self::Echo { n, .. }
            | Self::Submitters { n, .. }
            | Self::Queue { n }
            | Self::ImapMemory { n, .. } => n,
            Self::MapTail { .. } | Self::Start { .. } | Self::Hold | Self::Workers { .. } => 1,
        }
    }
}

/// What came out: seconds per item, or what else the job is about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds per item; bytes per item or in all for the jobs about memory.
    pub value: f64,
    /// How many items there were.
    pub n: u64,
}
