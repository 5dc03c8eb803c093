//! What an agent has of one client: its pool, or what waits for that.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use procpool_core::{
    BuildError, BuildErrorKind, EncodedChunk, Executor, Observe, Output, OutputLine, Pool,
    TaskError, TaskErrorKind, WorkerOptions,
};

use super::local_pool::LocalPool;
use super::observation::Observation;
use super::piece::{Piece, Running, Sink};
use super::{Captures, Setup, error};
use crate::message::{ClientId, ObservedEvents, Printed};

/// So often a pool is built whose workers do not start: as often as a pool tries to replace one.
/// Somebody may have killed them, and that is no fault of the options.
const BUILDS: u32 = 3;

/// See the module.
pub(super) struct Hosted {
    client: ClientId,
    options: WorkerOptions,
    captures: Captures,
    setup: Arc<Setup>,
    stage: Mutex<Stage>,
    /// Locked after the stage.
    observation: Mutex<Observation>,
}

enum Stage {
    /// There is no pool, and the next piece has one built.
    Idle,
    /// One is being built, and these wait for it.
    Building(Vec<Arc<Piece>>),
    Ready(LocalPool),
    /// The client is gone.
    Gone,
}

impl Hosted {
    pub(super) fn new(
        client: ClientId,
        mut options: WorkerOptions,
        captures: Captures,
        setup: Arc<Setup>,
    ) -> Self {
        for name in &setup.hidden {
            options.hide_env(name);
        }
        Self {
            client,
            options,
            captures,
            setup,
            stage: Mutex::new(Stage::Idle),
            observation: Mutex::default(),
        }
    }

    /// The client wants to know this of the workers.
    pub(super) fn observe(&self, wanted: Option<Observe>) {
        let stage = self.lock();
        let pool = match &*stage {
            Stage::Ready(pool) => Some(pool),
            Stage::Idle | Stage::Building(_) | Stage::Gone => None,
        };
        self.observation().set(wanted, pool, &self.setup.machine);
    }

    /// What has happened to them since the last time; to be asked until there is nothing.
    pub(super) fn take_observed(&self) -> Option<ObservedEvents> {
        self.observation().take(&self.setup.machine)
    }

