//! The options of a pool that are about its workers' lives: what they set up for themselves, when
//! they are replaced, and which hooks are called.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity};

use super::config::PoolConfig;
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
    /// Whether there is something to look at when a worker has finished a load.
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
                        "pin_cpus_to: {cpu} is no processor: they are counted from 0, to {} at most",
                        CpuSet::MAX_CPU - 1
                    )),
                    None => Ok(cpus),
                }
            }
        }
    }
}

impl PoolConfig {
    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_env(&mut self, key: &OsStr, value: Option<&OsStr>) {
        let value = value.map(OsString::from);
        self.lifecycle.settings.env.push((key.into(), value));
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_env_clear(&mut self) {
        self.lifecycle.settings.env_clear = true;
        self.lifecycle.settings.env.clear();
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_current_dir(&mut self, path: &Path) {
        self.lifecycle.settings.current_dir = Some(path.into());
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_nice(&mut self, increment: i32) {
        self.lifecycle.settings.nice = Some(increment);
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_rlimit(&mut self, resource: Resource, soft: u64, hard: u64) {
        self.lifecycle.settings.limits.push((resource, soft, hard));
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_pin_cpus(&mut self) {
        self.lifecycle.pin = Some(Pin::Allowed);
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_pin_cpus_to(&mut self, cpus: Vec<usize>) {
        self.lifecycle.pin = Some(Pin::To(cpus));
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_max_memory_per_child(&mut self, bytes: u64) {
        self.lifecycle.max_memory = Some(bytes);
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_max_age(&mut self, age: Duration) {
        self.lifecycle.max_age = Some(age);
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_idle_timeout(&mut self, timeout: Duration) {
        self.lifecycle.idle_timeout = Some(timeout);
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_min_processes(&mut self, processes: usize) {
        self.lifecycle.min_processes = Some(processes);
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_on_worker_start(&mut self, hook: impl Fn(&WorkerInfo) + Send + Sync + 'static) {
        self.lifecycle.hooks.start = Some(Arc::new(hook));
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_on_worker_death(
        &mut self,
        hook: impl Fn(&WorkerInfo, &WorkerExit) + Send + Sync + 'static,
    ) {
        self.lifecycle.hooks.death = Some(Arc::new(hook));
    }
}

/// The part of [`builder_methods!`](crate::builder_methods) that is about the workers' lives.
#[doc(hidden)]
#[macro_export]
macro_rules! lifecycle_methods {
    () => {
        /// Sets a variable of the environment in each worker, before its initializer runs; as
        /// [`Command::env`](std::process::Command::env).
        ///
        /// All that workers set up for themselves ([`env`](Self::env),
        /// [`current_dir`](Self::current_dir), [`nice`](Self::nice), [`rlimit`](Self::rlimit),
        /// [`pin_cpus`](Self::pin_cpus)) is done in each of them, replacements included. Where that
        /// fails, [`build`](Self::build) does, and says why; later, when a replacement fails a few
        /// times in a row, the pool gives up. The environment can only be changed in a worker that
        /// has one thread: a program must not start others before [`init`].
        ///
        /// [`init`]: https://docs.rs/procpool/latest/procpool/fn.init.html
        #[must_use]
        pub fn env<K, V>(mut self, key: K, value: V) -> Self
        where
            K: AsRef<std::ffi::OsStr>,
            V: AsRef<std::ffi::OsStr>,
        {
            self.config.set_env(key.as_ref(), Some(value.as_ref()));
            self
        }

        /// Removes a variable from the environment of each worker; as
        /// [`Command::env_remove`](std::process::Command::env_remove).
        #[must_use]
        pub fn env_remove<K: AsRef<std::ffi::OsStr>>(mut self, key: K) -> Self {
            self.config.set_env(key.as_ref(), None);
            self
        }

        /// Empties the environment of each worker, but for what [`env`](Self::env) sets after this;
        /// as [`Command::env_clear`](std::process::Command::env_clear).
        #[must_use]
        pub fn env_clear(mut self) -> Self {
            self.config.set_env_clear();
            self
        }

        /// The working directory of each worker; as
        /// [`Command::current_dir`](std::process::Command::current_dir). A relative path is
        /// relative to this program's own when the pool is built.
        #[must_use]
        pub fn current_dir<P: AsRef<std::path::Path>>(mut self, path: P) -> Self {
            self.config.set_current_dir(path.as_ref());
            self
        }

        /// Makes each worker nicer by so much, as nice(1) does: the higher, the less of a processor
        /// it gets while others want it, up to 19 in all. To be less nice needs a privilege.
        #[must_use]
        pub fn nice(mut self, increment: i32) -> Self {
            self.config.set_nice(increment);
            self
        }

        /// Limits what each worker may use of something, as setrlimit(2) does; `u64::MAX` is no
        /// limit. To raise a hard limit needs a privilege.
        #[must_use]
        pub fn rlimit(mut self, resource: $crate::Resource, soft: u64, hard: u64) -> Self {
            self.config.set_rlimit(resource, soft, hard);
            self
        }

        /// Pins each worker to one of the processors that this program may run on: the first worker
        /// to the first one, and so on, beginning again where there are more workers. A replacement
        /// has the processor of the worker that it replaces.
        #[must_use]
        pub fn pin_cpus(mut self) -> Self {
            self.config.set_pin_cpus();
            self
        }

        /// The same with the processors of this list, which are counted from 0.
        #[must_use]
        pub fn pin_cpus_to(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
            self.config.set_pin_cpus_to(cpus.into_iter().collect());
            self
        }

        /// How much memory a worker may hold, in bytes, before a new one takes its place.
        ///
        /// What counts is its resident set as top(1) shows it, shared memory included; for a forked
        /// worker also what was there before the fork. It is looked at whenever a chunk of items is
        /// done, so a single task may take more for a while ([`rlimit`](Self::rlimit) forbids
        /// that). A worker that holds more works on until its replacement is ready, finishes what
        /// it runs, and goes; one that holds twice as much is given nothing more at once. A limit
        /// that a worker exceeds before its first task is an error.
        #[must_use]
        pub fn max_memory_per_child(mut self, bytes: u64) -> Self {
            self.config.set_max_memory_per_child(bytes);
            self
        }

        /// How long a worker lives before a new one takes its place, whether it works or not. It
        /// works on until its replacement is ready, finishes what it runs, and goes.
        #[must_use]
        pub fn max_age(mut self, age: std::time::Duration) -> Self {
            self.config.set_max_age(age);
            self
        }

        /// After how long without work a worker goes, as long as there are more than
        /// [`min_processes`](Self::min_processes). When there are more items than workers they come
        /// back, up to [`processes`](Self::processes). Without it, they stay.
        #[must_use]
        pub fn idle_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.config.set_idle_timeout(timeout);
            self
        }

        /// How many workers stay, however long they have been idle; see
        /// [`idle_timeout`](Self::idle_timeout). Without it, one, so that a task need not wait for
        /// a worker to start.
        #[must_use]
        pub fn min_processes(mut self, processes: usize) -> Self {
            self.config.set_min_processes(processes);
            self
        }

        /// A function to call in this process when a worker has started: its process answers, and
        /// its initializer is next.
        ///
        /// It runs on the thread that completion callbacks run on, one call after the other and in
        /// the order in which things happened; what it waits for, they wait for. A panic in it
        /// harms nothing.
        #[must_use]
        pub fn on_worker_start<F>(mut self, hook: F) -> Self
        where
            F: Fn(&$crate::WorkerInfo) + Send + Sync + 'static,
        {
            self.config.set_on_worker_start(hook);
            self
        }

        /// A function to call in this process when a worker is gone: with how its process ended,
        /// and why. It is called once for each worker that
        /// [`on_worker_start`](Self::on_worker_start) was called for, also for those that the end
        /// of the pool kills, and as that is; a [`join`]($crate::Pool::join) waits for it.
        #[must_use]
        pub fn on_worker_death<F>(mut self, hook: F) -> Self
        where
            F: Fn(&$crate::WorkerInfo, &$crate::WorkerExit) + Send + Sync + 'static,
        {
            self.config.set_on_worker_death(hook);
            self
        }
    };
}
