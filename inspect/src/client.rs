//! In the command: asks the program.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use procpool_core::Dump;
use rustix::net::sockopt::socket_peercred;
use serde::de::DeserializeOwned;

use crate::{Answer, DUMP, SNAPSHOT, Snapshot, folder};

/// How long an answer may take: stacks take a fifth of a second for each worker that does not say
/// its own.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may be. A worker is some hundred bytes, and a stack some thousand.
const MOST: u64 = 1 << 30;

/// A pool that its program lets be looked at.
#[derive(Debug, Clone)]
pub struct InspectedPool {
    process: u32,
    user: u32,
    path: PathBuf,
}

/// The pools of this process that can be looked at, in the order in which it has allowed that.
///
/// # Errors
/// When there is no such process, or it allows none, or it is another user's: the error says which.
/// Who changes its user allows it afterwards.
pub fn pools(process: u32) -> io::Result<Vec<InspectedPool>> {
    let missing = |text: String| io::Error::new(io::ErrorKind::NotFound, text);
    let proc = fs::metadata(format!("/proc/{process}"));
    let user = proc
        .map_err(|_| missing(format!("there is no process {process}")))?
        .uid();
    let folder = folder::of_user(user);
    let none = || {
        missing(format!(
            "process {process} does not let anybody look at its pools: it would have to call \
             `pool.allow_inspection(..)` (feature `inspect` of procpool)"
        ))
    };
    match folder::check(&folder, user) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(none()),
        checked => checked?,
    }
    let entries = fs::read_dir(&folder).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let text = format!(
                "process {process} is user {user}'s: that user and root alone can look at its pools"
            );
            io::Error::new(error.kind(), text)
        }
        _ => error,
    })?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(number) = name.and_then(|name| folder::number(name, process)) {
            found.push((number, path));
        }
    }
    if found.is_empty() {
        return Err(none());
    }
    found.sort();
    let found = found.into_iter().map(|(_, path)| InspectedPool {
        process,
        user,
        path,
    });
    Ok(found.collect())
}

impl InspectedPool {
    /// How it is now.
    ///
    /// # Errors
    /// When it is no more, or does not answer.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        self.ask(SNAPSHOT)
    }

    /// What its workers are doing, with their stacks.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn dump(&self) -> io::Result<Dump> {
        self.ask(DUMP)
    }

    fn ask<T: DeserializeOwned>(&self, question: &str) -> io::Result<T> {
        let mut stream = UnixStream::connect(&self.path).map_err(|error| {
            let text = format!("process {} does not answer: {error}", self.process);
            io::Error::new(error.kind(), text)
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let answers = socket_peercred(&stream)?.uid.as_raw();
        if answers != self.user {
            let text = format!("user {answers} answers in place of user {}", self.user);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        stream.write_all(format!("{question}\n").as_bytes())?;
        let mut line = Vec::new();
        stream.take(MOST).read_to_end(&mut line)?;
        if line.is_empty() {
            let text = "the pool's program has ended, or does not answer in time";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Known(it)) => Ok(it),
            Ok(Answer::Refused(why)) => Err(io::Error::other(why)),
            Err(error) => {
                let text = format!("the program may have another version of procpool: {error}");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }
}
