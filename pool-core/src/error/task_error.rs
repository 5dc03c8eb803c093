//! How a task can fail.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::panic::foreign_text::Shown;
use crate::panic::report::PanicReport;
use crate::process::exit_status::ExitStatus;
use crate::process::machine::Machine;
use crate::process::worker_info::WorkerInfo;
use crate::shm::protocol::{Failure, Stage};

/// Why a task has no result.
///
/// What it shows, by `Display`, goes into a terminal or a log as it is: control characters that
/// were in a panic's message or in what a worker printed are escaped, lines after the first are
/// indented, and a text is cut after 8 KiB. The methods give the texts as they are, a panic's
/// message up to 4 MiB of it.
///
/// It is cheap to clone, and says all that is known: what [kind](Self::kind) of failure it was,
/// the [index](Self::index) of the item in its call, the panic's message, place and backtrace, how
/// the worker died, and which worker it was.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool, TaskErrorKind};
///
/// let pool = SerialPool::new();
/// let error = pool.map(|n: i32| 100 / n, [5, 0, 2]).unwrap_err();
/// assert_eq!(error.kind(), TaskErrorKind::Panicked);
/// assert_eq!(error.index(), Some(1));
/// assert_eq!(error.panic_message(), Some("attempt to divide by zero"));
/// ```
#[derive(Clone)]
pub struct TaskError(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: TaskErrorKind,
    message: String,
    index: Option<usize>,
    panic: Option<PanicReport>,
    /// The text of the panic's backtrace, once it was read.
    resolved: OnceLock<String>,
    exit: Option<ExitStatus>,
    /// What its worker's sandbox has refused, and ended it for.
    refused_call: Option<String>,
    worker: Option<WorkerInfo>,
    /// Where it happened, if that is known and no worker of it.
    machine: Option<Machine>,
    /// The last lines that the worker has written to standard error.
    stderr: Option<String>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskErrorKind {
    /// The function panicked. The worker lives on, unless the panic could not be unwound: a second
    /// one while destructors ran for the first, one in an `extern "C"` function, any with
    /// `panic = "abort"`. Then it was lost by it: see [`TaskError::signal`].
    Panicked,
    /// The worker died while it ran this item: it crashed, was killed, or called `exit`.
    WorkerLost,
    /// There was no memory for the item, and its worker died of that: it needed more than the
    /// pool's [`memory_limit`](crate::PoolBuilder::memory_limit), or the system's out-of-memory
    /// killer has chosen it, as far as the control group tells. [`TaskError::signal`] is how the
    /// process ended.
    OutOfMemory,
    /// The item ran longer than its call's timeout, and its worker was killed for it.
    TimedOut,
    /// The [deadline](crate::Call::deadline) of the call came: the item had not begun, or was
    /// killed with its worker.
    DeadlineExceeded,
    /// The task was cancelled, or its pool was terminated or dropped.
    Cancelled,
    /// The pool was closed before the call.
    Closed,
    /// The argument (in the parent) or the result (in the worker) could not be serialised.
    Encode,
    /// The argument (in the worker) or the result (in the parent) could not be deserialised.
    Decode,
    /// What [`Call::state`](crate::Call::state) should make for the worker could not be made.
    State,
    /// The pool's initializer fails in all new workers.
    Initializer,
    /// No worker can be started any more.
    Launch,
    /// The call itself makes no sense, such as one with a chunk size of zero, or with a function
    /// in an object that the loader does not know.
    Invalid,
}

impl TaskErrorKind {
    /// Whether [`Call::retries`](crate::Call::retries) alone tries an item again that ends like
    /// this: its worker has died under it, of whatever. For a pool of your own, which is told of
    /// them by [`ChunkOptions::retries`](crate::ChunkOptions::retries); what a call says besides,
    /// the call itself sees to.
    #[must_use]
    pub fn is_retried(self) -> bool {
        matches!(self, Self::WorkerLost | Self::OutOfMemory | Self::TimedOut)
    }

    /// Whether another attempt could end otherwise. What was ended on purpose stays so, and what
    /// no pool can run.
    pub(crate) fn may_be_retried(self) -> bool {
        match self {
            Self::Panicked
            | Self::WorkerLost
            | Self::OutOfMemory
            | Self::TimedOut
            | Self::Encode
            | Self::Decode
            | Self::State => true,
            Self::DeadlineExceeded
            | Self::Cancelled
            | Self::Closed
            | Self::Initializer
            | Self::Launch
            | Self::Invalid => false,
        }
    }
}

/// Who had no memory for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// It was at the limit that the pool has for it, in bytes.
    Limit(u64),
    /// The system, or the control group.
    System,
}

