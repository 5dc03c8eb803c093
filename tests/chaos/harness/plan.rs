//! What is random: options, items, deeds, configs of pools. All of it follows from the seed.

use std::time::Duration;

use fastrand::Rng;

use super::action::{ArgumentTrap, Beginning, Closed, Deed, Fork};
use super::backend::{Config, Kind};
use super::job::Item;
use super::ledger::Ledger;

/// The options of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
    /// Panics are tried again, too, each after this time.
    pub(crate) backoff: Option<Duration>,
    pub(crate) chunksize: Option<usize>,
    pub(crate) buffer: Option<usize>,
}

/// How a call is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancel,
    Kill,
}

/// What the planning of a call depends on.
#[derive(Clone, Copy)]
pub(crate) struct Climate {
    /// The pools that tasks have, if they have any.
    pub(crate) nested: Option<Kind>,
    /// How long the processes that tasks leave behind live by themselves. Nobody can end them
    /// whose worker's fork server was killed.
    pub(crate) child_seconds: u16,
    /// Whether workers are on other machines. What tasks do to their own one is the matter of the
    /// pools there, which have storms of their own.
    pub(crate) is_cluster: bool,
}

/// Whether something happens that does so in one of this many cases.
pub(crate) fn one_in(rng: &mut Rng, cases: u32) -> bool {
    rng.u32(..cases) == 0
}

impl Options {
    pub(crate) fn random(rng: &mut Rng, items: usize) -> Self {
        let timeout = one_in(rng, 4).then(|| Duration::from_millis(rng.u64(2..400)));
        Self {
            timeout,
            retries: if one_in(rng, 3) { rng.u32(1..4) } else { 0 },
            backoff: one_in(rng, 2).then(|| Duration::from_millis(rng.u64(..20))),
            chunksize: one_in(rng, 3).then(|| rng.usize(1..=items.max(1))),
            buffer: one_in(rng, 3).then(|| rng.usize(1..20)),
        }
    }
}

/// This many bytes: mostly few.
pub(crate) fn bytes(rng: &mut Rng, most: usize) -> usize {
    let limit = match rng.u32(..100) {
        0..30 => return 0,
        30..60 => 64,
        60..85 => 4 << 10,
        85..95 => 64 << 10,
        95..98 => 1 << 20,
        _ => 8 << 20,
    };
    rng.usize(..=limit.min(most))
}

/// How many items: mostly few.
pub(crate) fn count(rng: &mut Rng) -> usize {
    match rng.u32(..20) {
        0 => 0,
        1..4 => 1,
        4..15 => rng.usize(2..20),
        _ => rng.usize(20..200),
    }
}

/// Items of a call. With `deeds`, some do something; `stop` says how the call will be stopped for
/// certain, if it will.
pub(crate) fn items(
    rng: &mut Rng,
    ledger: &Ledger,
    climate: Climate,
    count: usize,
    deeds: bool,
    options: &Options,
    stop: Option<Stop>,
) -> Vec<Item> {
    // All of a call's bytes, and its time.
    let mut room = if one_in(rng, 10) { 16 << 20 } else { 128 << 10 };
    let mut long = 3;
    let first = if deeds { ledger.numbers(count) } else { 0 };
    // In some calls everything goes well, in some nothing does.
    let trouble = match rng.u32(..4) {
        0 => 0,
        1 => 2,
        _ => 12,
    };
    (0..count)
        .map(|index| {
            let mut deed = Deed::Nothing;
            if deeds && (count == 1 || one_in(rng, 3)) {
                deed = harmless(rng, count);
            }
            if deeds && trouble > 0 && one_in(rng, if count == 1 { 3 } else { 30 * 2 / trouble }) {
                deed = random(rng, climate, options, stop, &mut long);
            }
            let bytes = bytes(rng, room);
            room -= bytes;
            let reply_bytes = if deeds { self::bytes(rng, room) } else { 0 };
            room -= reply_bytes;
            Item {
                id: if deeds { first + index as u64 } else { 0 },
                index,
                deed,
                bytes,
                reply_bytes,
            }
        })
        .collect()
}

