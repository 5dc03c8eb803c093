//! Which system calls remain: a list for the kernel's filter (seccomp).

use std::collections::BTreeSet;

use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};

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
    "rt_sigprocmask",
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
    "fcntl",
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
const AF_UNIX: u64 = 1;
/// What is asked of descriptors in passing: TCGETS, FIONREAD, FIONBIO, FIOCLEX.
const IOCTLS: [u64; 4] = [0x5401, 0x541b, 0x5421, 0x5451];
const PR_SET_PDEATHSIG: u64 = 1;
const SIGKILL: u64 = 9;
const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
/// PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names.
const PRCTLS: [u64; 3] = [15, 16, 0x5356_4d41];

/// A rule for a call with these arguments: their places, how they are compared, and with what.
fn rule(name: &str, arguments: &[(u8, Value, u64)]) -> Value {
    let arguments: Vec<Value> = arguments
        .iter()
        .map(|(index, op, val)| json!({"index": index, "type": "qword", "op": op, "val": val}))
        .collect();
    match arguments.is_empty() {
        true => json!({ "syscall": name }),
        false => json!({ "syscall": name, "args": arguments }),
    }
}

/// The rules of what remains in this process.
fn rules(sandbox: &Sandbox, pid: u32) -> Vec<Value> {
    let equals = || json!("eq");
    let more = [
        (true, COMPUTING),
        (true, OLD),
        (!sandbox.writes.is_empty(), WRITING),
        (!sandbox.writes.is_empty(), OLD_WRITING),
        (sandbox.network, NETWORK),
        (!sandbox.executes.is_empty(), EXECUTING),
        (!sandbox.executes.is_empty(), OLD_EXECUTING),
    ];
    let lists = more.into_iter().filter(|(is_allowed, _)| *is_allowed);
    let mut names: BTreeSet<&str> = lists.flat_map(|(_, list)| list.iter().copied()).collect();
    names.extend(sandbox.syscalls.iter().map(String::as_str));
    let mut rules: Vec<Value> = names.iter().map(|name| rule(name, &[])).collect();
    let mut some = |name: &'static str, arguments: &[(u8, Value, u64)]| {
        if !names.contains(name) {
            rules.push(rule(name, arguments));
        }
    };
    // Threads, and processes for who may execute something; never with namespaces.
    let (of_interest, flags) = match sandbox.executes.is_empty() {
        true => (CLONE_THREAD | CLONE_NEW, CLONE_THREAD),
        false => (CLONE_NEW, 0),
    };
    some("clone", &[(0, json!({ "masked_eq": of_interest }), flags)]);
    some("socketpair", &[(0, equals(), AF_UNIX)]);
    for signal in ["kill", "tgkill"] {
        some(signal, &[(0, equals(), u64::from(pid))]);
    }
    for request in IOCTLS {
        some("ioctl", &[(1, equals(), request)]);
    }
    for option in PRCTLS {
        some("prctl", &[(0, equals(), option)]);
    }
    // To die with the parent, and not to live on.
    some(
        "prctl",
        &[(0, equals(), PR_SET_PDEATHSIG), (1, equals(), SIGKILL)],
    );
    // Limits are read, and those of no other process.
    for of in [0, u64::from(pid)] {
        some("prlimit64", &[(0, equals(), of), (2, equals(), 0)]);
    }
    // See `enter`.
    some("clone3", &[]);
    rules
}

fn compile(
    otherwise: &Value,
    matched: &Value,
    rules: &[Value],
) -> Result<BpfProgram, SandboxError> {
    let refused = |reason: String| SandboxError::Refused {
        step: "seccomp",
        reason,
    };
    let filter = json!({"it": {
        "mismatch_action": otherwise,
        "match_action": matched,
        "filter": rules,
    }});
    let processor =
        TargetArch::try_from(std::env::consts::ARCH).map_err(|error| refused(error.to_string()))?;
    let all = compile_from_json(filter.to_string().as_bytes(), processor);
    let mut all = all.map_err(|error| refused(error.to_string()))?;
    all.remove("it")
        .ok_or_else(|| refused("the filter is missing".to_owned()))
}

/// Lets this thread, which is the only one, make no other calls from now on.
pub(crate) fn enter(sandbox: &Sandbox) -> Result<(), SandboxError> {
    let (yes, no) = (json!("allow"), json!("kill_process"));
    for name in &sandbox.syscalls {
        compile(&no, &yes, &[rule(name, &[])])
            .map_err(|_| SandboxError::UnknownSyscall { name: name.clone() })?;
    }
    let otherwise = match sandbox.refusal {
        Refusal::Kill => no,
        Refusal::Fail => json!({ "errno": EPERM }),
    };
    let allowed = compile(&otherwise, &yes, &rules(sandbox, std::process::id()))?;
    // The flags of `clone3` are in memory, where no filter sees them. Without it, the C library
    // starts threads by `clone`. (Of two filters, the one counts that refuses.)
    let no_clone3 = compile(&yes, &json!({ "errno": ENOSYS }), &[rule("clone3", &[])])?;
    for filter in [&no_clone3, &allowed] {
        apply_filter(filter).map_err(|error| SandboxError::Refused {
            step: "seccomp",
            reason: error.to_string(),
        })?;
    }
    Ok(())
}
