//! A sandbox that refuses one system call.
#![allow(unsafe_code)]

use std::io;

use nix::libc;
use rustix::io::Errno;

/// A system call, or only that with a certain value among its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    number: libc::c_long,
    /// Which argument has which bits.
    argument: Option<(u32, u32)>,
}

const fn call(name: &'static str, number: libc::c_long) -> Call {
    Call {
        name,
        number,
        argument: None,
    }
}

const fn with(name: &'static str, number: libc::c_long, index: u32, bits: u32) -> Call {
    Call {
        name,
        number,
        argument: Some((index, bits)),
    }
}

/// Those that can be refused here.
pub(crate) const CALLS: &[Call] = &[
    call("epoll_create1", libc::SYS_epoll_create1),
    call("epoll_ctl", libc::SYS_epoll_ctl),
    call("epoll_pwait2", libc::SYS_epoll_pwait2),
    call("epoll_pwait", libc::SYS_epoll_pwait),
    #[cfg(target_arch = "x86_64")]
    call("epoll_wait", libc::SYS_epoll_wait),
    call("eventfd2", libc::SYS_eventfd2),
    call("pipe2", libc::SYS_pipe2),
    call("ppoll", libc::SYS_ppoll),
    call("memfd_create", libc::SYS_memfd_create),
    call("ftruncate", libc::SYS_ftruncate),
    call("statx", libc::SYS_statx),
    with(
        "fcntl(F_ADD_SEALS)",
        libc::SYS_fcntl,
        1,
        libc::F_ADD_SEALS as u32,
    ),
    call("mremap", libc::SYS_mremap),
    with(
        "madvise(MADV_WIPEONFORK)",
        libc::SYS_madvise,
        2,
        libc::MADV_WIPEONFORK as u32,
    ),
    call("membarrier", libc::SYS_membarrier),
    call("getrandom", libc::SYS_getrandom),
    call("getrusage", libc::SYS_getrusage),
    call("sched_getaffinity", libc::SYS_sched_getaffinity),
    call("prlimit64", libc::SYS_prlimit64),
    call("getppid", libc::SYS_getppid),
    call("getpid", libc::SYS_getpid),
    call("gettid", libc::SYS_gettid),
    call("pidfd_open", libc::SYS_pidfd_open),
    call("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    call("kill", libc::SYS_kill),
    call("tgkill", libc::SYS_tgkill),
    call("waitid", libc::SYS_waitid),
    call("wait4", libc::SYS_wait4),
    call("setpgid", libc::SYS_setpgid),
    with(
        "prctl(PR_SET_PDEATHSIG)",
        libc::SYS_prctl,
        0,
        libc::PR_SET_PDEATHSIG as u32,
    ),
    with(
        "prctl(PR_SET_NAME)",
        libc::SYS_prctl,
        0,
        libc::PR_SET_NAME as u32,
    ),
    with("fcntl(F_SETOWN)", libc::SYS_fcntl, 1, libc::F_SETOWN as u32),
    with("fcntl(F_SETSIG)", libc::SYS_fcntl, 1, F_SETSIG),
    with(
        "clone(CLONE_PARENT)",
        libc::SYS_clone,
        0,
        libc::CLONE_PARENT as u32,
    ),
    with(
        "clone(CLONE_VFORK)",
        libc::SYS_clone,
        0,
        libc::CLONE_VFORK as u32,
    ),
    call("clone3", libc::SYS_clone3),
    #[cfg(target_arch = "x86_64")]
    call("vfork", libc::SYS_vfork),
    call("execve", libc::SYS_execve),
    call("dup3", libc::SYS_dup3),
    call("close_range", libc::SYS_close_range),
    call("socket", libc::SYS_socket),
    call("socketpair", libc::SYS_socketpair),
    call("bind", libc::SYS_bind),
    call("connect", libc::SYS_connect),
    call("accept4", libc::SYS_accept4),
    call("sendmsg", libc::SYS_sendmsg),
    call("recvmsg", libc::SYS_recvmsg),
    call("rt_sigtimedwait", libc::SYS_rt_sigtimedwait),
    call("sigaltstack", libc::SYS_sigaltstack),
    call("set_robust_list", libc::SYS_set_robust_list),
];

/// The kernel's, which the C library's crate does not name everywhere.
const F_SETSIG: u32 = 10;

/// Refuses one call from now on, to this thread and all that it will start.
pub(crate) fn refuse(call: Call, errno: Errno) -> io::Result<()> {
    // Offsets in the kernel's `seccomp_data`: the number, and the arguments, eight bytes each, of
    // which the lower half comes first here.
    const NUMBER: u32 = 0;
    const ARGUMENTS: u32 = 16;
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let answer = |action| step(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let is = |value, no| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, no, value);
    let number = u32::try_from(call.number).map_err(io::Error::other)?;
    let mut rules = vec![load(NUMBER)];
    match call.argument {
        None => rules.push(is(number, 1)),
        // Flags are refused with others beside them; commands have none.
        Some((index, bits)) if call.number == libc::SYS_clone => rules.extend([
            is(number, 3),
            load(ARGUMENTS + 8 * index),
            step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, bits),
        ]),
        Some((index, value)) => {
            rules.extend([is(number, 3), load(ARGUMENTS + 8 * index), is(value, 1)]);
        }
    }
    rules.push(answer(
        libc::SECCOMP_RET_ERRNO | errno.raw_os_error().unsigned_abs(),
    ));
    rules.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: rules.len().try_into().map_err(io::Error::other)?,
        filter: rules.as_mut_ptr(),
    };
    // SAFETY: both calls read what they are given, which outlives them, and write nothing.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) != 0
    };
    if refused {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// One instruction of a filter: what to do, how far to jump if a comparison holds and if not, and
/// with what.
fn step(code: u32, yes: u8, no: u8, operand: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k: operand,
    }
}
