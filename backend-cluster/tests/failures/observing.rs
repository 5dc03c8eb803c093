//! Who observes a pool sees the workers of all machines, whatever becomes of these.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procpool_core::{ExitReason, Observe, Observer, Pool, PoolEvent, WorkerInfo};
use procpool_testing::procfs::{self, wait_until};
use rustix::process::Signal;

use crate::Scenario;
use crate::cluster::{Cluster, LONG, WORKERS};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("workers_of_all_machines_are_seen", workers_are_seen),
        ("agents_are_seen_to_come_and_go", agents_are_seen),
        ("an_agent_that_leaves_has_told_all", agent_leaves),
    ]
}

const CHUNKS: Observe = Observe::Chunks {
    shortest: Duration::from_millis(1),
};

fn nap(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Who is up, and where.
#[derive(Default)]
struct Known {
    up: BTreeMap<usize, WorkerInfo>,
    ended: Vec<(WorkerInfo, ExitReason)>,
    /// The items of each worker.
    items: BTreeMap<u32, usize>,
}

impl Known {
    /// Looks until it is so.
    fn until(&mut self, observer: &mut Observer, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let event = observer.recv_timeout(LONG).expect("something happens");
            self.add(event);
        }
    }

    fn add(&mut self, event: PoolEvent) {
        match event {
            PoolEvent::WorkerUp {
                worker, position, ..
            } => {
                let before = self.up.insert(position, worker);
                assert_eq!(before, None, "each has a place of its own");
            }
            PoolEvent::WorkerEnded { worker, reason, .. } => {
                let all = self.up.len();
                self.up.retain(|_, it| *it != worker);
                assert_eq!(self.up.len(), all - 1, "{worker} was up");
                self.ended.push((worker, reason));
            }
            PoolEvent::ChunkEnded {
                worker,
                call,
                items,
                ..
            } => {
                assert_eq!(call, "naps");
                assert!(self.up.values().any(|it| *it == worker));
                *self.items.entry(worker.pid()).or_default() += items;
            }
            _ => {}
        }
    }

    fn machines(&self) -> BTreeSet<&str> {
        self.up.values().filter_map(WorkerInfo::machine).collect()
    }
}

fn workers_are_seen(test: &str) {
    let Some(cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.pool();
    let mut observer = pool.observe(CHUNKS).expect("it can be observed");
    let naps = || pool.call(nap).name("naps").chunksize(1);
    naps().map(vec![5; 40]).expect("it naps");
    let mut known = Known::default();
    known.until(&mut observer, |it| it.items.values().sum::<usize>() == 40);
    assert_eq!(known.up.len(), 2 * WORKERS);
    assert_eq!(known.machines(), BTreeSet::from(["m0", "m1"]));
    // One who comes later sees who is there, and then who is not any more.
    let mut late = pool.observe(Observe::Workers).expect("it can be observed");
    let mut known_late = Known::default();
    known_late.until(&mut late, |it| it.up.len() == 2 * WORKERS);
    assert_eq!(known_late.up, known.up);
    let victim = known.up[&1].clone();
    procfs::signal(victim.pid(), Signal::KILL);
    for (known, observer) in [(&mut known, &mut observer), (&mut known_late, &mut late)] {
        known.until(observer, |it| {
            !it.ended.is_empty() && it.up.len() == 2 * WORKERS
        });
        assert_eq!(known.ended, [(victim.clone(), ExitReason::Crashed)]);
        assert_eq!(known.up[&1].machine(), victim.machine());
    }
    // Without observers nobody tells anything, and the next one is told anew.
    drop((observer, late));
    naps().map(vec![5; 4]).expect("it naps");
    let mut observer = pool.observe(CHUNKS).expect("it can be observed");
    let mut again = Known::default();
    again.until(&mut observer, |it| it.up.len() == 2 * WORKERS);
    assert!(again.items.is_empty() && again.ended.is_empty());
    // All end with the pool.
    drop(pool);
    again.until(&mut observer, |it| it.up.is_empty());
}

fn agents_are_seen(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 1) else {
        return;
    };
    let pool = cluster.pool();
    let mut observer = pool.observe(CHUNKS).expect("it can be observed");
    let naps = || pool.call(nap).name("naps").chunksize(1).retries(3);
    naps().map(vec![5; 4]).expect("it naps");
    let mut known = Known::default();
    known.until(&mut observer, |it| it.up.len() == WORKERS);
    cluster.add_agent();
    cluster.wait_for_agents(&pool);
    naps().map(vec![5; 40]).expect("it naps");
    known.until(&mut observer, |it| it.up.len() == 2 * WORKERS);
    let (dead, alive) = (["m0"], ["m1"]);
    cluster.agents[0].kill();
    // It is missed when there is something to do.
    naps().map(vec![5; 40]).expect("it naps");
    known.until(&mut observer, |it| it.ended.len() == WORKERS);
    assert_eq!(known.machines(), BTreeSet::from(alive));
    for (worker, reason) in &known.ended {
        assert_eq!(
            (worker.machine(), *reason),
            (Some(dead[0]), ExitReason::Crashed)
        );
    }
}

fn agent_leaves(test: &str) {
    const ITEMS: usize = 10_000;
    let Some(cluster) = Cluster::some_or_skip(test, 1) else {
        return;
    };
    let pool = cluster.pool();
    let all = Observe::Chunks {
        shortest: Duration::ZERO,
    };
    let mut observer = pool.observe(all).expect("it can be observed");
    let nap = |()| pool.call(nap).name("naps").apply_async(0);
    let naps: Vec<_> = [(); ITEMS].into_iter().map(nap).collect();
    naps.into_iter()
        .for_each(|it| it.get().expect("it naps for no time"));
    // It may have told but a part of that.
    cluster.agents[0].signal(Signal::TERM);
    let mut known = Known::default();
    known.until(&mut observer, |it| it.up.len() == WORKERS);
    known.until(&mut observer, |it| it.up.is_empty());
    assert_eq!(known.items.values().sum::<usize>(), ITEMS);
    assert_eq!(observer.dropped(), 0);
    for (worker, reason) in &known.ended {
        assert_eq!(*reason, ExitReason::Closed, "{worker}");
    }
    wait_until(|| pool.agents().is_empty());
}
