//! The options of a pool that are about how many workers there are, and which hooks are called.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::worker_options::check_time;
use crate::observe::worker_exit::WorkerExit;
use crate::process::worker_info::WorkerInfo;
use crate::worker::function::FunctionId;
use crate::worker::{EnvironmentChanges, Settings};

/// The options, as they were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct LifecycleOptions {
    idle_timeout: Option<Duration>,
    min_processes: Option<usize>,
    hooks: Hooks,
}

/// What the user wants to hear of workers.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) start: Option<Arc<StartHook>>,
    pub(crate) death: Option<Arc<DeathHook>>,
    pub(crate) refusal: Option<Arc<RefusalHook>>,
}

type StartHook = dyn Fn(&WorkerInfo) + Send + Sync;
type DeathHook = dyn Fn(&WorkerInfo, &WorkerExit) + Send + Sync;
type RefusalHook = dyn Fn(&WorkerInfo, &str) + Send + Sync;

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("start", &self.start.is_some())
            .field("death", &self.death.is_some())
            .field("refusal", &self.refusal.is_some())
            .finish()
    }
}

/// Options that make sense.
#[derive(Debug)]
pub(crate) struct ValidatedLifecycle {
    /// What workers apply to themselves, and the call that makes them, if there is anything.
    pub(crate) settings: Option<(FunctionId, Settings)>,
    /// What the launcher does of it.
    pub(crate) environment: Arc<EnvironmentChanges>,
    /// In bytes.
    pub(crate) max_memory: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    /// How many workers stay, however idle.
    pub(crate) min_processes: usize,
    pub(crate) hooks: Hooks,
}

impl ValidatedLifecycle {
    /// Workers start with their environment, and do not change it.
    pub(crate) fn leave_environment_to_launcher(&mut self) {
        if let Some((_, settings)) = &mut self.settings {
            self.environment = Arc::new(std::mem::take(&mut settings.environment));
        }
    }

    /// How much memory a worker may have of its own, in bytes.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        self.settings.as_ref()?.1.memory_limit
    }

    /// Whether workers enter a sandbox.
    pub(crate) fn has_sandbox(&self) -> bool {
        #[cfg(feature = "sandbox")]
        let has_sandbox = self
            .settings
            .as_ref()
            .is_some_and(|it| it.1.sandbox.is_some());
        #[cfg(not(feature = "sandbox"))]
        let has_sandbox = false;
        has_sandbox
    }

    /// Whether there is something to look at when a worker has finished a chunk.
    pub(crate) fn looks_after(&self) -> bool {
        self.max_memory.is_some() || self.idle_timeout.is_some() || self.has_sandbox()
    }

    /// Whether workers come and go because time passes.
    pub(crate) fn has_timers(&self) -> bool {
        self.max_age.is_some() || self.idle_timeout.is_some()
    }
}

impl LifecycleOptions {
    /// With what the other options say of it. The error says what to do.
    pub(super) fn check(
        self,
        processes: usize,
        settings: Option<(FunctionId, Settings)>,
        max_memory: Option<u64>,
        max_age: Option<Duration>,
    ) -> Result<ValidatedLifecycle, String> {
        if let Some(timeout) = self.idle_timeout {
            check_time("idle_timeout", timeout)?;
        }
        if let Some(least) = self.min_processes {
            if self.idle_timeout.is_none() {
                return Err(
                    "min_processes says how many workers idle_timeout leaves: set that, \
                            too"
                    .into(),
                );
            }
            if least > processes {
                return Err(format!(
                    "min_processes is {least}, which is more than all {processes} processes"
                ));
            }
        }
        Ok(ValidatedLifecycle {
            settings,
            environment: Arc::default(),
            max_memory,
            max_age,
            idle_timeout: self.idle_timeout,
            min_processes: self.min_processes.unwrap_or(1),
            hooks: self.hooks,
        })
    }
}

impl LifecycleOptions {
    pub(crate) fn set_idle_timeout(&mut self, timeout: Duration) {
        self.idle_timeout = Some(timeout);
    }

    pub(crate) fn set_min_processes(&mut self, processes: usize) {
        self.min_processes = Some(processes);
    }

    pub(crate) fn set_on_worker_start(
        &mut self,
        hook: impl Fn(&WorkerInfo) + Send + Sync + 'static,
    ) {
        self.hooks.start = Some(Arc::new(hook));
    }

    pub(crate) fn set_on_worker_death(
        &mut self,
        hook: impl Fn(&WorkerInfo, &WorkerExit) + Send + Sync + 'static,
    ) {
        self.hooks.death = Some(Arc::new(hook));
    }

    #[cfg(feature = "sandbox")]
    pub(crate) fn set_on_refused_call(
        &mut self,
        hook: impl Fn(&WorkerInfo, &str) + Send + Sync + 'static,
    ) {
        self.hooks.refusal = Some(Arc::new(hook));
    }
}
