//! In the program: answers who looks.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use procpool_core::{Pool, WeakPool};
use rustix::net::Shutdown;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde::Serialize;

use crate::{Answer, DUMP, SNAPSHOT, Snapshot, folder};

/// How long somebody who asks keeps others waiting, at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it waits to accept the next connection after it could not.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it makes the folder, which others remove when they have nothing in it any more.
const MOST_TRIES: usize = 10;

/// The method [`allow_inspection`](Self::allow_inspection), for every pool.
pub trait AllowInspection: Pool {
    /// Lets the command `procpool` look into this pool, until the [`Inspection`] is dropped: as
    /// `procpool top` and `procpool dump` of this process. They show the pool by this name.
    ///
    /// # Errors
    /// When there can be no socket, or the system refuses a thread.
    fn allow_inspection(&self, name: impl Into<String>) -> io::Result<Inspection> {
        Inspection::new(self.downgrade(), name.into())
    }
}

impl<P: Pool + ?Sized> AllowInspection for P {}

/// Answers who looks into a pool, until it is dropped: what
/// [`AllowInspection::allow_inspection`] returns.
#[must_use = "nobody can look any more when it is dropped"]
pub struct Inspection {
    listener: Arc<UnixListener>,
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Where its thread is.
    process: u32,
}

impl Inspection {
    fn new(pool: WeakPool, name: String) -> io::Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let process = std::process::id();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (listener, path) = listen(process, number)?;
        let listener = Arc::new(listener);
        let is_over = Arc::new(AtomicBool::new(false));
        let (theirs, ends) = (listener.clone(), is_over.clone());
        let thread = std::thread::Builder::new()
            .name("procpool-inspect".into())
            .spawn(move || serve(&theirs, &ends, &pool, &name));
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                let _ = fs::remove_file(&path);
                return Err(error);
            }
        };
        Ok(Self {
            listener,
            path,
            is_over,
            thread: Some(thread),
            process,
        })
    }
}

impl Drop for Inspection {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // In a fork there is no thread, and the socket is the other's.
            return;
        }
        self.is_over.store(true, Ordering::SeqCst);
        let is_told = rustix::net::shutdown(&self.listener, Shutdown::Both).is_ok();
        if let Some(thread) = self.thread.take()
            && is_told
        {
            // If it has panicked it has said so.
            let _ = thread.join();
        }
        // Whoever comes after it has a name of its own.
        let _ = fs::remove_file(&self.path);
        if let Some(folder) = self.path.parent() {
            // If it has others, it stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The socket of a pool.
fn listen(process: u32, number: usize) -> io::Result<(UnixListener, PathBuf)> {
    let user = geteuid().as_raw();
    let folder = folder::of_user(user);
    let path = folder::socket(&folder, process, number);
    sweep(&folder);
    let mut tries = 0;
    loop {
        folder::make(&folder, user)?;
        // That of a process that had our identifier, and was killed.
        let _ = fs::remove_file(&path);
        tries += 1;
        match UnixListener::bind(&path) {
            // Another process may just have removed the folder, which was empty.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < MOST_TRIES => {}
            bound => return Ok((bound?, path)),
        }
    }
}

/// Removes the sockets of programs that were killed.
fn sweep(folder: &Path) {
    // What cannot be looked at is left for others.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|it| it.path()) {
        let is_socket = path.extension().is_some_and(|it| it == "sock");
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if is_socket && UnixStream::connect(&path).is_err_and(refused) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn serve(listener: &UnixListener, is_over: &AtomicBool, pool: &WeakPool, name: &str) {
    while !is_over.load(Ordering::SeqCst) {
        match listener.accept() {
            // Whoever has gone does not want to know.
            Ok((stream, _)) => drop(answer(&stream, pool, name)),
            Err(_) if is_over.load(Ordering::SeqCst) => break,
            Err(_) => pause(),
        }
    }
}

/// There may be no descriptors left for now.
#[allow(
    clippy::disallowed_methods,
    reason = "nobody tells when there are descriptors again"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

fn answer(stream: &UnixStream, pool: &WeakPool, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let user = socket_peercred(stream)?.uid;
    if user != geteuid() && !user.is_root() {
        return say(
            stream,
            &Answer::<()>::Refused("it is another user's".into()),
        );
    }
    let mut question = String::new();
    // More than that nobody asks.
    BufReader::new(stream.take(64)).read_line(&mut question)?;
    match question.trim_end() {
        SNAPSHOT => {
            let snapshot = pool.stats().map(|stats| Snapshot {
                name: name.to_owned(),
                processes: pool.processes(),
                stats,
                activity: pool.activity().unwrap_or_default(),
                calls: pool.calls(),
            });
            say(stream, &known(snapshot))
        }
        DUMP => say(stream, &known(pool.dump())),
        other => {
            let why = format!("it does not know `{}`", other.escape_debug());
            say(stream, &Answer::<()>::Refused(why))
        }
    }
}

fn known<T>(it: Option<T>) -> Answer<T> {
    let gone = || Answer::Refused("the pool is no more".to_owned());
    it.map_or_else(gone, Answer::Known)
}

fn say(mut stream: &UnixStream, answer: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}
