//! How workers are started.

use std::env;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::PoisonError;

use pool_core::{LaunchError, LaunchSpec, Launcher, Link, PROTOCOL_VERSION};

use crate::folder::Folder;
use crate::handover::{Handover, INHERITABLE};
use crate::identity::EXECUTABLE;
use crate::link::SpawnLink;
use crate::summons::{Secret, Summons};
use crate::sys::{self, Process};

/// Starts workers by executing this program again.
///
/// A worker inherits the environment, the current folder, standard output and error (unless the pool
/// has others for it), and whatever descriptors the program has made inheritable; its standard input is empty and its
/// only argument is the program's own name. Its `main` must begin with [`init`](crate::init()):
/// see [`check_ready`](crate::check_ready()).
#[derive(Debug)]
pub struct SpawnLauncher {
    /// What this program was called by, for the worker to be called by the same.
    name: OsString,
}

impl SpawnLauncher {
    /// A launcher. It holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            name: env::args_os().next().unwrap_or_else(|| EXECUTABLE.into()),
        }
    }

    /// Starts the process. Returns when the program is executed.
    fn start(
        &self,
        spec: &LaunchSpec,
        summons: &Summons,
        bell: PipeWriter,
    ) -> Result<Process, LaunchError> {
        // Nothing is to run between fork and exec (unless the worker's events need it), so that the standard library uses
        // `posix_spawn`: a fork copies page tables, which takes 34 ms for a program of 1 GiB.
        #[allow(clippy::disallowed_methods, reason = "this is the launcher")]
        let mut command = Command::new(EXECUTABLE);
        command
            .arg0(&self.name)
            .env(Summons::VARIABLE, summons.to_string())
            .stdin(bell)
            .process_group(0);
        let copy = |outlet: BorrowedFd<'_>| {
            let copied = outlet.try_clone_to_owned();
            copied.map_err(|error| {
                LaunchError::new("cannot give a worker its output").caused_by(error)
            })
        };
        if let Some(stdout) = spec.stdout() {
            command.stdout(copy(stdout)?);
        }
        if let Some(stderr) = spec.stderr() {
            command.stderr(copy(stderr)?);
        }
        if let Some(events) = spec.events() {
            sys::inherit(&mut command, events);
        }
        let child = {
            let _together = INHERITABLE.read().unwrap_or_else(PoisonError::into_inner);
            command.spawn()
        };
        let child = child.map_err(|error| {
            LaunchError::new(format!("cannot execute this program ({EXECUTABLE}) again"))
                .caused_by(error)
        })?;
        Process::new(child)
            .map_err(|error| LaunchError::new("cannot watch a new worker").caused_by(error))
    }
}

impl Default for SpawnLauncher {
    fn default() -> Self {
        Self::new()
    }
}

impl Launcher for SpawnLauncher {
    fn backend(&self) -> &'static str {
        "spawn"
    }

    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn Link>, LaunchError> {
        let (summons, secret, folder, ours, theirs) = prepare(spec).map_err(|error| {
            LaunchError::new("cannot prepare to start a worker").caused_by(error)
        })?;
        let started = self.start(spec, &summons, theirs).and_then(|process| {
            // Only now, for it takes a while, and the worker is busy starting meanwhile.
            let (handover, region) = Handover::new(spec.region_bytes(), secret.nonce)?;
            spec.prepare(&region);
            Ok((process, handover, region))
        });
        match started {
            Ok((process, handover, region)) => Ok(Box::new(SpawnLink::new(
                process,
                ours,
                region,
                handover,
                secret.nonce,
                folder,
            ))),
            Err(error) => {
                // The process is gone, but may have come so far as to make it. And looking for it
                // takes a descriptor, of which there may be none but this one.
                drop(ours);
                folder.sweep();
                Err(error)
            }
        }
    }
}

/// What a worker is called with: the summons, its secret, the folder that it names, and the two
/// ends of the doorbell.
fn prepare(spec: &LaunchSpec) -> io::Result<(Summons, Secret, Folder, PipeReader, PipeWriter)> {
    let (ours, theirs) = sys::make_bell()?;
    let secret = Secret {
        folder: u64::from_le_bytes(sys::random()?),
        nonce: u128::from_le_bytes(sys::random()?),
        events: match spec.events() {
            Some(events) => Some((events.as_raw_fd(), sys::inode(events)?)),
            None => None,
        },
    };
    let summons = Summons {
        version: PROTOCOL_VERSION,
        parent: std::process::id(),
        bell: sys::inode(&ours)?,
        secret: Some(secret),
    };
    Ok((summons, secret, Folder::new(secret.folder)?, ours, theirs))
}
