//! The thread that kills, stops and continues workers and fork servers, and meddles with this
//! program itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use procpool::Pool;
use procpool_testing::procfs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::backend::Backend;
use super::effects::Harm;
use super::meddling::{self, Held};
use super::plan::one_in;
use super::pools::Tenant;
use super::sandbox;
use super::storm::Storm;
use super::victims::Victims;

/// How long something is short at most, in milliseconds.
const LONGEST_SHORTAGE: u64 = 250;

/// How long somebody is stopped at most, in milliseconds.
const LONGEST_STOP: u64 = 1500;

/// How long the killer waits for a death, to know that it was one.
const A_MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Somebody who is held up.
struct Holding<'a> {
    held: Option<Held>,
    /// Its number.
    hold: usize,
    until: Instant,
    victims: &'a Victims,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.victims.effects.add(held.harm(), held.has_effect());
        }
        self.victims.release(self.hold);
    }
}

/// Kills and stops until the storm is over, and then continues all that are stopped.
pub(crate) fn run<B: Backend>(storm: &Storm<B>, rng: &mut Rng) {
    let mut held: Vec<Holding<'_>> = Vec::new();
    let mut server_at = Instant::now() + Duration::from_secs(2);
    let mut meddled = rng.usize(..MEDDLING);
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
        if one_in(rng, 30) {
            // In turn: some kinds take long.
            meddled += 1;
            meddle(storm, meddled % MEDDLING, rng);
            continue;
        }
        let server = storm.backend.server().filter(|_| one_in(rng, 20));
        let Some(pid) = server.or_else(|| victim(storm, rng)) else {
            continue;
        };
        if server.is_some() || one_in(rng, 3) {
            let is_server = is_server_of_ours(pid);
            let Some(process) = open(pid) else { continue };
            let hold = storm.victims.hold(pid, is_server);
            let longest = if one_in(rng, 4) { LONGEST_STOP } else { 100 };
            let mut holding = Holding {
                held: None,
                hold,
                until: now + Duration::from_millis(rng.u64(..longest)),
                victims: &storm.victims,
            };
            holding.held = self::hold(pid, process, rng);
            held.push(holding);
        } else {
            kill(storm, pid);
        }
    }
}

/// Stops a process, or has it traced or frozen.
fn hold(pid: u32, process: OwnedFd, rng: &mut Rng) -> Option<Held> {
    match rng.u32(..12) {
        0 => Held::traced(pid, true),
        1 => Held::traced(pid, false),
        2 => Held::frozen(pid, rng.usize(..3)),
        _ => Held::stopped(pid, process),
    }
}

/// This many ways there are to meddle.
const MEDDLING: usize = 6;

/// Does something to this program itself, or to its fork server.
fn meddle<B: Backend>(storm: &Storm<B>, way: usize, rng: &mut Rng) {
    let _operation = storm.ledger.operation("meddle");
    let victims = &storm.victims;
    let time = Duration::from_millis(rng.u64(1..LONGEST_SHORTAGE));
    // What is short is wanted when workers have to be replaced.
    let with_deaths = way == 3 || one_in(rng, 2);
    let mut theirs = rng.fork();
    let mut meanwhile = || {
        for _ in 0..if with_deaths { 3 } else { 0 } {
            kill_all_of_one(storm, &mut theirs);
        }
    };
    match way {
        0 => {
            let stopped = meddling::stop_this_program(time);
            victims.effects.add(Harm::StopProgram, stopped);
        }
        1 => {
            let more = rng.u64(..8);
            let short = victims
                .with_shortage(|| meddling::with_few_descriptors(more, time, &mut meanwhile));
            victims.effects.add(Harm::FewDescriptors, short);
        }
        2 => {
            let short =
                victims.with_shortage(|| meddling::without_processes(None, time, &mut meanwhile));
            victims.effects.add(Harm::FewProcesses, short);
        }
        3 => {
            if let Some(server) = storm.backend.server() {
                let short = victims.with_shortage(|| {
                    meddling::without_processes(Some(server), time, &mut meanwhile)
                });
                victims.effects.add(Harm::FewForks, short);
            }
        }
        _ => {
            // Now and then nobody is at work.
            let has_stack = (0..5).any(|_| {
                let tenant: Option<Arc<Tenant<B>>> = storm.pools.random(rng);
                tenant.is_some_and(|it| it.pool.dump().to_string().contains("harness::"))
            });
            victims.effects.add(Harm::Dump, has_stack);
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
    let family = procfs::group(server);
    let standby = procfs::below(std::process::id())
        .into_iter()
        .find(|pid| *pid != server && is_server_of_ours(*pid) && procfs::group(*pid) == family);
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
fn wait<B: Backend>(storm: &Storm<B>, held: &mut Vec<Holding<'_>>, time: Duration) {
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
    let below = procfs::below(std::process::id());
    let below = below
        .into_iter()
        .filter(|pid| procfs::name(*pid) != "sleep" && !is_server_of_ours(*pid));
    rng.choice(below.collect::<Vec<_>>())
}

/// Whether this is a fork server of this process, or a standby.
fn is_server_of_ours(pid: u32) -> bool {
    let names = ["procpool-server", "procpool-spare", "procpool-new"];
    names.contains(&&*procfs::name(pid)) && procfs::parent(pid) == Some(std::process::id())
}

fn kill<B: Backend>(storm: &Storm<B>, pid: u32) {
    if let Some(process) = open(pid) {
        let is_server = is_server_of_ours(pid);
        storm.victims.add(pid, is_server);
        let is_sent = pidfd_send_signal(&process, Signal::KILL).is_ok();
        // One that is traced or frozen does not die at once.
        let mut death = [PollFd::new(&process, PollFlags::IN)];
        let is_dead = is_sent && matches!(poll(&mut death, Some(&A_MOMENT)), Ok(1));
        let harm = if is_server {
            Harm::KillServer
        } else {
            Harm::KillWorker
        };
        storm.victims.effects.add(harm, is_dead);
    }
}

/// A process of ours: not one that has got the number since.
fn open(pid: u32) -> Option<OwnedFd> {
    let before = procfs::started(pid)?;
    let process = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
    // The number stood for one process all the while if it was started at one time.
    let is_ours = sandbox::is_of_this_run(pid) && procfs::started(pid)? == before;
    is_ours.then_some(process)
}
