//! Which items of a call are tried again, and when.

use std::fmt;
use std::sync::Arc;

use super::backoff::Backoff;
use crate::error::task_error::TaskError;

/// Whether something is a reason to try an item again.
pub(crate) type IsReason<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

/// What a call says of items that have failed.
#[derive(Clone, Default)]
pub(crate) struct RetryRules {
    /// Whether it is a reason that there is no value. Without one, a worker's death and the end of
    /// the item's time are.
    pub(crate) retry_if: Option<IsReason<TaskError>>,
    /// Whether an encoded value, which is an `Err`, is a reason.
    pub(crate) retry_errors: Option<IsReason<[u8]>>,
    pub(crate) backoff: Option<Backoff>,
}

impl fmt::Debug for RetryRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryRules")
            .field("retry_if", &self.retry_if.is_some())
            .field("retry_errors", &self.retry_errors.is_some())
            .field("backoff", &self.backoff)
            .finish()
    }
}
