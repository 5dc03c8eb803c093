//! A worker that dies for want of memory says so with its last word.
//!
//! Beyond a limit of memory, allocations fail. Code that does not look for that is ended by its own
//! hand (Rust's allocation error, `std::bad_alloc`: SIGABRT) or by the processor's (a null pointer:
//! SIGSEGV), which looks like any other crash. So, in a worker that has such a limit, a handler of
//! these signals looks whether memory was the reason, and leaves that in the region. Then it puts
//! back what was there before it, and lets the process die as it would have.
//!
//! Memory was the reason where a call of `handle_alloc_error` is on the stack, where the thread has
//! last heard of a system call that failed for that (`errno`), and where there is none left.
#![allow(unsafe_code)]

use std::alloc::handle_alloc_error;
use std::mem::MaybeUninit;
use std::os::raw::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use super::signal_data::SignalData;
use crate::panic::unwind;
use crate::shm::region::Region;
use crate::sys;

/// How a process ends whose code does not expect that there is no memory.
const CRASHES: [Signal; 5] = [
    Signal::SIGABRT,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGTRAP,
];

/// A process that cannot have this much more has none.
const LITTLE: usize = 1 << 20;

static WATCHED: SignalData<Watched> = SignalData::new();

struct Watched {
    region: Arc<Region>,
    pid: u32,
    before: [Option<SigAction>; CRASHES.len()],
}

/// From now on this worker says when it dies for want of memory.
pub(super) fn explain(region: Arc<Region>) {
    // What was there is asked first: a handler must find it.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    let before = CRASHES.map(|signal| put(signal, &default));
    WATCHED.set(Watched {
        region,
        pid: sys::own_pid(),
        before,
    });
    for (signal, before) in CRASHES.iter().zip(before) {
        // On the stack for signals, where there is one: the task may have used up its own. It is a
        // small one, so an abort, which stands on a stack that it can use, is looked at there.
        let flags = match signal {
            Signal::SIGABRT => SaFlags::empty(),
            _ => SaFlags::SA_ONSTACK,
        };
        let action = SigAction::new(SigHandler::SigAction(on_crash), flags, SigSet::all());
        if before.is_some() {
            put(*signal, &action);
        }
    }
}

/// Puts one of three actions in place: the default, what was there before us, and our handler.
/// Gives the one before, if the system allows all that.
fn put(signal: Signal, action: &SigAction) -> Option<SigAction> {
    // SAFETY: the default is no code; our handler does only what a handler may, see there; and what
    // was there before was there.
    unsafe { sigaction(signal, action) }.ok()
}

/// Interrupts a thread that is about to end the process. It takes no lock and no memory that it
/// keeps, and leaves `errno` alone. It makes system calls, and walks the stack of a thread that has
/// aborted: it has called that function itself, so that it is in the middle of nothing.
extern "C" fn on_crash(number: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let errno = Errno::last_raw();
    let Some(watched) = WATCHED.get() else {
        return;
    };
    // SAFETY: the kernel gives the handler what is known of the signal; the sender's number is
    // zero, or nonsense that is not used, where nobody has sent it.
    let (code, sender) = unsafe { ((*info).si_code, (*info).si_pid()) };
    let was_sent = code <= 0;
    // A forked copy of the worker may have our handler, and its death is its own.
    let pid = sys::own_pid();
    let is_own = !was_sent || u32::try_from(sender) == Ok(pid);
    let has_aborted = number == libc::SIGABRT && was_sent && !is_on_signal_stack();
    // Rust's allocation error prints, and so has another `errno` at the end.
    if pid == watched.pid
        && is_own
        && (errno == libc::ENOMEM || !has_memory() || has_aborted && is_allocation_error())
    {
        watched.region.leave_out_of_memory();
    }
    // It dies by what happens when this returns: the same instruction is executed again, or the
    // signal that waits meanwhile is delivered.
    let place = CRASHES.iter().position(|signal| *signal as c_int == number);
    if let Some(place) = place
        && let Some(before) = &watched.before[place]
    {
        put(CRASHES[place], before);
        if was_sent {
            let _ = raise(CRASHES[place]);
        }
    }
    Errno::set_raw(errno);
}

/// Whether this thread is on its stack for signals, which is too small to walk any from: it aborts
/// in a handler, of the end of its own stack perhaps.
fn is_on_signal_stack() -> bool {
    let mut stack = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: nothing is changed, and what is asked for is written where that succeeds.
    unsafe {
        libc::sigaltstack(ptr::null(), stack.as_mut_ptr()) == 0
            && stack.assume_init().ss_flags & libc::SS_ONSTACK != 0
    }
}

/// Whether this thread has come here by Rust's allocation error.
fn is_allocation_error() -> bool {
    let mut is_found = false;
    unwind::walk(|frame| {
        is_found = frame.function == handle_alloc_error as *const () as usize;
        !is_found
    });
    is_found
}

/// Whether a little is to be had.
fn has_memory() -> bool {
    sys::has_room_for(LITTLE)
}
