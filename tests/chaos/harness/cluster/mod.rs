//! Pools of many machines: a real server, agents that come and go, and links that break.

mod accountant;
mod killer;
mod site;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use procpool::{BuildError, ClusterPool, Output, OutputLine, Storage};
use procpool_testing::procfs::wait_until;

use super::action::{self, Beginning};
use super::backend::{Backend, Config, Kind};
use super::holdings::Holdings;
use super::plan::one_in;
use super::storm::Storm;
use super::victims::Family;
use site::Site;

/// What no pool waits for: the watchdog comes first.
const LONG: Duration = Duration::from_secs(1000);

/// [`ClusterPool`], at a site of its own.
pub(crate) struct Cluster {
    url: String,
    storage: Storage,
    /// Taken away when the storm is over.
    site: Mutex<Option<Site>>,
}

impl Cluster {
    fn site(&self) -> MutexGuard<'_, Option<Site>> {
        self.site.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Cluster {
    type Pool = ClusterPool;
    const KIND: Kind = Kind::Cluster;

    fn warm_up() {
        // Nobody listens there. The runtime of a pool's thread has handlers of signals.
        let error = ClusterPool::connect("nats://127.0.0.1:9").err();
        assert!(error.is_some(), "there is a server where none is");
        // The thread has something to do yet after it has said so.
        let end = Instant::now() + Duration::from_secs(5);
        wait_until(|| Holdings::now().threads == 1 || Instant::now() >= end);
    }

    fn prepare(_: usize, seed: u64) -> Self {
        let site = Site::new();
        let mut rng = Rng::with_seed(seed);
        Self {
            url: site.url(),
            // A queue in a file gives out again what one in memory has forgotten.
            storage: match one_in(&mut rng, 4) {
                true => Storage::File,
                false => Storage::Memory,
            },
            site: Mutex::new(Some(site)),
        }
    }

    fn build(&self, config: &Config) -> (Option<Family>, Result<ClusterPool, BuildError>) {
        // What tasks print, some agents' workers do.
        let output = match config.capture {
            Some(pause) => Output::lines(move |_: &OutputLine| std::thread::sleep(pause)),
            None => Output::discard(),
        };
        let mut builder = ClusterPool::builder(&self.url)
            .agents_timeout(LONG)
            .server_timeout(LONG)
            .storage(self.storage)
            .stdout(output.clone())
            .stderr(output);
        if let Some(tasks) = config.max_tasks_per_child {
            builder = builder.max_tasks_per_child(tasks);
        }
        if let Some(beginning) = &config.beginning {
            builder = builder.initializer(action::begin, beginning.clone());
        }
        (None, builder.build())
    }

    fn config(rng: &mut Rng) -> Config {
        // Agents say how many workers there are.
        let mut config = Config::plain(1);
        config.max_tasks_per_child = one_in(rng, 3).then(|| rng.u64(1..30));
        config.beginning = one_in(rng, 2).then(|| Beginning {
            token: rng.u64(1..),
            fails_in: None,
        });
        config.capture = one_in(rng, 3).then(|| Duration::from_micros(rng.u64(..50)));
        config
    }

    fn lifetime(rng: &mut Rng) -> Duration {
        // Some live through outages.
        let longest = if one_in(rng, 2) { 20_000 } else { 2000 };
        Duration::from_millis(rng.u64(20..longest))
    }

    fn harm(storm: &Storm<Self>, rng: &mut Rng) {
        std::thread::scope(|scope| {
            let mut theirs = rng.fork();
            scope.spawn(move || accountant::run(storm, &mut theirs));
            killer::run(storm, rng);
        });
    }

    fn finish(storm: &Storm<Self>) {
        let site = storm.backend.site().take();
        if let Some(site) = site {
            site.finish(&storm.ledger, &storm.victims);
        }
    }
}