impl TaskError {
    pub(crate) fn new(kind: TaskErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            index: None,
            panic: None,
            resolved: OnceLock::new(),
            exit: None,
            refused_call: None,
            worker: None,
            machine: None,
            stderr: None,
        }))
    }

    /// An error of this kind, for a [`Pool`](crate::Pool) of your own. The message says what
    /// happened; what is known besides, the methods that begin with `with` add.
    #[must_use]
    pub fn other(kind: TaskErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, message)
    }

    pub(crate) fn closed() -> Self {
        Self::new(TaskErrorKind::Closed, "the pool is closed")
    }

    pub(crate) fn of_fork() -> Self {
        Self::new(TaskErrorKind::Closed, crate::process::fork::OF_FORK)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(TaskErrorKind::Cancelled, "the task was cancelled")
    }

    pub(crate) fn terminated() -> Self {
        Self::new(TaskErrorKind::Cancelled, "the pool was terminated")
    }

    /// A worker's report.
    pub(crate) fn reported(failure: Failure, worker: Option<WorkerInfo>) -> Self {
        let Failure {
            stage,
            message,
            panic,
        } = failure;
        let kind = match stage {
            Stage::DecodeArgument | Stage::DecodeContext => TaskErrorKind::Decode,
            Stage::MakeState => TaskErrorKind::State,
            Stage::Run => TaskErrorKind::Panicked,
            Stage::Initialize => TaskErrorKind::Initializer,
            Stage::EncodeResult | Stage::EncodeEmitted => TaskErrorKind::Encode,
        };
        let message = match (stage, &panic) {
            (Stage::DecodeArgument, None) => format!("cannot deserialise the argument: {message}"),
            (Stage::DecodeArgument, Some(_)) => {
                format!("the argument's deserialisation panicked: {message}")
            }
            (Stage::DecodeContext, None) => format!("cannot deserialise the context: {message}"),
            (Stage::DecodeContext, Some(_)) => {
                format!("the context's deserialisation panicked: {message}")
            }
            (Stage::MakeState, _) => {
                format!("what makes the worker's state for the task panicked: {message}")
            }
            (Stage::Run, _) => format!("the task panicked: {message}"),
            (Stage::Initialize, _) => message,
            (Stage::EncodeResult, None) => format!("cannot serialise the result: {message}"),
            (Stage::EncodeResult, Some(_)) => {
                format!("the result's serialisation panicked: {message}")
            }
            (Stage::EncodeEmitted, _) => format!("cannot serialise an emitted value: {message}"),
        };
        let mut error = Self::new(kind, message);
        let inner = error.inner_mut();
        inner.panic = panic;
        inner.worker = worker;
        error
    }

    /// The same for what happened in the parent.
    pub(crate) fn panicked(kind: TaskErrorKind, what: &str, panic: PanicReport) -> Self {
        let mut error = Self::new(kind, format!("{what} panicked: {}", panic.message));
        error.inner_mut().panic = Some(panic);
        error
    }

    /// What became of the worker completes "the worker …".
    pub(crate) fn worker_lost(fate: &str) -> Self {
        let message = format!("the worker {fate} while it ran the task");
        Self::new(TaskErrorKind::WorkerLost, message)
    }

    /// A panic that ended the worker. What became of that completes "the worker …".
    pub(crate) fn aborted(panic: PanicReport, fate: &str) -> Self {
        let text = &panic.message;
        let message = match &panic.thread {
            None => format!("the task panicked and the worker {fate}: {text}"),
            Some(thread) => format!(
                "the thread {thread:?} panicked, which this task or an earlier one has \
                 started, and the worker {fate}: {text}"
            ),
        };
        let mut error = Self::new(TaskErrorKind::Panicked, message);
        error.inner_mut().panic = Some(panic);
        error
    }

    /// There was not enough memory for the worker. What became of it completes "the worker …".
    pub(crate) fn out_of_memory(shortage: Shortage, fate: &str) -> Self {
        let message = match shortage {
            Shortage::Limit(bytes) => format!(
                "the task ran out of memory: the worker may have {bytes} bytes (memory_limit), and \
                 {fate}"
            ),
            Shortage::System => format!(
                "the task ran out of memory: the system had none left and chose the worker, which \
                 {fate}"
            ),
        };
        Self::new(TaskErrorKind::OutOfMemory, message)
    }

    pub(crate) fn timed_out(timeout: Option<Duration>) -> Self {
        let timeout = timeout.unwrap_or_default();
        Self::new(
            TaskErrorKind::TimedOut,
            format!("the task ran longer than its timeout of {timeout:?} and was killed"),
        )
    }

    /// The call's deadline came while the item ran, or before that.
    pub(crate) fn deadline_exceeded(ran: bool) -> Self {
        let message = if ran {
            "the deadline of the call came while the task ran, and it was killed"
        } else {
            "the deadline of the call came before the task had begun"
        };
        Self::new(TaskErrorKind::DeadlineExceeded, message)
    }

    /// The initializer failed like this.
    pub(crate) fn initializer(cause: &Self) -> Self {
        let mut error = cause.clone();
        let inner = error.inner_mut();
        inner.kind = TaskErrorKind::Initializer;
        inner.message = match inner.message.strip_prefix("the task ") {
            // It is no task, but has panicked like one.
            Some(what) => format!("the initializer {what}"),
            None => format!("the initializer failed: {}", inner.message),
        };
        error
    }

    /// The same error of a worker whose sandbox refuses this system call, if its name is known, and
    /// which has died of that.
    pub(crate) fn of_refused_call(mut self, call: Option<&str>) -> Self {
        let inner = self.inner_mut();
        inner.message += &match call {
            Some(call) => format!(": its sandbox refuses the system call `{call}`"),
            None => {
                ": its sandbox refuses a system call whose name is not known, since it was made \
                 with signals blocked"
                    .to_owned()
            }
        };
        inner.refused_call = call.map(str::to_owned);
        self
    }

    /// The same error of a task that this worker had.
    #[must_use]
    pub fn with_worker(mut self, worker: WorkerInfo) -> Self {
        self.inner_mut().worker = Some(worker);
        self
    }

    /// The same error on the machine of this name, which is that of its worker, if one is known.
    #[must_use]
    pub fn with_machine(mut self, machine: &str) -> Self {
        let inner = self.inner_mut();
        match inner.worker.take() {
            Some(worker) => inner.worker = Some(worker.with_machine(machine)),
            None => inner.machine = Some(machine.into()),
        }
        self
    }

    /// The same error of a task whose worker has ended like this.
    #[must_use]
    pub fn with_exit(mut self, exit: ExitStatus) -> Self {
        self.inner_mut().exit = Some(exit);
        self
    }

    /// The same error with the last lines that the worker has written to standard error.
    #[must_use]
    pub fn with_stderr(mut self, stderr: impl Into<Option<String>>) -> Self {
        self.inner_mut().stderr = stderr.into();
        self
    }

    /// The same error, of the item with this index in its call.
    #[must_use]
    pub fn at_index(mut self, index: usize) -> Self {
        self.inner_mut().index = Some(index);
        self
    }

    fn inner_mut(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> TaskErrorKind {
        self.0.kind
    }

    /// Which item of its call it was, counted from 0; `None` for a call of a single task.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.0.index
    }

    /// The panic's message, where a panic was the cause: of the function, or of a `Serialize` or
    /// `Deserialize` of its types.
    #[must_use]
    pub fn panic_message(&self) -> Option<&str> {
        self.0.panic.as_ref().map(|panic| panic.message.as_str())
    }

    /// Where the panic was: `file:line:column`.
    #[must_use]
    pub fn panic_location(&self) -> Option<&str> {
        self.0.panic.as_ref()?.location.as_deref()
    }

    /// The panic's backtrace, taken in the worker. There is none where `RUST_BACKTRACE` or
    /// `RUST_LIB_BACKTRACE` is `0`.
    ///
    /// The names in it are looked up when it is read first, which takes a fraction of a second.
    #[must_use]
    pub fn backtrace(&self) -> Option<&str> {
        let backtrace = self.0.panic.as_ref()?.backtrace.as_ref()?;
        Some(self.0.resolved.get_or_init(|| backtrace.resolve()))
    }

    /// The signal that killed the worker.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.0.exit {
            Some(ExitStatus::Signal(signal)) => Some(signal),
            _ => None,
        }
    }

    /// The code that the worker exited with.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self.0.exit {
            Some(ExitStatus::Code(code)) => Some(code),
            _ => None,
        }
    }

    /// The worker that had the task.
    #[must_use]
    pub fn worker(&self) -> Option<&WorkerInfo> {
        self.0.worker.as_ref()
    }

    /// The machine that it happened on, where that is another one.
    #[must_use]
    pub fn machine(&self) -> Option<&str> {
        let of_worker = self.worker().and_then(WorkerInfo::machine);
        of_worker.or(self.0.machine.as_deref())
    }

    /// The last lines that the worker wrote to standard error before it died under the task, killed
    /// or not: at most 20 lines and 4 KiB, as text. A worker that has run many tasks may have
    /// written some of them in earlier ones.
    ///
    /// `None` where the worker lives or wrote nothing, and in pools that do not capture
    /// standard error: see [`Output`](crate::Output), of which [`tee`](crate::Output::tee) changes
    /// nothing else.
    #[must_use]
    pub fn stderr(&self) -> Option<&str> {
        self.0.stderr.as_deref()
    }

    /// The name of the system call that the worker has made, and that its
    /// [sandbox](crate::PoolBuilder#method.sandbox) refuses, if it has died of that and the name is
    /// known: see [`signal`](Self::signal), which is `SIGSYS` (31 on most processors) then. A
    /// worker that somebody has taken over may name another one.
    #[must_use]
    pub fn refused_call(&self) -> Option<&str> {
        self.0.refused_call.as_deref()
    }

    /// Whether the function panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.kind() == TaskErrorKind::Panicked
    }

    /// Whether the worker died under the task, and not for want of memory.
    #[must_use]
    pub fn is_worker_lost(&self) -> bool {
        self.kind() == TaskErrorKind::WorkerLost
    }

    /// Whether there was no memory for the task, and its worker died of that.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        self.kind() == TaskErrorKind::OutOfMemory
    }

    /// Whether the task ran out of time: of its own [`timeout`](crate::Call::timeout), or of the
    /// call's [`deadline`](crate::Call::deadline). The [kind](Self::kind) tells them apart.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(
            self.kind(),
            TaskErrorKind::TimedOut | TaskErrorKind::DeadlineExceeded
        )
    }

    /// Whether the task was cancelled, or its pool terminated.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.kind() == TaskErrorKind::Cancelled
    }

    /// Whether the pool was closed before the call.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.kind() == TaskErrorKind::Closed
    }
}

