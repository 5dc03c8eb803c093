//! What becomes of what workers print.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use crate::panic::catch::catch_and_discard;
use crate::process::worker_info::WorkerInfo;

/// What becomes of a worker's standard output or standard error: see the builders' options
/// `stdout` and `stderr`. Named after [`std::process::Stdio`].
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Output, OutputLine};
///
/// let quiet = Output::discard();
/// let named = Output::lines(|line: &OutputLine| {
///     eprintln!("[{}] {line}", line.worker().name());
/// });
/// # let _ = (quiet, named);
/// ```
///
/// It holds for everything that is written to the descriptor: by tasks, by C code in them, and by
/// the programs that they start.
///
/// # Buffers
/// What a library holds back in the worker is not written yet, and a crash loses it. Rust's
/// `println!` writes whole lines at once and `eprintln!` everything. C's `printf` writes only when
/// its buffer is full, unless the output is a terminal: call `fflush` or `setvbuf`. Both are
/// flushed when a worker leaves in good order.
///
/// # Captured output
/// With [`lines`](Self::lines) and [`tee`](Self::tee), the worker writes into a pipe, which a
/// thread of the pool empties all the time. What was written before a worker died, however it died,
/// is there, and the error of the task that it was running has the [last
/// lines](crate::TaskError::stderr) of its standard error. When a worker is dead its pipes are
/// closed, even where others have them: what a program that it has left behind writes after that is
/// an error there (`EPIPE`).
#[derive(Clone)]
pub struct Output(pub(crate) Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    Inherit,
    Discard,
    Tee,
    Lines(Arc<LineHandler>),
}

pub(crate) type LineHandler = dyn Fn(&OutputLine) + Send + Sync;

impl Output {
    /// It goes where the program's own goes (for forked workers: went when their server was
    /// started), without passing through the pool. The default.
    ///
    /// A worker then shares the program's open files, as any child process does. What a task
    /// changes about these is changed for the program as well: if it makes its standard output
    /// non-blocking (`O_NONBLOCK`), a `println!` of the program can panic because a pipe is full. A
    /// pool does not open these anew for workers: that is not possible for a socket, and for the
    /// others only where `/proc` and their permissions allow it. Where tasks cannot be trusted, or
    /// run programs that do so (`node`, `ssh`), use [`tee`](Self::tee): workers have a pipe then.
    #[must_use]
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// It goes to `/dev/null`.
    #[must_use]
    pub fn discard() -> Self {
        Self(Kind::Discard)
    }

    /// As [`inherit`](Self::inherit), but by way of the pool, which keeps the last lines for the
    /// errors of lost tasks. Every byte is passed on, in order: where the program's own output does
    /// not take it, the workers wait as if they wrote there themselves, and so does a thread that
    /// drops the pool.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// # let stderr =
    /// procpool::Output::tee();
    /// ```
    #[must_use]
    pub fn tee() -> Self {
        Self(Kind::Tee)
    }

    /// `handler` is given each line, with the worker that wrote it.
    ///
    /// The lines of one worker's stream come in order. All come on one thread of the pool's,
    /// `procpool-output`, which does nothing else: the handler may block, panic (which is ignored)
    /// or use the pool. Tasks do not wait for it. Lines that come while a few MiB of them wait for
    /// the handler are lost instead, and [counted](OutputLine::dropped); `Stats::lines_dropped` has
    /// the sum. [`Pool::join`](crate::Pool::join), and dropping the pool, wait until the handler
    /// has seen all others.
    #[must_use]
    pub fn lines(handler: impl Fn(&OutputLine) + Send + Sync + 'static) -> Self {
        Self(Kind::Lines(Arc::new(handler)))
    }

    /// Whether workers' lines are to be handed over: for pools elsewhere.
    #[doc(hidden)]
    #[must_use]
    pub fn wants_lines(&self) -> bool {
        self.is_captured()
    }

    /// Whether nobody wants what workers print.
    #[doc(hidden)]
    #[must_use]
    pub fn is_discarded(&self) -> bool {
        matches!(self.0, Kind::Discard)
    }

    /// Does with a line from elsewhere what is to be done with it. That may take as long as the
    /// handler likes.
    #[doc(hidden)]
    pub fn hand_over(&self, line: &OutputLine) {
        match &self.0 {
            Kind::Inherit | Kind::Discard => {}
            Kind::Tee => {
                let mut bytes = line.bytes.clone();
                if !line.is_cut {
                    bytes.push(b'\n');
                }
                // As with the program's own output, it is lost where nobody takes it.
                let _ = match line.stream {
                    OutputStream::Stdout => io::stdout().write_all(&bytes),
                    OutputStream::Stderr => io::stderr().write_all(&bytes),
                };
            }
            Kind::Lines(handler) => {
                catch_and_discard(|| handler(line));
            }
        }
    }

    pub(crate) fn is_captured(&self) -> bool {
        matches!(self.0, Kind::Tee | Kind::Lines(_))
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::inherit()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Inherit => "Output::inherit()",
            Kind::Discard => "Output::discard()",
            Kind::Tee => "Output::tee()",
            Kind::Lines(_) => "Output::lines(..)",
        })
    }
}

/// Which of a worker's outputs it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a worker has printed. Its `Display` is its [text](Self::text).
#[derive(Debug, Clone)]
pub struct OutputLine {
    pub(crate) worker: WorkerInfo,
    pub(crate) stream: OutputStream,
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_cut: bool,
    pub(crate) dropped: u64,
}

impl OutputLine {
    /// Longer lines come in pieces of at most this many bytes.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// What a worker elsewhere has printed.
    #[doc(hidden)]
    #[must_use]
    pub fn new(
        worker: WorkerInfo,
        stream: OutputStream,
        bytes: Vec<u8>,
        is_cut: bool,
        dropped: u64,
    ) -> Self {
        Self {
            worker,
            stream,
            bytes,
            is_cut,
            dropped,
        }
    }

    /// The worker that has written it. In the first moments of a worker its process identifier may
    /// still be 0.
    #[must_use]
    pub fn worker(&self) -> &WorkerInfo {
        &self.worker
    }

    /// Where it was written to.
    #[must_use]
    pub fn stream(&self) -> OutputStream {
        self.stream
    }

    /// What was written, without the line's end (`\n` or `\r\n`).
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same as text; what is not UTF-8 is replaced by `U+FFFD`.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// Whether this is a piece of a line longer than [`MAX_BYTES`](Self::MAX_BYTES), and the next
    /// line of the stream goes on with it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many lines of the same stream were lost just before this one, because the handler was
    /// too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl fmt::Display for OutputLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

const _: () = {
    const fn assert<T: Send + Sync + Clone + 'static>() {}
    assert::<Output>();
    assert::<OutputLine>();
};
