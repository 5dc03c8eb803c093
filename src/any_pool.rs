//! A pool whose backend is chosen while the program runs.

use std::sync::Arc;

#[cfg(feature = "fork")]
use crate::ForkPool;
#[cfg(feature = "spawn")]
use crate::SpawnPool;
use crate::{Pool, SerialPool};
use procpool_core::Executor;

/// Any of the pools, for a program that chooses the backend at run time.
///
/// It costs nothing: a call goes to the pool's executor as it would without it. A clone is the same
/// pool, and dropping the last one terminates it.
///
/// ```
/// use procpool::{AnyPool, Pool, SerialPool};
///
/// /// Without a name, tasks run in the caller.
/// fn pool(backend: Option<&str>) -> Result<AnyPool, Box<dyn std::error::Error>> {
///     Ok(match backend {
///         None => SerialPool::new().into(),
#[cfg_attr(
    feature = "fork",
    doc = "        Some(\"fork\") => procpool::ForkPool::new()?.into(),"
)]
#[cfg_attr(
    feature = "spawn",
    doc = "        Some(\"spawn\") => procpool::SpawnPool::new()?.into(),"
)]
///         Some(other) => return Err(format!("there is no backend {other}").into()),
///     })
/// }
///
/// let serial = pool(None)?;
/// assert_eq!(serial.map(|x: u64| x * x, 0..4)?, [0, 1, 4, 9]);
/// assert!(pool(Some("threads")).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AnyPool {
    /// Workers are forked from a fork server.
    #[cfg(feature = "fork")]
    Fork(ForkPool),
    /// Workers are this executable, executed again.
    #[cfg(feature = "spawn")]
    Spawn(SpawnPool),
    /// There are no workers: tasks run in the caller.
    Serial(SerialPool),
}

impl Pool for AnyPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        match self {
            #[cfg(feature = "fork")]
            Self::Fork(pool) => pool.executor(),
            #[cfg(feature = "spawn")]
            Self::Spawn(pool) => pool.executor(),
            Self::Serial(pool) => pool.executor(),
        }
    }
}

#[cfg(feature = "fork")]
impl From<ForkPool> for AnyPool {
    fn from(pool: ForkPool) -> Self {
        Self::Fork(pool)
    }
}

#[cfg(feature = "spawn")]
impl From<SpawnPool> for AnyPool {
    fn from(pool: SpawnPool) -> Self {
        Self::Spawn(pool)
    }
}

impl From<SerialPool> for AnyPool {
    fn from(pool: SerialPool) -> Self {
        Self::Serial(pool)
    }
}