/// Two errors are the same if all that they say is the same.
impl PartialEq for TaskError {
    fn eq(&self, other: &Self) -> bool {
        let (this, other) = (&*self.0, &*other.0);
        this.kind == other.kind
            && this.message == other.message
            && this.index == other.index
            && this.panic == other.panic
            && this.exit == other.exit
            && this.refused_call == other.refused_call
            && this.worker == other.worker
            && this.machine == other.machine
            && this.stderr == other.stderr
    }
}

impl Eq for TaskError {}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Shown(&self.0.message))?;
        if let Some(location) = self.panic_location() {
            write!(f, " (at {})", Shown(location))?;
        }
        if let Some(index) = self.0.index {
            write!(f, ", item {index}")?;
        }
        if let Some(worker) = &self.0.worker {
            write!(f, ", in {worker}")?;
        }
        if let Some(machine) = &self.0.machine {
            write!(f, ", on {machine}")?;
        }
        if let Some(stderr) = self.stderr() {
            write!(f, "{}", LastLines(stderr))?;
        }
        Ok(())
    }
}

/// An error as it travels: between processes that run the same executable, for a backtrace means
/// nothing in another one.
#[derive(Serialize, Deserialize)]
#[serde(rename = "TaskError")]
struct Carried {
    kind: TaskErrorKind,
    message: String,
    index: Option<usize>,
    panic: Option<PanicReport>,
    /// That of the panic, which says so nowhere else.
    thread: Option<String>,
    exit: Option<ExitStatus>,
    refused_call: Option<String>,
    worker: Option<WorkerInfo>,
    machine: Option<Machine>,
    stderr: Option<String>,
}

