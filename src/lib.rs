//! Python's `multiprocessing.Pool` for Rust: run a function over data in other *processes*.
//!
#![cfg_attr(feature = "spawn", doc = "```no_run")]
#![cfg_attr(not(feature = "spawn"), doc = "```ignore")]
//! use procpool::{Pool, ProcessPool};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     procpool::init(); // first line: the workers are this program, started again
//!     let pool = ProcessPool::builder().processes(3).build()?;
//!     let squares = pool.map(|x: u64| x * x, 0..10)?;
//!     assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
//!     Ok(())
//! }
//! ```
//!
//! Processes give what threads cannot: a crash (a segmentation fault in a C library, an abort, the
//! kernel's out-of-memory killer) costs one task and not the program; a task can be killed at its
//! deadline; libraries that are not thread-safe run side by side; memory is really given back. A
//! program that needs none of that is better served by threads, for instance those of rayon.
//!
//! - [Concepts](#concepts)
//! - [What can travel](#what-can-travel)
//! - [Calls](#calls)
//! - [Large data](#large-data)
//! - [Failure](#failure)
//! - [Choosing a backend](#choosing-a-backend)
//! - [Workers](#workers)
//! - [Watching](#watching)
//! - [Performance](#performance)
//! - [Testing your own code](#testing-your-own-code)
//! - [Questions](#questions)
//!
//! # Concepts
//! - A **pool** has **workers**, each a process. [`Pool`] is the trait that all pools share, and
//!   must be in scope. Code that is generic over `P: Pool` runs on every kind of pool, also on
//!   [`SerialPool`], which has no workers and runs everything in the caller.
//! - A **task** is a function and its argument. Several arguments are a tuple. The **function** is
//!   a function item or a closure that captures nothing, for only its name travels. A closure that
//!   captures does not compile, and the message says what to do: what it needs besides its item is
//!   the call's [context](Call::context).
//! - **Arguments and results** are `Serialize + DeserializeOwned`, and travel through shared
//!   memory. Vectors of numbers, of bytes, and strings are copied as they are, without serde. A few
//!   types need a wrapper: see [What can travel](#what-can-travel).
//! - Many **items** with the same function travel in **chunks**, whose size follows the time that
//!   items take.
//! - Every call **ends**: with its value, or with a [`TaskError`] that says why there is none.
//!
//! # What can travel
//! Any type that serde carries, in a compact form without names. What it refuses is an error of the
//! task, of the kind `Encode` or `Decode`, that says what to do:
//!
//! | refused | why | instead |
//! |---|---|---|
//! | `#[serde(flatten)]`, `#[serde(untagged)]`, `#[serde(tag = "..")]`, also with `content` | the form does not say what it is | `Json` (feature `json`) |
//! | `serde_json::Value`, values of other formats | the same | `Json`, or the text of the format |
//! | `#[serde(skip_serializing_if = "..")]` on a field | the reader expects the field | `Json` |
//! | `PathBuf` and `Path` that are not UTF-8 | serde writes them as text | `OsString` |
//! | values that borrow: `&str`, `&[u8]`, `Cow` that must borrow | nothing of the caller's memory is there | `String`, `Vec<u8>` |
//! | errors: `std::io::Error`, `Box<dyn Error>`, `anyhow::Error` | serde does not carry them | [`RemoteError`] |
//! | `Rc`, `Arc` | serde needs its feature `rc`, and each arrives as a copy | a [`Broadcast`] of what many share |
//! | closures, function pointers, channels, locks, handles of calls | they mean nothing in another process | what it takes to make them there |
//! | more than 256 values inside each other, such as a long linked list | a worker's bytes must not use up the stack | a `Vec` with indices |
//! | more than [`max_result_bytes`](PoolBuilder::max_result_bytes) | a limit of your choice | a `Broadcast`, a file |
//!
//! serde keeps a few things from the form, so it cannot refuse them. Use `Json` for them too:
//! `skip_serializing_if` in a *tuple* struct or variant; a field with `skip_serializing` and without
//! `skip_deserializing`, or the reverse; `#[serde(skip)]` on a variant with others behind it.
//!
//! # Calls
//! | | waits | in the background | lazily |
//! |---|---|---|---|
//! | one item | [`apply`](Pool::apply) | [`apply_async`](Pool::apply_async) | |
//! | many, in order | [`map`](Pool::map), [`try_map`](Pool::try_map) | [`map_async`](Pool::map_async) | [`imap`](Pool::imap) |
//! | many, as they finish | | | [`imap_unordered`](Pool::imap_unordered) |
//! | one item, many values | | | [`call(f).stream(item)`](Call::stream): what the task emits while it runs |
//!
//! [`call`](Pool::call) takes options: a deadline, retries, the size of chunks, how far to read
//! ahead, metrics.
//!
#![cfg_attr(feature = "spawn", doc = "```no_run")]
#![cfg_attr(not(feature = "spawn"), doc = "```ignore")]
//! # use procpool::{Pool, ProcessPool};
//! # use std::time::Duration;
//! # procpool::init();
//! # let pool = ProcessPool::new().unwrap();
//! # fn parse(path: String) -> usize { path.len() }
//! # let paths: Vec<String> = Vec::new();
//! let call = pool.call(parse).timeout(Duration::from_secs(5)).retries(1);
//! for outcome in call.imap_unordered(paths) {
//!     match outcome {
//!         Ok(document) => println!("{document}"),
//!         Err(error) => eprintln!("{error}"), // this one; the others go on
//!     }
//! }
//! ```
//!
//! Handles of the calls in the background are futures, under any runtime and without a thread for
//! each call; with the feature `stream`, what `imap` and `stream` return becomes a stream
//! (`into_stream`).
//!
//! With the feature `progress`, a call of any kind shows on a bar of the crate indicatif how far it
//! is: `pool.call(parse).progress(progress::bar()).map(paths)` prints, where there is a terminal,
//! ```text
//!  52% ━━━━━━━━━━━━━━━━━━━━━━━╸───────────────────── 790/1,500 579/s 0:01, 0:01 left  9 failed
//! ```
//!
//! # Large data
//! What many tasks need, such as a table or a model, goes into shared memory once, and a handle of
//! it into each argument:
//!
#![cfg_attr(feature = "spawn", doc = "```no_run")]
#![cfg_attr(not(feature = "spawn"), doc = "```ignore")]
//! # use procpool::{Broadcast, Pool, ProcessPool};
//! # procpool::init();
//! # let pool = ProcessPool::new().unwrap();
//! let table = pool.broadcast(vec![0.5; 1 << 27])?; // 1 GiB
//! let look = |(table, at): (Broadcast<[f64]>, usize)| table[at];
//! let found = pool.map(look, (0..1000).map(|at| (table.clone(), at)));
//! # Ok::<(), procpool::BroadcastError>(())
//! ```
//!
//! Numbers and text are read where they lie, without a copy in any worker; another type is decoded
//! once in each. [`Broadcast::filled`] has them written there in the first place; a task that
//! returns such a handle gives a large result to the parent without a copy. The memory is freed
//! when the last handle goes: see [`Broadcast`]. What was built before a `ForkPool` needs none of
//! this: it is simply there, and is not copied.
//!
//! # Failure
//! A task that panics costs nothing: the error carries message, place and backtrace, and the worker
//! prints nothing. A task whose worker dies (a crash, `exit`, a signal) ends as
//! [`TaskErrorKind::WorkerLost`] with the signal or the exit code, the worker is replaced, and no
//! other task notices: in a chunk of a hundred items of which one crashes, ninety-nine have values.
//! A deadline counts from the start of an item's run, and kills. In [`map`](Pool::map) the error of
//! the lowest failing index is returned; [`try_map`](Pool::try_map) gives each item's own result.
//!
#![cfg_attr(feature = "spawn", doc = "```no_run")]
#![cfg_attr(not(feature = "spawn"), doc = "```ignore")]
//! # use procpool::{Pool, ProcessPool};
//! # procpool::init();
//! # let pool = ProcessPool::new().unwrap();
//! let error = pool
//!     .apply(|code: i32| -> () { std::process::exit(code) }, 42)
//!     .unwrap_err();
//! assert!(error.is_worker_lost());
//! assert_eq!(error.exit_code(), Some(42));
//! ```
//!
//! | [`kind`](TaskError::kind) | what happened | is tried again by `retries` |
//! |---|---|---|
//! | `Panicked` | the function panicked; its worker lives on, unless the panic could not be unwound | no |
//! | `State` | what makes the function's [`state`](Call::state) in the worker panicked | no |
//! | `WorkerLost` | its worker died while it ran | yes |
//! | `OutOfMemory` | its worker died for want of memory: its [`memory_limit`](PoolBuilder::memory_limit), or the system's | yes |
//! | `TimedOut` | it ran longer than its `timeout`, and was killed | yes |
//! | `DeadlineExceeded` | the [`deadline`](Call::deadline) of its call came | no |
//! | `Cancelled` | `cancel`, `kill`, or the pool was terminated | no |
//! | `Encode`, `Decode` | the argument or the result cannot be carried | no |
//! | `Closed` | the pool was closed before | no |
//! | `Initializer`, `Launch` | no worker can be got going, so the pool has ended | no |
//!
//! [`Call::retry_if`] and [`Call::retry_errors`] choose for themselves what is tried again, a panic
//! for instance, and [`Call::backoff`] when.
//!
//! A function that returns an `Err` returns a value, like any other. Where serde does not carry its
//! error, [`RemoteError`] does, and `?` converts into it. [`FlattenErrors`] makes one error of the
//! function's and the task's:
//!
//! ```
//! use procpool::{FlattenErrors, Pool, RemoteError, SerialPool};
//!
//! fn parse(text: String) -> Result<u64, RemoteError> {
//!     Ok(text.parse()?)
//! }
//!
//! for outcome in SerialPool::new().imap(parse, ["1".to_owned(), "one".to_owned()]) {
//!     match outcome.flatten_errors() {
//!         Ok(number) => println!("{number}"),
//!         Err(error) => eprintln!("{error}"), // of the function, or of the task
//!     }
//! }
//! ```
//!
//! `docs/reliability.md` in the
//! repository lists what is promised, how it is kept, and the test that proves it.
//!
//! # Choosing a backend
//! | feature | pool | workers | choose it |
//! |---|---|---|---|
//! | `spawn` (default) | `SpawnPool` | this executable, executed again | by default: it does not matter what threads the program has |
//! | `fork` (default) | `ForkPool` | forked from a single-threaded *fork server* | for what was set up before and is costly to set up again: it is simply there |
//! | `cluster` | `ClusterPool` | on other machines, each under an *agent*: this executable, started there | when one machine is not enough (young) |
//! | none needed | [`SerialPool`] | none: it runs tasks in the caller | for tests and debugging |
//!
//! [`AnyPool`] is one of `SpawnPool`, `ForkPool` and [`SerialPool`], chosen at run time.
//!
//! Features only add. `ProcessPool` is another name of `SpawnPool` and comes with the feature
//! `spawn`. It never means `ForkPool`: cargo builds a crate once, with the features that all its
//! users ask for together, so a name that depended on the absence of a feature would change its
//! meaning when some other crate enables it. A program with the feature `fork` alone names
//! `ForkPool`.
//!
//! A `ForkPool` that is built while the program has one thread needs nothing. A program with
//! threads, or with several such pools, starts the server first, as `let server =
//! ForkServer::start()?` right after [`init`], and gives it to each builder:
//! `ForkPool::builder().fork_server(&server)`.
//!
//! What is open when the server starts, it has open as well, and so have its workers, until the
//! last pool that uses it has ended: the reader of a pipe sees no end of file though the program
//! has closed its end, a port cannot be bound again, a file stays locked (`flock`). To close it in
//! the program does not help. So start the server before you open such things, or use a
//! `SpawnPool`, whose workers have none of them (unless a descriptor is without the flag
//! close-on-exec, which the standard library sets).
//!
//! # Workers
//! A builder has options for what workers are:
//!
//! | | |
//! |---|---|
//! | what they do first and last | `initializer`, `finalizer`; `after_fork` of a `ForkPool` |
//! | what they live in | `env`, `env_remove`, `env_clear`, `current_dir`, `nice`, `memory_limit`, `rlimit` (see [`Resource`]), `pin_cpus` |
//! | what they cannot do | `sandbox`, with the feature of that name: files, network, processes |
//! | who hears of that, and what else is shut | `on_refused_call`, `protect_parent` |
//! | when they are replaced | `max_tasks_per_child`, `max_memory_per_child`, `max_age`; the new one is ready before the old one goes |
//! | how many there are | `processes`, and with `idle_timeout` fewer, down to `min_processes`, while there is little to do; [`resize`](Pool::resize) |
//! | what becomes of what they print | `stdout`, `stderr` (see [`Output`]) |
//! | hooks | `on_worker_start`, `on_worker_death` (see [`ExitReason`]) |
//!
//! The initializer may return a `Result`. [`build`](PoolBuilder::build) waits for it in all workers,
//! and fails with its reason if one fails. In a task, [`worker::current`] says which worker runs it.
//!
//! A forked worker is a copy of the program as it was when its server started, and a generator of
//! random numbers that had been used by then draws the same numbers in all of them. The initializer
//! runs in each new worker, on either backend, and [`WorkerInfo::seed`] is another number in each:
//!
#![cfg_attr(feature = "spawn", doc = "```no_run")]
#![cfg_attr(not(feature = "spawn"), doc = "```ignore")]
//! use procpool::{Pool, ProcessPool, worker};
//! use std::cell::Cell;
//!
//! thread_local!(static GENERATOR: Cell<u64> = const { Cell::new(1) });
//!
//! fn seed_generator(_: ()) {
//!     // In a `SerialPool` there is no worker, and any seed will do.
//!     GENERATOR.set(worker::current().map_or(1, |worker| worker.seed()));
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     procpool::init();
//!     let pool = ProcessPool::builder().initializer(seed_generator, ()).build()?;
//!     // ...
//!     Ok(())
//! }
//! ```
//!
//! What a generator of a library's own is seeded with, or what else a copy must not share with its
//! siblings, is set right in each forked worker by
//! [`after_fork`](PoolBuilder::after_fork) of a `ForkPool`'s builder.
//!
//! Besides, a worker has the program's command line (its [`args`](std::env::args), for a task that
//! asks), and an empty standard input, `/dev/null`: what is written to the program's, only one
//! process can read in order. Programs that tasks start inherit that, and all that the table above
//! names. When memory runs out, the system ends workers before the program (their `oom_score_adj`
//! is 300 more).
//!
//! Workers never outlive the program, however it ends, and take what their tasks have started with
//! them. The terminal's Ctrl-C reaches the program alone.
//!
//! # Watching
//! | to see | there is |
//! |---|---|
//! | how far a call is | `call(f).progress(bar)`, with the feature `progress` (indicatif) |
//! | what tasks print | [`Output::lines`], each with its worker's name; [`TaskError::stderr`] has the last lines of a worker that crashed |
//! | what tasks log | `forward_events` of a builder, with the feature `tracing`: events arrive in the program's subscriber, in the span that the call was made in |
//! | all of that in a browser | `serve_dashboard`, with the feature `dashboard`: workers, calls, failures, stacks |
//! | all of that in a terminal | the command `procpool top`, of the package `procpool-cli`, and `allow_inspection`, with the feature `inspect` |
//! | figures for Prometheus and others | `metrics::record`, with the feature `metrics` |
//! | what happens, in a program | [`observe`](Pool::observe), and [`downgrade`](Pool::downgrade) for who only looks |
//! | a trace from the caller through the workers | `forward_spans` of a builder, with the feature `tracing`: each call and each item is a span, for OpenTelemetry and others |
//! | what the pool did | [`stats`](Pool::stats): items by outcome, bytes, why workers ended, what each worker did |
//! | what an item took | [`call(f).measured()`](Call::measured): waiting, encoding, running, processor time, memory, worker, attempt |
//! | what is going on now | [`dump`](Pool::dump): each worker's task, since when, and where in the program it is |
//! | what happened when | [`trace_to`](Pool::trace_to): a file for Chrome's and Perfetto's viewers, and for the command `procpool timeline` |
//!
//! # Performance
//! A task that is alone costs about a microsecond while both sides are awake, and two wake-ups by
//! the kernel (some tens of microseconds) when they sleep. Tasks that are queued cost less, and
//! items of a `map` some nanoseconds, since they travel in chunks: prefer one `map` to many
//! `apply_async`. An item should take longer than a hundred nanoseconds to be worth sending to
//! another process at all. A large vector of numbers costs two copies each way.
//!
//! An idle pool makes no context switch. A forked worker takes a hundred kilobytes and is ready in
//! less than a millisecond; a spawned one takes two hundred and is ready in one or two.
//! `docs/performance.md` in the repository says what things cost and why.
//!
//! # Testing your own code
//! Write it for `P: Pool` and test it with [`SerialPool`], where a debugger and a coverage tool see
//! everything. To test it with real processes, say
//! [`init_before_main!`]`(fork_server);` once in the test file (or, for unit tests, in the crate
//! root under `#[cfg(test)]`): the harness of `#[test]` has a `main` of its own. Both backends work
//! then, under `cargo test` and nextest.
//!
//! ```
//! use procpool::{Pool, SerialPool, TaskError};
//!
//! fn total<P: Pool>(pool: &P, items: Vec<u64>) -> Result<u64, TaskError> {
//!     Ok(pool.map(|x: u64| x * x, items)?.into_iter().sum())
//! }
//!
//! assert_eq!(total(&SerialPool::new(), vec![1, 2, 3]).unwrap(), 14);
//! ```
//!
//! # Questions
//! **Why does `build` say that `init()` is missing?** A `SpawnPool`'s workers are this program.
//! Without [`init`] as the first line of `main` they would run `main` again instead of tasks; they
//! find that out, and say so.
//!
//! **My crate is a library. Who calls `init`?** Say [`init_before_main!`]`();` in it, and its users
//! need not know.
//!
//! **Can a plugin or a Python extension have a pool?** Yes: a shared object has a copy of this crate
//! and pools of its own. It says [`init_before_main!`]`();` too; see `docs/libraries.md` in the
//! repository.
//!
//! **How do I keep state between tasks?** By [`Call::state`]: a value of any type that each worker
//! makes once, and which the function gets as `&mut`. [`Call::state_from`] makes it from a value of
//! yours. Tasks that need the same state meet it by [`Call::on_worker`].
//!
//! **Can a task use the pool?** A worker has no access to the pool that it belongs to. It may build
//! one of its own.
//!
//! **Can I send a closure that captures?** No, but what it would capture: as [`Call::context`].
//!
//! **How large is a task's stack?** As that of the program's first thread, 8 MiB on most systems
//! (`ulimit -s`). It is fixed when a program is executed, so there is no option for it. A task that
//! needs more of it runs in a thread of its own:
//!
//! ```
//! use procpool::{Pool, SerialPool};
//! use std::thread;
//!
//! fn depth(levels: u64) -> u64 {
//!     if levels == 0 { 0 } else { 1 + depth(levels - 1) }
//! }
//!
//! let task = |levels: u64| {
//!     let thread = thread::Builder::new().stack_size(256 << 20);
//!     let running = thread.spawn(move || depth(levels)).expect("there is memory");
//!     running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
//! };
//! assert_eq!(SerialPool::new().apply(task, 100_000), Ok(100_000));
//! ```
//!
//! **Can I send a file, a socket, a channel?** No. Send what it takes to make it there.
//!
//! **I have closed a pipe, a socket, a lock. Why does nobody notice?** A fork server that was
//! started while it was open has it open too: start the server earlier, or say which descriptors it
//! keeps (`keep_fds` of a `ForkPool`'s builder). See [Choosing a backend](#choosing-a-backend).
//!
//! **Why do all workers draw the same random numbers?** They are copies: see [Workers](#workers).
//!
//! **Is this a sandbox?** A worker cannot harm the program by what it sends, nor other tasks by
//! dying. But it is a process of the same user, with the same files and network, unless the
//! builder's `sandbox` (a feature) takes them away: see `docs/sandbox.md`.
//!
//! **Can tasks run on other machines?** With the feature `cluster` there is a `ClusterPool`, whose
//! agents are this program on each machine; it is young (`docs/cluster.md`). Pools of one's own
//! have all that they need in [`executor`]. The calls stay the same.
//!
//! **What if the program forks itself, with `fork(2)`?** Pools belong to the process that built
//! them. A child has copies that refuse tasks.
//!
//! **Where do I see what each method of Python is here?** In `docs/from-python.md` in the
//! repository; `docs/tokio.md` is about tokio, `docs/comparison.md` about other crates.
//!
//! # Platform
//! Linux, 5.11 or later. On macOS and FreeBSD a `SpawnPool` compiles, and was run with the same parts
//! of the system on Linux, but never there. On Windows there is [`SerialPool`]. Where a pool cannot
//! be had, its `build` says so. `docs/systems.md` in the repository has what is different.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod any_pool;

