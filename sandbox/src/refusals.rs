//! What is told of a system call that was refused: its number, by a handler of the signal that the
//! kernel sends for it.
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
    // On the stack for signals, where there is one: a task may have used up its own. What is to
    // kill is put back by the kernel as soon as the signal has come, for the filter lets nobody
    // change it.
    let mut flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    if refusal == Refusal::Kill {
        flags |= SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER;
    }
    let action = SigAction::new(SigHandler::SigAction(on_refusal), flags, SigSet::empty());
    // SAFETY: the handler does only what a handler may, see there.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop)
}

/// Interrupts a thread in the place of a system call. It takes no lock and no memory, and leaves
/// `errno` alone: who has called sets it.
extern "C" fn on_refusal(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives the handler what is known of the signal.
    let code = unsafe { (*info).si_code };
    let Some(told) = TOLD.get().filter(|_| code == SYS_SECCOMP) else {
        // Somebody has sent it, who wants the process dead; and the handler may be there to stay.
        let _ = raise(Signal::SIGKILL);
        return;
    };
    // SAFETY: and the context of what it has interrupted.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    (told.tell)(call(context));
    match told.refusal {
        // The signal does now what it does by itself.
        Refusal::Kill => drop(raise(Signal::SIGSYS)),
        Refusal::Fail => fail(context, Errno::EPERM),
    }
}

/// The number of the system call.
#[cfg(target_arch = "x86_64")]
fn call(context: &libc::ucontext_t) -> u32 {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] as u32
}

/// Lets it have failed.
#[cfg(target_arch = "x86_64")]
fn fail(context: &mut libc::ucontext_t, error: Errno) {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = -i64::from(error as i32);
}

#[cfg(target_arch = "aarch64")]
fn call(context: &libc::ucontext_t) -> u32 {
    context.uc_mcontext.regs[8] as u32
}

#[cfg(target_arch = "aarch64")]
fn fail(context: &mut libc::ucontext_t, error: Errno) {
    context.uc_mcontext.regs[0] = (-i64::from(error as i32)).cast_unsigned();
}

/// Elsewhere nothing is told: see [`CAN_TELL`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn call(_: &libc::ucontext_t) -> u32 {
    u32::MAX
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fail(_: &mut libc::ucontext_t, _: Errno) {}
