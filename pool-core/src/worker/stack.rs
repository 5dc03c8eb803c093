//! Where this worker is: answered when the parent asks.
//!
//! The parent asks by a signal, for a task that is stuck answers nothing else. It comes between any
//! two instructions, where no unwinder may run: the interrupted code may be the unwinder itself, or
//! be about to change what it reads. So the handler copies the registers and a part of the stack
//! into the region, and nothing else; the parent walks the copy.
#![allow(unsafe_code)]

use std::ops::Range;
use std::os::raw::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::pthread::pthread_self;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::signal_data::SignalData;
use crate::process::code::own_code;
use crate::shm::region::Region;
use crate::sys;

static ASKED: SignalData<Asked> = SignalData::new();

struct Asked {
    region: Arc<Region>,
    /// Where the program has its code.
    code: u64,
    /// The thread that runs tasks, and the part of its stack that they have for themselves.
    thread: libc::pthread_t,
    stack: Range<usize>,
}

/// From now on this worker answers where it is when `SIGURG` comes and its region says that it was
/// asked. To be called by the thread that runs tasks, from a frame that holds `region` itself and
/// below which they run. The signal is one that a process ignores unless it says otherwise; where a
/// library has said so before us, it keeps it, and there are no answers.
pub(super) fn answer_questions(region: &Arc<Region>) {
    if crate::sync::IS_MODEL {
        return;
    }
    ASKED.set(Asked {
        region: region.clone(),
        code: own_code().start as u64,
        thread: pthread_self(),
        stack: sys::stack_below(ptr::from_ref(region).addr()),
    });
    // On the stack for signals, where there is one: a task may have used up its own. Nothing else
    // interrupts it there.
    let flags = SaFlags::SA_RESTART | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(on_signal), flags, SigSet::all());
    // SAFETY: our handler does only what a handler may, see there; and another one was in place.
    let put = |action: &SigAction| unsafe { sigaction(Signal::SIGURG, action) };
    if let Ok(before) = put(&action)
        && !matches!(before.handler(), SigHandler::SigDfl | SigHandler::SigIgn)
    {
        let _ = put(&before);
    }
}

/// Interrupts a task anywhere. It takes no lock and no memory, calls nothing that could be
/// interrupted, and leaves `errno` alone: it copies words of its own thread's stack, which are
/// there from the stack pointer up, into atomics.
extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(asked) = ASKED.get() else {
        return;
    };
    let told = &asked.region.words().stack;
    let question = told.asked.load(Ordering::Acquire);
    // (It may be called in handlers, and only reads a register.)
    let is_ours = pthread_self() == asked.thread;
    if !is_ours || told.answered.load(Ordering::Relaxed) == question {
        return;
    }
    // SAFETY: the kernel gives the handler the context of what it interrupted.
    let registers = registers(unsafe { &*context.cast::<libc::ucontext_t>() });
    let start = registers.stack as usize;
    let mut count = 0;
    if asked.stack.contains(&start) && start.is_multiple_of(size_of::<u64>()) {
        let there = (asked.stack.end - start) / size_of::<u64>();
        let copy = asked.region.stack();
        count = there.min(copy.len());
        for (place, word) in copy.iter().take(count).enumerate() {
            let from = ptr::with_exposed_provenance::<u64>(start).wrapping_add(place);
            // SAFETY: it lies in the stack of this thread, above the stack pointer. Whatever is
            // there, nobody else writes it while this thread is here.
            word.store(unsafe { from.read_volatile() }, Ordering::Relaxed);
        }
    }
    let tell = |to: &AtomicU64, value| to.store(value, Ordering::Relaxed);
    tell(&told.code, asked.code);
    tell(&told.instruction, registers.instruction);
    tell(&told.stack, registers.stack);
    tell(&told.frame, registers.frame);
    tell(&told.link, registers.link);
    told.count.store(count as u32, Ordering::Relaxed);
    told.answered.store(question, Ordering::Release);
    let before = Errno::last_raw();
    sys::tell_of_change(&told.answered);
    Errno::set_raw(before);
}

/// What is needed of the interrupted thread's registers.
struct Registers {
    instruction: u64,
    stack: u64,
    frame: u64,
    link: u64,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn registers(context: &libc::ucontext_t) -> Registers {
    // In the order of the kernel's structure, whatever the C library calls them.
    const RBP: usize = 10;
    const RSP: usize = 15;
    const RIP: usize = 16;
    let register = |number: usize| context.uc_mcontext.gregs[number].cast_unsigned();
    Registers {
        instruction: register(RIP),
        stack: register(RSP),
        frame: register(RBP),
        link: 0,
    }
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn registers(context: &libc::ucontext_t) -> Registers {
    let machine = &context.uc_mcontext;
    Registers {
        instruction: machine.pc,
        stack: machine.sp,
        frame: machine.regs[29],
        link: machine.regs[30],
    }
}

/// On other processors, and other systems, nobody walks stacks.
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
fn registers(_: &libc::ucontext_t) -> Registers {
    Registers {
        instruction: 0,
        stack: 0,
        frame: 0,
        link: 0,
    }
}
