//! What a pool of processes is built by: the options that all of them have.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::WorkerPool;
use crate::backend::config::PoolConfig;
use crate::backend::launcher::{Backend, Executing, ForkServing};
use crate::backend::worker_options::WorkerOptions;
use crate::engine::Engine;
use crate::error::build_error::BuildError;
use crate::error::build_error::BuildErrorKind;
use crate::observe::output::Output;
use crate::observe::worker_exit::WorkerExit;
use crate::process::worker_info::WorkerInfo;
use crate::sys;
use crate::sys::fd::BorrowedFd;
use crate::value::portable::Portable;
use crate::worker::Resource;
use crate::worker::function::{Stateless, assert_captures_nothing};
use crate::worker::initializer::InitializerOutcome;

/// The options of a [`WorkerPool`] whose workers a backend `B` starts.
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder<B> {
    config: PoolConfig,
    backend: B,
}

impl<B: Backend> PoolBuilder<B> {
    /// All options at their defaults, and workers from this backend.
    pub fn with_backend(backend: B) -> Self {
        Self {
            config: PoolConfig::default(),
            backend,
        }
    }

    /// How many workers there are. Without it, as many as
    /// [`available_parallelism`](std::thread::available_parallelism) says.
    pub fn processes(mut self, processes: usize) -> Self {
        self.config.set_processes(processes);
        self
    }

    /// All that these options are about, in place of what was said before this: for a pool that
    /// is built of another process's options.
    #[doc(hidden)]
    pub fn with_worker_options(mut self, options: WorkerOptions) -> Self {
        self.config.workers = options;
        self
    }

    /// A function to run once in each worker before its first task, replacements included.
    ///
    /// The argument travels to each worker. The function returns nothing, or a `Result<(), E>` of
    /// any error that can be shown. It fails by such an error, a panic, an exit or a crash:
    ///
    /// - While the pool is built, [`build`](Self::build) waits for it in all workers, and fails
    ///   with the reason if one fails.
    /// - In a replacement, it is tried again in a new worker. After a few failures in a row the
    ///   pool gives up, and every task fails with the reason, with an error of kind `Initializer`.
    ///
    /// `build` waits no longer than the [`launch_timeout`](Self::launch_timeout) for initializers.
    /// Those that take longer go on; tasks wait until there is a worker that is through.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// # fn with<B: procpool::Backend>(builder: procpool::PoolBuilder<B>) -> procpool::PoolBuilder<B> {
    /// use std::sync::OnceLock;
    ///
    /// static WORDS: OnceLock<String> = OnceLock::new();
    ///
    /// fn read_words(path: String) -> std::io::Result<()> {
    ///     let words = std::fs::read_to_string(path)?;
    ///     WORDS.set(words).expect("it runs once in each worker");
    ///     Ok(())
    /// }
    ///
    /// builder.initializer(read_words, "/usr/share/dict/words".to_owned())
    /// # }
    /// ```
    pub fn initializer<F, A, R>(mut self, initializer: F, argument: A) -> Self
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: InitializerOutcome,
    {
        const { assert_captures_nothing::<F>() };
        self.config.workers.set_initializer(initializer, &argument);
        self
    }

    /// A function to run in a worker that leaves in good order: because the pool was
    /// closed or the worker has used up its tasks. Not in one that is killed.
    pub fn finalizer<F: Fn() + Stateless>(mut self, finalizer: F) -> Self {
        const { assert_captures_nothing::<F>() };
        self.config.workers.set_finalizer(finalizer);
        self
    }

    /// How many tasks a worker runs before a new one takes its place; a chunk of items
    /// counts as one task. Without it, no limit.
    pub fn max_tasks_per_child(mut self, tasks: u64) -> Self {
        self.config.workers.set_max_tasks_per_child(tasks);
        self
    }

