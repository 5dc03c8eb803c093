//! The thread that kills, stops and continues workers and fork servers, and the list of whom it
//! has killed.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use procpool::Pool;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::backend::Backend;
use super::kin;
use super::meddling::{self, Held};
use super::plan::one_in;
use super::pools::Tenant;
use super::storm::Storm;

/// A fork server has a standby, which has one of its own some time later. So only two deaths this
/// soon after each other explain the end of a pool.
const BOTH: Duration = Duration::from_secs(2);

/// How long descriptors are short, and somewhat more: what came of it may be noticed later.
const LONGEST_SHORTAGE: Duration = Duration::from_secs(1);

/// How long somebody is stopped at most, in milliseconds.
const LONGEST_STOP: u64 = 1500;

/// Whom the killer has killed.
#[derive(Default)]
pub(crate) struct Victims {
    dead: Mutex<Dead>,
    pub(crate) kills: AtomicU64,
    pub(crate) stops: AtomicU64,
}

#[derive(Default)]
struct Dead {
    /// When each was killed last: numbers are used again.
    workers: HashMap<u32, Instant>,
    /// The same, of all of them.
    times: Vec<Instant>,
    servers: Vec<Instant>,
    /// When somebody was stopped, traced or frozen: a worker, or the fork server that knows how a
    /// worker has ended.
    holds: Vec<Instant>,
    /// When there were too few descriptors.
    shortages: Vec<Instant>,
}

