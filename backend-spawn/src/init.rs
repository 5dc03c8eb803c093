//! What `main` begins with.
#![allow(unsafe_code)]

use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::bootstrap::{bootstrap, say};
use crate::folder::Folder;
use crate::hello::Message;
use crate::summons::{Secret, Summons};
use crate::sys::{self, Vigil};

/// How far [`init`] is in this process.
static STATE: AtomicU8 = AtomicU8::new(NOT_CALLED);

const NOT_CALLED: u8 = 0;
/// It has returned: this process is no worker.
const RETURNED: u8 = 1;
/// This process is a worker.
const WORKER: u8 = 2;

/// The exit code of a worker that could not be set up. Its parent has been told why.
const NOT_SET_UP: i32 = 1;

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
    // Without a secret it is of another copy of this crate, whose `init` comes next.
    if let Some(summons) = summons()
        && let Some(secret) = &summons.secret
    {
        match standing(&summons) {
            Standing::Called => serve(secret),
            Standing::Orphaned => leave(NOT_SET_UP),
            Standing::Unconcerned => {}
        }
    }
    STATE.store(RETURNED, Ordering::Release);
}

/// Whether [`init`] was called where it had to be: to be asked before a pool is built.
///
/// # Errors
/// When this process has not called `init` yet, so that its workers would not either; or when it
/// is itself a worker that came past it, in which case the parent is told as well.
pub fn check_ready() -> Result<(), MissingInit> {
    let state = STATE.load(Ordering::Acquire);
    if state != WORKER
        && let Some(summons) = summons()
        && standing(&summons) != Standing::Unconcerned
    {
        // The parent waits for a hello until its deadline, and can say at once what is wrong.
        if sys::stdin_is_bell(summons.bell) {
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

impl fmt::Display for MissingInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.passed_by {
            "this process was started as a worker, but passed by procpool::init(): call it as \
             the first line of main"
        } else {
            "procpool::init() has not been called in this process: call it as the first line of \
             main"
        })
    }
}

impl Error for MissingInit {}

/// What a summons in the environment has to do with this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It calls this process.
    Called,
    /// It called this process, but the caller or its doorbell is gone.
    Orphaned,
    /// It called another process, from which this one merely has its environment.
    Unconcerned,
}

fn standing(summons: &Summons) -> Standing {
    let parent = sys::parent();
    match (sys::stdin_is_bell(summons.bell), parent == summons.parent) {
        (true, true) => Standing::Called,
        // The parent is in another process namespace, and its error should say so.
        (true, false) if parent == 0 => Standing::Called,
        (true, false) | (false, true) => Standing::Orphaned,
        (false, false) => Standing::Unconcerned,
    }
}

fn summons() -> Option<Summons> {
    Summons::parse(env::var_os(Summons::VARIABLE)?.to_str()?)
}

/// Becomes a worker, and ends the process.
fn serve(secret: &Secret) -> ! {
    STATE.store(WORKER, Ordering::Release);
    sys::remove_variable(Summons::VARIABLE);
    let folder = Folder::new(secret.folder).unwrap_or_else(|error| {
        fail_early(&format!(
            "a worker cannot find the temporary folder: {error}"
        ))
    });
    if let Some((number, inode)) = secret.events
        && let Some(events) = sys::take_inherited(number, inode)
    {
        pool_core::worker::forward_events_to(events);
    }
    let vigil = if_parent_lives(Vigil::begin(folder.path()));
    sys::ignore_signals_of_output();
    sys::unblock_signals();
    sys::name_process(&env::args_os().next().unwrap_or_default());
    let mut bell = sys::take_stdin()
        .unwrap_or_else(|error| fail_early(&format!("a worker cannot be set up: {error}")));
    match bootstrap(&mut bell, secret, &folder) {
        Ok(region) => {
            if_parent_lives(vigil.end().map(|lives| lives.then_some(())));
            // SAFETY: the parent has made and prepared this region for this worker, to which it sent
            // it because of its nonce and its build identity, and gives its own side to the engine
            // alone. Nobody else is sent it.
            leave(unsafe { pool_core::worker::serve(region, bell.into()) })
        }
        Err(reason) => {
            // If this fails, the parent is gone.
            let _ = say(&mut bell, &Message::Failed(reason));
            leave(NOT_SET_UP)
        }
    }
}

/// What ties this process to its parent, or else its end.
fn if_parent_lives<T>(tie: io::Result<Option<T>>) -> T {
    match tie {
        Ok(Some(tie)) => tie,
        Ok(None) => leave(NOT_SET_UP),
        Err(error) => fail_early(&format!(
            "a worker cannot tie itself to its parent: {error}"
        )),
    }
}

/// Tells the parent by the doorbell that is still the standard input.
fn fail_early(reason: &str) -> ! {
    sys::write_to_stdin(&Message::Failed(reason.to_owned()).encode());
    leave(NOT_SET_UP)
}

fn leave(code: i32) -> ! {
    // An error has nobody left to be told.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
    #[allow(
        clippy::disallowed_methods,
        reason = "this process was executed, not forked: the exit handlers are its own"
    )]
    std::process::exit(code)
}
