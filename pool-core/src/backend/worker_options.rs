//! The options of a pool that say what its workers are: these can go to another machine.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::initializer::{self, Initializer};
use super::pin::Pin;
use crate::broadcast::{Attachments, BroadcastContent, ContentId};
use crate::error::build_error::{BuildError, BuildErrorKind};
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::shm::build_identity::{BuildId, build_id};
use crate::shm::region::{RING_BYTES, RingSizes};
use crate::task::outcome::{from_bytes, to_bytes};
use crate::worker::function::{FunctionId, Stateless, assert_captures_nothing};
use crate::worker::initializer::InitializerOutcome;
use crate::worker::{Resource, Settings};

/// What the workers of a pool are, for pools elsewhere: the part of a
/// [`PoolBuilder`](crate::PoolBuilder)'s options that can go to another machine, whose setters have
/// the same names there and say more.
///
/// It travels as [`to_bytes`](Self::to_bytes). Its receiver believes nothing of it, but it says
/// which function of the program runs first in each worker, and with which argument. So it is taken
/// only from those who may run anything. There, a pool is built of it by
/// [`PoolBuilder::with_worker_options`](crate::PoolBuilder::with_worker_options).
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    initializer: Option<Initializer>,
    finalizer: Option<Result<FunctionId, String>>,
    max_tasks_per_child: Option<u64>,
    ring_capacity: usize,
    max_result_bytes: u64,
    launch_timeout: Duration,
    settings: Settings,
    pin: Option<Pin>,
    max_memory: Option<u64>,
    max_age: Option<Duration>,
    #[cfg(feature = "sandbox")]
    sandbox: Option<procpool_sandbox::Sandbox>,
}

/// Options that make sense.
#[derive(Debug)]
pub(super) struct ValidatedWorkers {
    pub(super) initializer: Option<(FunctionId, Vec<u8>)>,
    pub(super) attachments: Attachments,
    pub(super) finalizer: Option<FunctionId>,
    pub(super) max_tasks_per_child: Option<u64>,
    pub(super) rings: RingSizes,
    pub(super) max_result_bytes: u64,
    pub(super) launch_timeout: Duration,
    pub(super) settings: Option<(FunctionId, Settings)>,
    pub(super) max_memory: Option<u64>,
    pub(super) max_age: Option<Duration>,
}

/// The options as they travel.
#[derive(Serialize, Deserialize)]
struct Carried {
    build: BuildId,
    initializer: Option<initializer::Carried>,
    finalizer: Option<u64>,
    max_tasks_per_child: Option<u64>,
    ring_capacity: usize,
    max_result_bytes: u64,
    launch_timeout: Duration,
    settings: Settings,
    pin: Option<Pin>,
    max_memory: Option<u64>,
    max_age: Option<Duration>,
    // Who reads it is the same build, and has the same features.
    #[cfg(feature = "sandbox")]
    sandbox: Option<procpool_sandbox::Sandbox>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            initializer: None,
            finalizer: None,
            max_tasks_per_child: None,
            ring_capacity: 256 * 1024,
            max_result_bytes: 4 << 30,
            launch_timeout: Duration::from_secs(10),
            settings: Settings::default(),
            pin: None,
            max_memory: None,
            max_age: None,
            #[cfg(feature = "sandbox")]
            sandbox: None,
        }
    }
}

impl WorkerOptions {
    /// Whether a pool elsewhere can be built of them: what `build` says of a pool of this process,
    /// and that nothing is among them that cannot leave it.
    ///
    /// # Errors
    /// The text says what to do.
    pub fn check(&self) -> Result<(), BuildError> {
        let initializer = self.initializer.as_ref();
        let checked = if initializer.is_some_and(Initializer::has_descriptors) {
            let what = "the initializer's argument has a file descriptor in it, which cannot go to \
                        another machine: open it there";
            Err(what.to_owned())
        } else {
            self.validate_elsewhere()
        };
        checked.map_err(|message| BuildError::new(BuildErrorKind::InvalidConfig, message))
    }

    /// Whether they make sense on a machine of which nothing is known.
    fn validate_elsewhere(&self) -> Result<(), String> {
        #[cfg(feature = "sandbox")]
        if let Some(sandbox) = &self.sandbox {
            sandbox.check().map_err(|error| error.to_string())?;
        }
        let options = Self {
            #[cfg(feature = "sandbox")]
            sandbox: None,
            ..self.clone()
        };
        options.validate().map(drop)
    }

