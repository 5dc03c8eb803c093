//! What is told of a system call that was refused: its number, by a handler of the signal that the
//! kernel sends for it.
//!
//! A process that has this signal blocked is killed at the call, and nobody is told. The C library
//! blocks all signals while it starts a process, which is what is refused most of all. So the
//! filter lets through here what blocks signals, too: the handler does what was asked for, but for
//! this one signal. (A handler of another signal that has it blocked still dies untold.)
#![allow(unsafe_code)]

use std::os::raw::{c_int, c_void};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use crate::Refusal;

/// Whether this processor's registers are known, which a call that fails has its result in.
pub(crate) const CAN_TELL: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// The signal was sent for a filter of system calls, and not by somebody.
const SYS_SECCOMP: c_int = 1;

static TOLD: OnceLock<Told> = OnceLock::new();

struct Told {
    tell: fn(u32),
    refusal: Refusal,
}

/// From now on, `tell` is called with the number of each system call that is refused, by the
/// thread that makes it. Then the process is killed, or the call fails.
///
/// # Safety
/// `tell` is called in a handler of signals. It must do no more than such a one may: no memory, no
/// locks, no system call that may be refused.
pub(crate) unsafe fn tell(tell: fn(u32), refusal: Refusal) -> Result<(), Errno> {
    // A process enters a sandbox once; a fork of it goes on as it is.
    let _ = TOLD.set(Told { tell, refusal });
    // On the stack for signals, where there is one: a task may have used up its own. Nobody puts
    // it away later, for the filter lets nobody change it.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(on_refusal), flags, SigSet::empty());
    // SAFETY: the handler does only what a handler may, see there.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    SigSet::from(Signal::SIGSYS).thread_unblock()
}

/// Interrupts a thread in the place of a system call. It takes no lock and no memory, and leaves
/// `errno` alone: who has called sets it.
extern "C" fn on_refusal(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives the handler what is known of the signal.
    let code = unsafe { (*info).si_code };
    let Some(told) = TOLD.get().filter(|_| code == SYS_SECCOMP) else {
        // Somebody has sent it, who wants the process dead.
        let _ = raise(Signal::SIGKILL);
        return;
    };
    // SAFETY: and the context of what it has interrupted.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let call = call(context);
    if libc::c_long::from(call) == libc::SYS_rt_sigprocmask {
        let [how, new, old, size] = arguments(context);
        // SAFETY: whoever calls gives the kernel these places, and here it is the kernel's turn.
        let changed = unsafe { change_mask(&mut context.uc_sigmask, how, new, old, size) };
        return finish(context, changed);
    }
    (told.tell)(call);
    match told.refusal {
        Refusal::Kill => die(),
        Refusal::Fail => finish(context, Err(Errno::EPERM)),
    }
}

/// Ends this process as the kernel ends one for a call that is refused. To be called in the
/// handler.
fn die() {
    // There is no such call, and the signal is blocked as long as its handler runs.
    // SAFETY: the call does nothing.
    let _ = unsafe { libc::syscall(libc::c_long::from(u16::MAX)) };
    let _ = raise(Signal::SIGKILL);
}

/// Does what `rt_sigprocmask` does, to the mask that a thread has when the handler has ended. But
/// the signal of refusals is never blocked, and a place that is none ends the process, where the
/// kernel says EFAULT.
///
/// # Safety
/// `new` and `old` are what that call takes.
unsafe fn change_mask(
    mask: &mut libc::sigset_t,
    how: usize,
    new: usize,
    old: usize,
    size: usize,
) -> Result<(), Errno> {
    const REFUSALS: u64 = 1 << (libc::SIGSYS - 1);
    // The kernel's masks are one word, with which the C library's begin.
    let mask = (&raw mut *mask).cast::<u64>();
    // SAFETY: the caller promises it; and a mask is there to be read.
    let (before, new) = unsafe { (mask.read(), (new as *const u64).read_unaligned()) };
    let after = match how as c_int {
        _ if size != size_of::<u64>() => return Err(Errno::EINVAL),
        libc::SIG_BLOCK => before | new,
        libc::SIG_UNBLOCK => before & !new,
        libc::SIG_SETMASK => new,
        _ => return Err(Errno::EINVAL),
    };
    // SAFETY: as above.
    unsafe { mask.write(after & !REFUSALS) };
    if old != 0 {
        // SAFETY: as above.
        unsafe { (old as *mut u64).write_unaligned(before) };
    }
    Ok(())
}

/// The number of the system call.
#[cfg(target_arch = "x86_64")]
fn call(context: &libc::ucontext_t) -> u32 {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] as u32
}

/// Its first arguments.
#[cfg(target_arch = "x86_64")]
fn arguments(context: &libc::ucontext_t) -> [usize; 4] {
    let registers = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10];
    registers.map(|it| context.uc_mcontext.gregs[it as usize].cast_unsigned() as usize)
}

/// Lets it have ended like this.
#[cfg(target_arch = "x86_64")]
fn finish(context: &mut libc::ucontext_t, result: Result<(), Errno>) {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = returned(result);
}

#[cfg(target_arch = "aarch64")]
fn call(context: &libc::ucontext_t) -> u32 {
    context.uc_mcontext.regs[8] as u32
}

#[cfg(target_arch = "aarch64")]
fn arguments(context: &libc::ucontext_t) -> [usize; 4] {
    [0, 1, 2, 3].map(|it: usize| context.uc_mcontext.regs[it] as usize)
}

#[cfg(target_arch = "aarch64")]
fn finish(context: &mut libc::ucontext_t, result: Result<(), Errno>) {
    context.uc_mcontext.regs[0] = returned(result).cast_unsigned();
}

/// As the kernel returns it.
fn returned(result: Result<(), Errno>) -> i64 {
    result.map_or_else(|error| -i64::from(error as i32), |()| 0)
}

/// Elsewhere nothing is told: see [`CAN_TELL`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn call(_: &libc::ucontext_t) -> u32 {
    u32::MAX
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn arguments(_: &libc::ucontext_t) -> [usize; 4] {
    [0; 4]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn finish(_: &mut libc::ucontext_t, result: Result<(), Errno>) {
    let _ = returned(result);
}
