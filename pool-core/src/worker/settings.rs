//! What a worker does to itself before anything of the user's runs in it.

use std::ffi::OsString;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

#[cfg(feature = "sandbox")]
use super::confinement;
use super::environment::EnvironmentChanges;
use super::function::{FunctionId, NotInObject, Stateless};
#[cfg(feature = "sandbox")]
use super::inherited;
use super::{current, fork_hooks, last_allocation, memory};
use crate::sys::{self, Limit};

/// The settings of a pool's workers, or of one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Nothing where the launcher makes the changes.
    pub(crate) environment: EnvironmentChanges,
    /// An absolute path.
    pub(crate) current_dir: Option<OsString>,
    pub(crate) nice: Option<i32>,
    pub(crate) limits: Vec<(Resource, u64, u64)>,
    /// In bytes. What it dies of when it has more is told apart from a crash.
    pub(crate) memory_limit: Option<u64>,
    /// The processors to choose one from; of one worker's: that one.
    pub(crate) cpus: Vec<usize>,
    /// It runs what the process that has forked it keeps for that.
    pub(crate) after_fork: bool,
    /// No other process of the user looks into it.
    pub(crate) protected: bool,
    /// It says at the end of each frame how much memory it holds.
    pub(crate) watch_memory: bool,
    /// What it can do from its first item on.
    #[cfg(feature = "sandbox")]
    pub(crate) sandbox: Option<procpool_sandbox::PreparedSandbox>,
    /// An initializer comes before that.
    #[cfg(feature = "sandbox")]
    pub(crate) has_initializer: bool,
}

/// What of the system's a worker may use so much of: see a builder's `rlimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Resource {
    /// Virtual memory, in bytes (`RLIMIT_AS`): beyond it, allocations fail, which ends a Rust
    /// program by an abort.
    AddressSpace,
    /// Time on a processor, in seconds, for the worker's whole life (`RLIMIT_CPU`): beyond the soft
    /// limit it is killed by `SIGXCPU`, and replaced.
    CpuTime,
    /// The size of a core file, in bytes (`RLIMIT_CORE`); 0: none is written.
    CoreSize,
    /// Memory for data and the heap, in bytes (`RLIMIT_DATA`).
    DataSize,
    /// The size of a file that is written, in bytes (`RLIMIT_FSIZE`): beyond it, the worker is
    /// killed by `SIGXFSZ`.
    FileSize,
    /// One more than the highest number of a descriptor (`RLIMIT_NOFILE`).
    OpenFiles,
}

impl Resource {
    fn of_the_system(self) -> Limit {
        match self {
            Self::AddressSpace => Limit::As,
            Self::CpuTime => Limit::Cpu,
            Self::CoreSize => Limit::Core,
            Self::DataSize => Limit::Data,
            Self::FileSize => Limit::Fsize,
            Self::OpenFiles => Limit::Nofile,
        }
    }
}

impl Resource {
    /// How many bytes of memory that the limit counts this process has, if that is known. With a
    /// lower limit it could run, and allocate nothing.
    fn held(self) -> Option<u64> {
        let name = match self {
            Self::AddressSpace => "VmSize:",
            Self::DataSize => "VmData:",
            Self::CpuTime | Self::CoreSize | Self::FileSize | Self::OpenFiles => return None,
        };
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = value.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }
}

impl Settings {
    /// The call that makes a worker apply its settings.
    pub(crate) fn entry() -> Result<FunctionId, NotInObject> {
        fn entry<F: Fn(Settings) + Stateless>(function: F) -> Result<FunctionId, NotInObject> {
            FunctionId::of_own::<F, Settings, ()>(&function)
        }
        entry(|settings: Settings| {
            if let Err(refused) = settings.apply() {
                panic!("{refused}");
            }
        })
    }

    /// Those of the worker in this place, counted from 0.
    pub(crate) fn of_place(&self, place: usize) -> Self {
        let cpu = (!self.cpus.is_empty()).then(|| self.cpus[place % self.cpus.len()]);
        Self {
            cpus: cpu.into_iter().collect(),
            ..self.clone()
        }
    }

