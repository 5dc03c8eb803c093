//! Which system calls remain: lists for the kernel's filters (seccomp).

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};
use serde::{Deserialize, Serialize};
use syscalls::Sysno;

use crate::files::Enforced;
use crate::shorten::joined;
use crate::{Refusal, Sandbox, SandboxError};

/// What a worker's loop, the allocator and ordinary computing need, whatever the arguments.
const COMPUTING: &[&str] = &[
    // Memory.
    "brk",
    "madvise",
    "membarrier",
    "mincore",
    "mlock",
    "mmap",
    "mprotect",
    "mremap",
    "msync",
    "munlock",
    "munmap",
    // Threads, and waiting.
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "exit",
    "exit_group",
    "futex",
    "get_robust_list",
    "getpid",
    "gettid",
    "gettimeofday",
    "nanosleep",
    "restart_syscall",
    "rseq",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    // Signals that the process sends to nobody else.
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "setitimer",
    "sigaltstack",
    "timer_create",
    "timer_delete",
    "timer_gettime",
    "timer_settime",
    // What is open already.
    "close",
    "close_range",
    "copy_file_range",
    "dup",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd2",
    "fallocate",
    "fdatasync",
    "fstat",
    "fsync",
    "ftruncate",
    "getdents64",
    "lseek",
    "memfd_create",
    "pipe2",
    "ppoll",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "pselect6",
    "sendmsg",
    "sendto",
    "shutdown",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
    "write",
    "writev",
    // Files: Landlock decides. What it does not look at (what a file is, where a link leads) can
    // be seen.
    "faccessat",
    "faccessat2",
    "getcwd",
    "newfstatat",
    "openat",
    "readlinkat",
    "statx",
    // About the process and the machine.
    "getcpu",
    "getegid",
    "geteuid",
    "getgid",
    "getppid",
    "getrandom",
    "getresgid",
    "getresuid",
    "getrusage",
    "getuid",
    "sysinfo",
    "times",
    "uname",
];

/// The same by names that younger processors do not have.
const OLD: &[&str] = match cfg!(target_arch = "x86_64") {
    false => &[],
    true => &[
        "access",
        "alarm",
        "dup2",
        "epoll_wait",
        "getpgrp",
        "lstat",
        "open",
        "poll",
        "readlink",
        "select",
        "stat",
        "time",
    ],
};

/// More for who may write files.
const WRITING: &[&str] = &[
    "linkat",
    "mkdirat",
    "renameat2",
    "symlinkat",
    "truncate",
    "unlinkat",
    "utimensat",
];

const OLD_WRITING: &[&str] = match cfg!(target_arch = "x86_64") {
    false => &[],
    true => &[
        "creat", "link", "mkdir", "rename", "renameat", "rmdir", "symlink", "unlink",
    ],
};

/// More for who may use the network.
const NETWORK: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recvmmsg",
    "sendmmsg",
    "setsockopt",
    "socket",
    "socketpair",
];

/// More for who may execute programs, which have to be started and waited for.
const EXECUTING: &[&str] = &[
    "chdir",
    "execve",
    "execveat",
    "getpgid",
    "prlimit64",
    "setpgid",
    "setsid",
    "wait4",
    "waitid",
];

const OLD_EXECUTING: &[&str] = match cfg!(target_arch = "x86_64") {
    false => &[],
    true => &["arch_prctl", "fork", "vfork"],
};

/// `clone` makes a thread.
const CLONE_THREAD: u64 = 0x0001_0000;
/// It makes namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NEW: u64 = 0x7e02_0000;
/// Stands for the number of the process that a filter is for, until it puts it up. Linux gives no
/// process such a number, and no other value of a filter is it.
const SOME_PROCESS: u32 = 0x7eed_da1e;
const AF_UNIX: u64 = 1;
/// What is asked of descriptors in passing: TCGETS, FIONREAD, FIONBIO, FIOCLEX.
const IOCTLS: [u64; 4] = [0x5401, 0x541b, 0x5421, 0x5451];
/// Whom a descriptor signals, and by what: F_SETOWN, F_SETSIG, F_SETOWN_EX.
const F_OWNERS: [u64; 3] = [8, 10, 15];
const PR_SET_PDEATHSIG: u64 = 1;
const SIG_UNBLOCK: u64 = 1;
const SIGKILL: u64 = 9;
const SIGSYS: u64 = 31;
const EPERM: u32 = 1;
const EACCES: u32 = 13;
const ENOSYS: u32 = 38;
/// PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names.
const PRCTLS: [u64; 3] = [15, 16, 0x5356_4d41];

