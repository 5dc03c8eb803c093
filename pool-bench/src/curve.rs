//! How costs grow: the same work in many sizes.

use crate::contender::Role;
use crate::job::Job;
use crate::scale::Scale;
use crate::workload::Unit;

/// A kind of work in many sizes.
pub struct Curve {
    /// What it is called in filters and files.
    pub key: &'static str,
    /// What it is called in tables and above its chart.
    pub title: &'static str,
    /// What grows.
    pub axis: Axis,
    /// Its sizes.
    pub sizes: fn(Scale) -> &'static [u64],
    /// What its values mean.
    pub unit: Unit,
    /// What somebody in this role is asked at this size. `None`: nothing, it would take too long.
    pub job: fn(Role, size: u64) -> Option<Job>,
    /// How many bytes must be available for that.
    pub memory: fn(size: u64) -> u64,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Tasks or items.
    Items,
    /// Workers: pools are built anew for each size.
    Workers,
    /// Bytes of a value.
    Bytes,
    /// Threads that submit.
    Threads,
    /// Memory of the program that starts the pool, in bytes: each is a program of its own.
    Resident,
}

impl Axis {
    /// What stands under the chart.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Items => "tasks",
            Self::Workers => "workers",
            Self::Bytes => "bytes",
            Self::Threads => "submitting threads",
            Self::Resident => "resident memory of the program, bytes",
        }
    }

    /// Whether its sizes are bytes.
    #[must_use]
    pub fn is_bytes(self) -> bool {
        matches!(self, Self::Bytes | Self::Resident)
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const WORKERS: fn(Scale) -> &'static [u64] =
    |scale| scale.pick(&[1, 2, 8, 64, 256], &[1, 2, 8], &[1, 2]);

/// How many workers rivals get at most.
const RIVAL_WORKERS: u64 = 8;

/// All of them, in the order of the report.
pub const CURVES: &[Curve] = &[
    Curve {
        key: "growth-tasks",
        title: "apply_async: time per task over the number of tasks",
        axis: Axis::Items,
        sizes: |scale| {
            scale.pick(
                &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
                &[1_000, 10_000, 100_000],
                &[10],
            )
        },
        unit: Unit::Seconds,
        job: |role, n| {
            let most = match role {
                Role::Floor => 0,
                Role::Rival => 1_000,
                Role::Alone | Role::Ours => u64::MAX,
                Role::Threads => 1_000_000,
            };
            (n <= most).then_some(Job::ApplyAsync { n })
        },
        memory: |n| n * 600,
    },
    Curve {
        key: "growth-items",
        title: "map of x*x: time per item over the number of items",
        axis: Axis::Items,
        sizes: |scale| {
            scale.pick(
                &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
                &[1_000, 10_000, 100_000, 1_000_000],
                &[10],
            )
        },
        unit: Unit::Seconds,
        job: |role, n| {
            let most = match role {
                Role::Floor => 0,
                Role::Rival => 100_000,
                Role::Alone | Role::Ours | Role::Threads => u64::MAX,
            };
            (n <= most).then_some(Job::MapSquares { n })
        },
        memory: |n| n * 100,
    },
    Curve {
        key: "growth-workers-ready",
        title: "workers ready: time per worker over the number of workers",
        axis: Axis::Workers,
        sizes: WORKERS,
        unit: Unit::Seconds,
        job: |role, workers| {
            (role != Role::Rival || workers <= RIVAL_WORKERS).then_some(Job::Start {
                workers,
                resident: 0,
            })
        },
        memory: |workers| workers * 8 * MIB,
    },
    Curve {
        key: "growth-workers-tasks",
        title: "apply_async: time per task over the number of workers",
        axis: Axis::Workers,
        sizes: WORKERS,
        unit: Unit::Seconds,
        job: |role, workers| match role {
            Role::Floor | Role::Alone => None,
            Role::Rival => (workers <= RIVAL_WORKERS).then_some(Job::ApplyAsync { n: 500 }),
            Role::Threads | Role::Ours => Some(Job::ApplyAsync { n: 20_000 }),
        },
        memory: |workers| workers * 8 * MIB,
    },
    Curve {
        key: "growth-workers-100us",
        title: "map over items of 100 µs: time per item over the number of workers",
        axis: Axis::Workers,
        sizes: WORKERS,
        unit: Unit::Seconds,
        job: |role, workers| {
            let n = 1_000;
            match role {
                Role::Floor | Role::Alone => None,
                Role::Rival if workers > RIVAL_WORKERS => None,
                _ => Some(Job::MapSpin { n, item_us: 100 }),
            }
        },
        memory: |workers| workers * 8 * MIB,
    },
    Curve {
        key: "growth-bytes",
        title: "echo of a Vec<u8>: time over its length",
        axis: Axis::Bytes,
        sizes: |scale| {
            scale.pick(
                &[
                    0,
                    64,
                    KIB,
                    16 * KIB,
                    256 * KIB,
                    MIB,
                    4 * MIB,
                    16 * MIB,
                    64 * MIB,
                    256 * MIB,
                    GIB,
                ],
                &[0, KIB, 64 * KIB, MIB, 16 * MIB],
                &[0, KIB],
            )
        },
        unit: Unit::Seconds,
        job: |role, bytes| {
            let capped = role == Role::Rival && bytes > 64 * MIB;
            // About as many as take as long as one of 4 MiB.
            let most = if role == Role::Rival { 100 } else { 1_000 };
            let n = (4 * MIB / bytes.max(1)).clamp(1, most);
            (!capped).then_some(Job::Echo {
                n,
                bytes,
                floats: false,
            })
        },
        memory: |bytes| bytes * 5,
    },
    Curve {
        key: "growth-threads",
        title: "apply of x*x: time per task over the number of submitting threads",
        axis: Axis::Threads,
        sizes: |scale| scale.pick(&[1, 2, 4, 8, 16], &[1, 4, 16], &[1, 2]),
        unit: Unit::Seconds,
        job: |role, threads| match role {
            Role::Floor | Role::Alone => None,
            Role::Rival => Some(Job::Submitters { n: 400, threads }),
            Role::Threads | Role::Ours => Some(Job::Submitters { n: 4_000, threads }),
        },
        memory: |_| 0,
    },
    Curve {
        key: "growth-resident",
        title: "2 workers ready: time over the memory of the program that starts them",
        axis: Axis::Resident,
        sizes: |scale| scale.pick(&[0, 100 * MIB, GIB, 4 * GIB], &[0, 100 * MIB], &[0, MIB]),
        unit: Unit::Seconds,
        job: |role, resident| {
            (role != Role::Rival || resident <= GIB).then_some(Job::Start {
                workers: 2,
                resident,
            })
        },
        memory: |resident| resident + resident / 4,
    },
];