pub use any_pool::AnyPool;
#[cfg(feature = "cluster")]
pub use procpool_cluster::{AgentInfo, ClusterPool, ClusterPoolBuilder, Storage};
#[cfg(feature = "json")]
pub use procpool_core::Json;
#[cfg(feature = "progress")]
pub use procpool_core::progress;
pub use procpool_core::{
    Backoff, Broadcast, BroadcastError, BuildError, BuildErrorKind, Call, CallError, CallStatus,
    Cancel, Deadline, Disconnected, Dump, Emitter, ExitReason, ExitStatus, Fd, FlattenErrors,
    Handle, Imap, ImapLocal, ImapMeasured, ImapMeasuredLocal, InitializerOutcome, IntoBroadcast,
    JoinError, JoinFuture, MapHandle, Measured, MeasuredCall, MeasuredHandle, Observe, Observer,
    Output, OutputLine, OutputStream, Pool, PoolBuilder, PoolEvent, Portable, QueueFull,
    RemoteError, ResizeError, Resource, SerialPool, Shareable, Stateless, Stats, StopHandle,
    StreamHandle, TaskError, TaskErrorKind, TaskHandle, TaskMetrics, Trace, WeakPool, WorkerExit,
    WorkerInfo, WorkerPool, WorkerStats, remote_errors,
};
#[cfg(feature = "stream")]
pub use procpool_core::{ImapStream, ValueStream};
#[cfg(feature = "fork")]
pub use procpool_fork::{ForkPool, ForkPoolBuilder, ForkServer, StartError};
#[cfg(feature = "sandbox")]
pub use procpool_sandbox::Sandbox;
#[cfg(feature = "spawn")]
pub use procpool_spawn::{SpawnPool, SpawnPoolBuilder};

