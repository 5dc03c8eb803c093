//! A map that runs in the background and shows how far it is.

use std::sync::{Arc, PoisonError};

use crate::api::progress::Progress;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::task::chunk_outcome::ChunkOutcome;
use crate::task::executor::Executor;

/// Shows on a bar what arrives. Outcomes arrive on threads of the pool's, which must not wait for a
/// terminal: the drawing is done by the thread that reads the results, or where callbacks run.
pub(super) struct Watch {
    executor: Arc<dyn Executor>,
    /// To count on, which does not draw.
    counter: Progress,
    shown: Arc<Shown>,
}

struct Shown {
    /// Locked while it is drawn, so that nobody reads the results before the bar is finished.
    bar: Mutex<Progress>,
    /// Failures that the bar does not show yet.
    failures: AtomicU64,
}

impl Watch {
    pub(super) fn new(executor: Arc<dyn Executor>, progress: Progress) -> Self {
        Self {
            executor,
            counter: progress.clone(),
            shown: Arc::new(Shown {
                bar: Mutex::new(progress),
                failures: AtomicU64::new(0),
            }),
        }
    }

    /// This many items are going to be run.
    pub(super) fn begin(&self, items: usize) {
        self.shown.show(|bar| bar.begin((items, Some(items))));
        if items == 0 {
            self.finish();
        }
    }

    /// Items have ended; nobody knows of it yet.
    pub(super) fn add(&self, part: &ChunkOutcome) {
        self.counter.count(part.count.into());
        let failed = part.failures() as u64;
        // The thread that is going to show others shows these as well.
        if failed > 0 && self.shown.failures.fetch_add(failed, Ordering::Relaxed) == 0 {
            self.later(|_| {});
        }
    }

    /// All have ended.
    pub(super) fn finish_later(&self) {
        self.later(Progress::finish);
    }

    fn later(&self, change: fn(&mut Progress)) {
        let shown = self.shown.clone();
        self.executor
            .spawn_callback(Box::new(move || shown.show(change)));
    }

    /// All have ended, and the results are about to be read.
    pub(super) fn finish(&self) {
        self.shown.show(Progress::finish);
    }
}

impl Shown {
    fn show(&self, change: impl FnOnce(&mut Progress)) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        bar.count_failures(self.failures.swap(0, Ordering::Relaxed));
        change(&mut bar);
    }
}
