//! That a pool has no room for a task.

use std::error::Error;
use std::fmt;

/// A task that was refused since as many wait as the builders' `max_queued` allows: the error of
/// [`Pool::try_apply_async`](crate::Pool::try_apply_async). It has the argument.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, QueueFull, SerialPool};
///
/// let pool = SerialPool::new();
/// match pool.try_apply_async(|name: String| name.len(), "a name".to_owned()) {
///     Ok(handle) => assert_eq!(handle.get().unwrap(), 6),
///     Err(QueueFull(name)) => println!("{name}: come back later"),
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QueueFull<A>(
    /// The argument.
    pub A,
);

impl<A> fmt::Debug for QueueFull<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueFull").finish_non_exhaustive()
    }
}

impl<A> fmt::Display for QueueFull<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pool's queue is full")
    }
}

impl<A> Error for QueueFull<A> {}
