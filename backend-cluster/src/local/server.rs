//! A server for the work of one program.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use procpool_core::{LaunchError, failed, poll, tie_process};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use rustix::rand::{GetRandomFlags, getrandom};

use super::server_log::ServerLog;
use super::server_program;
use crate::client::{Command as ToClient, Shared};

/// How long a server may take to be ready. It takes some 10 ms.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// How long a server may take to end by itself, which gains nothing but the last lines of its log.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// What a server is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// How large a message may be, in bytes; the server's own default (1 MiB) if none is given.
    pub(crate) max_payload: Option<u32>,
}

/// A server with JetStream that this process has started, for itself and for whom it gives the
/// token.
///
/// It listens on the loopback device alone, at a port that was free, and lets nobody in without the
/// token. What is queued there lies in memory. When this process ends, in whatever way, the kernel
/// kills it.
///
/// It wants a folder before it is ready, and none afterwards: then the folder is removed, so that
/// none is left whatever becomes of this process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// None: it is reaped.
    pidfd: Option<OwnedFd>,
    /// When it is closed, the server is killed.
    _tie: OwnedFd,
    log: ServerLog,
    address: SocketAddr,
    token: String,
    /// Tells the pool of its end.
    watcher: Option<JoinHandle<()>>,
}

impl Server {
    /// The program that is started: the one that `PROCPOOL_NATS_SERVER` names, or else the
    /// `nats-server` that is installed.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn find() -> Result<PathBuf, LaunchError> {
        server_program::find()
    }

    /// Starts this program, and waits until it is ready.
    ///
    /// # Errors
    /// When that fails, with what the server says about it.
    pub(crate) fn start(program: &Path, options: Options) -> Result<Self, LaunchError> {
        let token = token().map_err(cannot_prepare)?;
        let store = tempfile::Builder::new()
            .prefix("procpool-nats-")
            .tempdir()
            .map_err(|error| {
                LaunchError::new("cannot make a temporary folder for the server").caused_by(error)
            })?;
        let (begin, end) = configuration(store.path(), options, &token);
        let (stdin, mut rest) = io::pipe().map_err(cannot_prepare)?;
        // To write is no SIGPIPE while there is a reader.
        let reader = stdin.try_clone().map_err(cannot_prepare)?;
        rest.write_all(begin.as_bytes()).map_err(cannot_prepare)?;
        let mut child = spawn(program, stdin).map_err(|error| {
            LaunchError::new(format!("cannot execute the server {}", program.display()))
                .caused_by(error)
        })?;
        let (pidfd, tie, log) = match hold(&mut child) {
            Ok(held) => held,
            Err(error) => {
                end_child(&mut child);
                let message = "cannot take hold of the server's process";
                return Err(LaunchError::new(message).caused_by(error));
            }
        };
        let mut server = Self {
            child,
            pidfd: Some(pidfd),
            _tie: tie,
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            token,
            watcher: None,
        };
        rest.write_all(end.as_bytes()).map_err(cannot_prepare)?;
        drop((rest, reader));
        match server.log.ready().recv_timeout(READY_LIMIT) {
            Ok(address) => server.address = address,
            Err(over) => {
                let what = match over {
                    RecvTimeoutError::Disconnected => "has ended before it was ready",
                    RecvTimeoutError::Timeout => "was not ready within 20 s",
                };
                let status = server.kill();
                return Err(LaunchError::new(format!(
                    "the server {} {what}, with {status}; {}",
                    program.display(),
                    server.log
                )));
            }
        }
        store.close().map_err(|error| {
            LaunchError::new("cannot remove the server's temporary folder").caused_by(error)
        })?;
        Ok(server)
    }

    /// Where it is, for whoever has the token.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// What lets a program in.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Has a thread tell the pool when it ends.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn watch(&mut self, shared: &Arc<Shared>) -> Result<(), LaunchError> {
        let Some(pidfd) = &self.pidfd else {
            return Ok(());
        };
        let pidfd = pidfd.try_clone().map_err(cannot_prepare)?;
        let shared = shared.clone();
        let watcher = thread::Builder::new()
            .name("procpool-server-watcher".into())
            .spawn(move || {
                if let Some(status) = end_of(&pidfd) {
                    // Without a thread the pool is over.
                    shared.tell(ToClient::ServerEnded(status));
                }
            });
        self.watcher = Some(watcher.map_err(cannot_prepare)?);
        Ok(())
    }

    /// Ends it, and waits for that.
    pub(crate) fn stop(&mut self) {
        if let Some(pidfd) = &self.pidfd
            && pidfd_send_signal(pidfd, Signal::TERM).is_ok()
        {
            // If it cannot be waited for, it is killed now and not later.
            let _ = wait_for(pidfd, STOP_LIMIT);
        }
        self.kill();
    }

    /// Kills it if it runs, reaps it, and says how it has ended.
    fn kill(&mut self) -> String {
        self.pidfd = None;
        let status = end_child(&mut self.child);
        self.log.finish();
        if let Some(watcher) = self.watcher.take() {
            // It has seen the end. Its panic would be a mistake that was printed already.
            let _ = watcher.join();
        }
        status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for the end of a process, and says how it has ended, but leaves it to be reaped. `None`:
/// the system does not say when, or it is reaped.
fn end_of(pidfd: &OwnedFd) -> Option<String> {
    let mut ends = [PollFd::new(pidfd, PollFlags::IN)];
    while matches!(poll(&mut ends, None), Ok(0)) {}
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), options).ok()??;
    Some(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "nobody knows how".to_owned(),
    })
}