    fn observation(&self) -> MutexGuard<'_, Observation> {
        (self.observation.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// What runs its tasks, if there is a pool.
    pub(super) fn executor(&self) -> Option<Arc<dyn Executor>> {
        match &*self.lock() {
            Stage::Ready(pool) => Some(pool.executor().clone()),
            Stage::Idle | Stage::Building(_) | Stage::Gone => None,
        }
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        chunk: EncodedChunk,
        sink: Arc<Sink>,
    ) -> Result<Running, TaskError> {
        let piece = Arc::new(Piece::new(chunk, &self.setup.machine, sink));
        let mut stage = self.lock();
        match &mut *stage {
            Stage::Idle => {
                *stage = Stage::Building(vec![piece.clone()]);
                drop(stage);
                self.start_building();
            }
            Stage::Building(waiting) => waiting.push(piece.clone()),
            Stage::Ready(pool) => {
                let executor = pool.executor().clone();
                drop(stage);
                self.submit(&piece, &executor);
            }
            Stage::Gone => return Err(gone(&self.setup.machine)),
        }
        Ok(Running(piece))
    }

    fn start_building(self: &Arc<Self>) {
        let this = self.clone();
        let build = move || {
            let built = catch_unwind(AssertUnwindSafe(|| built_at_last(|| this.build())));
            let built = built.unwrap_or_else(|_| {
                let message = "it panicked: this is a defect of procpool";
                Err(BuildError::new(BuildErrorKind::Launch, message))
            });
            this.built(built);
        };
        if let Err(why) = in_a_thread(build) {
            let message = format!("no thread can be started: {why}");
            self.built(Err(BuildError::new(BuildErrorKind::Launch, message)));
        }
    }

    /// It waits for the workers.
    fn build(self: &Arc<Self>) -> Result<LocalPool, BuildError> {
        let output = |printed: Printed| {
            match printed {
                Printed::Inherited => return Output::inherit(),
                Printed::Discarded => return Output::discard(),
                Printed::Sent => {}
            }
            let (client, setup) = (self.client, self.setup.clone());
            Output::lines(move |line: &OutputLine| {
                let worker = line.worker().clone().with_machine(&setup.machine);
                (setup.on_line)(client, worker, line);
            })
        };
        LocalPool::build(
            &self.setup.backend,
            self.setup.processes,
            self.options.clone(),
            [output(self.captures.stdout), output(self.captures.stderr)],
        )
    }

    /// The pieces that wait go on.
    fn built(self: &Arc<Self>, built: Result<LocalPool, BuildError>) {
        let mut stage = self.lock();
        let waiting = match mem::replace(&mut *stage, Stage::Idle) {
            Stage::Building(waiting) => waiting,
            // The client is gone, and with it what waited.
            other => {
                *stage = other;
                drop(stage);
                if let Ok(pool) = built {
                    retire(pool);
                }
                return;
            }
        };
        match built {
            Ok(pool) => {
                let executor = pool.executor().clone();
                self.observation().attach(&pool, &self.setup.machine);
                *stage = Stage::Ready(pool);
                drop(stage);
                for piece in waiting {
                    self.submit(&piece, &executor);
                }
            }
            Err(why) => {
                drop(stage);
                let error = error(&self.setup.machine, kind_of(&why), why.to_string());
                for piece in waiting {
                    piece.fail(&error);
                }
            }
        }
    }

    fn submit(self: &Arc<Self>, piece: &Piece, executor: &Arc<dyn Executor>) {
        let (this, of) = (Arc::downgrade(self), Arc::downgrade(executor));
        piece.submit(executor, move |batch| {
            if batch.errors().any(is_of_pool)
                && let Some(this) = this.upgrade()
            {
                this.has_failed(&of);
            }
        });
    }

    /// This pool has no workers any more and gets none. The next piece tries again.
    fn has_failed(&self, executor: &Weak<dyn Executor>) {
        let mut stage = self.lock();
        let Stage::Ready(pool) = &*stage else {
            return;
        };
        // There may be another one by now.
        if Weak::ptr_eq(&Arc::downgrade(pool.executor()), executor)
            && let Stage::Ready(pool) = mem::replace(&mut *stage, Stage::Idle)
        {
            drop(stage);
            retire(pool);
        }
    }

    /// The client is gone.
    pub(super) fn end(&self) {
        let old = mem::replace(&mut *self.lock(), Stage::Gone);
        match old {
            Stage::Idle | Stage::Gone => {}
            Stage::Building(waiting) => {
                let error = gone(&self.setup.machine);
                for piece in waiting {
                    piece.fail(&error);
                }
            }
            Stage::Ready(pool) => {
                // What runs is killed now, and not when a thread comes to it.
                pool.executor().terminate();
                retire(pool);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is built, perhaps after attempts in which workers did not start.
fn built_at_last<T>(mut build: impl FnMut() -> Result<T, BuildError>) -> Result<T, BuildError> {
    for _ in 1..BUILDS {
        match build() {
            Err(error) if error.kind() == BuildErrorKind::Launch => {}
            built => return built,
        }
    }
    build()
}

/// The error of what would run for a client that has none here.
pub(super) fn gone(machine: &str) -> TaskError {
    let kind = TaskErrorKind::Cancelled;
    error(machine, kind, "the pool that the task is of has gone")
}

/// Whether it is the pool that has failed, and not the item.
fn is_of_pool(error: &TaskError) -> bool {
    matches!(
        error.kind(),
        TaskErrorKind::Initializer | TaskErrorKind::Launch
    )
}

fn kind_of(why: &BuildError) -> TaskErrorKind {
    match why.kind() {
        BuildErrorKind::Initializer => TaskErrorKind::Initializer,
        BuildErrorKind::InvalidConfig => TaskErrorKind::Invalid,
        _ => TaskErrorKind::Launch,
    }
}

/// Ends a pool, elsewhere.
fn retire(pool: LocalPool) {
    // Without a thread it is dropped here, which takes a moment.
    let _ = in_a_thread(move || drop(pool));
}

/// Runs what waits for processes.
fn in_a_thread(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let builder = thread::Builder::new().name("procpool-host".into());
    builder.spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which attempt succeeds if those before it fail like this. 0: none.
    fn succeeds(attempt: u32, kind: BuildErrorKind) -> u32 {
        let mut attempts = 0;
        let built = built_at_last(|| {
            attempts += 1;
            match attempts == attempt {
                true => Ok(attempts),
                false => Err(BuildError::new(kind, "no")),
            }
        });
        assert!(attempts <= BUILDS);
        built.unwrap_or(0)
    }

    #[test]
    fn workers_that_do_not_start_are_no_reason_at_first() {
        assert_eq!(succeeds(1, BuildErrorKind::Launch), 1);
        assert_eq!(succeeds(BUILDS, BuildErrorKind::Launch), BUILDS);
        assert_eq!(succeeds(BUILDS + 1, BuildErrorKind::Launch), 0);
        // Somebody has given a reason.
        assert_eq!(succeeds(2, BuildErrorKind::Initializer), 0);
        assert_eq!(succeeds(2, BuildErrorKind::InvalidConfig), 0);
    }
}
