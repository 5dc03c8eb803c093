//! An agent that this process has started.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use procpool_core::{LaunchError, failed, poll, tie_process};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::agent::variables;
use crate::client::{Command as ToClient, Shared};
use crate::nats::ServerOptions;

/// The process, which is killed when this is dropped or this process ends.
pub(crate) struct AgentProcess {
    child: Arc<Mutex<Child>>,
    _tie: OwnedFd,
    /// Tells the pool of its end.
    watcher: Option<JoinHandle<()>>,
}

impl AgentProcess {
    /// Executes this program as an agent of the server with this address and token.
    pub(super) fn start(
        server: &ServerOptions,
        number: usize,
        processes: usize,
        shared: &Arc<Shared>,
    ) -> Result<Self, LaunchError> {
        let caused = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| LaunchError::new(what.clone()).caused_by(error)
        };
        let program = std::env::current_exe().map_err(caused(
            "cannot find this program, which its agents are, too",
        ))?;
        #[allow(
            clippy::disallowed_methods,
            reason = "an agent is this program, executed again: it inherits what any program does"
        )]
        let mut command = Command::new(program);
        for name in variables::ALL {
            command.env_remove(name);
        }
        if let Some(token) = &server.token {
            command.env(variables::TOKEN, token);
        }
        let mut child = command
            .env(variables::SERVER, &server.url)
            .env(variables::PROCESSES, processes.to_string())
            .env(variables::NAME, format!("agent-{number}"))
            .stdin(Stdio::null())
            // The terminal's Ctrl-C is for the program, which may have work to finish.
            .process_group(0)
            .spawn()
            .map_err(caused("cannot execute this program again as an agent"))?;
        let held = hold(&child);
        let (pidfd, tie) = match held {
            Ok(held) => held,
            Err(error) => {
                end(&mut child);
                return Err(caused("cannot take hold of the agent's process")(error));
            }
        };
        let pid = child.id();
        let shared = shared.clone();
        let child = Arc::new(Mutex::new(child));
        let of_watcher = child.clone();
        let watcher = thread::Builder::new()
            .name("procpool-agent-watcher".into())
            .spawn(move || {
                let mut ends = [PollFd::new(&pidfd, PollFlags::IN)];
                // It fails where the system refuses it; then the agent is noticed by its silence.
                while matches!(poll(&mut ends, None), Ok(0)) {}
                // Before its identifier can be another's.
                shared.tell(ToClient::Died { pid });
                end(&mut of_watcher.lock().unwrap_or_else(PoisonError::into_inner));
            });
        let watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                end(&mut child.lock().unwrap_or_else(PoisonError::into_inner));
                return Err(caused("there is no thread for an agent")(error));
            }
        };
        Ok(Self {
            child,
            _tie: tie,
            watcher: Some(watcher),
        })
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        end(&mut self.child.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(watcher) = self.watcher.take() {
            // It ends with the agent. Its panic would be a mistake that was printed already.
            let _ = watcher.join();
        }
    }
}

/// What is needed of a child: to wait for its end, and its end with this process.
fn hold(child: &Child) -> io::Result<(OwnedFd, OwnedFd)> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(failed("pidfd_open"))?;
    Ok((pidfd, tie_process(child.id())?))
}

/// Kills and reaps it. It does nothing to one that is reaped.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
