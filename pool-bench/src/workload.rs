//! What is compared: one size of each kind of work. (For many sizes see [`crate::curve`].)

use crate::contender::Role;
use crate::job::Job;
use crate::scale::Scale;

/// What a value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds per item.
    Seconds,
    /// Bytes.
    Bytes,
    /// A number of events.
    Count,
}

/// A kind of work in one size.
pub struct Workload {
    /// What it is called in filters and files.
    pub key: &'static str,
    /// What it is called in tables.
    pub title: &'static str,
    /// Whether it needs programs of its own, started for it alone, so that it sees their memory.
    pub fresh: bool,
    /// What its values mean.
    pub unit: Unit,
    /// What somebody in this role is asked. `None`: nothing.
    pub job: fn(Role, Scale, workers: u64) -> Option<Job>,
}

/// How many workers "8 workers ready" means.
pub const READY: u64 = 8;

/// What is sent around as one large value.
const ECHO_BYTES: u64 = 16 << 20;

/// All of them, in the order of the report.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        key: "apply",
        title: "apply of x*x, one in flight, warm",
        fresh: false,
        unit: Unit::Seconds,
        job: |role, scale, _| {
            let n = match role {
                Role::Floor => scale.pick(100_000, 30_000, 100),
                Role::Alone | Role::Ours => scale.pick(30_000, 5_000, 20),
                Role::Threads => scale.pick(3_000, 1_000, 20),
                Role::Rival => scale.pick(400, 60, 5),
            };
            Some(Job::Apply { n })
        },
    },
    Workload {
        key: "apply-after-sleep",
        title: "apply of x*x after 5 ms of sleep on both sides",
        fresh: false,
        unit: Unit::Seconds,
        job: |role, scale, _| {
            (role != Role::Alone).then_some(Job::ApplyAfterSleep {
                n: match role {
                    Role::Rival => scale.pick(16, 5, 1),
                    _ => scale.pick(60, 10, 2),
                },
                pause_us: 5_000,
            })
        },
    },
    Workload {
        key: "apply-async",
        title: "apply_async of x*x, all submitted, then each handle read",
        fresh: false,
        unit: Unit::Seconds,
        job: |role, scale, _| {
            (role != Role::Floor).then_some(Job::ApplyAsync {
                n: match role {
                    Role::Rival => scale.pick(1_000, 200, 5),
                    _ => scale.pick(100_000, 20_000, 50),
                },
            })
        },
    },
    Workload {
        key: "map-squares",
        title: "map of x*x over 10 million u64, default chunks",
        fresh: false,
        unit: Unit::Seconds,
        job: |role, scale, _| {
            (role != Role::Floor).then_some(Job::MapSquares {
                n: match role {
                    Role::Rival => scale.pick(100_000, 30_000, 100),
                    _ => scale.pick(10_000_000, 1_000_000, 1_000),
                },
            })
        },
    },
    Workload {
        key: "map-100us",
        title: "map over 10,000 items of 100 µs of computation",
        fresh: false,
        unit: Unit::Seconds,
        job: |role, scale, _| {
            Some(Job::MapSpin {
                n: match role {
                    Role::Ours | Role::Threads => scale.pick(10_000, 1_000, 10),
                    Role::Floor | Role::Alone | Role::Rival => scale.pick(1_000, 200, 10),
                },
                item_us: 100,
            })
        },
    },
    Workload {
        key: "map-tail",
        title: "map over heavy-tailed items, 1,000 times as long at the worst places (whole call)",
        fresh: false,
        unit: Unit::Seconds,
        job: |_, scale, workers| {
            Some(Job::MapTail {
                n: scale.pick(4_000, 1_000, 50),
                item_us: scale.pick(20, 10, 1),
                factor: scale.pick(1_000, 1_000, 100),
                heavy: workers,
            })
        },
    },
    Workload {
        key: "echo-bytes",
        title: "echo of a 16 MiB Vec<u8>",
        fresh: false,
        unit: Unit::Seconds,
        job: |role, scale, _| Some(echo(role, scale, false)),
    },
    Workload {
        key: "echo-floats",
        title: "echo of a 16 MiB Vec<f64>",
        fresh: false,
        unit: Unit::Seconds,
        job: |role, scale, _| Some(echo(role, scale, true)),
    },
    Workload {
        key: "imap-1us",
        title: "imap over an endless iterator, items of 1 µs",
        fresh: false,
        unit: Unit::Seconds,
        job: |role, scale, _| {
            let n = one_microsecond(role, scale);
            Some(Job::Imap { n, item_us: 1 })
        },
    },
    Workload {
        key: "map-1us",
        title: "map over items of 1 µs",
        fresh: false,
        unit: Unit::Seconds,
        job: |role, scale, _| {
            let n = one_microsecond(role, scale);
            Some(Job::MapSpin { n, item_us: 1 })
        },
    },
    Workload {
        key: "ready",
        title: "8 workers ready: build and first answer",
        fresh: false,
        unit: Unit::Seconds,
        job: |_, scale, _| {
            Some(Job::Start {
                workers: scale.pick(READY, READY, 2),
                resident: 0,
            })
        },
    },
    Workload {
        key: "queue",
        title: "memory per queued tiny task, its handle included",
        fresh: true,
        unit: Unit::Bytes,
        job: |role, scale, _| {
            match role {
                Role::Ours => Some(scale.pick(1_000_000, 100_000, 1_000)),
                Role::Rival => Some(scale.pick(5_000, 2_000, 100)),
                Role::Floor | Role::Alone | Role::Threads => None,
            }
            .map(|n| Job::Queue { n })
        },
    },
    Workload {
        key: "imap-memory",
        title: "memory that the program gains during a long imap",
        fresh: true,
        unit: Unit::Bytes,
        job: |role, scale, _| {
            (role == Role::Ours).then_some(Job::ImapMemory {
                n: scale.pick(1_000_000, 100_000, 1_000),
                item_us: 1,
            })
        },
    },
];

fn echo(role: Role, scale: Scale, floats: bool) -> Job {
    Job::Echo {
        n: match role {
            Role::Rival => 1,
            _ => scale.pick(4, 2, 1),
        },
        bytes: scale.pick(ECHO_BYTES, ECHO_BYTES, 1 << 20),
        floats,
    }
}

fn one_microsecond(role: Role, scale: Scale) -> u64 {
    match role {
        Role::Rival => scale.pick(2_000, 300, 10),
        _ => scale.pick(200_000, 50_000, 100),
    }
}
