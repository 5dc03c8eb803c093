//! One process started and ended, in a program that has much or little memory.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::contender::{Contender, Role};
use crate::job::{Job, Measured};

/// What is done from beginning to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkExec {
    /// fork, exit, wait.
    Fork,
    /// This program executed again as far as the first line of `main`, wait.
    Exec,
}

impl Contender for ForkExec {
    fn name(&self) -> &str {
        match self {
            Self::Fork => "floor: one fork, exit, wait",
            Self::Exec => "floor: one re-exec, wait",
        }
    }

    fn role(&self) -> Role {
        Role::Floor
    }

    fn run(&mut self, job: Job) -> Result<Option<Measured>> {
        let Job::Start { resident, .. } = job else {
            return Ok(None);
        };
        let memory = vec![1_u8; resident as usize];
        black_box(&memory);
        let start = Instant::now();
        match self {
            Self::Fork => fork()?,
            Self::Exec => exec()?,
        }
        let value = start.elapsed().as_secs_f64();
        drop(black_box(memory));
        Ok(Some(Measured { value, n: 1 }))
    }
}

fn fork() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a floor is raw system calls")]
    // SAFETY: the child makes one system call, which ends it.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        // SAFETY: it ends here, without destructors, which are the parent's.
        0 => unsafe { libc::_exit(0) },
        child => {
            let child = Pid::from_raw(child).context("fork gave no process")?;
            waitpid(Some(child), WaitOptions::empty())?;
            Ok(())
        }
    }
}

fn exec() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "it is about starting programs")]
    let mut command = Command::new(std::env::current_exe()?);
    // Its input is at its end, so it says its word and goes.
    command
        .arg("newborn")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    ensure!(
        command.status()?.success(),
        "re-executing this program failed"
    );
    Ok(())
}
