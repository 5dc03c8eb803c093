//! The options of a pool that are about its workers' lives: what they set up for themselves, when
//! they are replaced, and which hooks are called.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::observe::worker_exit::WorkerExit;
use crate::process::worker_info::WorkerInfo;
use crate::worker::function::FunctionId;
use crate::worker::{Resource, Settings};

/// The options, as they were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct LifecycleOptions {
    settings: Settings,
    pin: Option<Pin>,
    max_memory: Option<u64>,
    max_age: Option<Duration>,
    idle_timeout: Option<Duration>,
    min_processes: Option<usize>,
    hooks: Hooks,
}

/// Which processors workers are pinned to.
#[derive(Debug, Clone)]
enum Pin {
    /// Those that this program may run on.
    Allowed,
    /// These.
    To(Vec<usize>),
}

/// What the user wants to hear of workers.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) start: Option<Arc<StartHook>>,
    pub(crate) death: Option<Arc<DeathHook>>,
}

type StartHook = dyn Fn(&WorkerInfo) + Send + Sync;
type DeathHook = dyn Fn(&WorkerInfo, &WorkerExit) + Send + Sync;

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("start", &self.start.is_some())
            .field("death", &self.death.is_some())
            .finish()
    }
}

/// Options that make sense.
#[derive(Debug)]
pub(crate) struct ValidatedLifecycle {
    /// What workers apply to themselves, and the call that makes them, if there is anything.
    pub(crate) settings: Option<(FunctionId, Settings)>,
    /// In bytes.
    pub(crate) max_memory: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    /// How many workers stay, however idle.
    pub(crate) min_processes: usize,
    pub(crate) hooks: Hooks,
}

impl ValidatedLifecycle {
    /// How much memory a worker may have of its own, in bytes.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        self.settings.as_ref()?.1.memory_limit
    }

    /// Whether there is something to look at when a worker has finished a chunk.
    pub(crate) fn looks_after(&self) -> bool {
        self.max_memory.is_some() || self.idle_timeout.is_some()
    }

    /// Whether workers come and go because time passes.
    pub(crate) fn has_timers(&self) -> bool {
        self.max_age.is_some() || self.idle_timeout.is_some()
    }
}

impl LifecycleOptions {
    /// The error says what to do.
    pub(crate) fn check(self, processes: usize) -> Result<ValidatedLifecycle, String> {
        if self.max_memory == Some(0) {
            return Err(
                "max_memory_per_child is 0: no worker runs in that (leave the option out \
                        for no limit)"
                    .into(),
            );
        }
        if self.settings.memory_limit == Some(0) {
            return Err(
                "memory_limit is 0: no worker runs in that (leave the option out for no limit)"
                    .into(),
            );
        }
        let mut limits = self.settings.limits.iter();
        if self.settings.memory_limit.is_some()
            && limits.any(|(resource, ..)| *resource == Resource::DataSize)
        {
            return Err(
                "memory_limit sets the limits of Resource::DataSize: leave one of them out".into(),
            );
        }
        for (name, time) in [
            ("max_age", self.max_age),
            ("idle_timeout", self.idle_timeout),
        ] {
            if time == Some(Duration::ZERO) {
                return Err(format!(
                    "{name} is 0: workers would go as soon as they come (leave the option out for \
                     no limit)"
                ));
            }
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
        let mut settings = self.settings;
        for (key, value) in &settings.env {
            check_variable(key, value.as_deref())?;
        }
        if let Some(path) = &mut settings.current_dir {
            let absolute = std::path::absolute(&*path)
                .map_err(|error| format!("current_dir is {path:?}: {error}"))?;
            *path = absolute.into_os_string();
        }
        if let Some(increment) = settings.nice
            && !(-39..=39).contains(&increment)
        {
            return Err(format!(
                "nice is {increment}: the whole range is 40, from -20 (first) to 19 (last)"
            ));
        }
        for (resource, soft, hard) in &settings.limits {
            if soft > hard {
                return Err(format!(
                    "the soft limit of {resource:?}, {soft}, is above the hard one, {hard}"
                ));
            }
        }
        if let Some(pin) = self.pin {
            settings.cpus = pin.check()?;
        }
        settings.watch_memory = self.max_memory.is_some();
        let settings = if settings == Settings::default() {
            None
        } else {
            let entry = Settings::entry().map_err(|error| error.to_string())?;
            Some((entry, settings))
        };
        Ok(ValidatedLifecycle {
            settings,
            max_memory: self.max_memory,
            max_age: self.max_age,
            idle_timeout: self.idle_timeout,
            min_processes: self.min_processes.unwrap_or(1),
            hooks: self.hooks,
        })
    }
}

fn check_variable(key: &OsStr, value: Option<&OsStr>) -> Result<(), String> {
    let has = |text: &OsStr, byte| text.as_encoded_bytes().contains(&byte);
    if key.is_empty() || has(key, b'=') || has(key, 0) {
        return Err(format!(
            "{key:?} cannot be the name of a variable of the environment: it must not be empty, \
             nor have a '=' or a zero byte in it"
        ));
    }
    if value.is_some_and(|value| has(value, 0)) {
        return Err(format!(
            "the value of the variable {key:?} has a zero byte in it"
        ));
    }
    Ok(())
}

impl Pin {
    fn check(self) -> Result<Vec<usize>, String> {
        match self {
            Self::Allowed => {
                let allowed = sched_getaffinity(None)
                    .map_err(|error| format!("pin_cpus: the system does not say which: {error}"))?;
                let cpus = 0..CpuSet::MAX_CPU;
                Ok(cpus.filter(|cpu| allowed.is_set(*cpu)).collect())
            }
            Self::To(cpus) => {
                if cpus.is_empty() {
                    return Err("pin_cpus_to: there is no processor in the list".into());
                }
                match cpus.iter().find(|cpu| **cpu >= CpuSet::MAX_CPU) {
                    Some(cpu) => Err(format!(
                        "pin_cpus_to: {cpu} is no processor: they are counted from 0, \
                         to {} at most",
                        CpuSet::MAX_CPU - 1
                    )),
                    None => Ok(cpus),
                }
            }
        }
    }
}

impl LifecycleOptions {
    pub(crate) fn set_env(&mut self, key: &OsStr, value: Option<&OsStr>) {
        let value = value.map(OsString::from);
        self.settings.env.push((key.into(), value));
    }

    pub(crate) fn set_env_clear(&mut self) {
        self.settings.env_clear = true;
        self.settings.env.clear();
    }

    pub(crate) fn set_current_dir(&mut self, path: &Path) {
        self.settings.current_dir = Some(path.into());
    }

    pub(crate) fn set_nice(&mut self, increment: i32) {
        self.settings.nice = Some(increment);
    }

    pub(crate) fn set_rlimit(&mut self, resource: Resource, soft: u64, hard: u64) {
        self.settings.limits.push((resource, soft, hard));
    }

    pub(crate) fn set_memory_limit(&mut self, bytes: u64) {
        self.settings.memory_limit = Some(bytes);
    }

    pub(crate) fn set_after_fork(&mut self) {
        self.settings.after_fork = true;
    }

    pub(crate) fn set_pin_cpus(&mut self) {
        self.pin = Some(Pin::Allowed);
    }

    pub(crate) fn set_pin_cpus_to(&mut self, cpus: Vec<usize>) {
        self.pin = Some(Pin::To(cpus));
    }

    pub(crate) fn set_max_memory_per_child(&mut self, bytes: u64) {
        self.max_memory = Some(bytes);
    }

    pub(crate) fn set_max_age(&mut self, age: Duration) {
        self.max_age = Some(age);
    }

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
}