fn harmless(rng: &mut Rng, count: usize) -> Deed {
    match rng.u32(..10) {
        0..2 => Deed::SleepMs(rng.u16(..if count > 20 { 3 } else { 30 })),
        2..5 => Deed::SpinUs(rng.u32(..if count > 20 { 300 } else { 3000 })),
        _ => Deed::Nothing,
    }
}

/// Any deed. One that takes forever only where something is certain to end it.
fn random(
    rng: &mut Rng,
    climate: Climate,
    options: &Options,
    stop: Option<Stop>,
    long: &mut u32,
) -> Deed {
    let deed = match rng.u32(..24) {
        0..3 => Deed::Panic,
        3 => Deed::Resume,
        4 => Deed::Exit(0),
        5 => Deed::Exit(42),
        6 => Deed::Abort,
        7 => Deed::Segfault,
        8 => Deed::Kill,
        9 => Deed::Argument(ArgumentTrap::number(rng.usize(..4))),
        10 => Deed::Answer(ArgumentTrap::number(rng.usize(..4))),
        11 => Deed::Child {
            seconds: climate.child_seconds,
            ms: rng.u16(..20),
            leave: one_in(rng, 2),
        },
        12 if one_in(rng, 4) => climate.nested.map_or(Deed::Nothing, Deed::Nested),
        13 => Deed::SleepMs(rng.u16(50..400)),
        14 if one_in(rng, 3) => Deed::FewProcesses,
        14 => Deed::DropPrivileges,
        15 | 16 => {
            let copies = [Fork::Stays, Fork::Escapes, Fork::Returns, Fork::Dies];
            Deed::Fork {
                copy: copies[rng.usize(..copies.len())],
                seconds: climate.child_seconds,
                ms: rng.u16(..20),
            }
        }
        17 | 18 => Deed::Close(match rng.u32(..12) {
            0 => Closed::Stays,
            1..6 => Closed::Opens,
            _ => Closed::Returns(rng.u16(..20)),
        }),
        19.. => match stop {
            Some(Stop::Cancel) => Deed::UntilCancelled,
            Some(Stop::Kill) if one_in(rng, 3) => Deed::CatchAndStay,
            Some(Stop::Kill) => Deed::Forever,
            None if options.timeout.is_some() && one_in(rng, 3) => Deed::CatchAndStay,
            None if options.timeout.is_some() => Deed::Forever,
            None => Deed::Nothing,
        },
        _ => Deed::Nothing,
    };
    let deed = match climate.is_cluster && deed.is_local() {
        true if one_in(rng, 3) => Deed::BeatMs(rng.u16(500..9000)),
        true => Deed::Nothing,
        false => deed,
    };
    if deed.is_long() {
        if *long == 0 {
            return Deed::Nothing;
        }
        *long -= 1;
    }
    deed
}

/// The config of a pool.
pub(crate) fn config(rng: &mut Rng) -> Config {
    let rings = [4 << 10, 8 << 10, 64 << 10, 1 << 20, 8 << 20];
    let mut config = Config::plain(rng.usize(1..=6));
    config.ring_capacity = one_in(rng, 2).then(|| rings[rng.usize(..rings.len())]);
    config.max_tasks_per_child = one_in(rng, 3).then(|| rng.u64(1..30));
    config.has_finalizer = one_in(rng, 3);
    config.beginning = one_in(rng, 2).then(|| Beginning {
        token: rng.u64(1..),
        fails_in: one_in(rng, 8).then(|| rng.u32(2..6)),
    });
    config.max_memory_per_child = one_in(rng, 4).then(|| {
        let rings = 2 * config.ring_capacity.unwrap_or(256 << 10) as u64;
        (32 << 20) + rings
    });
    config.max_age = one_in(rng, 4).then(|| Duration::from_millis(rng.u64(20..500)));
    config.idle = one_in(rng, 3).then(|| {
        let timeout = Duration::from_millis(rng.u64(1..100));
        (timeout, rng.usize(1..=config.processes))
    });
    config.capture = one_in(rng, 4).then(|| Duration::from_micros(rng.u64(..50)));
    config
}