impl Serialize for TaskError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = Inner::clone(&self.0);
        let carried = Carried {
            kind: inner.kind,
            message: inner.message,
            index: inner.index,
            thread: inner.panic.as_ref().and_then(|panic| panic.thread.clone()),
            panic: inner.panic,
            exit: inner.exit,
            refused_call: inner.refused_call,
            worker: inner.worker,
            machine: inner.machine,
            stderr: inner.stderr,
        };
        carried.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TaskError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Carried {
            kind,
            message,
            index,
            mut panic,
            thread,
            exit,
            refused_call,
            worker,
            machine,
            stderr,
        } = Carried::deserialize(deserializer)?;
        if let Some(panic) = &mut panic {
            panic.thread = thread;
        }
        Ok(Self(Arc::new(Inner {
            kind,
            message,
            index,
            panic,
            resolved: OnceLock::new(),
            exit,
            refused_call,
            worker,
            machine,
            stderr,
        })))
    }
}

/// What a person reads, since `main` prints it so when it returns an error; `{:#?}` has the fields.
impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        let mut debug = f.debug_struct("TaskError");
        debug
            .field("kind", &self.0.kind)
            .field("message", &Shown(&self.0.message).to_string());
        if let Some(index) = &self.0.index {
            debug.field("index", index);
        }
        if let Some(location) = self.panic_location() {
            debug.field("location", &location);
        }
        if let Some(exit) = &self.0.exit {
            debug.field("exit", exit);
        }
        if let Some(worker) = &self.0.worker {
            debug.field("worker", &worker.to_string());
        }
        if let Some(stderr) = self.stderr() {
            debug.field("stderr", &stderr);
        }
        debug.finish_non_exhaustive()
    }
}

