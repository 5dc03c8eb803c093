//! Shared memory that was freed: the workers that may have mapped it are notified.

use super::shared::Shared;
use crate::broadcast::Listener;

impl Shared {
    /// From now on, the workers are notified of memory that is freed.
    #[cold]
    pub(super) fn listen_for_frees(&self) {
        self.frees.get_or_init(|| Listener::new(self.alarm.clone()));
    }

    /// Notifies the workers if memory was freed.
    pub(super) fn tell_of_frees(&self) {
        if self.frees.get().is_some_and(|frees| frees.take()) {
            self.lock().tell_of_frees();
        }
    }
}