/// What an argument must be like.
struct Condition {
    place: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
}

/// The argument in this place is an `int` for the kernel, which does not look at the rest of the
/// register: whoever calls may put anything there.
fn int(place: u8, operator: SeccompCmpOp, value: u64) -> Condition {
    Condition {
        place,
        length: SeccompCmpArgLen::Dword,
        operator,
        value,
    }
}

/// It has the whole register, like a pointer.
fn word(place: u8, operator: SeccompCmpOp, value: u64) -> Condition {
    Condition {
        length: SeccompCmpArgLen::Qword,
        ..int(place, operator, value)
    }
}

/// The system calls that a filter is about. Those that a processor does not have are passed over.
#[derive(Default)]
struct Calls(BTreeMap<i64, Vec<SeccompRule>>);

impl Calls {
    /// This one, whatever its arguments.
    fn any(&mut self, name: &str) {
        if let Some(number) = number(name) {
            self.0.insert(number, Vec::new());
        }
    }

    /// This one where its arguments are like this, and where they are as was said before.
    fn some<const N: usize>(
        &mut self,
        name: &str,
        arguments: [Condition; N],
    ) -> Result<(), SandboxError> {
        let Some(number) = number(name) else {
            return Ok(());
        };
        if self.0.get(&number).is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let conditions = arguments
            .into_iter()
            .map(|it| SeccompCondition::new(it.place, it.length, it.operator, it.value));
        let rule = conditions
            .collect::<Result<_, _>>()
            .and_then(SeccompRule::new)
            .map_err(refused)?;
        self.0.entry(number).or_default().push(rule);
        Ok(())
    }

    /// Takes those that are in it whatever their arguments.
    fn take_any(&mut self) -> BTreeSet<u32> {
        let mut any = BTreeSet::new();
        self.0.retain(|number, rules| {
            if rules.is_empty() {
                any.insert(*number as u32);
            }
            !rules.is_empty()
        });
        any
    }

    fn compile(
        self,
        otherwise: SeccompAction,
        matched: SeccompAction,
    ) -> Result<BpfProgram, SandboxError> {
        let processor = TargetArch::try_from(std::env::consts::ARCH).map_err(refused)?;
        let filter = SeccompFilter::new(self.0, otherwise, matched, processor).map_err(refused)?;
        filter.try_into().map_err(refused)
    }
}

fn refused(reason: impl ToString) -> SandboxError {
    SandboxError::Refused {
        step: "seccomp",
        reason: reason.to_string(),
    }
}

/// The number of the system call of this name, if there is one on this processor.
pub(crate) fn number(name: &str) -> Option<i64> {
    name.parse::<Sysno>().ok().map(|it| i64::from(it.id()))
}

/// The name of the system call of this number, if there is one on this processor.
pub(crate) fn name(number: u32) -> Option<&'static str> {
    Sysno::new(number as usize).map(|it| it.name())
}