impl Victims {
    fn dead(&self) -> MutexGuard<'_, Dead> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a victim. To be called before it is killed.
    fn add(&self, pid: u32, is_server: bool) {
        let now = Instant::now();
        let mut dead = self.dead();
        dead.times.push(now);
        if is_server {
            dead.servers.push(now);
        } else {
            dead.workers.insert(pid, now);
        }
        self.kills.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a worker of this number was killed.
    pub(crate) fn is_worker(&self, pid: u32, since: Instant) -> bool {
        self.dead().workers.get(&pid).is_some_and(|at| *at >= since)
    }

    /// Whether anybody was killed.
    pub(crate) fn any_since(&self, since: Instant) -> bool {
        self.dead().times.last().is_some_and(|at| *at >= since)
    }

    /// How many workers were killed.
    pub(crate) fn workers_since(&self, since: Instant) -> usize {
        let dead = self.dead();
        dead.workers.values().filter(|at| **at >= since).count()
    }

    /// How many fork servers were killed.
    pub(crate) fn servers_since(&self, since: Instant) -> usize {
        self.dead()
            .servers
            .iter()
            .filter(|at| **at >= since)
            .count()
    }

    /// Whether somebody may have been held who was to die, so that how he ended came too late.
    pub(crate) fn was_held_since(&self, since: Instant) -> bool {
        let longest = Duration::from_millis(LONGEST_STOP);
        let since = since.checked_sub(longest).unwrap_or(since);
        self.dead().holds.iter().any(|at| *at >= since)
    }

    /// Descriptors are short at this moment.
    fn add_shortage(&self) {
        self.dead().shortages.push(Instant::now());
    }

    /// Whether descriptors were short.
    pub(crate) fn was_short_since(&self, since: Instant) -> bool {
        // It may have begun before.
        let since = since.checked_sub(LONGEST_SHORTAGE).unwrap_or(since);
        self.dead().shortages.iter().any(|at| *at >= since)
    }

    /// Whether two fork servers, or one and its standby, were killed together.
    pub(crate) fn both_servers_since(&self, since: Instant) -> bool {
        // The pool may have been built between the two deaths.
        let since = since.checked_sub(BOTH).unwrap_or(since);
        let dead = self.dead();
        let mut pairs = dead.servers.windows(2).filter(|pair| pair[0] >= since);
        pairs.any(|pair| pair[1] - pair[0] <= BOTH)
    }

    /// Whether this end of a pool, by no fault of its tasks, has an explanation.
    pub(crate) fn explain_end(&self, since: Instant, reason: &str) -> Result<(), String> {
        if self.both_servers_since(since) || self.was_short_since(since) {
            return Ok(());
        }
        if reason.contains("fork server") {
            return Err("no fork server was killed together with its standby".into());
        }
        // The pool gives up after three launches in a row that fail.
        if self.workers_since(since) < 3 {
            return Err("nobody killed three workers".into());
        }
        Ok(())
    }
}

/// Somebody who is held up.
struct Holding {
    _held: Held,
    until: Instant,
}

/// Kills and stops until the storm is over, and then continues all that are stopped.
pub(crate) fn run<B: Backend>(storm: &Storm<B>, rng: &mut Rng) {
    let mut held: Vec<Holding> = Vec::new();
    let mut server_at = Instant::now() + Duration::from_secs(2);
    while !storm.ledger.is_over() {
        // Quick and slow times, and some without any harm.
        let pause = match rng.u32(..10) {
            0 => rng.u64(200..1000),
            1..6 => rng.u64(..10),
            _ => rng.u64(10..80),
        };
        wait(storm, &mut held, Duration::from_millis(pause));
        let now = Instant::now();
        if now >= server_at
            && let Some(server) = storm.backend.expendable_server()
        {
            kill_server(storm, server, rng);
            // Now and then the next one at once.
            let quick = one_in(rng, 8);
            let next = if quick {
                rng.u64(..500)
            } else {
                rng.u64(1000..8000)
            };
            server_at = now + Duration::from_millis(next);
            continue;
        }
        if one_in(rng, 12) {
            kill_all_of_one(storm, rng);
            continue;
        }
        if one_in(rng, 40) {
            meddle(storm, rng);
            continue;
        }
        let server = storm.backend.server().filter(|_| one_in(rng, 20));
        let Some(pid) = server.or_else(|| victim(storm, rng)) else {
            continue;
        };
        let is_ours = B::NESTED_MAY_BE_KILLED || kin::parent(pid) == Some(std::process::id());
        if server.is_some() || !is_ours || one_in(rng, 3) {
            if let Some(one) = hold(pid, rng) {
                storm.victims.dead().holds.push(Instant::now());
                storm.victims.stops.fetch_add(1, Ordering::Relaxed);
                let longest = if one_in(rng, 4) { LONGEST_STOP } else { 100 };
                let until = now + Duration::from_millis(rng.u64(..longest));
                held.push(Holding { _held: one, until });
            }
        } else {
            kill(storm, pid);
        }
    }
}

/// Stops a process, or has it traced or frozen.
fn hold(pid: u32, rng: &mut Rng) -> Option<Held> {
    let process = open(pid)?;
    match rng.u32(..12) {
        0 => Held::traced(pid, true),
        1 => Held::traced(pid, false),
        2 => Held::frozen(pid),
        _ => {
            pidfd_send_signal(&process, Signal::STOP).ok()?;
            Some(Held::Stopped(process))
        }
    }
}

/// Does something to this program itself.
fn meddle<B: Backend>(storm: &Storm<B>, rng: &mut Rng) {
    let _operation = storm.ledger.operation("meddle");
    match rng.u32(..4) {
        0 => meddling::stop_this_program(Duration::from_millis(rng.u64(1..300))),
        1 => {
            storm.victims.add_shortage();
            let time = Duration::from_millis(rng.u64(1..LONGEST_SHORTAGE.as_millis() as u64 / 4));
            meddling::with_few_descriptors(rng.u64(..8), time);
            storm.victims.add_shortage();
        }
        _ => {
            let tenant: Option<Arc<Tenant<B>>> = storm.pools.random(rng);
            if let Some(tenant) = tenant {
                drop(tenant.pool.dump().to_string());
            }
        }
    }
}

/// Kills all workers of a pool, as fast as it goes.
fn kill_all_of_one<B: Backend>(storm: &Storm<B>, rng: &mut Rng) {
    if let Some(tenant) = storm.pools.random(rng) {
        for worker in tenant.pool.stats().workers {
            kill(storm, worker.pid());
        }
    }
}

/// Kills a fork server, or its standby, or both.
fn kill_server<B: Backend>(storm: &Storm<B>, server: u32, rng: &mut Rng) {
    let family = kin::group(server);
    let standby = kin::below(std::process::id())
        .into_iter()
        .find(|pid| *pid != server && is_server_of_ours(*pid) && kin::group(*pid) == family);
    match (rng.u32(..10), standby) {
        (0..2, Some(standby)) => kill(storm, standby),
        (2, Some(standby)) => {
            kill(storm, standby);
            kill(storm, server);
        }
        _ => kill(storm, server),
    }
}

/// Sleeps, and continues those whose time has come.
fn wait<B: Backend>(storm: &Storm<B>, held: &mut Vec<Holding>, time: Duration) {
    let end = Instant::now() + time;
    loop {
        let now = Instant::now();
        held.retain(|one| one.until > now);
        if now >= end || storm.ledger.is_over() {
            return;
        }
        let next = held.iter().map(|one| one.until).min().unwrap_or(end);
        thread::sleep(next.min(end) - now);
    }
}

/// Somebody to be killed or stopped: mostly a worker that a pool says it has.
fn victim<B: Backend>(storm: &Storm<B>, rng: &mut Rng) -> Option<u32> {
    if !one_in(rng, 5) {
        let tenant = storm.pools.random(rng)?;
        let workers = tenant.pool.stats().workers;
        return rng.choice(&workers).map(|worker| worker.pid());
    }
    // Anybody else: workers that start, those of nested pools and their fork servers. For our own
    // fork servers, of which there are not many, there is a time.
    let below = kin::below(std::process::id());
    let below = below
        .into_iter()
        .filter(|pid| kin::name(*pid) != "sleep" && !is_server_of_ours(*pid));
    rng.choice(below.collect::<Vec<_>>())
}

/// Whether this is a fork server of this process, or a standby.
fn is_server_of_ours(pid: u32) -> bool {
    let names = ["procpool-server", "procpool-spare", "procpool-new"];
    names.contains(&&*kin::name(pid)) && kin::parent(pid) == Some(std::process::id())
}

fn kill<B: Backend>(storm: &Storm<B>, pid: u32) {
    if let Some(process) = open(pid) {
        storm.victims.add(pid, is_server_of_ours(pid));
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
}

/// A process of ours: not one that has got the number since.
fn open(pid: u32) -> Option<OwnedFd> {
    let before = kin::started(pid)?;
    let process = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
    // The number stood for one process all the while if it was started at one time.
    let is_ours = kin::is_marked(pid) && kin::started(pid)? == before;
    is_ours.then_some(process)
}
