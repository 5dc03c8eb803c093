//! The kinds of pools that the storm is made for.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use fastrand::Rng;
use procpool::{BuildError, Output, OutputLine, Pool};
use serde::{Deserialize, Serialize};

use super::action::{self, Beginning};
#[cfg(all(feature = "cluster", feature = "spawn"))]
pub(crate) use super::cluster::Cluster;
use super::storm::Storm;
use super::victims::Family;
use super::{killer, plan};

/// Names a kind of pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Kind {
    #[cfg(feature = "fork")]
    Fork,
    #[cfg(feature = "spawn")]
    Spawn,
    /// Its agents host pools of spawned workers.
    #[cfg(all(feature = "cluster", feature = "spawn"))]
    Cluster,
}

impl Kind {
    pub(crate) const ALL: &[Self] = &[
        #[cfg(feature = "fork")]
        Self::Fork,
        #[cfg(feature = "spawn")]
        Self::Spawn,
        #[cfg(all(feature = "cluster", feature = "spawn"))]
        Self::Cluster,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "fork")]
            Self::Fork => "fork",
            #[cfg(feature = "spawn")]
            Self::Spawn => "spawn",
            #[cfg(all(feature = "cluster", feature = "spawn"))]
            Self::Cluster => "cluster",
        }
    }

    /// Whether its workers are on other machines.
    pub(crate) fn is_cluster(self) -> bool {
        self.name() == "cluster"
    }

    /// Whether there are fork servers.
    pub(crate) fn has_server(self) -> bool {
        self.name() == "fork"
    }
}

/// The options of a pool.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) processes: usize,
    pub(crate) ring_capacity: Option<usize>,
    pub(crate) max_tasks_per_child: Option<u64>,
    pub(crate) beginning: Option<Beginning>,
    pub(crate) has_finalizer: bool,
    pub(crate) max_memory_per_child: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    /// How many workers stay that have been idle for so long.
    pub(crate) idle: Option<(Duration, usize)>,
    /// How long the handler of captured lines takes for each, if they are captured.
    pub(crate) capture: Option<Duration>,
}

impl Config {
    pub(crate) fn plain(processes: usize) -> Self {
        Self {
            processes,
            ring_capacity: None,
            max_tasks_per_child: None,
            beginning: None,
            has_finalizer: false,
            max_memory_per_child: None,
            max_age: None,
            idle: None,
            capture: None,
        }
    }
}

/// A kind of pool.
pub(crate) trait Backend: Send + Sync + 'static {
    type Pool: Pool + Send + Sync + 'static;
    const KIND: Kind;

    /// Has everything be there that this process makes once and keeps.
    fn warm_up() {}

    /// To be called while this process has one thread. This many fork servers can be killed.
    fn prepare(spare_servers: usize, seed: u64) -> Self;

    /// Builds a pool, and says which fork servers it has its workers of.
    fn build(&self, config: &Config) -> (Option<Family>, Result<Self::Pool, BuildError>);

    /// The config of a pool.
    fn config(rng: &mut Rng) -> Config {
        plan::config(rng)
    }

    /// How long a pool lives.
    fn lifetime(rng: &mut Rng) -> Duration {
        let longest = if plan::one_in(rng, 4) { 4000 } else { 800 };
        Duration::from_millis(rng.u64(20..longest))
    }

    /// Does harm until the storm is over.
    fn harm(storm: &Storm<Self>, rng: &mut Rng)
    where
        Self: Sized,
    {
        killer::run(storm, rng);
    }

    /// Ends what is not of a pool, when there is none any more.
    fn finish(_: &Storm<Self>)
    where
        Self: Sized,
    {
    }

    /// The fork server in use, if there is one.
    fn server(&self) -> Option<u32> {
        None
    }

    /// The same if it may be killed: there is another one.
    fn expendable_server(&self) -> Option<u32> {
        None
    }
}

/// Applies a config to a builder, which has no trait.
macro_rules! build {
    ($builder:expr, $config:ident) => {{
        let mut builder = $builder
            .processes($config.processes)
            // A worker that is stopped while it starts is continued long before.
            .launch_timeout(Duration::from_secs(30));
        if let Some(bytes) = $config.ring_capacity {
            builder = builder.ring_capacity(bytes);
        }
        if let Some(tasks) = $config.max_tasks_per_child {
            builder = builder.max_tasks_per_child(tasks);
        }
        if let Some(beginning) = &$config.beginning {
            builder = builder.initializer(action::begin, beginning.clone());
        }
        if $config.has_finalizer {
            builder = builder.finalizer(action::finish);
        }
        if let Some(bytes) = $config.max_memory_per_child {
            builder = builder.max_memory_per_child(bytes);
        }
        if let Some(age) = $config.max_age {
            builder = builder.max_age(age);
        }
        if let Some((timeout, stay)) = $config.idle {
            builder = builder.idle_timeout(timeout).min_processes(stay);
        }
        if let Some(pause) = $config.capture {
            let output = Output::lines(move |_: &OutputLine| std::thread::sleep(pause));
            builder = builder.stdout(output.clone()).stderr(output);
            builder = builder.env(action::TALK, "yes");
        }
        builder.build()
    }};
}

