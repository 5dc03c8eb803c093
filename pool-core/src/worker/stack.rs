//! Where this worker is: told when the parent asks.
//!
//! The parent asks by a signal, for a task that is stuck answers nothing else. The handler walks the stack of
//! the thread that it interrupts and writes the return addresses into the region; what they mean, the
//! parent looks up.
#![allow(unsafe_code)]

use std::os::raw::c_int;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::entry::main_code;
use crate::region::Region;
use crate::sys;

/// Where the answers go; never freed once set.
static REGION: AtomicPtr<Region> = AtomicPtr::new(ptr::null_mut());

/// From now on this worker tells where it is when `SIGURG` comes and its region says that it was asked. The
/// signal is one that a process ignores unless it says otherwise; where a library has said so before us, it
/// keeps it, and there are no answers.
pub(super) fn answer_questions(region: &Arc<Region>) {
    if crate::sync::IS_MODEL {
        return;
    }
    // Known before the handler asks for it.
    main_code();
    // One for each time that this process becomes a worker, which is once, or once more in a fork.
    let region = Arc::into_raw(region.clone()).cast_mut();
    REGION.store(region, Ordering::Release);
    let action = SigAction::new(
        SigHandler::Handler(on_signal),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler does only what a handler may; see there.
    let before = unsafe { sigaction(Signal::SIGURG, &action) };
    if let Ok(before) = before
        && !matches!(before.handler(), SigHandler::SigDfl | SigHandler::SigIgn)
    {
        // SAFETY: it was in place before.
        let _ = unsafe { sigaction(Signal::SIGURG, &before) };
    }
}

/// Interrupts a task anywhere. It takes no lock and no memory: it reads the tables of the unwinder, which are
/// there as long as the code is, and the thread's own stack, and stores into atomics. (To find a library's tables, an old
/// libc, before 2.35, takes a lock that the same thread may take twice, but that another thread could hold while it
/// loads a library; then the answer waits until it is through.)
extern "C" fn on_signal(_: c_int) {
    // SAFETY: null, or a region that is never freed.
    let Some(region) = (unsafe { REGION.load(Ordering::Acquire).as_ref() }) else {
        return;
    };
    let stack = &region.words().stack;
    let asked = stack.asked.load(Ordering::Acquire);
    if stack.answered.load(Ordering::Relaxed) == asked {
        return;
    }
    let mut count = 0;
    // SAFETY: "unsynchronized" is about looking up names, which is not done here.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            if let Some(room) = stack.frames.get(count) {
                room.store(frame.ip() as u64, Ordering::Relaxed);
                count += 1;
            }
            count < stack.frames.len()
        });
    }
    let code = main_code().start as u64;
    stack.code.store(code, Ordering::Relaxed);
    stack.count.store(count as u32, Ordering::Relaxed);
    stack.answered.store(asked, Ordering::Release);
    sys::tell_of_change(&stack.answered);
}
