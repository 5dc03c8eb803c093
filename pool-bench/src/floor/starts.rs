//! This many processes started at once, until each has said a word.
#![allow(unsafe_code)]

use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::other_side::{Game, OtherSide};
use crate::contender::{Contender, Role};
use crate::job::{Job, Measured};

/// The argument that makes this program say one word and wait for its end.
const NEWBORN: &str = "newborn";

/// How the processes are started.
pub enum Starts {
    /// Forked by a small process with one thread, as a fork server is.
    Fork(OtherSide),
    /// This program executed again, as far as the first line of `main`.
    Exec,
}

impl Contender for Starts {
    fn name(&self) -> &str {
        match self {
            Self::Fork(_) => "floor: raw forks",
            Self::Exec => "floor: raw re-execs",
        }
    }

    fn role(&self) -> Role {
        Role::Floor
    }

    fn run(&mut self, job: Job) -> Result<Option<Measured>> {
        // With more memory than usual, a process must start in a program that has it: see
        // `ForkExec`.
        let Job::Start {
            workers,
            resident: 0,
        } = job
        else {
            return Ok(None);
        };
        let value = match self {
            Self::Fork(other_side) => forks(other_side, workers)?,
            Self::Exec => execs(workers)?,
        };
        Ok(Some(Measured { value, n: 1 }))
    }
}

fn forks(other_side: &OtherSide, count: u64) -> Result<f64> {
    let mut words = vec![0; count as usize];
    let start = Instant::now();
    other_side.play(Game::Forks, count, 0, |socket| {
        socket.read_exact(&mut words)?;
        let elapsed = start.elapsed().as_secs_f64();
        // All of them lived at the same time; now they may go, and the other side says when.
        socket.write_all(&words)?;
        socket.read_exact(&mut words[..1])?;
        Ok(elapsed)
    })
}

/// The other side: forks processes that say a word and go when they hear one.
pub(super) fn fork_newborns(socket: &mut UnixStream, count: u64) {
    let mut children = Vec::with_capacity(count as usize);
    for _ in 0..count {
        #[expect(clippy::disallowed_methods, reason = "a floor is raw system calls")]
        // SAFETY: this process has one thread. The child makes two system calls and ends.
        match unsafe { libc::fork() } {
            0 => {
                let mut word = [b'!'];
                let _ = socket.write_all(&word);
                let _ = socket.read_exact(&mut word);
                // SAFETY: it ends here, without destructors, which are the parent's.
                unsafe { libc::_exit(0) }
            }
            child => children.push(Pid::from_raw(child)),
        }
    }
    for child in children {
        // An error means that it never was.
        let _ = waitpid(child, WaitOptions::empty());
    }
    let _ = socket.write_all(b".");
}

fn execs(count: u64) -> Result<f64> {
    let program = std::env::current_exe()?;
    let start = Instant::now();
    let (mut words, word) = pipe()?;
    let mut children: Vec<Child> = Vec::new();
    for _ in 0..count {
        #[expect(clippy::disallowed_methods, reason = "it is about starting programs")]
        let mut command = Command::new(&program);
        command.arg(NEWBORN).stdin(Stdio::piped());
        children.push(command.stdout(word.try_clone()?).spawn()?);
    }
    drop(word);
    words.read_exact(&mut vec![0; count as usize])?;
    let elapsed = start.elapsed().as_secs_f64();
    // All of them lived at the same time; without their inputs they go.
    for mut child in children {
        drop(child.stdin.take());
        if !child.wait()?.success() {
            bail!("a program that was to say one word failed");
        }
    }
    Ok(elapsed)
}

/// Whether this program was started to say one word.
#[must_use]
pub fn is_newborn() -> bool {
    std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == NEWBORN)
}

/// Says it, and waits for the end.
///
/// # Errors
/// When nobody is there to hear it.
pub fn newborn() -> std::io::Result<()> {
    rustix::io::write(std::io::stdout(), b"!")?;
    rustix::io::read(std::io::stdin(), &mut [0; 1])?;
    Ok(())
}
