//! A program that is executed as an agent.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use procpool_core::tie_process;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::agent::variables;

/// The process. It is killed when this is dropped, and when this process ends.
pub(super) struct Process {
    signals: UnboundedSender<Signal>,
}

impl Process {
    /// Executes a program as an agent of that server, which leaves when it had no client for so
    /// long. `on_end` is told how it has ended.
    pub(super) fn start(
        program: &Path,
        url: &str,
        idle: Duration,
        on_end: impl FnOnce(io::Result<ExitStatus>) + 'static,
    ) -> io::Result<Self> {
        #[allow(
            clippy::disallowed_methods,
            reason = "it is a program of its own, and inherits what any program does"
        )]
        let mut command = Command::new(program);
        let mut child = command
            .env(variables::SERVER, url)
            .env(variables::IDLE, idle.as_secs().max(1).to_string())
            .stdin(Stdio::null())
            // The terminal's Ctrl-C is for `procpool-agent`, which passes it on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // It has a number until it is reaped, which the task below does alone.
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let id = id.ok_or_else(|| io::Error::other("it has no number"))?;
        let tie = tie_process(id.as_raw_nonzero().get().unsigned_abs())?;
        let (signals, mut received) = unbounded_channel();
        tokio::task::spawn_local(async move {
            let end = loop {
                tokio::select! {
                    end = child.wait() => break end,
                    signal = received.recv() => {
                        // Nobody wants it any more, if there is none. It fails if it has ended.
                        let _ = kill_process(id, signal.unwrap_or(Signal::KILL));
                        if signal.is_none() {
                            break child.wait().await;
                        }
                    }
                }
            };
            drop(tie);
            on_end(end);
        });
        Ok(Self { signals })
    }

    /// Asks it to leave, or makes it.
    pub(super) fn signal(&self, signal: Signal) {
        // Without the task, it has ended.
        let _ = self.signals.send(signal);
    }
}
