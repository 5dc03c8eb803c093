//! What `main` begins with.

use std::env;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use procpool_core::{build_identity, is_in_program, shared_object};

use crate::bootstrap;
use crate::bootstrap_env::{BootstrapEnv, Entry, Target};
use crate::doorbell::Message;
use crate::program::{PRELOAD, without_preloaded};
use crate::remedy::{Remedy, Way};
use crate::sys;

/// How far [`init`] is in this process.
static STATE: AtomicU8 = AtomicU8::new(NOT_CALLED);

const NOT_CALLED: u8 = 0;
/// It has returned: this process is no worker.
const RETURNED: u8 = 1;
/// This process is a worker.
const WORKER: u8 = 2;

/// Whether the loader has called [`init_at_load`] in this process.
static IS_CALLED_AT_LOAD: AtomicBool = AtomicBool::new(false);

/// Whether code of the main executable has called [`init`] in this process, so that it does so in
/// a worker as well, where it is executed again. A shared object that has this crate may be a Rust
/// library, which the program has by way of the loader.
static IS_CALLED_BY_PROGRAM: AtomicBool = AtomicBool::new(false);

/// See there.
pub(crate) fn is_called_by_program() -> bool {
    IS_CALLED_BY_PROGRAM.load(Ordering::Acquire)
}

/// Makes this process a worker if it was started as one; returns at once if not.
///
/// To be called as the first line of `main`, in every program that builds a pool whose workers
/// are the program itself, executed again: what comes before it runs in every worker as well. In a
/// worker it never returns; the process ends here when the pool does not need it any more, with
/// exit code 0, and with code 1 when the worker could not be set up, which the parent's error
/// then explains.
///
/// A worker's environment no longer says that it is one. (It does if the program had threads
/// before `main`, started by a C library's constructors, say: then nobody may change the
/// environment. What the variable says concerns no other process, though.)
///
/// In a shared object, to be called once it is loaded, by a program that a pool
/// [names](procpool_core::PoolBuilder::program).
#[track_caller]
pub fn init() {
    // What the compiler notes of a caller lies in the caller's object.
    let caller = std::ptr::from_ref(Location::caller()).addr();
    let is_of_program = shared_object().is_none() || is_in_program(caller);
    if is_of_program {
        IS_CALLED_BY_PROGRAM.store(true, Ordering::Release);
    }
    arrive(if is_of_program {
        Entry::Main
    } else {
        Entry::Call
    });
}

/// The same, for the loader to call before `main`.
///
/// It calls it in a shared object, too, when a running program loads that. Then no worker may begin
/// here: the loader holds its lock until this returns, and a worker never would. Threads of tasks
/// would wait for the lock forever, as each does that has thread-local values with destructors. So
/// a shared object becomes a worker here only where the loader was asked to load it before the
/// program, without the lock.
pub fn init_at_load() {
    // First: a worker may build pools, too.
    IS_CALLED_AT_LOAD.store(true, Ordering::Release);
    arrive(if shared_object().is_some() {
        Entry::Load
    } else {
        Entry::Main
    });
}

/// This is where a process becomes a worker, if it is to become one here.
fn arrive(here: Entry) {
    // If the version is another one, it is for another copy of this crate, whose `init` comes next.
    if let Some(called) = called()
        && let Some(launch) = &called.launch
        && is_meant(launch.target, here)
    {
        match standing(&called) {
            Standing::Called => {
                STATE.store(WORKER, Ordering::Release);
                bootstrap::become_worker(launch)
            }
            Standing::Orphaned => bootstrap::give_up(),
            Standing::Unconcerned => {}
        }
    }
    STATE.store(RETURNED, Ordering::Release);
}

/// Whether this copy of the crate is the one that is to become a worker, and here.
///
/// One that has nothing of the parent's code refuses in its hello: it is for a copy that is the
/// only one that can come, and its parent hears at once what is wrong.
fn is_meant(target: Target, here: Entry) -> bool {
    let is_same = target.identity == build_identity();
    match (target.entry, here) {
        // If it is another build, nobody else will say so.
        (Entry::Main, Entry::Main) => is_same || shared_object().is_none(),
        (Entry::Call, Entry::Call) => is_same,
        // It may be another build that was put in the object's place.
        (Entry::Load, Entry::Load) => is_same || is_preloaded(),
        // The loader has not loaded the object: that would have come first.
        (Entry::Load, Entry::Main) => true,
        _ => false,
    }
}

/// Whether the loader was asked to load this object into the program.
fn is_preloaded() -> bool {
    let value = env::var_os(PRELOAD);
    let object = value.as_deref().zip(shared_object());
    object.is_some_and(|(value, object)| without_preloaded(value, object).is_some())
}

/// Whether [`init`] was called where it had to be: to be asked before a pool is built.
///
/// # Errors
/// When this process has not called `init` yet, so that its workers would not either; or when it
/// is itself a worker that came past it, in which case the parent is notified as well.
pub fn check_ready() -> Result<(), MissingInit> {
    check_not_passed_by()?;
    let is_called = match shared_object() {
        Some(_) => IS_CALLED_AT_LOAD.load(Ordering::Acquire) || is_called_by_program(),
        None => STATE.load(Ordering::Acquire) != NOT_CALLED,
    };
    if is_called {
        Ok(())
    } else {
        Err(MissingInit { passed_by: false })
    }
}

/// Whether this process is none that was started as a worker and has come past the place where it
/// should have become one. Its pools' workers would do the same, and theirs.
pub(crate) fn check_not_passed_by() -> Result<(), MissingInit> {
    if STATE.load(Ordering::Acquire) != WORKER
        && let Some(called) = called()
        && called.launch.as_ref().is_none_or(|launch| {
            let places = [Entry::Main, Entry::Call, Entry::Load];
            places.iter().any(|it| is_meant(launch.target, *it))
        })
        && standing(&called) != Standing::Unconcerned
    {
        // The parent waits for a hello until its deadline, and can say at once what is wrong.
        if sys::stdin_is_doorbell(called.doorbell) {
            sys::write_to_stdin(&Message::MissingInit.encode());
        }
        return Err(MissingInit { passed_by: true });
    }
    Ok(())
}

/// `procpool::init()` was not called, or too late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingInit {
    /// This process is a worker that came past the place where it should have become one.
    passed_by: bool,
}

impl fmt::Display for MissingInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.passed_by {
            "this process was started as a worker, but passed by procpool::init()"
        } else {
            "procpool::init() has not been called in this process"
        };
        write!(f, "{what}: {}", Remedy::here(Way::Again))
    }
}

impl Error for MissingInit {}

/// What a call in the environment has to do with this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It calls this process.
    Called,
    /// It called this process, but the caller or its doorbell is gone.
    Orphaned,
    /// It called another process, from which this one merely has its environment.
    Unconcerned,
}

fn standing(called: &BootstrapEnv) -> Standing {
    let parent = procpool_core::starter();
    // A sandbox may keep the parent from knowing its own number.
    let is_parent = parent == called.parent || called.parent == 0;
    match (sys::stdin_is_doorbell(called.doorbell), is_parent) {
        (true, true) => Standing::Called,
        // The parent is in another process namespace, and its error should say so.
        (true, false) if parent == 0 => Standing::Called,
        (true, false) | (false, true) => Standing::Orphaned,
        (false, false) => Standing::Unconcerned,
    }
}

fn called() -> Option<BootstrapEnv> {
    BootstrapEnv::parse(env::var_os(BootstrapEnv::VARIABLE)?.to_str()?)
}
