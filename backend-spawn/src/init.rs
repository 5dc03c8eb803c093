//! What `main` begins with.

use std::env;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::bootstrap;
use crate::bootstrap_env::BootstrapEnv;
use crate::doorbell::Message;
use crate::sys;

/// How far [`init`] is in this process.
static STATE: AtomicU8 = AtomicU8::new(NOT_CALLED);

const NOT_CALLED: u8 = 0;
/// It has returned: this process is no worker.
const RETURNED: u8 = 1;
/// This process is a worker.
const WORKER: u8 = 2;

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
pub fn init() {
    // If the version is another one, it is for another copy of this crate, whose `init` comes next.
    if let Some(called) = called()
        && let Some(launch) = &called.launch
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

/// Whether [`init`] was called where it had to be: to be asked before a pool is built.
///
/// # Errors
/// When this process has not called `init` yet, so that its workers would not either; or when it
/// is itself a worker that came past it, in which case the parent is notified as well.
pub fn check_ready() -> Result<(), MissingInit> {
    let state = STATE.load(Ordering::Acquire);
    if state != WORKER
        && let Some(called) = called()
        && standing(&called) != Standing::Unconcerned
    {
        // The parent waits for a hello until its deadline, and can say at once what is wrong.
        if sys::stdin_is_doorbell(called.doorbell) {
            sys::write_to_stdin(&Message::MissingInit.encode());
        }
        return Err(MissingInit { passed_by: true });
    }
    if state == NOT_CALLED {
        return Err(MissingInit { passed_by: false });
    }
    Ok(())
}

/// `procpool::init()` was not called, or too late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingInit {
    /// This process is a worker that came past the place where it should have become one.
    passed_by: bool,
}

/// What to do about it: in a program, in a test, in a library.
pub(crate) const REMEDY: &str = "call it as the first line of main; a test file, whose main is the \
                                 harness', and a library, whose users' main knows nothing of it, \
                                 say procpool::init_before_main!() instead";

impl fmt::Display for MissingInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.passed_by {
            "this process was started as a worker, but passed by procpool::init()"
        } else {
            "procpool::init() has not been called in this process"
        };
        write!(f, "{what}: {REMEDY}")
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