    /// The size in bytes of the two rings of shared memory that each worker has, one each
    /// way; rounded up to a power of two, from 4 KiB to 1 GiB. Without it, 256 KiB. Larger
    /// messages stream through it in pieces.
    pub fn ring_capacity(mut self, bytes: usize) -> Self {
        self.config.workers.set_ring_capacity(bytes);
        self
    }

    /// How many bytes the encoded result of one task may have. Without it, 4 GiB.
    ///
    /// A longer result is an error of kind `Encode`; the task runs, and its worker lives on. The
    /// limit protects the parent from tasks that return too much by mistake, and from workers that
    /// went wrong. A result in shared memory (a [`Broadcast`](crate::broadcast::Broadcast)) counts
    /// with the bytes of its handle.
    pub fn max_result_bytes(mut self, bytes: u64) -> Self {
        self.config.workers.set_max_result_bytes(bytes);
        self
    }

    /// How many tasks wait in the pool's queue before [`apply_async`](crate::Pool::apply_async)
    /// waits until there is room, and [`try_apply_async`](crate::Pool::try_apply_async) refuses.
    /// Without it, as many as there is memory for.
    ///
    /// It is for services: what comes faster than it can be done is held back or turned away, and
    /// does not wait in memory.
    ///
    /// - Tasks that a worker was handed do not count: the one that it runs, and at least one behind
    ///   that; of quick tasks, as many as take 400 µs.
    /// - Each thread that submits meanwhile may add one more than this.
    /// - A chunk of a map counts as one, but no map waits for room: `map` and `imap` read no
    ///   further [ahead](crate::Call::buffer) than workers need, and `map_async` takes all of its
    ///   input at once. `apply` has a thread that waits anyway.
    /// - The wait ends with the pool, too: when it is closed or terminated, the task ends as
    ///   [`Closed`](crate::TaskErrorKind::Closed).
    ///
    /// A thread that must not wait, such as one of an async runtime, takes `try_apply_async`.
    pub fn max_queued(mut self, tasks: usize) -> Self {
        self.config.set_max_queued(tasks);
        self
    }

    /// How long a worker may take to start before the launch counts as failed, and how long
    /// [`build`](Self::build) waits for [initializers](Self::initializer). Without it, 10 seconds.
    pub fn launch_timeout(mut self, timeout: Duration) -> Self {
        self.config.workers.set_launch_timeout(timeout);
        self
    }

    /// What becomes of what workers write to standard output: inherited, discarded, or captured
    /// line by line. Without it, it goes where the program's goes.
    pub fn stdout(mut self, output: Output) -> Self {
        self.config.set_stdout(output);
        self
    }

    /// The same for standard error. Where it is captured, the error of a lost task has the last
    /// lines of it: `Output::tee()` passes everything on and does that.
    pub fn stderr(mut self, output: Output) -> Self {
        self.config.set_stderr(output);
        self
    }

    /// Replays the workers' `tracing` events to the subscriber that is current where the pool
    /// is built (or, if there is none, to the global one). They get the fields `worker`, `pid`,
    /// `task` (the function's name) and `spans` (those that the event was in there, with their
    /// fields). Needs the feature `tracing`.
    ///
    /// Events have the level, target, place and fields that they had in the worker, so that
    /// filters work on them. An event of a task belongs to the span that the call was made in,
    /// as if the caller had emitted it: within `request{id=7}`, the usual subscriber prints
    /// `request{id=7}: …`. (That is the current span of the calling thread in that subscriber;
    /// for `imap`, where `imap` was called. If no subscriber was current where the pool was
    /// built, the event goes to the span's own.) The pool keeps the span open until the call is
    /// done and its events are replayed, not longer. Threads that a task starts belong to it
    /// while they are in a span of the task's. Events that come after the task has its outcome,
    /// or after it was killed, belong to no span, as do events outside of tasks.
    ///
    /// Those of a level that no subscriber of the program wants when a worker is
    /// started are not even sent. Records of `log` come, too, if the worker has the usual
    /// bridge, `tracing_log::LogTracer`, from the initializer, say.
    ///
    /// Tasks never wait for it. What does not fit into the worker's pipe, or while a few MiB of
    /// events wait for the subscriber, is dropped and counted: an event of the target
    /// `procpool::worker` says how many were, and `Stats::events_dropped` has the sum. Long
    /// texts are cut (the message at 2 KiB), and an event that has lost something has the field
    /// `cut`.
    ///
    /// In the worker, this is the subscriber of the thread that tasks run on, before any global
    /// one; and the global one as well, unless a forked worker has inherited one. An
    /// initializer must therefore not *insist* on a global one of its own, as
    /// `tracing_subscriber`'s `init` does: `try_init`.
    #[cfg(feature = "tracing")]
    pub fn forward_events(mut self) -> Self {
        self.config.set_forward_events();
        self
    }

