//! Does with workers' lines what the pool was built to do with them, in a thread that may wait.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use procpool_core::{Output, OutputLine, OutputStream};

use crate::message::Line;

/// How many lines may wait for a handler.
const MOST: usize = 1 << 14;

/// See the module. Dropped, it waits until the handler has seen all lines.
pub(crate) struct Printer {
    lines: Option<SyncSender<OutputLine>>,
    thread: Option<JoinHandle<()>>,
    /// How many were lost since the last one that was handed over, of each stream.
    lost: [u64; 2],
}

impl Printer {
    /// For these two streams. `None`: nobody wants lines, or there is no thread to be had for them.
    pub(crate) fn new(stdout: Output, stderr: Output) -> Option<Self> {
        if !stdout.wants_lines() && !stderr.wants_lines() {
            return None;
        }
        let (lines, received) = sync_channel::<OutputLine>(MOST);
        let work = move || {
            for line in received {
                match line.stream() {
                    OutputStream::Stdout => stdout.hand_over(&line),
                    OutputStream::Stderr => stderr.hand_over(&line),
                }
            }
        };
        let thread = thread::Builder::new().name("procpool-output".into());
        Some(Self {
            lines: Some(lines),
            thread: Some(thread.spawn(work).ok()?),
            lost: [0; 2],
        })
    }

    /// Hands over a line. Says how many were lost.
    pub(crate) fn print(&mut self, line: Line) -> u64 {
        let stream = if line.is_stderr {
            OutputStream::Stderr
        } else {
            OutputStream::Stdout
        };
        let lost = &mut self.lost[usize::from(line.is_stderr)];
        *lost += line.dropped;
        let line = OutputLine::new(line.worker, stream, line.bytes.0.into(), line.is_cut, *lost);
        let Some(lines) = &self.lines else {
            return 0;
        };
        match lines.try_send(line) {
            Ok(()) => {
                *lost = 0;
                0
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                *lost += 1;
                1
            }
        }
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            // What a handler panics with is dropped.
            let _ = thread.join();
        }
    }
}