/// Kills a child and reaps it. (It does nothing to one that is reaped.)
fn end_child(child: &mut Child) -> String {
    // It fails if it has ended.
    let _ = child.kill();
    match child.wait() {
        Ok(status) => status.to_string(),
        // Where the program ignores SIGCHLD, the system has reaped it.
        Err(error) => format!("no status ({error})"),
    }
}

/// What is needed of a child: to wait for its end, its end with this process, and what it says.
fn hold(child: &mut Child) -> io::Result<(OwnedFd, OwnedFd, ServerLog)> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(failed("pidfd_open"))?;
    let tie = tie_process(child.id())?;
    let stderr = child.stderr.take().expect("it was asked for");
    Ok((pidfd, tie, ServerLog::read(stderr)?))
}

/// Executes the server, which reads its configuration from here.
fn spawn(program: &Path, configuration: io::PipeReader) -> io::Result<Child> {
    #[allow(
        clippy::disallowed_methods,
        reason = "the server is another program, which knows nothing of pools"
    )]
    let mut command = Command::new(program);
    command
        .args(["--config", "/proc/self/fd/0"])
        // It holds up no file system.
        .current_dir("/")
        .stdin(configuration)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // The terminal's Ctrl-C is for the program, which may have work to finish.
        .process_group(0);
    command.spawn()
}

/// The server's configuration, in two parts. A server that has only the first of them takes it for
/// a mistake and leaves: it has the second one from a process that it is tied to.
fn configuration(store: &Path, options: Options, token: &str) -> (String, String) {
    let mut begin = format!(
        "listen: \"127.0.0.1:-1\"\n\
         logtime: false\n\
         jetstream {{ store_dir: {}, max_file: 0 }}\n",
        quoted(store.as_os_str().as_bytes())
    );
    if let Some(bytes) = options.max_payload {
        writeln!(begin, "max_payload: {bytes}").expect("there is memory for text");
    }
    begin.push_str("authorization {\n");
    (begin, format!("token: \"{token}\" }}\n"))
}

/// A string of the configuration's language.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "\\x{byte:02x}").expect("there is memory for text");
        }
    }
    text.push('"');
    text
}

/// A word that nobody can guess.
fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += retry_on_intr(|| getrandom(&mut bytes[filled..], GetRandomFlags::empty()))
            .map_err(failed("getrandom"))?;
    }
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

/// Waits until a process has ended, or for that long.
fn wait_for(pidfd: &OwnedFd, limit: Duration) -> io::Result<()> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    let mut ends = [PollFd::new(pidfd, PollFlags::IN)];
    // A signal makes it shorter.
    poll(&mut ends, Some(&limit))?;
    Ok(())
}