    /// [Forwards events](Self::forward_events), and spans with them, so that a trace goes from the
    /// caller through the worker: each call is a span in the one that it was made in, each item is
    /// a span in its call's, and spans that tasks open are spans in their item's. Needs the feature
    /// `tracing`.
    ///
    /// The spans `call` and `item`, of the target `procpool` and the level INFO, have fields that
    /// layers for OpenTelemetry know: `otel.name` is the [name](crate::Call::name) of the call or
    /// the function's, `code.function.name` the function's, `process.pid` the worker's, and
    /// `procpool.item.index` says which item of its call it is, counted from 0. An item that
    /// panics, or whose worker dies, has `otel.status_code` and `error.type`.
    ///
    /// A span begins and ends here when the worker says so: what it took is right but for the time
    /// that the word needs, which is some microseconds while this process is idle, and more while
    /// it is busy. Spans cost a task some microseconds each; what does not fit is dropped and
    /// counted as events are.
    #[cfg(feature = "tracing")]
    pub fn forward_spans(mut self) -> Self {
        self.config.set_forward_spans();
        self
    }

    /// Sets a variable of the environment in each worker, before its initializer runs; as
    /// [`Command::env`](std::process::Command::env).
    ///
    /// All that workers set up for themselves ([`env`](Self::env),
    /// [`current_dir`](Self::current_dir), [`nice`](Self::nice), [`rlimit`](Self::rlimit),
    /// [`pin_cpus`](Self::pin_cpus)) is done in each of them, replacements included. Where that
    /// fails, [`build`](Self::build) does, and says why; later, when a replacement fails a few
    /// times in a row, the pool gives up. The environment can only be changed in a worker that
    /// has one thread: a program must not start others before [`init`]. (Where there is no Linux,
    /// workers are started with it, and the system's loader sees it, too.)
    ///
    /// [`init`]: https://docs.rs/procpool/latest/procpool/fn.init.html
    pub fn env<K, V>(mut self, key: K, value: V) -> Self
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.config
            .workers
            .set_env(key.as_ref(), Some(value.as_ref()));
        self
    }

    /// Removes a variable from the environment of each worker; as
    /// [`Command::env_remove`](std::process::Command::env_remove).
    pub fn env_remove<K: AsRef<OsStr>>(mut self, key: K) -> Self {
        self.config.workers.set_env(key.as_ref(), None);
        self
    }

    /// Empties the environment of each worker, but for what [`env`](Self::env) sets after this;
    /// as [`Command::env_clear`](std::process::Command::env_clear).
    pub fn env_clear(mut self) -> Self {
        self.config.workers.set_env_clear();
        self
    }

    /// The working directory of each worker; as
    /// [`Command::current_dir`](std::process::Command::current_dir). A relative path is
    /// relative to this program's own when the pool is built.
    pub fn current_dir<P: AsRef<Path>>(mut self, path: P) -> Self {
        self.config.workers.set_current_dir(path.as_ref());
        self
    }

    /// Makes each worker nicer by so much, as nice(1) does: the higher, the less of a processor
    /// it gets while others want it, up to 19 in all. To be less nice needs a privilege.
    pub fn nice(mut self, increment: i32) -> Self {
        self.config.workers.set_nice(increment);
        self
    }

    /// Limits what each worker may use of something, as setrlimit(2) does; `u64::MAX` is no
    /// limit. To raise a hard limit needs a privilege. A limit of memory below what a worker has
    /// before its first task is an error.
    pub fn rlimit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        self.config.workers.set_rlimit(resource, soft, hard);
        self
    }

    /// How much memory a worker may have of its own, in bytes. Beyond it, allocations fail.
    ///
    /// A worker that dies of that costs the item that it ran, which ends as
    /// [`OutOfMemory`](crate::TaskErrorKind::OutOfMemory), and is replaced. Code that expects it
    /// gets an error and goes on: `try_reserve`, a `malloc` that is checked, Python's
    /// `MemoryError`. [`retries`](crate::api::call::Call::retries) run the item again, in a new
    /// worker: the old one may have been full of what earlier items had left.
    ///
    /// What counts is all that the worker may write and shares with nobody: the heap, its threads'
    /// stacks but for the first, globals; as the system counts it for `RLIMIT_DATA`, in which
    /// memory counts when it is allocated, whether it was used or not. Shared memory (rings, a
    /// [`Broadcast`](crate::broadcast::Broadcast)) and mapped files do not count; in a forked
    /// worker, what was there before the fork does. Programs and processes that a task starts have
    /// the same limit, each for itself. A limit below what a worker has before its first task is an
    /// error.
    ///
    /// How a worker died is told by a handler of the signals of crashes, which looks at the `errno`
    /// of the thread that crashes, and whether there is any memory left. So a crash right after an
    /// allocation that failed, and was coped with, counts as want of memory; and where a task has
    /// handlers of its own for these signals, an item that dies of it ends as `WorkerLost`.
    ///
    /// To replace a worker *before* it has too much is
    /// [`max_memory_per_child`](Self::max_memory_per_child).
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// # fn with<B: procpool::Backend>(builder: procpool::PoolBuilder<B>) -> Result<(), procpool::BuildError> {
    /// use procpool::Pool;
    ///
    /// let pool = builder.memory_limit(1 << 30).build()?;
    /// let error = pool.apply(|bytes: usize| vec![1_u8; bytes].len(), 2 << 30).unwrap_err();
    /// assert!(error.is_out_of_memory());
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.config.workers.set_memory_limit(bytes);
        self
    }

    /// Confines each worker for good, after its initializer and before its first item: to
    /// computing, with [`Sandbox::strict`](procpool_sandbox::Sandbox::strict), so that an input
    /// which takes a parser over can do nothing with it. What tasks need more (a file that they
    /// read, say) is allowed by the sandbox's methods, or opened by the
    /// [initializer](Self::initializer).
    ///
    /// A task that makes a system call which is not allowed costs its worker: the item ends as
    /// `WorkerLost`, with the signal `SIGSYS`, and the error names the call. With
    /// [`Refusal::Fail`](procpool_sandbox::Refusal::Fail) the call fails instead, of which
    /// [`on_refused_call`](Self::on_refused_call) tells.
    ///
    /// A file that may not be opened is refused otherwise: the code sees "Permission denied", and
    /// the worker lives.
    ///
    /// A worker in a sandbox has none of the descriptors that the program had open when the worker,
    /// or its fork server, was started, but for the standard streams and those that were
    /// [kept](Self::keep_fds) on purpose.
    ///
    /// Where the kernel lacks a part of it, where a path cannot be opened, or where an initializer
    /// has started threads, [`build`](Self::build) fails and says so. A task in a sandbox cannot
    /// build a pool, unless the sandbox allows to execute something.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// # use procpool_sandbox as sandbox;
    /// # fn with<B: procpool::Backend>(builder: procpool::PoolBuilder<B>) -> Result<(), procpool::BuildError> {
    /// use procpool::Pool;
    /// use sandbox::Sandbox;
    ///
    /// let pool = builder.sandbox(Sandbox::strict()).build()?;
    /// let read = |path: String| std::fs::read(path).is_ok();
    /// assert_eq!(pool.apply(read, "/etc/passwd".into()), Ok(false));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "sandbox")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sandbox")))]
    pub fn sandbox(mut self, sandbox: procpool_sandbox::Sandbox) -> Self {
        self.config.workers.set_sandbox(sandbox);
        self
    }

    /// Shuts this program's own doors before the pool is built: it becomes *not dumpable*
    /// (`PR_SET_DUMPABLE`), and so do the pool's workers and a fork server that
    /// [`build`](Self::build) starts. Then no other process of the same user, with or without a
    /// sandbox, reads its memory, its environment or its descriptors (`/proc/PID/mem`, `environ`,
    /// `fd`; `ptrace`, `process_vm_readv`, `pidfd_getfd`). Root can, unless it is in a
    /// [sandbox](Self::sandbox).
    ///
    /// It stays so when the pool is gone. A crash of the program leaves no core file any more, and
    /// a debugger must be root's. Files of its own in `/proc/self` that only their owner may read
    /// or write belong to root then: `environ`, `oom_score_adj`. The pool needs none of them.
    /// Memory of the program that a fork server has which was started before stays as it is.
    #[cfg(feature = "sandbox")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sandbox")))]
    pub fn protect_parent(mut self) -> Self {
        self.config.workers.set_protected();
        self
    }

    /// A function to call in this process when the [sandbox](Self::sandbox) of a worker has refused
    /// a system call of this name and the worker lives: with
    /// [`Refusal::Fail`](procpool_sandbox::Refusal::Fail). It is told of when the worker has
    /// finished what it runs, once for each name, however often the call was made.
    ///
    /// What a worker says here, it may invent. The function runs where
    /// [`on_worker_start`](Self::on_worker_start)'s does.
    #[cfg(feature = "sandbox")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sandbox")))]
    pub fn on_refused_call<F>(mut self, hook: F) -> Self
    where
        F: Fn(&WorkerInfo, &str) + Send + Sync + 'static,
    {
        self.config.lifecycle.set_on_refused_call(hook);
        self
    }

    /// Pins each worker to one of the processors that this program may run on: the first worker
    /// to the first one, and so on, beginning again where there are more workers. A replacement
    /// has the processor of the worker that it replaces.
    pub fn pin_cpus(mut self) -> Self {
        self.config.workers.set_pin_cpus();
        self
    }

    /// The same with the processors of this list, which are counted from 0.
    pub fn pin_cpus_to(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.config
            .workers
            .set_pin_cpus_to(cpus.into_iter().collect());
        self
    }

    /// How much memory a worker may hold, in bytes, before a new one takes its place.
    ///
    /// What counts is its resident set as top(1) shows it, shared memory included; for a forked
    /// worker also what was there before the fork. It is looked at whenever a chunk of items is
    /// done, so a single task may take more for a while ([`memory_limit`](Self::memory_limit)
    /// forbids that). A worker that holds more works on until its replacement is ready, finishes
    /// what it runs, and goes; one that holds twice as much is given nothing more at once. A limit
    /// that a worker exceeds before its first task is an error.
    pub fn max_memory_per_child(mut self, bytes: u64) -> Self {
        self.config.workers.set_max_memory_per_child(bytes);
        self
    }

    /// How long a worker lives before a new one takes its place, whether it works or not. It
    /// works on until its replacement is ready, finishes what it runs, and goes.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.config.workers.set_max_age(age);
        self
    }

    /// After how long without work a worker goes, as long as there are more than
    /// [`min_processes`](Self::min_processes). When there are more items than workers they come
    /// back, up to [`processes`](Self::processes). Without it, they stay.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.lifecycle.set_idle_timeout(timeout);
        self
    }

    /// How many workers stay, however long they have been idle; see
    /// [`idle_timeout`](Self::idle_timeout). Without it, one, so that a task need not wait for
    /// a worker to start.
    pub fn min_processes(mut self, processes: usize) -> Self {
        self.config.lifecycle.set_min_processes(processes);
        self
    }

    /// A function to call in this process when a worker has started: its process answers, and
    /// its initializer is next.
    ///
    /// It runs on the thread that completion callbacks run on, one call after the other and in
    /// the order in which things happened; what it waits for, they wait for. A panic in it
    /// harms nothing.
    pub fn on_worker_start<F>(mut self, hook: F) -> Self
    where
        F: Fn(&WorkerInfo) + Send + Sync + 'static,
    {
        self.config.lifecycle.set_on_worker_start(hook);
        self
    }

    /// A function to call in this process when a worker is gone: with how its process ended,
    /// and why. It is called once for each worker that
    /// [`on_worker_start`](Self::on_worker_start) was called for, also for those that the end
    /// of the pool kills, and as that is; a [`join`](crate::api::pool::Pool::join) waits for it.
    pub fn on_worker_death<F>(mut self, hook: F) -> Self
    where
        F: Fn(&WorkerInfo, &WorkerExit) + Send + Sync + 'static,
    {
        self.config.lifecycle.set_on_worker_death(hook);
        self
    }

    /// Starts the workers, and returns when all of them are ready: they have answered, and have run
    /// the [initializer](Self::initializer).
    ///
    /// # Errors
    /// When an option makes no sense; when the backend has not what it needs (`SpawnPool`: `init`
    /// was not called first; `ForkPool`: the program has several threads, and there is no fork
    /// server to use); when the system refuses what a worker needs, or a worker does not answer in
    /// time; when the initializer fails. Nothing is left behind.
    pub fn build(self) -> Result<WorkerPool<B>, BuildError> {
        #[cfg(feature = "sandbox")]
        if procpool_sandbox::current().is_some_and(|it| !it.allows_processes()) {
            return Err(BuildError::new(
                BuildErrorKind::InvalidConfig,
                "this process is in a sandbox that allows no other processes: build the pool in \
                 the program that has the pool of this one",
            ));
        }
        // Before a fork server is started, which has a copy of it all.
        let protection = match self.config.workers.is_protected() {
            true => Some(Protection::begin()?),
            false => None,
        };
        let launcher = self.backend.into_launcher()?;
        let pool = WorkerPool::new_with(Engine::start(self.config, launcher)?);
        if let Some(protection) = protection {
            protection.stays();
        }
        Ok(pool)
    }
}

