//! Who is compared.

use procpool::{ForkPool, ForkServer, SerialPool, SpawnPool};

/// A way to run a function over data.
pub(crate) enum Contender {
    /// No pool: a loop.
    Sequential,
    Serial(SerialPool),
    Fork(ForkPool),
    Spawn(SpawnPool),
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Serial(_) => "SerialPool",
            Self::Fork(_) => "ForkPool",
            Self::Spawn(_) => "SpawnPool",
        }
    }
}

/// All contenders, sequential first. To be called while there is one thread.
pub(crate) fn all(workers: usize) -> Result<Vec<Contender>, Box<dyn std::error::Error>> {
    let server = ForkServer::start()?;
    let fork = ForkPool::builder().fork_server(&server).processes(workers);
    let spawn = SpawnPool::builder().processes(workers);
    Ok(vec![
        Contender::Sequential,
        Contender::Serial(SerialPool::new()),
        Contender::Fork(fork.build()?),
        Contender::Spawn(spawn.build()?),
    ])
}