fn cannot_prepare(error: io::Error) -> LaunchError {
    LaunchError::new("cannot prepare to start a server").caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::{BufRead, BufReader};
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt;

    use procpool_testing::again::{self, Again};
    use procpool_testing::nats;
    use procpool_testing::procfs::{self, wait_for_death};
    use procpool_testing::watchdog;

    use super::*;

    /// A server, if there is a program for it.
    fn started(test: &str) -> Option<Server> {
        let program = nats::program_or_skip(test)?;
        Some(Server::start(&program, Options::default()).unwrap())
    }

    /// What the server answers to somebody who comes with this token and pings.
    fn answer(server: &Server, token: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let greeting = lines.next().unwrap().unwrap();
        assert!(greeting.starts_with("INFO "), "{greeting}");
        assert!(greeting.contains(r#""jetstream":true"#), "{greeting}");
        let connect =
            format!("CONNECT {{\"verbose\":false,\"auth_token\":\"{token}\"}}\r\nPING\r\n");
        stream.write_all(connect.as_bytes()).unwrap();
        lines.next().unwrap().unwrap()
    }

    /// What is in a folder.
    fn names_in(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn it_lets_in_who_has_the_token_and_nobody_else() {
        let Some(server) = started("it_lets_in_who_has_the_token_and_nobody_else") else {
            return;
        };
        assert_eq!(answer(&server, server.token()), "PONG");
        for token in ["", "wrong", &server.token()[1..]] {
            let refused = answer(&server, token);
            assert!(refused.contains("Authorization Violation"), "{refused}");
        }
    }

    #[test]
    fn it_goes_on_however_much_it_says() {
        let Some(server) = started("it_goes_on_however_much_it_says") else {
            return;
        };
        // It says something of each, and more than fits into a pipe of all.
        for _ in 0..2000 {
            let refused = answer(&server, "wrong");
            assert!(refused.contains("Authorization Violation"), "{refused}");
        }
        assert_eq!(answer(&server, server.token()), "PONG");
    }

    #[test]
    fn each_has_a_token_and_a_port_of_its_own() {
        let (Some(one), Some(other)) = (
            started("each_has_a_token_and_a_port_of_its_own"),
            started("each_has_a_token_and_a_port_of_its_own"),
        ) else {
            return;
        };
        assert_ne!(one.token(), other.token());
        assert_ne!(one.url(), other.url());
        assert!(one.url().starts_with("nats://127.0.0.1:"), "{}", one.url());
    }

    #[test]
    fn neither_its_token_is_seen_nor_more_than_loopback_is_listened_on() {
        let Some(server) =
            started("neither_its_token_is_seen_nor_more_than_loopback_is_listened_on")
        else {
            return;
        };
        let pid = server.child.id();
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains(server.token()));
        }
        let port = format!(":{:04X}", server.address.port());
        let listening = |file: &str| {
            let text = fs::read_to_string(format!("/proc/net/{file}")).unwrap();
            let rows = text
                .lines()
                .filter_map(|line| line.split_whitespace().nth(1));
            let mine = rows.filter(|address| address.ends_with(&port));
            mine.map(str::to_owned).collect::<Vec<_>>()
        };
        let addresses = listening("tcp");
        assert!(!addresses.is_empty());
        assert!(
            addresses.iter().all(|it| it.starts_with("0100007F:")),
            "{addresses:?}"
        );
    }

    #[test]
    fn a_message_may_be_as_large_as_is_asked_for() {
        let Some(program) = nats::program_or_skip("a_message_may_be_as_large_as_is_asked_for")
        else {
            return;
        };
        let options = Options {
            max_payload: Some(123_456),
        };
        let server = Server::start(&program, options).unwrap();
        let stream = TcpStream::connect(server.address).unwrap();
        let greeting = BufReader::new(stream).lines().next().unwrap().unwrap();
        assert!(greeting.contains(r#""max_payload":123456"#), "{greeting}");
    }

    #[test]
    fn it_is_gone_when_it_was_stopped_or_dropped() {
        let Some(mut stopped) = started("it_is_gone_when_it_was_stopped_or_dropped") else {
            return;
        };
        let Some(dropped) = started("it_is_gone_when_it_was_stopped_or_dropped") else {
            return;
        };
        let pids = [stopped.child.id(), dropped.child.id()];
        stopped.stop();
        drop(dropped);
        assert!(!pids.into_iter().any(procfs::exists));
        stopped.stop();
    }

    #[test]
    fn one_that_is_stopped_by_a_signal_can_be_dropped() {
        let Some(server) = started("one_that_is_stopped_by_a_signal_can_be_dropped") else {
            return;
        };
        let pid = server.child.id();
        procfs::signal(pid, Signal::STOP);
        drop(server);
        assert!(!procfs::exists(pid));
    }

    #[test]
    fn one_that_has_ended_says_so() {
        let Some(server) = started("one_that_has_ended_says_so") else {
            return;
        };
        procfs::signal(server.child.id(), Signal::KILL);
        let end = end_of(server.pidfd.as_ref().unwrap());
        assert_eq!(end.as_deref(), Some("killed by signal 9"));
    }

    #[test]
    fn it_lives_longer_than_the_thread_that_has_started_it() {
        let starter = std::thread::spawn(|| started("it_lives_longer"));
        let Some(server) = starter.join().unwrap() else {
            return;
        };
        assert_eq!(answer(&server, server.token()), "PONG");
    }

    #[test]
    fn what_does_not_come_up_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("server");
        fs::write(&script, "#!/bin/sh\necho no such luck >&2\nexit 7\n").unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let error = Server::start(&script, Options::default()).unwrap_err();
        let error = error.to_string();
        let name = script.display().to_string();
        for part in ["no such luck", "exit status: 7", &name] {
            assert!(error.contains(part), "{error}");
        }
        let error = Server::start(&folder.path().join("missing"), Options::default());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("missing") && error.contains("No such file"),
            "{error}"
        );
    }

    #[test]
    fn what_the_server_refuses_is_said_in_its_words() {
        let Some(program) = nats::program_or_skip("what_the_server_refuses_is_said_in_its_words")
        else {
            return;
        };
        let options = Options {
            max_payload: Some(u32::MAX),
        };
        let error = Server::start(&program, options).unwrap_err().to_string();
        assert!(error.contains("max_payload"), "{error}");
    }

    #[test]
    fn a_server_that_has_half_of_its_configuration_leaves() {
        let Some(program) =
            nats::program_or_skip("a_server_that_has_half_of_its_configuration_leaves")
        else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let (begin, _) = configuration(folder.path(), Options::default(), "");
        let (stdin, mut rest) = io::pipe().unwrap();
        rest.write_all(begin.as_bytes()).unwrap();
        drop(rest);
        let mut child = spawn(&program, stdin).unwrap();
        let log = ServerLog::read(child.stderr.take().unwrap()).unwrap();
        let ready = log.ready().recv_timeout(READY_LIMIT);
        let status = end_child(&mut child);
        assert_eq!(ready, Err(RecvTimeoutError::Disconnected), "{log}");
        assert_eq!(status, "exit status: 1");
        assert!(log.to_string().contains("Parse error"), "{log}");
        assert_eq!(names_in(folder.path()), [] as [PathBuf; 0]);
    }

    /// The program of the next tests: it has a server, and says where.
    #[test]
    fn be_a_program_with_a_server() {
        if again::asked_for().as_deref() == Some("server") {
            let server = started("be_a_program_with_a_server").unwrap();
            println!("\nserver {}", server.child.id());
            std::thread::park();
        }
    }

    #[test]
    fn it_dies_with_its_program_and_leaves_no_folder() {
        if nats::program_or_skip("it_dies_with_its_program_and_leaves_no_folder").is_none() {
            return;
        }
        watchdog::start();
        let _watched = watchdog::watch("it_dies_with_its_program_and_leaves_no_folder".into());
        let test = "local::server::tests::be_a_program_with_a_server";
        let arguments = ["--exact", test, "--nocapture"].map(AsRef::as_ref);
        let mut program = Again::new("server").args(&arguments).start();
        // The test harness prints lines, too.
        let mut lines = (0..20).map(|_| program.line());
        let server = lines.find_map(|line| line.strip_prefix("server ")?.parse().ok());
        let server = server.expect("it has a server");
        assert!(procfs::is_alive(server));
        assert_eq!(program.files(), [] as [PathBuf; 0], "its folder is gone");
        program.kill();
        wait_for_death(&[server]);
        assert_eq!(program.files(), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_folder_may_be_called_anything() {
        assert_eq!(quoted(b"/tmp/a-B.c_1"), "\"/tmp/a-B.c_1\"");
        assert_eq!(quoted(b"a\"\\ \xe9\n"), r#""a\x22\x5c\x20\xe9\x0a""#);
        let Some(program) = nats::program_or_skip("a_folder_may_be_called_anything") else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a \"$b\" \\ é");
        fs::create_dir(&odd).unwrap();
        let (begin, end) = configuration(&odd, Options::default(), "token");
        let (stdin, mut rest) = io::pipe().unwrap();
        rest.write_all((begin + &end).as_bytes()).unwrap();
        drop(rest);
        let mut child = spawn(&program, stdin).unwrap();
        let log = ServerLog::read(child.stderr.take().unwrap()).unwrap();
        let ready = log.ready().recv_timeout(READY_LIMIT);
        let made = names_in(&odd);
        end_child(&mut child);
        assert!(ready.is_ok(), "{log}");
        assert_eq!(made, [odd.join("jetstream")]);
    }
}
