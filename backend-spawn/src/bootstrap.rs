//! From a process that was executed as a worker to one that serves.
#![allow(unsafe_code)]

use std::env;
use std::ffi::OsStr;
use std::io::{self, PipeWriter, Write};
use std::os::fd::AsFd;

use procpool_core::{PROTOCOL_VERSION, Region, build_identity, shared_object};

use crate::bootstrap_env::{BootstrapEnv, Launch};
use crate::doorbell::Message;
use crate::hello::{Hello, Sender};
use crate::program::{PRELOAD, without_preloaded};
use crate::sys;

/// The exit code of a worker that could not be set up. Its parent has been sent the reason.
const NOT_SET_UP: i32 = 1;

/// Becomes a worker, and ends the process.
pub(crate) fn become_worker(launch: &Launch) -> ! {
    let signal = sys::die_with_parent();
    let own = launch.descriptors();
    procpool_core::worker::inherit(|it| own.contains(&it) || sys::is_opened_here(it));
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
    set_variable(BootstrapEnv::VARIABLE, None);
    if let Some(object) = shared_object() {
        let value = env::var_os(PRELOAD);
        if let Some(before) = value
            .as_deref()
            .and_then(|it| without_preloaded(it, object))
        {
            // What tasks start is nothing of ours.
            set_variable(PRELOAD, Some(before).filter(|it| !it.is_empty()));
        }
        // The program that has loaded the object may have come so far as to handle signals.
        procpool_core::reset_signals();
    }
    procpool_core::worker::prepare_process();
    sys::name_process(&env::args_os().next().unwrap_or_default());
    let mut doorbell = sys::take_stdin().unwrap_or_else(|error| {
        fail_early(&format!(
            "a worker cannot be set up (dup3, socketpair, sendmsg, recvmsg): {error}"
        ))
    });
    match set_up(launch, &mut doorbell) {
        // SAFETY: the parent has made and prepared this region for this worker, which has it by an
        // inherited descriptor and a nonce. `serve` takes none whose parent has another build of
        // this code. The parent gives its own side to the engine alone, and nobody else is given
        // any.
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

/// Ends a process that cannot be a worker.
pub(crate) fn give_up() -> ! {
    leave(NOT_SET_UP)
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

/// Changes a variable, or removes it. Where other threads may be reading the environment it stays
/// as it is: then tasks and what they start see more than they need, and nothing worse.
fn set_variable(name: &str, value: Option<&OsStr>) {
    let change = (name.into(), value.map(OsStr::to_owned));
    let _ = procpool_core::change_environment(&[change]);
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