/// A page in the browser that shows a pool at work.
///
/// ```no_run
/// use procpool::{Pool, ServeDashboard, SerialPool};
///
/// let pool = SerialPool::new();
/// let dashboard = pool.serve_dashboard("127.0.0.1:0")?;
/// println!("see {dashboard}");
/// # Ok::<(), std::io::Error>(())
/// ```
#[cfg(feature = "dashboard")]
pub mod dashboard {
    #[doc(inline)]
    pub use procpool_dashboard::{Dashboard, DashboardOptions, ServeDashboard};
}
#[cfg(feature = "dashboard")]
pub use procpool_dashboard::ServeDashboard;

/// What a [`Dump`] consists of.
pub mod dump {
    pub use procpool_core::{Dump, KernelState, RunningTask, WorkerDump, WorkerState};
}

/// The command `procpool` can look into a running program's pools: `procpool top PID`,
/// `procpool dump PID`.
///
/// ```no_run
/// use procpool::{AllowInspection, Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// let inspection = pool.allow_inspection("thumbnails")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[cfg(feature = "inspect")]
pub mod inspect {
    #[doc(inline)]
    pub use procpool_inspect::{AllowInspection, InspectedPool, Inspection, Snapshot, pools};
}
#[cfg(feature = "inspect")]
pub use procpool_inspect::AllowInspection;