    /// The options as bytes, without the [contents](Self::contents).
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn to_bytes(&self) -> Result<Vec<u8>, BuildError> {
        self.check()?;
        let invalid = |message| BuildError::new(BuildErrorKind::InvalidConfig, message);
        let initializer = self.initializer.as_ref().map(Initializer::to_carried);
        let finalizer = self.finalizer.clone().transpose().map_err(invalid)?;
        Ok(to_bytes(&Carried {
            build: build_id(),
            initializer: initializer.transpose().map_err(invalid)?,
            finalizer: finalizer.map(FunctionId::number),
            max_tasks_per_child: self.max_tasks_per_child,
            ring_capacity: self.ring_capacity,
            max_result_bytes: self.max_result_bytes,
            launch_timeout: self.launch_timeout,
            settings: self.settings.clone(),
            pin: self.pin.clone(),
            max_memory: self.max_memory,
            max_age: self.max_age,
            #[cfg(feature = "sandbox")]
            sandbox: self.sandbox.clone(),
        }))
    }

    /// The options that these bytes are, which may come from anywhere. Whether their values make
    /// sense, `build` says.
    ///
    /// # Errors
    /// Of kind [`Decode`](TaskErrorKind::Decode) when they are none, and of kind
    /// [`Invalid`](TaskErrorKind::Invalid) when they are of another build of the program, or name
    /// what is no function of it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TaskError> {
        let invalid = |message: &str| TaskError::new(TaskErrorKind::Invalid, message);
        // What has no such beginning cannot be of this build, and is another one's perhaps.
        let build: &[u8] = &to_bytes(&build_id());
        if bytes.len() >= build.len() && !bytes.starts_with(build) {
            return Err(invalid("the options are of another build of the program"));
        }
        let carried: Carried = from_bytes(bytes, "options")?;
        let finalizer = carried.finalizer.map(|number| {
            FunctionId::from_number(number)
                .ok_or_else(|| invalid("the finalizer is no function that this program calls"))
        });
        let initializer = carried.initializer.map(Initializer::from_carried);
        Ok(Self {
            initializer: initializer.transpose()?,
            finalizer: finalizer.transpose()?.map(Ok),
            max_tasks_per_child: carried.max_tasks_per_child,
            ring_capacity: carried.ring_capacity,
            max_result_bytes: carried.max_result_bytes,
            launch_timeout: carried.launch_timeout,
            settings: Settings {
                // These follow from others, or are of the process that has the pool.
                cpus: Vec::new(),
                watch_memory: false,
                after_fork: false,
                ..carried.settings
            },
            pin: carried.pin,
            max_memory: carried.max_memory,
            max_age: carried.max_age,
            #[cfg(feature = "sandbox")]
            sandbox: carried.sandbox,
        })
    }

    /// The values that handles in the initializer's argument mean, as far as they are in this
    /// process: what goes where the options go, unless it is [there](Self::missing).
    #[must_use]
    pub fn contents(&self) -> Vec<BroadcastContent> {
        let initializer = self.initializer.as_ref();
        initializer.map_or_else(Vec::new, Initializer::contents)
    }

    /// The values that handles in the initializer's argument mean and that are not in this process:
    /// to be got from the sender, and [provided](Self::provide), before a pool is built. Without
    /// them that fails.
    #[must_use]
    pub fn missing(&self) -> Vec<ContentId> {
        let initializer = self.initializer.as_ref();
        initializer.map_or_else(Vec::new, Initializer::missing)
    }

    /// Takes a value that handles in the initializer's argument mean. `false`: they mean no such
    /// value.
    pub fn provide(&mut self, content: &BroadcastContent) -> bool {
        let initializer = self.initializer.as_mut();
        initializer.is_some_and(|it| it.provide(content))
    }

    /// The error says what to do.
    pub(super) fn validate(self) -> Result<ValidatedWorkers, String> {
        if self.max_tasks_per_child == Some(0) {
            return Err(
                "max_tasks_per_child is 0: a worker must run at least one task (leave the option \
                 out for no limit)"
                    .into(),
            );
        }
        let ring_bytes = self
            .ring_capacity
            .checked_next_power_of_two()
            .filter(|bytes| RING_BYTES.contains(bytes) && self.ring_capacity > 0)
            .ok_or_else(|| {
                format!(
                    "ring_capacity is {}: it must be between {} and {} bytes",
                    self.ring_capacity,
                    RING_BYTES.start(),
                    RING_BYTES.end()
                )
            })?;
        if self.max_result_bytes == 0 {
            return Err(
                "max_result_bytes is 0: no task could return anything (leave the option out for \
                 the default)"
                    .into(),
            );
        }
        if self.launch_timeout.is_zero() {
            return Err("launch_timeout is 0: no worker starts in no time".into());
        }
        let settings = self.check_settings()?;
        let initializer = self.initializer.map(Initializer::check).transpose()?;
        let (initializer, attachments) = initializer.map_or_else(Default::default, |it| {
            (Some((it.entry, it.argument)), it.attachments)
        });
        Ok(ValidatedWorkers {
            initializer,
            attachments,
            finalizer: self.finalizer.transpose()?,
            max_tasks_per_child: self.max_tasks_per_child,
            rings: RingSizes::both(ring_bytes),
            max_result_bytes: self.max_result_bytes,
            launch_timeout: self.launch_timeout,
            settings,
            max_memory: self.max_memory,
            max_age: self.max_age,
        })
    }

    /// What workers apply to themselves, and the call that makes them, if there is anything.
    fn check_settings(&self) -> Result<Option<(FunctionId, Settings)>, String> {
        if self.max_memory == Some(0) {
            return Err(
                "max_memory_per_child is 0: no worker runs in that (leave the option out \
                        for no limit)"
                    .into(),
            );
        }
        let mut settings = self.settings.clone();
        if settings.memory_limit == Some(0) {
            return Err(
                "memory_limit is 0: no worker runs in that (leave the option out for no limit)"
                    .into(),
            );
        }
        let mut limits = settings.limits.iter();
        if settings.memory_limit.is_some()
            && limits.any(|(resource, ..)| *resource == Resource::DataSize)
        {
            return Err(
                "memory_limit sets the limits of Resource::DataSize: leave one of them out".into(),
            );
        }
        if let Some(age) = self.max_age {
            check_time("max_age", age)?;
        }
        for (key, value) in &settings.environment.changes {
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
        if let Some(pin) = self.pin.clone() {
            settings.cpus = pin.check()?;
        }
        settings.watch_memory = self.max_memory.is_some();
        #[cfg(feature = "sandbox")]
        if let Some(sandbox) = &self.sandbox {
            settings.sandbox = Some(sandbox.prepare().map_err(|error| error.to_string())?);
            settings.has_initializer = self.initializer.is_some();
        }
        if settings == Settings::default() {
            return Ok(None);
        }
        let entry = Settings::entry().map_err(|error| error.to_string())?;
        Ok(Some((entry, settings)))
    }
}

