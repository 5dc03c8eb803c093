//! The engine that every pool of processes shares.
//!
//! One lock guards the [`core`]: the pure [`scheduler`] and the parent's ends of the rings. Two
//! kinds of threads work on it. The [`supervisor`], one for each pool, starts workers, learns of
//! their deaths and keeps time. A thread that waits for a result becomes the [`leader`], if
//! there is none, and drains the rings itself. Without a leader, the supervisor drains them. See
//! `README.md` beside this file.

mod booking;
mod capture;
mod core;
mod death;
mod end;
mod executor;
mod frees;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod inspect;
mod launch;
mod leader;
mod leadership;
mod lifecycle;
#[cfg(all(test, any(loom, shuttle)))]
mod models;
mod notify;
mod parent_channel;
mod peer;
mod positions;
mod published_tails;
mod record_reader;
mod refused_call;
mod scheduler;
mod shared;
mod slot_id;
pub(crate) mod stack_walk;
mod supervisor;
mod terminating;
mod time_limits;
mod token;
mod work;
mod work_unit;
mod worker_process;
mod worker_slot;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::lifecycle::Startup;
use self::shared::Shared;
use self::time_limits::WAIT;
use crate::backend::config::PoolConfig;
use crate::backend::launcher::Launcher;
use crate::error::build_error::{BuildError, BuildErrorKind};
use crate::error::hint::hint;
use crate::process::oom_killer;
use crate::sync::IS_MODEL;
use crate::sync::thread::{self, JoinHandle};
use crate::sys;
use crate::task::executor::Executor;

/// A pool of processes without the types: what a backend's pool has inside.
///
/// Dropping it terminates the pool and waits until its workers are gone.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    executor: Arc<dyn Executor>,
    supervisor: Option<JoinHandle<()>>,
    fork_depth: usize,
}

impl Engine {
    /// Starts a pool's workers and waits until all of them are ready.
    ///
    /// # Errors
    /// When the config makes no sense, a worker cannot be started, or its initializer fails;
    /// nothing is left behind.
    pub(crate) fn start(
        config: PoolConfig,
        launcher: Box<dyn Launcher>,
    ) -> Result<Self, BuildError> {
        let mut config = config.check()?;
        if launcher.changes_environment() {
            config.lifecycle.leave_environment_to_launcher();
        }
        let refused = |error: io::Error| {
            BuildError::new(
                BuildErrorKind::Launch,
                format!(
                    "the system refuses what a pool needs: {error}{}",
                    hint(&error)
                ),
            )
        };
        crate::process::code::find_own_image().map_err(refused)?;
        if !IS_MODEL {
            oom_killer::watch();
        }
        let patience = config
            .initializer
            .is_some()
            .then_some(config.launch_timeout);
        let has_attachments = !config.attachments.is_empty();
        let shared = Arc::new(Shared::new(config, launcher.backend()).map_err(refused)?);
        if has_attachments {
            shared.listen_for_frees();
        }
        // While there may be one thread, which makes it quick.
        sys::accept_own_barriers();
        let supervisor = supervisor::start(shared.clone(), launcher).map_err(refused)?;
        let mut engine = Self {
            executor: shared.clone(),
            fork_depth: shared.fork_depth,
            shared,
            supervisor: Some(supervisor),
        };
        match engine.wait_for_startup(patience) {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.finish();
                Err(error)
            }
        }
    }

    /// What the typed methods of a [`Pool`](crate::Pool) stand on.
    #[must_use]
    pub(crate) fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }

    /// Ends when every worker is ready, or one has failed to be. Its launch timeout bounds that,
    /// and `patience` bounds how long initializers are waited for: they may go on for longer.
    fn wait_for_startup(&self, patience: Option<Duration>) -> Result<(), BuildError> {
        let mut deadline = patience.and_then(|patience| sys::now().checked_add(patience));
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|it| it <= sys::now());
        let mut core = self.shared.lock();
        let mut is_late = false;
        loop {
            match core.lifecycle().startup() {
                Startup::Done => return Ok(()),
                Startup::Failed(error) => return Err(error.clone()),
                Startup::Waiting(_) => core = self.shared.wait_for_change(core, deadline),
            }
            if is_over(deadline) {
                deadline = None;
                is_late = true;
            }
            if is_late && core.lifecycle().is_starting() && core.goes_on_without_initializers() {
                return Ok(());
            }
        }
    }

    /// Ends when all workers are gone, which SIGKILL has seen to, or a few seconds after that: see
    /// [`terminating`]. Nor does it wait longer for a supervisor that the system holds in the
    /// middle of a launch. Then it waits for the callbacks that run.
    fn finish(&mut self) {
        self.shared.terminate();
        if let Some(supervisor) = self.supervisor.take()
            && supervisor.thread().id() != thread::current().id()
        {
            // A model has no such systems, and a wait that is over would hide a wake-up that is
            // lost.
            let give_up = (!IS_MODEL).then(|| sys::now() + self.patience());
            let mut core = self.shared.lock();
            while !core.has_no_supervisor() && give_up.is_none_or(|give_up| sys::now() < give_up) {
                core = self.shared.wait_for_change(core, give_up);
            }
            let has_ended = core.has_no_supervisor();
            drop(core);
            if has_ended {
                // It does not panic; if it did, there is nothing left to wait for.
                let _ = supervisor.join();
            }
        }
        self.shared.deferred.finish();
        self.shared.capture.finish();
    }

    /// How long to wait for the supervisor of a pool that has ended.
    fn patience(&self) -> Duration {
        match self
            .shared
            .events
            .wait(&mut Vec::new(), Some(Duration::ZERO))
        {
            // The program has closed what it does not know, and with that the workers' ties, which
            // has killed them. If the supervisor was asleep then, nothing can wake it any more.
            Err(_) => DEAF_GRACE,
            Ok(()) => WAIT + GRACE,
        }
    }
}

/// How long it may take a supervisor that has nothing to wait for to come to its end.
const GRACE: Duration = Duration::from_secs(5);

/// The same where it may be asleep for good.
const DEAF_GRACE: Duration = Duration::from_millis(100);

impl Drop for Engine {
    fn drop(&mut self) {
        if self.fork_depth == crate::process::fork::depth() {
            self.finish();
        } else {
            // This is the copy in a forked process: the workers are its parent's, and so is
            // everything that dropping would release.
            #[allow(clippy::mem_forget, clippy::disallowed_methods)]
            std::mem::forget((
                self.shared.clone(),
                self.executor.clone(),
                self.supervisor.take(),
            ));
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("backend", &self.shared.backend)
            .field("processes", &self.shared.processes())
            .finish_non_exhaustive()
    }
}