/// Figures of a pool for Prometheus and others, by the `metrics` facade.
#[cfg(feature = "metrics")]
pub mod metrics {
    pub use procpool_metrics::{Recorder, record};
}

/// What a worker in a [`Sandbox`] can still do, and what becomes of one that wants more.
#[cfg(feature = "sandbox")]
pub mod sandbox {
    pub use procpool_sandbox::{PreparedSandbox, Refusal, SandboxError, current, syscall_name};
}

/// For pools of one's own: what runs the calls that [`Pool`] makes, on threads, in processes or on
/// other machines. [`Executor`](executor::Executor) is where to begin.
pub mod executor {
    pub use procpool_core::{
        BroadcastContent, BuildId, CallId, Callbacks, Cancel, CancelFlag, Chunk, ChunkOptions,
        Chunking, Completion, ContentId, EncodedChunk, Executor, FunctionId, ItemCounts, OpenInput,
        Outcome, Refused, Submitted, Tracer, build_id,
    };
}

/// What code names that is generic over calls, their handles and their iterators.
pub mod generic {
    #[cfg(feature = "stream")]
    pub use procpool_core::ImapLocalStream;
    pub use procpool_core::{Collect, FromOutcome, ItemOutcome, Mode, Plain, WithMetrics};
}

/// For backends of one's own: how one worker process is started and reached.
///
/// A backend has four parts:
/// - a [`Backend`](backend::Backend): the settings, which `build` makes a launcher of;
/// - a [`Launcher`](backend::Launcher), which starts one worker after the other. Its documentation
///   has the order of the calls and the contract: begin there;
/// - a [`WorkerHandle`](backend::WorkerHandle) for each worker: its memory, its descriptors, its
///   end;
/// - in the worker, calls of [`bind_to_parent`](backend::bind_to_parent),
///   [`prepare_process`](backend::prepare_process), [`inherit`](backend::inherit) (what a worker
///   in a sandbox closes) and, at last, [`serve`](backend::serve), which is `unsafe`: the worker
///   trusts its memory.
///
/// A pool of such workers is a [`WorkerPool`]. The crate `procpool-conformance` tests it.
pub mod backend {
    pub use procpool_core::worker::{
        bind_to_parent, forward_events_to, inherit, prepare_process, serve,
    };
    pub use procpool_core::{
        Backend, LaunchError, LaunchSpec, Launcher, PROTOCOL_VERSION, Readiness, Region,
        WorkerHandle, after_fork_in_child, build_identity,
    };
}

/// What a task knows of the worker that runs it.
pub mod worker {
    pub use procpool_core::worker::{WorkerInfo, current, is_cancelled};
}

/// The pool of processes to use unless there is a reason for another one.
///
/// It is the same pool whatever other features are on. A program that has the feature `fork`
/// alone names `ForkPool`.
#[cfg(feature = "spawn")]
pub type ProcessPool = SpawnPool;

/// What a [`ProcessPool`] is built by.
#[cfg(feature = "spawn")]
pub type ProcessPoolBuilder = SpawnPoolBuilder;

#[doc(hidden)]
pub mod before_main;

/// Makes this program able to be a worker: the first line of `main`.
///
/// The workers of a `SpawnPool` are this executable, executed again. In a worker this function
/// becomes the worker and never returns; in the program itself it returns at once. Whatever
/// stands before it in `main` runs in every worker too. Without the feature `spawn` it does
/// nothing.
///
/// ```
/// // fn main() {
/// procpool::init();
/// // the program
/// // }
/// ```
#[track_caller]
pub fn init() {
    #[cfg(feature = "spawn")]
    procpool_spawn::init();
    #[cfg(feature = "cluster")]
    procpool_cluster::init();
}