/// Whether a worker can live so long.
pub(super) fn check_time(name: &str, time: Duration) -> Result<(), String> {
    if time.is_zero() {
        return Err(format!(
            "{name} is 0: workers would go as soon as they come (leave the option out for no limit)"
        ));
    }
    Ok(())
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

/// The setters, whose documentation is that of [`PoolBuilder`](crate::PoolBuilder).
impl WorkerOptions {
    /// See [`PoolBuilder::initializer`](crate::PoolBuilder::initializer).
    pub fn set_initializer<F, A, R>(&mut self, initializer: F, argument: &A)
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: InitializerOutcome,
    {
        const { assert_captures_nothing::<F>() };
        self.initializer = Some(Initializer::new(initializer, argument));
    }

    /// See [`PoolBuilder::finalizer`](crate::PoolBuilder::finalizer).
    pub fn set_finalizer<F: Fn() + Stateless>(&mut self, finalizer: F) {
        const { assert_captures_nothing::<F>() };
        // Called through a closure that captures it, which is of no size if `finalizer` is.
        fn entry<F: Fn(()) + Stateless>(function: &F) -> Result<FunctionId, String> {
            FunctionId::of::<F, (), ()>(function).map_err(|error| error.to_string())
        }
        self.finalizer = Some(entry(&move |()| finalizer()));
    }

    /// See [`PoolBuilder::max_tasks_per_child`](crate::PoolBuilder::max_tasks_per_child).
    pub fn set_max_tasks_per_child(&mut self, tasks: u64) {
        self.max_tasks_per_child = Some(tasks);
    }

    /// See [`PoolBuilder::ring_capacity`](crate::PoolBuilder::ring_capacity).
    pub fn set_ring_capacity(&mut self, bytes: usize) {
        self.ring_capacity = bytes;
    }

    /// See [`PoolBuilder::max_result_bytes`](crate::PoolBuilder::max_result_bytes).
    pub fn set_max_result_bytes(&mut self, bytes: u64) {
        self.max_result_bytes = bytes;
    }

    /// See [`PoolBuilder::launch_timeout`](crate::PoolBuilder::launch_timeout).
    pub fn set_launch_timeout(&mut self, timeout: Duration) {
        self.launch_timeout = timeout;
    }

    /// See [`PoolBuilder::env`](crate::PoolBuilder::env), and
    /// [`PoolBuilder::env_remove`](crate::PoolBuilder::env_remove) where there is no value.
    pub fn set_env(&mut self, key: &OsStr, value: Option<&OsStr>) {
        self.settings
            .environment
            .set(key, value.map(OsString::from));
    }

    /// See [`PoolBuilder::env_clear`](crate::PoolBuilder::env_clear).
    pub fn set_env_clear(&mut self) {
        self.settings.environment.clear();
    }

    /// Removes a variable that the process has which builds the pool, unless these options set it,
    /// before or after this.
    pub fn hide_env(&mut self, key: &OsStr) {
        self.settings.environment.hide(key);
    }

    /// See [`PoolBuilder::current_dir`](crate::PoolBuilder::current_dir). A relative path is
    /// relative to the working directory of the process that builds the pool.
    pub fn set_current_dir(&mut self, path: &Path) {
        self.settings.current_dir = Some(path.into());
    }

    /// See [`PoolBuilder::nice`](crate::PoolBuilder::nice).
    pub fn set_nice(&mut self, increment: i32) {
        self.settings.nice = Some(increment);
    }

    /// See [`PoolBuilder::rlimit`](crate::PoolBuilder::rlimit).
    pub fn set_rlimit(&mut self, resource: Resource, soft: u64, hard: u64) {
        self.settings.limits.push((resource, soft, hard));
    }

    /// See [`PoolBuilder::memory_limit`](crate::PoolBuilder::memory_limit).
    pub fn set_memory_limit(&mut self, bytes: u64) {
        self.settings.memory_limit = Some(bytes);
    }

    /// See [`PoolBuilder::sandbox`](crate::PoolBuilder::sandbox).
    #[cfg(feature = "sandbox")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sandbox")))]
    pub fn set_sandbox(&mut self, sandbox: procpool_sandbox::Sandbox) {
        self.sandbox = Some(sandbox);
    }

    #[cfg(feature = "sandbox")]
    pub(crate) fn set_protected(&mut self) {
        self.settings.protected = true;
    }

    /// Whether this process and its workers are to be out of others' reach.
    pub(crate) fn is_protected(&self) -> bool {
        self.settings.protected
    }

    /// See `PoolBuilder::after_fork`. It does not travel.
    pub(crate) fn set_after_fork(&mut self) {
        self.settings.after_fork = true;
    }

    /// See [`PoolBuilder::pin_cpus`](crate::PoolBuilder::pin_cpus). The processors are those of the
    /// process that builds the pool.
    pub fn set_pin_cpus(&mut self) {
        self.pin = Some(Pin::Allowed);
    }

    /// See [`PoolBuilder::pin_cpus_to`](crate::PoolBuilder::pin_cpus_to).
    pub fn set_pin_cpus_to(&mut self, cpus: Vec<usize>) {
        self.pin = Some(Pin::To(cpus));
    }

    /// See [`PoolBuilder::max_memory_per_child`](crate::PoolBuilder::max_memory_per_child).
    pub fn set_max_memory_per_child(&mut self, bytes: u64) {
        self.max_memory = Some(bytes);
    }

    /// See [`PoolBuilder::max_age`](crate::PoolBuilder::max_age).
    pub fn set_max_age(&mut self, age: Duration) {
        self.max_age = Some(age);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::config::PoolConfig;
    use super::*;
    use crate::broadcast::Broadcast;
    use crate::passing::Fd;
    use crate::shm::protocol;

    fn initialize((_, _): (Broadcast<str>, u64)) {}

    fn finalize() {}

    /// With each of them set.
    fn options() -> WorkerOptions {
        let mut options = WorkerOptions::default();
        let words = Broadcast::<str>::new("words".to_owned()).expect("memory");
        options.set_initializer(initialize, &(words, 7));
        options.set_finalizer(finalize);
        options.set_max_tasks_per_child(5);
        options.set_ring_capacity(8192);
        options.set_max_result_bytes(1 << 20);
        options.set_launch_timeout(Duration::from_secs(3));
        options.set_env("FORGOTTEN".as_ref(), Some("1".as_ref()));
        options.set_env_clear();
        options.set_env("KEPT".as_ref(), Some("2".as_ref()));
        options.set_env("REMOVED".as_ref(), None);
        options.set_current_dir("/tmp".as_ref());
        options.set_nice(3);
        options.set_rlimit(Resource::OpenFiles, 100, 200);
        options.set_memory_limit(1 << 30);
        options.set_pin_cpus_to(vec![0, 1]);
        options.set_max_memory_per_child(1 << 29);
        options.set_max_age(Duration::from_secs(60));
        options
    }

    fn kind(bytes: &[u8]) -> TaskErrorKind {
        WorkerOptions::from_bytes(bytes)
            .expect_err("no options")
            .kind()
    }

    #[test]
    fn options_arrive_as_they_were() {
        let sent = options();
        let bytes = sent.to_bytes().expect("they make sense");
        let mut options = WorkerOptions::from_bytes(&bytes).expect("options");
        let contents = sent.contents();
        assert_eq!(sent.missing(), []);
        assert_eq!(options.missing(), [contents[0].id()]);
        // Without what was broadcast there is no argument.
        let why = options.check().expect_err("it is missing").to_string();
        assert!(why.contains("was not brought"), "{why}");
        assert!(!options.provide(&BroadcastContent::new(b"other").expect("memory")));
        let content = BroadcastContent::new(contents[0].bytes()).expect("memory");
        assert!(options.provide(&content) && options.missing().is_empty());
        // Nor do they change when they travel on.
        let again = WorkerOptions::from_bytes(&options.to_bytes().expect("they make sense"));
        assert_eq!(again.expect("options").missing(), [content.id()]);
        let mut there = options.validate().expect("all is there");
        let mut here = sent.validate().expect("they make sense");
        let (entry, item) = here.initializer.take().expect("there is one");
        let (arrived, rebased) = there.initializer.take().expect("there is one");
        assert!(entry == arrived && item.len() == rebased.len() && item != rebased);
        let number = |item: &[u8]| item[item.len() - 8..].to_vec();
        assert_eq!(number(&rebased), number(&item));
        assert_eq!(there.attachments.memory().len(), 1);
        for all in [&mut here, &mut there] {
            all.attachments = Attachments::default();
        }
        assert_eq!(format!("{there:?}"), format!("{here:?}"));
        let (_, settings) = there.settings.expect("there are some");
        let environment = &settings.environment;
        assert_eq!(environment.changes.len(), 2);
        assert!(settings.watch_memory && environment.clear);
    }

    #[test]
    fn defaults_arrive_as_they_were() {
        let sent = WorkerOptions::default();
        let options = WorkerOptions::from_bytes(&sent.to_bytes().expect("they make sense"));
        let options = options.expect("options");
        assert_eq!(format!("{options:?}"), format!("{sent:?}"));
    }

    #[test]
    fn nothing_is_believed_that_arrives() {
        let bytes = options().to_bytes().expect("they make sense");
        for len in 0..bytes.len() {
            assert_eq!(kind(&bytes[..len]), TaskErrorKind::Decode, "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(kind(&longer), TaskErrorKind::Decode);
        let mut other = bytes.clone();
        other[0] ^= 1;
        assert_eq!(kind(&other), TaskErrorKind::Invalid);
        let valid = options().validate().expect("they make sense");
        let initializer = valid.initializer.expect("there is one").0;
        for function in [initializer, valid.finalizer.expect("there is one")] {
            for number in [0, function.number() + 4, u64::MAX, own_number()] {
                let forged = replace(&bytes, &function.number().to_le_bytes(), number);
                assert_eq!(kind(&forged), TaskErrorKind::Invalid, "{number}");
            }
        }
    }

    /// That of a function which only this crate may have workers run.
    fn own_number() -> u64 {
        Settings::entry().expect("a function").number()
    }

    fn replace(bytes: &[u8], what: &[u8; 8], with: u64) -> Vec<u8> {
        let mut places = bytes.windows(8).enumerate().filter(|it| it.1 == what);
        let (at, _) = places.next().expect("it is there");
        assert!(places.next().is_none(), "it is there once");
        let mut forged = bytes.to_vec();
        forged[at..at + 8].copy_from_slice(&with.to_le_bytes());
        forged
    }

    /// An argument is one item.
    #[test]
    fn an_argument_of_another_form_is_refused() {
        let mut item = Vec::new();
        protocol::append_number(&mut item, &[0; 8]);
        for argument in [vec![], item[1..].to_vec(), [&item[..], &item].concat()] {
            let mut options = options();
            let initializer = options.initializer.as_mut().expect("there is one");
            initializer.forge_argument(argument);
            let bytes = options.to_bytes().expect("they make sense");
            assert_eq!(kind(&bytes), TaskErrorKind::Decode);
        }
    }

    /// What hooks a process has, and what follows from other options, no other one says.
    #[test]
    fn what_does_not_travel_is_as_by_default() {
        let mut options = options();
        options.set_after_fork();
        options.settings.cpus = vec![usize::MAX];
        options.settings.watch_memory = true;
        let arrived = WorkerOptions::from_bytes(&options.to_bytes().expect("they make sense"));
        let settings = arrived.expect("options").settings;
        assert!(settings.cpus.is_empty() && !settings.watch_memory && !settings.after_fork);
    }

    #[test]
    fn what_no_pool_can_be_built_of_is_refused_as_a_pool_refuses_it() {
        let spoil: [fn(&mut WorkerOptions); 12] = [
            |it| it.set_max_tasks_per_child(0),
            |it| it.set_ring_capacity(usize::MAX),
            |it| it.set_max_result_bytes(0),
            |it| it.set_launch_timeout(Duration::ZERO),
            |it| it.set_env("A=B".as_ref(), None),
            |it| it.set_nice(100),
            |it| it.set_rlimit(Resource::CpuTime, 2, 1),
            |it| it.set_memory_limit(0),
            |it| it.set_pin_cpus_to(Vec::new()),
            |it| it.set_max_memory_per_child(0),
            |it| it.set_max_age(Duration::ZERO),
            |it| it.set_rlimit(Resource::DataSize, 1, 1),
        ];
        for (place, spoil) in spoil.into_iter().enumerate() {
            let mut options = options();
            spoil(&mut options);
            let mut config = PoolConfig::default();
            config.workers = options.clone();
            let here = config.check().expect_err("no pool").to_string();
            let checked = options.check().expect_err("no pool");
            assert_eq!(checked.kind(), BuildErrorKind::InvalidConfig);
            assert_eq!(checked.to_string(), here, "{place}");
            let sent = options.to_bytes().expect_err("no pool");
            assert_eq!(sent.to_string(), here, "{place}");
        }
    }

    #[test]
    fn an_argument_with_a_descriptor_does_not_leave() {
        let mut options = WorkerOptions::default();
        let file = File::open("/dev/null").expect("a file");
        options.set_initializer(|_: Fd| (), &Fd::from(file));
        let why = options.check().expect_err("a descriptor").to_string();
        assert!(why.contains("file descriptor"), "{why}");
        let mut config = PoolConfig::default();
        config.workers = options;
        config.check().expect("it can stay");
    }

    #[test]
    fn what_is_hidden_can_be_set() {
        let mut options = WorkerOptions::default();
        options.set_env("A".as_ref(), Some("1".as_ref()));
        options.hide_env("A".as_ref());
        options.hide_env("B".as_ref());
        let (_, settings) = options.check_settings().expect("sense").expect("some");
        let changes = settings.environment.changes.iter();
        let env: Vec<_> = changes.map(|it| it.1.is_some()).collect();
        assert_eq!(env, [false, false, true]);
    }
}