    /// Applies them to this process.
    fn apply(&self) -> Result<(), Refused> {
        if !self.environment.is_empty() {
            self.change_environment()?;
        }
        if let Some(path) = &self.current_dir {
            std::env::set_current_dir(path)
                .map_err(|error| refused(format!("go to the folder {path:?}"), error))?;
        }
        if let Some(increment) = self.nice {
            let niced = sys::be_nicer(increment);
            niced.map_err(|error| refused(format!("be nicer by {increment}"), error))?;
        }
        if !self.cpus.is_empty() {
            let pinned = sys::run_on(&self.cpus);
            pinned.map_err(|error| refused(format!("run on processor {}", self.cpus[0]), error))?;
        }
        if self.watch_memory {
            memory::watch().map_err(|error| refused("watch its memory".into(), error))?;
        }
        if let Some(bytes) = self.memory_limit {
            limit_memory(bytes)?;
        }
        for &(resource, soft, hard) in &self.limits {
            let refused = |why| {
                refused(
                    format!("have the limits {soft} and {hard} of {resource:?}"),
                    why,
                )
            };
            if let Some(held) = resource.held().filter(|held| *held > soft) {
                let why = format!("it has {held} bytes of that before its first task: raise it");
                return Err(refused(io::Error::other(why)));
            }
            let limit = |value| (value != u64::MAX).then_some(value);
            let set = sys::set_limit(resource.of_the_system(), limit(soft), limit(hard));
            set.map_err(|error| refused(error.into()))?;
        }
        if self.protected {
            let protected = sys::set_dumpable(false);
            protected.map_err(|error| refused("be protected (prctl)".into(), error))?;
        }
        if self.after_fork {
            fork_hooks::run();
        }
        #[cfg(feature = "sandbox")]
        if let Some(sandbox) = &self.sandbox {
            inherited::close();
            confinement::prepare(sandbox.clone());
            if !self.has_initializer
                && let Some(why) = confinement::enter()
            {
                return Err(refused("be confined".into(), io::Error::other(why)));
            }
        }
        Ok(())
    }

    fn change_environment(&self) -> Result<(), Refused> {
        let what = || "have another environment".to_owned();
        let EnvironmentChanges { clear, changes } = &self.environment;
        let inherited = std::env::vars_os().filter(|_| *clear);
        let cleared = inherited.map(|(name, _)| (name, None));
        let changes = Vec::from_iter(cleared.chain(changes.iter().cloned()));
        match sys::change_environment(&changes) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let error = "the program starts threads before it calls procpool::init(), and they \
                             may be reading the environment";
                Err(refused(what(), io::Error::other(error)))
            }
            Err(error) => Err(refused(what(), error)),
        }
    }
}

/// Lets this process have no more than so many bytes of memory of its own, and the parent know when
/// it dies of that.
fn limit_memory(bytes: u64) -> Result<(), Refused> {
    let refused = |why| refused(format!("have a memory_limit of {bytes} bytes"), why);
    if let Some(held) = Resource::DataSize.held().filter(|held| *held > bytes) {
        let why = format!("it has {held} before its first task: raise it");
        return Err(refused(io::Error::other(why)));
    }
    if let Some(region) = current::region() {
        last_allocation::explain(region);
    }
    let set = sys::set_limit(Limit::Data, Some(bytes), Some(bytes));
    set.map_err(|error| refused(error.into()))
}

/// A setting that the system does not allow.
#[derive(Debug)]
struct Refused {
    what: String,
    why: io::Error,
}

fn refused(what: String, why: impl Into<io::Error>) -> Refused {
    Refused {
        what,
        why: why.into(),
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it cannot {}: {}", self.what, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_one_processor() {
        let settings = Settings {
            cpus: vec![4, 6],
            ..Settings::default()
        };
        let cpus: Vec<_> = (0..5)
            .flat_map(|place| settings.of_place(place).cpus)
            .collect();
        assert_eq!(cpus, [4, 6, 4, 6, 4]);
        assert_eq!(Settings::default().of_place(3), Settings::default());
    }

    #[test]
    fn what_cannot_be_applied_says_so() {
        let settings = Settings {
            current_dir: Some("/no/such/folder".into()),
            ..Settings::default()
        };
        let refused = settings.apply().expect_err("there is no such folder");
        let text = "it cannot go to the folder \"/no/such/folder\": No such file or directory";
        assert!(refused.to_string().starts_with(text), "{refused}");
    }

    /// The test's process has threads.
    #[test]
    fn the_environment_is_not_changed_beside_other_threads() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        let mut environment = EnvironmentChanges::default();
        environment.set("PROCPOOL_TEST".as_ref(), Some("1".into()));
        let settings = Settings {
            environment,
            ..Settings::default()
        };
        let refused = settings.apply().expect_err("there are two threads");
        assert!(refused.to_string().contains("threads"), "{refused}");
        assert!(std::env::var_os("PROCPOOL_TEST").is_none());
        drop(stop);
        let _ = thread.join();
    }
}