/// What remains in this process.
fn allowed(sandbox: &Sandbox, tells: bool) -> Result<Calls, SandboxError> {
    let (may_write, may_execute) = (!sandbox.writes.is_empty(), !sandbox.executes.is_empty());
    let lists = [
        (true, COMPUTING),
        (true, OLD),
        (may_write, WRITING),
        (may_write, OLD_WRITING),
        (sandbox.network, NETWORK),
        (may_execute, EXECUTING),
        (may_execute, OLD_EXECUTING),
    ];
    let lists = lists.into_iter().filter(|(is_allowed, _)| *is_allowed);
    let mut calls = Calls::default();
    for name in lists.flat_map(|(_, list)| list) {
        calls.any(name);
    }
    for name in &sandbox.syscalls {
        calls.any(name);
    }
    // Threads, and processes for who may execute something; never with namespaces.
    let (of_interest, flags) = match may_execute {
        false => (CLONE_THREAD | CLONE_NEW, CLONE_THREAD),
        true => (CLONE_NEW, 0),
    };
    calls.some("clone", [word(0, MaskedEq(of_interest), flags)])?;
    calls.some("socketpair", [int(0, Eq, AF_UNIX)])?;
    let pid = u64::from(SOME_PROCESS);
    for signal in ["kill", "tgkill"] {
        calls.some(signal, [int(0, Eq, pid)])?;
    }
    // Nobody is signalled when there is something to read.
    let others = F_OWNERS.map(|it| int(1, Ne, it));
    calls.some("fcntl", others)?;
    for request in IOCTLS {
        calls.some("ioctl", [int(1, Eq, request)])?;
    }
    for option in PRCTLS {
        calls.some("prctl", [int(0, Eq, option)])?;
    }
    match leaves_masks_to_handler(sandbox, tells) {
        false => calls.any("rt_sigprocmask"),
        true => {
            // It asks, or unblocks.
            calls.some("rt_sigprocmask", [word(1, Eq, 0)])?;
            calls.some("rt_sigprocmask", [int(0, Eq, SIG_UNBLOCK)])?;
        }
    }
    // To die with the parent, and not to live on.
    calls.some(
        "prctl",
        [int(0, Eq, PR_SET_PDEATHSIG), word(1, Eq, SIGKILL)],
    )?;
    // Limits are read, and those of no other process.
    for of in [0, pid] {
        calls.some("prlimit64", [int(0, Eq, of), word(2, Eq, 0)])?;
    }
    // See `missing`.
    calls.any("clone3");
    Ok(calls)
}

/// Whether what blocks signals goes through the handler of refusals: see `refusals.rs`. A program
/// that is executed has none.
fn leaves_masks_to_handler(sandbox: &Sandbox, tells: bool) -> bool {
    tells && sandbox.executes.is_empty()
}

/// What is not there, whatever else becomes of calls that are not allowed.
fn missing(sandbox: &Sandbox) -> Result<Calls, SandboxError> {
    let mut calls = Calls::default();
    // Its flags are in memory, where no filter sees them. Without it, the C library starts threads
    // by `clone`.
    calls.any("clone3");
    if sandbox.executes.is_empty() {
        // The handler of refusals stays. (Who starts a program puts all handlers back.)
        calls.some("rt_sigaction", [int(0, Eq, SIGSYS)])?;
    }
    Ok(calls)
}

/// Where nothing decides which files may be opened, none may.
fn unguarded(sandbox: &Sandbox) -> Calls {
    let mut calls = Calls::default();
    let paths = [&sandbox.reads, &sandbox.writes, &sandbox.executes];
    if paths.iter().all(|it| it.is_empty()) {
        for name in ["open", "openat", "openat2"] {
            calls.any(name);
        }
    }
    calls
}

/// What decides about all calls together, if these are allowed.
fn programs(
    sandbox: &Sandbox,
    tells: bool,
    allowed: Calls,
) -> Result<Vec<BpfProgram>, SandboxError> {
    let otherwise = match sandbox.refusal {
        _ if tells => SeccompAction::Trap,
        Refusal::Kill => SeccompAction::KillProcess,
        Refusal::Fail => SeccompAction::Errno(EPERM),
    };
    let missing = refuse(missing(sandbox)?, ENOSYS)?;
    let allowed = allowed.compile(otherwise, SeccompAction::Allow)?;
    Ok(missing.into_iter().chain([allowed]).collect())
}

/// These calls fail with this error, if there are any.
fn refuse(calls: Calls, error: u32) -> Result<Option<BpfProgram>, SandboxError> {
    match calls.0.is_empty() {
        true => Ok(None),
        false => calls
            .compile(SeccompAction::Allow, SeccompAction::Errno(error))
            .map(Some),
    }
}

/// The filters of a sandbox, for any process to put up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filters {
    /// Of several, the one counts that refuses.
    always: Vec<Program>,
    /// Where files are not guarded otherwise.
    unguarded: Option<Program>,
}

/// A filter's instructions, each in a word as the kernel has it: it is sent to each worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Program(Vec<u64>);

