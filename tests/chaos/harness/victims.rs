//! Whom the killer has killed or held up, and when: what explains an outcome that is nobody else's
//! fault.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use procpool_testing::procfs;
use rustix::process::{Resource, getrlimit};

use super::agents::Agents;
use super::effects::Effects;
use super::notes;

/// A fork server has a standby, which has one of its own some time later. So only two deaths this
/// soon after each other explain the end of a pool.
const BOTH: Duration = Duration::from_secs(2);

/// Fork servers that take each other's place, by their process group.
pub(crate) type Family = u32;

/// See the module.
pub(crate) struct Victims {
    dead: Mutex<Dead>,
    pub(crate) effects: Effects,
    /// Those of a cluster, and what was done to them.
    pub(crate) agents: Agents,
    /// How many descriptors a process may have that was started when there was no shortage.
    descriptors: Option<u64>,
}

#[derive(Default)]
struct Dead {
    /// When each was killed last: numbers are used again.
    workers: HashMap<u32, Instant>,
    /// The same, of those above them: whose pool they belonged to, or the pool of whose pool.
    above: HashMap<u32, Instant>,
    /// The times of all of them.
    times: Vec<Instant>,
    servers: Vec<(Option<Family>, Instant)>,
    holds: Vec<Hold>,
    /// From when to when there were too few descriptors or processes.
    shortages: Vec<(Instant, Instant)>,
}

/// Somebody who was stopped, traced or frozen.
struct Hold {
    pid: u32,
    /// If it is a fork server.
    family: Option<Family>,
    from: Instant,
    until: Option<Instant>,
}

impl Victims {
    /// To be called when nothing is short.
    pub(crate) fn new() -> Self {
        Self {
            dead: Mutex::default(),
            effects: Effects::default(),
            agents: Agents::default(),
            descriptors: getrlimit(Resource::Nofile).current,
        }
    }

    fn dead(&self) -> MutexGuard<'_, Dead> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a victim. To be called before it is killed.
    pub(crate) fn add(&self, pid: u32, is_server: bool) {
        let above = procfs::above(pid);
        let family = procfs::group(pid);
        let now = Instant::now();
        let mut dead = self.dead();
        dead.times.push(now);
        if is_server {
            dead.servers.push((family, now));
        } else {
            dead.workers.insert(pid, now);
            dead.above
                .extend(above.into_iter().map(|above| (above, now)));
        }
    }

    /// Enters somebody who is going to be held. The answer is the hold's number.
    pub(crate) fn hold(&self, pid: u32, is_server: bool) -> usize {
        let family = is_server.then(|| procfs::group(pid)).flatten();
        let mut dead = self.dead();
        dead.holds.push(Hold {
            pid,
            family,
            from: Instant::now(),
            until: None,
        });
        dead.holds.len() - 1
    }

    /// That hold has ended.
    pub(crate) fn release(&self, hold: usize) {
        self.dead().holds[hold].until = Some(Instant::now());
    }

    /// Whether the killer has killed this worker.
    pub(crate) fn has_killed(&self, pid: u32, since: Instant) -> bool {
        self.dead().workers.get(&pid).is_some_and(|at| *at >= since)
    }

    /// Whether it has killed somebody who belonged to this worker.
    pub(crate) fn has_killed_below(&self, pid: u32, since: Instant) -> bool {
        self.dead().above.get(&pid).is_some_and(|at| *at >= since)
    }

    /// Whether it has killed a fork server of this family.
    pub(crate) fn has_killed_server(&self, family: Option<Family>, since: Instant) -> bool {
        let dead = self.dead();
        let mut servers = dead.servers.iter();
        family.is_some() && servers.any(|(of, at)| *of == family && *at >= since)
    }

    /// Whether this worker was held, or a fork server of this family.
    pub(crate) fn has_held(&self, pid: u32, family: Option<Family>, since: Instant) -> bool {
        let dead = self.dead();
        dead.holds.iter().any(|hold| {
            let is_it = hold.pid == pid || family.is_some() && hold.family == family;
            is_it && hold.until.is_none_or(|until| until >= since)
        })
    }

    /// Whether anybody was killed, or an agent was out of reach.
    pub(crate) fn any_since(&self, since: Instant) -> bool {
        let is_killed = self.dead().times.last().is_some_and(|at| *at >= since);
        is_killed || self.agents.any_since(notes::ago(since.elapsed()))
    }

    /// How many workers were killed.
    pub(crate) fn workers_since(&self, since: Instant) -> usize {
        let dead = self.dead();
        dead.workers.values().filter(|at| **at >= since).count()
    }

    /// Something is short while this runs.
    pub(crate) fn with_shortage<R>(&self, f: impl FnOnce() -> R) -> R {
        let from = Instant::now();
        // Until nobody knows when.
        let far = from + Duration::from_secs(3600);
        let place = {
            let mut dead = self.dead();
            dead.shortages.push((from, far));
            dead.shortages.len() - 1
        };
        let result = f();
        self.dead().shortages[place].1 = Instant::now();
        result
    }

    /// Whether descriptors or processes were short.
    pub(crate) fn was_short_since(&self, since: Instant) -> bool {
        let dead = self.dead();
        dead.shortages.iter().any(|(_, until)| *until >= since)
    }

    /// Whether a process with this limit of descriptors was started when there were few.
    pub(crate) fn is_short(&self, descriptors: Option<u64>) -> bool {
        descriptors != self.descriptors
    }

    /// Whether two fork servers, or one and its standby, were killed together.
    pub(crate) fn both_servers_since(&self, since: Instant) -> bool {
        // The pool may have been built between the two deaths.
        let since = since.checked_sub(BOTH).unwrap_or(since);
        let dead = self.dead();
        let mut pairs = dead.servers.windows(2).filter(|pair| pair[0].1 >= since);
        pairs.any(|pair| pair[0].0 == pair[1].0 && pair[1].1 - pair[0].1 <= BOTH)
    }

    /// What was done to a process of this number, at any time.
    pub(crate) fn describe(&self, pid: u32) -> String {
        let dead = self.dead();
        let mut done = Vec::new();
        if let Some(at) = dead.workers.get(&pid) {
            done.push(format!("killed {:?} ago", at.elapsed()));
        }
        for hold in dead.holds.iter().filter(|hold| hold.pid == pid) {
            let until = hold.until.map(|until| until - hold.from);
            done.push(format!("held {:?} ago for {until:?}", hold.from.elapsed()));
        }
        format!("{done:?}")
    }
}