/// The last lines of a worker's standard error, as the end of a message about its death.
pub(crate) struct LastLines<'a>(pub(crate) &'a str);

impl fmt::Display for LastLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("; the last that it wrote to standard error:")?;
        self.0
            .lines()
            .try_for_each(|line| write!(f, "\n    {}", Shown(line)))
    }
}

impl Error for TaskError {}

const _: () = {
    const fn assert<T: Send + Sync + Clone + 'static>() {}
    assert::<TaskError>();
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn carried(error: &TaskError) -> TaskError {
        let mut bytes = Vec::new();
        codec::encode(error, &mut bytes).expect("it can be encoded");
        codec::decode(&bytes).expect("it can be decoded")
    }

    #[test]
    fn an_error_arrives_as_it_was() {
        let panic = PanicReport {
            message: "no".to_owned(),
            location: Some("src/main.rs:1:2".to_owned()),
            backtrace: None,
            thread: Some("helper".to_owned()),
        };
        let worker = WorkerInfo::new(3, 1, 77).with_seed(5).with_machine("node7");
        let errors = [
            TaskError::other(TaskErrorKind::Closed, "the pool is closed"),
            TaskError::aborted(panic, "died").at_index(7),
            TaskError::worker_lost("is gone")
                .with_exit(ExitStatus::Signal(9))
                .with_worker(worker)
                .with_stderr("last words".to_owned()),
            TaskError::other(TaskErrorKind::WorkerLost, "no answer").with_machine("node8"),
        ];
        for error in &errors {
            assert_eq!(carried(error), *error);
            assert_eq!(carried(error).to_string(), error.to_string());
        }
        assert_eq!(errors[2].machine(), Some("node7"));
        assert_eq!(errors[3].machine(), Some("node8"));
        let text = errors[2].to_string();
        assert!(text.contains("PoolWorker-3 (pid 77) on node7"), "{text}");
        assert!(errors[3].to_string().ends_with("no answer, on node8"));
    }

    #[test]
    fn a_machines_name_does_nothing_to_a_terminal() {
        let error = TaskError::worker_lost("is gone").with_machine("\u{1b}[2J");
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
