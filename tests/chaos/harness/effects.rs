//! Whether harm that was meant took effect, and how often: a storm that harms nobody proves
//! nothing.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use procpool_testing::machine::Machine;

use super::backend::Kind;
use super::meddling;

/// After this many attempts at least one must have taken effect.
const ENOUGH: u64 = 10;

/// A storm that lasts this many seconds has done everything.
const LONG: u64 = 120;

/// Kinds of harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    // What the killer does.
    KillWorker,
    KillServer,
    Stop,
    Debugger,
    Tracer,
    Freeze,
    StopProgram,
    FewDescriptors,
    FewProcesses,
    FewForks,
    Dump,
    // What tasks do.
    DropPrivileges,
    FewProcessesInWorker,
    Child,
    CopyStays,
    CopyReturns,
    CopyDies,
    CopyEscapes,
    Close,
    CloseAndStay,
    // What happens in a cluster, besides.
    KillAgent,
    Drain,
    StopAgent,
    Cut,
    CutForLong,
    RestartServer,
    StopServer,
    LoseAgent,
    RunAgain,
}

/// All of them, each at its own number.
const ALL: [(Harm, &str); 29] = [
    (Harm::KillWorker, "workers killed"),
    (Harm::KillServer, "fork servers killed"),
    (Harm::Stop, "stopped"),
    (Harm::Debugger, "stopped by a debugger"),
    (Harm::Tracer, "traced"),
    (Harm::Freeze, "frozen"),
    (Harm::StopProgram, "program stopped"),
    (Harm::FewDescriptors, "few descriptors"),
    (Harm::FewProcesses, "few processes"),
    (Harm::FewForks, "few processes for a fork server"),
    (Harm::Dump, "dumps with stacks"),
    (Harm::DropPrivileges, "tasks without privileges"),
    (Harm::FewProcessesInWorker, "workers with few processes"),
    (Harm::Child, "tasks' children"),
    (Harm::CopyStays, "copies that stay"),
    (Harm::CopyReturns, "copies that return"),
    (Harm::CopyDies, "copies that die"),
    (Harm::CopyEscapes, "copies that leave the group"),
    (Harm::Close, "tasks that close what they do not know"),
    (Harm::CloseAndStay, "tasks that do so and stay"),
    (Harm::KillAgent, "agents killed"),
    (Harm::Drain, "agents that left"),
    (Harm::StopAgent, "agents stopped"),
    (Harm::Cut, "links cut"),
    (Harm::CutForLong, "links cut for longer than the lease"),
    (Harm::RestartServer, "servers restarted"),
    (Harm::StopServer, "servers stopped"),
    (Harm::LoseAgent, "items lost with their agent"),
    (Harm::RunAgain, "items that ran more than once"),
];

impl Harm {
    /// Its number, by which tasks write down that it took effect.
    pub(crate) fn number(self) -> u64 {
        self as u64
    }

    /// Whether it is counted when it happens, and not tried: tasks write down what they do.
    fn is_only_counted(self) -> bool {
        (Self::DropPrivileges.number()..Self::KillAgent.number()).contains(&self.number())
            || matches!(self, Self::LoseAgent | Self::RunAgain)
    }

    /// Whether it is done to pools of this kind.
    fn is_done_to(self, kind: Kind) -> bool {
        let is_of_cluster = self.number() >= Self::KillAgent.number();
        let is_of_both = matches!(self, Self::KillWorker | Self::StopProgram);
        is_of_both || is_of_cluster == kind.is_cluster()
    }

    /// Whether this machine has what it needs.
    fn is_possible(self, kind: Kind, has_spare_servers: bool) -> bool {
        if !self.is_done_to(kind) {
            return false;
        }
        match self {
            Self::Cut | Self::CutForLong => Machine::can_be_made().is_ok(),
            Self::KillServer => has_spare_servers,
            Self::Debugger | Self::Tracer => meddling::may_trace(),
            Self::Freeze => meddling::may_freeze(),
            Self::FewProcesses => meddling::may_limit_processes(),
            Self::FewForks => kind.has_server() && meddling::has_process_groups(),
            Self::DropPrivileges => rustix::process::geteuid().is_root(),
            _ => true,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Effects {
    tried: [AtomicU64; ALL.len()],
    done: [AtomicU64; ALL.len()],
}

impl Effects {
    /// It was tried, and did something or not.
    pub(crate) fn add(&self, harm: Harm, took_effect: bool) {
        let place = harm.number() as usize;
        self.tried[place].fetch_add(1, Ordering::Relaxed);
        self.done[place].fetch_add(u64::from(took_effect), Ordering::Relaxed);
    }

    /// A task has written down that it did this. `false`: there is no such number.
    pub(crate) fn add_noted(&self, number: u64) -> bool {
        match ALL.get(number as usize) {
            Some((harm, _)) => {
                self.add(*harm, true);
                true
            }
            None => false,
        }
    }

    /// `12/13 stopped, ...`
    pub(crate) fn summary(&self, kind: Kind) -> String {
        let mut text = String::new();
        for (harm, name) in ALL.into_iter().filter(|it| it.0.is_done_to(kind)) {
            let place = harm.number() as usize;
            let (tried, done) = (&self.tried[place], &self.done[place]);
            let (tried, done) = (tried.load(Ordering::Relaxed), done.load(Ordering::Relaxed));
            let separator = if text.is_empty() { "" } else { ", " };
            let _ = if harm.is_only_counted() {
                write!(text, "{separator}{done} {name}")
            } else {
                write!(text, "{separator}{done} of {tried} {name}")
            };
        }
        text
    }

    /// What should have taken effect in a storm of this many seconds, and never did.
    pub(crate) fn missing(&self, kind: Kind, seconds: u64, has_spare_servers: bool) -> Vec<String> {
        let mut missing = Vec::new();
        for (harm, name) in ALL {
            let place = harm.number() as usize;
            let tried = self.tried[place].load(Ordering::Relaxed);
            let done = self.done[place].load(Ordering::Relaxed);
            if done == 0
                && (tried >= ENOUGH || seconds >= LONG)
                && harm.is_possible(kind, has_spare_servers)
            {
                missing.push(format!("`{name}` never took effect, of {tried} times"));
            }
        }
        missing
    }
}
