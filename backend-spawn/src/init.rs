//! What `main` begins with.
#![allow(unsafe_code)]

use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, PipeWriter, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};

use procpool_core::{PROTOCOL_VERSION, Region, build_identity};

use crate::bootstrap_env::{BootstrapEnv, Launch};
use crate::channel::{Hello, Sender};
use crate::doorbell::Message;
use crate::sys;

/// How far [`init`] is in this process.
static STATE: AtomicU8 = AtomicU8::new(NOT_CALLED);

const NOT_CALLED: u8 = 0;
/// It has returned: this process is no worker.
const RETURNED: u8 = 1;
/// This process is a worker.
const WORKER: u8 = 2;

/// The exit code of a worker that could not be set up. Its parent has been sent the reason.
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
    // If the version is another one, it is for another copy of this crate, whose `init` comes next.
    if let Some(called) = called()
        && let Some(launch) = &called.launch
    {
        match standing(&called) {
            Standing::Called => serve(launch),
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
/// is itself a worker that came past it, in which case the parent is notified as well.
pub fn check_ready() -> Result<(), MissingInit> {
    let state = STATE.load(Ordering::Acquire);
    if state != WORKER
        && let Some(called) = called()
        && standing(&called) != Standing::Unconcerned
    {
        // The parent waits for a hello until its deadline, and can say at once what is wrong.
        if sys::stdin_is_bell(called.doorbell) {
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
    match (sys::stdin_is_bell(called.doorbell), is_parent) {
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

/// Becomes a worker, and ends the process.
fn serve(launch: &Launch) -> ! {
    STATE.store(WORKER, Ordering::Release);
    let signal = sys::die_with_parent();
    let tie = sys::take_inherited(launch.tie).unwrap_or_else(|error| {
        fail_early(&format!(
            "a worker cannot be set up (dup3, socketpair, sendmsg, recvmsg): {error}"
        ))
    });
    match (signal, procpool_core::worker::bind_to_parent(tie)) {
        (Ok(false), _) => leave(NOT_SET_UP),
        (_, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => leave(NOT_SET_UP),
        // Where a sandbox does not allow the one, the other remains.
        (Ok(true), _) | (_, Ok(())) => {}
        (Err(error), Err(_)) => fail_early(&format!(
            "a worker cannot tie itself to its parent (prctl, fcntl): {error}"
        )),
    }
    sys::remove_variable(BootstrapEnv::VARIABLE);
    procpool_core::worker::settle();
    sys::name_process(&env::args_os().next().unwrap_or_default());
    let mut doorbell = sys::take_stdin().unwrap_or_else(|error| {
        fail_early(&format!(
            "a worker cannot be set up (dup3, socketpair, sendmsg, recvmsg): {error}"
        ))
    });
    match set_up(launch, &mut doorbell) {
        // SAFETY: the parent has made and prepared this region for this worker, which has it by an
        // inherited descriptor and a nonce, and runs the same executable. The parent gives its own
        // side to the engine alone, and nobody else is given any.
        Ok(region) => leave(unsafe { procpool_core::worker::serve(region, doorbell.into()) }),
        Err(error) => {
            let reason =
                format!("a worker cannot be set up (dup3, socketpair, sendmsg, recvmsg): {error}");
            // If this fails, the parent is gone.
            let _ = say(&mut doorbell, &Message::Failed(reason));
            leave(NOT_SET_UP)
        }
    }
}

/// Takes what the parent has left, says hello and that this worker is ready, and returns the
/// region. Nothing else of what was inherited is held any more then.
fn set_up(launch: &Launch, doorbell: &mut PipeWriter) -> io::Result<Region> {
    if let Some(events) = launch.events {
        procpool_core::worker::forward_events_to(sys::take_inherited(events)?);
    }
    let memory = sys::take_inherited(launch.memory)?;
    // SAFETY: the parent has made it by `create` for this worker, and its size is sealed. This is
    // the only mapping here, and it goes to `serve`.
    let region = unsafe { Region::map(memory.as_fd())? };
    drop(memory);
    let to_parent = Sender::over(sys::take_inherited(launch.hello)?)?;
    to_parent.send(&Hello {
        version: PROTOCOL_VERSION,
        pid: procpool_core::own_pid(),
        nonce: launch.nonce.to_le_bytes(),
        identity: build_identity(),
    })?;
    drop(to_parent);
    say(doorbell, &Message::Ready)?;
    Ok(region)
}

/// Writes a message in one piece.
fn say(doorbell: &mut PipeWriter, message: &Message) -> io::Result<()> {
    doorbell.write_all(&message.encode())
}

/// Notifies the parent by the doorbell that is still the standard input.
fn fail_early(reason: &str) -> ! {
    sys::write_to_stdin(&Message::Failed(reason.to_owned()).encode());
    leave(NOT_SET_UP)
}

fn leave(code: i32) -> ! {
    // An error has nowhere to go.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
    #[allow(
        clippy::disallowed_methods,
        reason = "this process was executed, not forked: the exit handlers are its own"
    )]
    std::process::exit(code)
}