/// For pools whose workers are forked from a fork server.
impl<B: Executing> PoolBuilder<B> {
    /// What is executed for each worker, in place of this program: a path, or a name that is
    /// looked for in `PATH` when the pool is built. With [`args`](Self::args), its arguments; this
    /// program's own are not given to it.
    ///
    /// It must have the same code, for that is where tasks are, and it must come to
    /// `procpool::init()` there. That is
    ///
    /// - for a program: the same executable under another path, or a program that executes it in
    ///   its own process, such as `nice`, `taskset` or `numactl`;
    /// - for a shared object, such as a Python extension: a program that loads the same file, and
    ///   then calls a function in it that calls `procpool::init()`. Of an extension for Python,
    ///   `.program(executable).args(["-c", "import mymodule"])`, with Python's `sys.executable`.
    ///   A shared object that says `init_before_main!()` needs no `program`, unless its tasks want
    ///   one: an interpreter, say.
    ///
    /// What stands before the call of `init` runs in each worker. A worker says which build it has
    /// before it is given anything, and `build` fails where that is another one. A program that
    /// does not come to `init` is killed after [`launch_timeout`](Self::launch_timeout).
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// # fn with<B: procpool::Executing>(
    /// #     builder: procpool::PoolBuilder<B>,
    /// # ) -> std::io::Result<procpool::PoolBuilder<B>> {
    /// // Workers with the processors and the memory of the first node.
    /// let this = std::env::current_exe()?;
    /// let builder = builder
    ///     .program("numactl")
    ///     .args(["--cpunodebind=0", "--membind=0"])
    ///     .args([this]);
    /// # Ok(builder)
    /// # }
    /// ```
    pub fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        self.backend.set_program(program.as_ref());
        self
    }

    /// Arguments of the [`program`](Self::program), after those that were given before. It is an
    /// error to give some and no program.
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let args = args.into_iter().map(|it| it.as_ref().to_owned());
        self.backend.add_args(args.collect());
        self
    }
}

