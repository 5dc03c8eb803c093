//! The pools that the storm blows through, and who builds and ends them.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use procpool::{Pool, Stats};
use procpool_testing::procfs;

use super::backend::Backend;
use super::oracle::Facts;
use super::plan::one_in;
use super::storm::Storm;

/// How long it may take until what a closed pool does not take is refused.
const REFUSED: Duration = Duration::from_secs(5);

/// This many pools live side by side.
const SLOTS: usize = 2;

/// A pool and what is known of it. It is dropped by its last user.
pub(crate) struct Tenant<B: Backend> {
    pub(crate) pool: B::Pool,
    pub(crate) facts: Arc<Facts>,
}

/// See the module.
pub(crate) struct Pools<B: Backend> {
    slots: [Mutex<Option<Arc<Tenant<B>>>>; SLOTS],
    /// All that somebody still has, in a slot or not.
    all: Mutex<Vec<Weak<Tenant<B>>>>,
    pub(crate) built: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl<B: Backend> Pools<B> {
    pub(crate) fn new() -> Self {
        Self {
            slots: [const { Mutex::new(None) }; SLOTS],
            all: Mutex::default(),
            built: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn slot(&self, slot: usize) -> MutexGuard<'_, Option<Arc<Tenant<B>>>> {
        self.slots[slot]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What all pools say of themselves, those that are about to end as well.
    pub(crate) fn describe(&self) -> String {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let tenants: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        drop(all);
        let mut text = String::new();
        for tenant in tenants {
            let Tenant { pool, facts } = &*tenant;
            let (stats, dump) = (pool.stats(), pool.dump());
            let _ = writeln!(text, "{}: {stats:?}\n{dump}", facts.name);
        }
        text
    }

    fn note(&self, tenant: &Arc<Tenant<B>>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| it.strong_count() > 0);
        all.push(Arc::downgrade(tenant));
    }

    /// One of the pools.
    pub(crate) fn random(&self, rng: &mut Rng) -> Option<Arc<Tenant<B>>> {
        self.slot(rng.usize(..SLOTS)).clone()
    }
}

/// Builds pools, ends them and builds others, until the storm is over.
pub(crate) fn run<B: Backend>(storm: &Storm<B>, rng: &mut Rng) {
    let mut ends = [Instant::now(); SLOTS];
    while !storm.ledger.is_over() {
        for (slot, end) in ends.iter_mut().enumerate() {
            let tenant = storm.pools.slot(slot).clone();
            let is_dead = tenant
                .as_ref()
                .is_some_and(|tenant| tenant.facts.is_dead.load(Ordering::SeqCst));
            if *end > Instant::now() && !is_dead {
                if let Some(tenant) = &tenant
                    && !B::KIND.is_cluster()
                    && one_in(rng, 20)
                {
                    resize(storm, tenant, rng);
                }
                continue;
            }
            *end = Instant::now() + B::lifetime(rng);
            // Two generations side by side, or one after the other.
            if let Some(tenant) = tenant {
                let overlap = one_in(rng, 2);
                let next = if overlap { build(storm, rng) } else { None };
                *storm.pools.slot(slot) = next;
                finish(storm, tenant, rng);
            }
            if storm.pools.slot(slot).is_none() {
                let next = build(storm, rng);
                *storm.pools.slot(slot) = next;
            }
        }
        thread::sleep(Duration::from_millis(rng.u64(1..20)));
    }
}

/// Makes a pool larger or smaller, whatever is going on there.
fn resize<B: Backend>(storm: &Storm<B>, tenant: &Tenant<B>, rng: &mut Rng) {
    let processes = rng.usize(1..=6);
    let name = &tenant.facts.name;
    let operation = storm
        .ledger
        .operation(format!("resize {name} to {processes}"));
    let resized = tenant.pool.resize(processes);
    drop(operation);
    if let Err(error) = resized
        && tenant.pool.apply(|()| (), ()).is_ok()
    {
        storm
            .ledger
            .violation(&format!("{name} cannot be resized, but works: {error}"));
    }
}

/// Ends the pools that there are.
pub(crate) fn finish_all<B: Backend>(storm: &Storm<B>, rng: &mut Rng) {
    for slot in 0..SLOTS {
        let tenant = storm.pools.slot(slot).take();
        if let Some(tenant) = tenant {
            finish(storm, tenant, rng);
        }
    }
}

/// `None`: the killer got in the way.
fn build<B: Backend>(storm: &Storm<B>, rng: &mut Rng) -> Option<Arc<Tenant<B>>> {
    let number = storm.pools.built.fetch_add(1, Ordering::Relaxed);
    let config = B::config(rng);
    let mut facts = Facts::new(format!("pool {number}"), config, B::KIND.is_cluster());
    let operation = storm
        .ledger
        .operation(format!("build {} with {:?}", facts.name, facts.config));
    let (family, built) = storm.backend.build(&facts.config);
    drop(operation);
    facts.family = family;
    match built {
        Ok(pool) => {
            let facts = Arc::new(facts);
            let tenant = Arc::new(Tenant { pool, facts });
            storm.pools.note(&tenant);
            Some(tenant)
        }
        Err(error) => {
            storm.pools.failed.fetch_add(1, Ordering::Relaxed);
            let is_explained = storm.victims.any_since(facts.since)
                || storm.victims.was_short_since(facts.since)
                || storm.victims.both_servers_since(facts.since);
            let fails_to_begin = facts
                .config
                .beginning
                .is_some_and(|it| it.fails_in.is_some());
            if !is_explained && !fails_to_begin {
                storm
                    .ledger
                    .violation(&format!("a pool cannot be built: {error}"));
            }
            None
        }
    }
}

/// Ends a pool in one of the ways that there are. Others may still use it.
fn finish<B: Backend>(storm: &Storm<B>, tenant: Arc<Tenant<B>>, rng: &mut Rng) {
    let Tenant { pool, facts } = &*tenant;
    let way = rng.u32(..6);
    let operation = storm.ledger.operation(format!(
        "end {} with {:?} in way {way}",
        facts.name, facts.config
    ));
    // Those on other machines are the agents' to end.
    let workers = match B::KIND.is_cluster() {
        true => Vec::new(),
        false => pool.stats().workers,
    };
    let workers: Vec<(u32, Option<u64>)> = workers
        .iter()
        .map(|worker| (worker.pid(), procfs::started(worker.pid())))
        .collect();
    facts.is_closed.store(true, Ordering::SeqCst);
    match way {
        0 => {
            pool.close();
            join(storm, &tenant, &workers);
        }
        1 => {
            pool.close();
            let patience = Duration::from_millis(rng.u64(..100));
            if pool.join_timeout(patience).is_err() {
                storm.ledger.violation("a closed pool cannot be joined");
            }
        }
        2 | 3 => {
            facts.is_terminated.store(true, Ordering::SeqCst);
            pool.terminate();
            if way == 2 {
                join(storm, &tenant, &workers);
            }
        }
        _ => {}
    }
    facts.is_terminated.store(true, Ordering::SeqCst);
    drop(tenant);
    drop(operation);
}

/// Waits for a pool's end, and checks that it is one.
fn join<B: Backend>(storm: &Storm<B>, tenant: &Tenant<B>, workers: &[(u32, Option<u64>)]) {
    let Tenant { pool, facts } = tenant;
    if let Err(error) = pool.join() {
        storm
            .ledger
            .violation(&format!("{} cannot be joined: {error}", facts.name));
    }
    let is_through = |stats: &Stats| {
        stats.succeeded + stats.failed == stats.submitted && stats.queued + stats.running == 0
    };
    let mut stats = pool.stats();
    // Others still use it, and what they submit to a cluster is refused a moment after it was
    // counted.
    let end = Instant::now() + REFUSED;
    while B::KIND.is_cluster() && !is_through(&stats) && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
        stats = pool.stats();
    }
    if !is_through(&stats) || !stats.workers.is_empty() {
        storm
            .ledger
            .violation(&format!("{} has ended, but {stats:?}", facts.name));
    }
    for (pid, started) in workers {
        if started.is_some() && procfs::started(*pid) == *started && procfs::is_alive(*pid) {
            let who = procfs::describe(*pid);
            storm
                .ledger
                .violation(&format!("{} was joined, but {who} lives", facts.name));
        }
    }
}
