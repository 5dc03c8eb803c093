//! A server that a test may kill.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use tempfile::TempDir;

use super::Config;
use crate::procfs::{self, wait_until};

/// Ports that the system gives to nobody by itself: a client that connects again and again to the
/// port of a server that is away must not get this very port for its own end.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A server that is killed when this is dropped, and when this process ends.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    config: Config,
    port: u16,
    folder: TempDir,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// The kernel kills it when this is closed.
    _tie: OwnedFd,
}

impl Server {
    /// Starts one, at a port that was free.
    ///
    /// # Panics
    /// When it does not start: with its log.
    #[must_use]
    pub fn start(program: PathBuf, config: Config) -> Self {
        let mut server = Self {
            program,
            config,
            port: 0,
            folder: tempfile::tempdir().expect("a temporary folder"),
            running: None,
        };
        loop {
            server.port = next_port();
            match server.try_start() {
                Ok(()) => return server,
                // Another port, then.
                Err(log) if log.contains("address already in use") => {}
                Err(log) => panic!("the server does not start:\n{log}"),
            }
        }
    }

    /// Where clients on this machine find it.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at("127.0.0.1")
    }

    /// The same, by another name of this machine's.
    #[must_use]
    pub fn url_at(&self, host: &str) -> String {
        format!("nats://{host}:{}", self.port)
    }

    /// Its port, which stays.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").child.id()
    }

    /// All that it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Where its streams are that are in files.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.file("store")
    }

    /// Sends it a signal: STOP and CONT, USR2 for its "lame duck mode"...
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        procfs::signal(self.pid(), signal);
    }

    /// Kills it at once, as a crash does. Its port and its store stay.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It fails if it has ended.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }

    /// Starts it again, after [`kill`](Self::kill), at the same port and with the same store.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs");
        if let Err(log) = self.try_start() {
            panic!("the server does not start again:\n{log}");
        }
    }

    /// The same with another configuration.
    ///
    /// # Panics
    /// See [`start_again`](Self::start_again).
    pub fn start_again_as(&mut self, config: Config) {
        self.config = config;
        self.start_again();
    }

    /// The error is what it has said.
    fn try_start(&mut self) -> Result<(), String> {
        let config = self.file("config");
        let text = self.config.render(self.port, &self.store());
        fs::write(&config, text).expect("there is room");
        let before = self.log().len();
        let log = open_log(&self.file("log"));
        #[allow(clippy::disallowed_methods, reason = "the server is another program")]
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&config);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // A signal for the tests is not one for it.
        command.process_group(0);
        let child = command.spawn().expect("the server can be executed");
        let tie = procpool_core::tie_process(child.id()).expect("the server can be tied");
        let running = self.running.insert(Running { child, _tie: tie });
        let mut has_ended = false;
        let file = self.folder.path().join("log");
        let said = || fs::read_to_string(&file).unwrap_or_default()[before..].to_owned();
        wait_until(|| {
            has_ended = !matches!(running.child.try_wait(), Ok(None));
            has_ended || said().contains("Server is ready")
        });
        if has_ended {
            self.running = None;
            return Err(said());
        }
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Another port each time, and others in each process.
fn next_port() -> u16 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let offset = std::process::id().wrapping_mul(61).wrapping_add(number) % PORTS.len() as u32;
    u16::try_from(PORTS.start + offset).expect("they are ports")
}

fn open_log(file: &Path) -> File {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options.open(file).expect("there is room for a log")
}