impl<B: ForkServing> PoolBuilder<B> {
    /// The fork server to fork from. Without it, the process-wide one, if there is one, and else
    /// one that is started by [`build`](Self::build), while the program has only one thread.
    pub fn fork_server(mut self, server: &B::Server) -> Self {
        self.backend.set_fork_server(server);
        self
    }

    /// A function to run in each worker, replacements included, when it was forked and has its
    /// settings, and before its [initializer](Self::initializer): for libraries that keep a state
    /// which two processes must not share (a generator of random numbers, a connection, a thread
    /// that a fork does not copy). Several are called in the order in which they were given.
    ///
    /// It is never encoded: the fork server that [`build`](Self::build) starts is a copy of this
    /// program, and has what the function captures, as that is now. So it is an error where the
    /// server was started before ([`fork_server`](Self::fork_server)); the initializer is for that.
    /// A panic in it fails `build`.
    pub fn after_fork<F: Fn() + Send + Sync + 'static>(mut self, hook: F) -> Self {
        self.config.workers.set_after_fork();
        self.backend.after_fork(Box::new(hook));
        self
    }

    /// Of what is open now, the fork server that [`build`](Self::build) starts and its workers keep
    /// only `fds` and the standard streams. Without it they keep everything: the peer of a pipe
    /// sees no end of it, and a port is taken, until the pool has ended.
    ///
    /// Close none of `fds` before `build`. Tasks must not use what they do not have; see
    /// `ForkServer::start_keeping`.
    pub fn keep_fds(mut self, fds: &[BorrowedFd<'_>]) -> Self {
        self.backend.keep_fds(fds);
        self
    }

    /// Lets [`build`](Self::build) start a fork server although the program has several threads.
    ///
    /// # Safety
    /// As `ForkServer::start_unchecked`: no other thread holds a lock, or is in the middle of
    /// a change, that a task or the allocator could come upon in the copy.
    #[expect(unsafe_code, reason = "the caller takes the blame for the fork")]
    pub unsafe fn allow_threads(mut self) -> Self {
        // SAFETY: the caller promises the same.
        unsafe { self.backend.allow_threads() };
        self
    }
}

/// This process is not dumpable from now on; without a pool it is again.
struct Protection {
    was_dumpable: bool,
}

impl Protection {
    fn begin() -> Result<Self, BuildError> {
        let was_dumpable = sys::is_dumpable();
        sys::set_dumpable(false).map_err(|error| {
            BuildError::new(
                BuildErrorKind::Launch,
                format!("the system does not let this program be protected (prctl): {error}"),
            )
        })?;
        Ok(Self { was_dumpable })
    }

    fn stays(mut self) {
        self.was_dumpable = false;
    }
}

impl Drop for Protection {
    fn drop(&mut self) {
        if self.was_dumpable {
            // It worked the other way round.
            let _ = sys::set_dumpable(true);
        }
    }
}

impl<B: Backend + Default> Default for PoolBuilder<B> {
    fn default() -> Self {
        Self::with_backend(B::default())
    }
}

impl<B: fmt::Debug> fmt::Debug for PoolBuilder<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("config", &self.config)
            .field("backend", &self.backend)
            .finish()
    }
}