impl From<BpfProgram> for Program {
    fn from(program: BpfProgram) -> Self {
        let words = program.into_iter().map(|it| {
            let [a, b] = it.code.to_ne_bytes();
            let [c, d, e, f] = it.k.to_ne_bytes();
            u64::from_ne_bytes([a, b, it.jt, it.jf, c, d, e, f])
        });
        Self(words.collect())
    }
}

impl Program {
    /// For the process of this number.
    fn put_up(&self, pid: u32) -> Result<(), SandboxError> {
        let instructions = self.0.iter().map(|word| {
            let [a, b, jt, jf, c, d, e, f] = word.to_ne_bytes();
            let k = u32::from_ne_bytes([c, d, e, f]);
            sock_filter {
                code: u16::from_ne_bytes([a, b]),
                jt,
                jf,
                k: if k == SOME_PROCESS { pid } else { k },
            }
        });
        apply_filter(&BpfProgram::from_iter(instructions)).map_err(refused)
    }
}

impl Filters {
    /// `tells`: there will be a handler of the signal by which refusals are told.
    pub(crate) fn new(sandbox: &Sandbox, tells: bool) -> Result<Self, SandboxError> {
        let mut some = allowed(sandbox, tells)?;
        let any = some.take_any();
        let always = match joined(&any, &programs(sandbox, tells, some)?) {
            Some(one) => vec![one],
            None => programs(sandbox, tells, allowed(sandbox, tells)?)?,
        };
        Ok(Self {
            always: always.into_iter().map(Program::from).collect(),
            unguarded: refuse(unguarded(sandbox), EACCES)?.map(Program::from),
        })
    }

    /// Lets this thread, which is the only one, make no other calls from now on.
    pub(crate) fn put_up(&self, files: Enforced) -> Result<(), SandboxError> {
        let pid = std::process::id();
        let unguarded = self.unguarded.iter().filter(|_| files == Enforced::No);
        let mut filters = unguarded.chain(&self.always);
        filters.try_for_each(|filter| filter.put_up(pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shorten::tests::assert_same;

    #[test]
    fn the_lists_have_names_of_calls() {
        let lists = [
            COMPUTING,
            OLD,
            WRITING,
            OLD_WRITING,
            NETWORK,
            EXECUTING,
            OLD_EXECUTING,
        ];
        let wrong = lists.into_iter().flatten();
        let wrong: Vec<_> = wrong.filter(|it| number(it).is_none()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let socket = number("socket").expect("there is one");
        assert_eq!(name(socket as u32), Some("socket"));
        assert_eq!(name(u32::MAX), None);
    }

    /// Of sandboxes of all kinds.
    #[test]
    fn a_short_filter_decides_as_the_long_ones() {
        let open = Sandbox::strict()
            .allow_network()
            .allow_exec("/")
            .allow_write("/")
            .allow_syscalls(["ptrace", "uname"]);
        for sandbox in [Sandbox::strict(), open] {
            let refusals = [Refusal::Kill, Refusal::Fail].into_iter();
            for (refusal, tells) in refusals.flat_map(|it| [(it, true), (it, false)]) {
                let sandbox = sandbox.clone().on_refusal(refusal);
                let calls = || allowed(&sandbox, tells).expect("names of calls");
                let long = programs(&sandbox, tells, calls()).expect("filters");
                let mut some = calls();
                let any = some.take_any();
                let short = programs(&sandbox, tells, some).expect("filters");
                let short = joined(&any, &short).expect("they have the form");
                assert_same(&long, &short);
                assert!(5 * short.len() < long.iter().map(Vec::len).sum());
                let of_process = |it: &&sock_filter| it.k == SOME_PROCESS;
                assert!(short.iter().filter(of_process).count() >= 2);
            }
        }
    }

    #[test]
    fn what_may_be_done_in_any_way_is_not_restricted_again() {
        let mut calls = Calls::default();
        calls.any("kill");
        calls.some("kill", [int(0, Eq, 1)]).expect("a rule");
        assert!(calls.0.values().all(Vec::is_empty));
        calls.some("tgkill", [int(0, Eq, 1)]).expect("a rule");
        calls.some("tgkill", [int(0, Eq, 2)]).expect("a rule");
        assert_eq!(calls.0[&number("tgkill").unwrap()].len(), 2);
    }
}
