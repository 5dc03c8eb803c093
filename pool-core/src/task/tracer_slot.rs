//! Where an executor keeps the tracer that it reports to.

use std::io;
use std::sync::PoisonError;

use super::chunk::Chunk;
use crate::observe::trace::{Tracer, already_traced};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// The tracer of an [`Executor`](crate::Executor), if there is one: for executors that know of
/// their workers only by the outcomes of items.
#[derive(Debug, Default)]
pub struct TracerSlot {
    is_taken: AtomicBool,
    tracer: Mutex<Option<Tracer>>,
}

impl TracerSlot {
    /// Reports to this tracer what is [submitted](Self::trace) from now on.
    ///
    /// # Errors
    /// When there is one already.
    pub fn attach(&self, tracer: &Tracer) -> io::Result<()> {
        match &mut *self.lock() {
            Some(_) => Err(already_traced()),
            none => {
                *none = Some(tracer.clone());
                self.is_taken.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Reports nothing to this tracer any more.
    pub fn detach(&self, tracer: &Tracer) {
        let mut slot = self.lock();
        if slot.take_if(|it| it == tracer).is_some() {
            self.is_taken.store(false, Ordering::Relaxed);
        }
    }

    /// Has the items of this chunk reported, if there is a tracer.
    pub fn trace(&self, chunk: &mut Chunk) {
        // Without one, this costs no lock.
        if self.is_taken.load(Ordering::Relaxed)
            && let Some(tracer) = &*self.lock()
        {
            chunk.trace(tracer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tracer>> {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