#[cfg(feature = "fork")]
pub(crate) use fork::Fork;
#[cfg(feature = "fork")]
mod fork {
    use std::sync::{Mutex, PoisonError};

    use procpool::{ForkPool, ForkServer};
    use procpool_testing::procfs;

    use super::{Backend, BuildError, Config, Duration, Family, Kind, Output, OutputLine, action};

    /// [`ForkPool`], with fork servers in store: none can be started once there are threads.
    pub(crate) struct Fork {
        /// The last one is in use.
        servers: Mutex<Vec<(Option<Family>, ForkServer)>>,
    }

    impl Fork {
        fn servers(&self) -> std::sync::MutexGuard<'_, Vec<(Option<Family>, ForkServer)>> {
            self.servers.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Backend for Fork {
        type Pool = ForkPool;
        const KIND: Kind = Kind::Fork;

        fn prepare(spare_servers: usize, _: u64) -> Self {
            let start = || {
                let server = ForkServer::start().expect("this program has one thread yet");
                (procfs::group(server.pid()), server)
            };
            Self {
                servers: Mutex::new((0..=spare_servers).map(|_| start()).collect()),
            }
        }

        fn build(&self, config: &Config) -> (Option<Family>, Result<ForkPool, BuildError>) {
            let mut servers = self.servers();
            let is_dead = |it: &(Option<Family>, ForkServer)| !procfs::is_alive(it.1.pid());
            // Outside of the lock: the last owner of a server waits for its end.
            let mut dead = Vec::new();
            while servers.len() > 1 && servers.last().is_some_and(is_dead) {
                dead.extend(servers.pop());
            }
            let (family, server) = servers.last().expect("the last one stays").clone();
            drop(servers);
            drop(dead);
            let built = build!(ForkPool::builder().fork_server(&server), config);
            (family, built)
        }

        fn server(&self) -> Option<u32> {
            self.servers().last().map(|it| it.1.pid())
        }

        fn expendable_server(&self) -> Option<u32> {
            let servers = self.servers();
            let (_, server) = servers.last().filter(|_| servers.len() > 1)?;
            Some(server.pid()).filter(|pid| procfs::is_alive(*pid))
        }
    }
}

#[cfg(feature = "spawn")]
pub(crate) use spawn::Spawn;
#[cfg(feature = "spawn")]
mod spawn {
    use procpool::SpawnPool;

    use super::{Backend, BuildError, Config, Duration, Family, Kind, Output, OutputLine, action};

    /// [`SpawnPool`].
    pub(crate) struct Spawn;

    impl Backend for Spawn {
        type Pool = SpawnPool;
        const KIND: Kind = Kind::Spawn;

        fn prepare(_: usize, _: u64) -> Self {
            Self
        }

        fn build(&self, config: &Config) -> (Option<Family>, Result<SpawnPool, BuildError>) {
            (None, build!(SpawnPool::builder(), config))
        }
    }
}

/// Runs a map in a pool of its own, with the options at their defaults.
pub(crate) fn nested(kind: Kind, items: u64) -> Result<Vec<u64>, String> {
    fn squares(pool: Result<impl Pool, BuildError>, items: u64) -> Result<Vec<u64>, String> {
        let pool = pool.map_err(|error| error.to_string())?;
        let squares = pool.map(|x: u64| x * x, 0..items);
        squares.map_err(|error| error.to_string())
    }
    match kind {
        #[cfg(feature = "fork")]
        Kind::Fork => squares(procpool::ForkPool::builder().processes(2).build(), items),
        #[cfg(feature = "spawn")]
        Kind::Spawn => squares(procpool::SpawnPool::builder().processes(2).build(), items),
        #[cfg(all(feature = "cluster", feature = "spawn"))]
        Kind::Cluster => Err("a task has no cluster of its own".into()),
    }
}

/// Dumps a pool of its own. What that reads of the program's debugging information stays in memory
/// for the next dump: once, and not for each.
pub(crate) fn dump_once(kind: Kind) {
    fn dump(pool: Result<impl Pool, BuildError>) {
        let Ok(pool) = pool else { return };
        let _busy = pool.apply_async(action::stay, ());
        let end = Instant::now() + Duration::from_secs(20);
        // It may have no stack yet.
        while !pool.dump().to_string().contains("action::stay") && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    match kind {
        #[cfg(feature = "fork")]
        Kind::Fork => dump(procpool::ForkPool::builder().processes(1).build()),
        #[cfg(feature = "spawn")]
        Kind::Spawn => dump(procpool::SpawnPool::builder().processes(1).build()),
        // Agents dump.
        #[cfg(all(feature = "cluster", feature = "spawn"))]
        Kind::Cluster => {}
    }
}
