//! What an agent's pools are to do.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use procpool_core::{
    Broadcast, CallId, Callbacks, Cancel, Chunk, EncodedChunk, Executor, JoinError, Observe, Pool,
    Stats, TaskErrorKind, WorkerOptions, WorkerState, worker,
};
use procpool_testing::file_barrier::{self, Gate, Tally};
use procpool_testing::procfs::{self, wait_until};

use crate::MakeBackend;
use crate::host::{Captures, Host};
use crate::loopback::{Loopback, refusal};
use crate::message::{ObservedEvent, ObservedEvents, Printed};

type Scenario = fn(MakeBackend);

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("values_come_from_one_pool", values),
        ("clients_have_pools_of_their_own", two_clients),
        ("workers_are_what_the_client_says", options),
        ("what_is_for_the_agent_does_not_reach_tasks", environment),
        ("errors_name_the_machine", errors),
        (
            "who_waits_for_a_pool_that_cannot_be_built_hears_why",
            failing,
        ),
        ("a_pool_that_fails_later_is_built_again", failing_later),
        ("what_waits_for_a_pool_can_be_cancelled", cancelled_early),
        ("what_runs_can_be_cancelled", cancelled),
        ("what_a_client_had_ends_with_it", forgotten),
        ("a_pool_that_nobody_waits_for_ends", forgotten_early),
        ("a_host_that_is_dropped_leaves_nothing", dropped),
        ("values_come_while_a_task_runs", streamed),
        ("what_workers_share_comes_through", shared),
        ("lines_say_who_has_printed_them", printed),
        ("reports_name_the_machine", reports),
        ("what_is_observed_is_told_whole", observed),
        ("a_deadline_counts_while_a_pool_is_built", deadline),
        #[cfg(feature = "sandbox")]
        ("workers_are_in_a_sandbox", sandboxed),
    ]
}

fn host(backend: MakeBackend, processes: usize) -> Arc<Host> {
    Arc::new(Host::new(processes, backend(), "m1", |_, _, _| {}))
}

fn square(x: u64) -> u64 {
    x * x
}

fn exit(code: i32) {
    std::process::exit(code)
}

fn own_pid((): ()) -> u32 {
    std::process::id()
}

fn pass(ticket: String) -> u32 {
    file_barrier::pass(&ticket);
    std::process::id()
}

/// Which needs the same of both backends, though one has a server that is older than the options.
#[cfg(feature = "sandbox")]
fn sandboxed(backend: MakeBackend) {
    let host = host(backend, 1);
    let mut options = WorkerOptions::default();
    options.set_sandbox(procpool_sandbox::Sandbox::strict());
    let pool = Loopback::new(&host, 1, &options);
    let can_read = |path: String| fs::read(path).is_ok();
    assert_eq!(pool.apply(can_read, "/etc/passwd".into()), Ok(false));
    assert_eq!(pool.map(square, 0..3), Ok(vec![0, 1, 4]));
}

fn values(backend: MakeBackend) {
    let host = host(backend, 2);
    let pool = Loopback::new(&host, 1, &WorkerOptions::default());
    // Nothing is built before there is work.
    assert_eq!(host.stats(1), Stats::default());
    let expected: Vec<u64> = (0..1000).map(square).collect();
    assert_eq!(pool.map(square, 0..1000), Ok(expected));
    let gate = Gate::new();
    let both = pool.map_async(pass, [gate.ticket(), gate.ticket()]);
    let there = BTreeSet::from_iter(gate.wait_for(2));
    gate.open();
    let pids = BTreeSet::from_iter(both.get().expect("they have passed"));
    assert!(pids == there && pids.len() == 2 && !pids.contains(&std::process::id()));
    let stats = pool.stats();
    assert_eq!((stats.workers_started, stats.succeeded), (2, 1002));
}

fn two_clients(backend: MakeBackend) {
    let host = host(backend, 1);
    let pools = [1, 2].map(|client| Loopback::new(&host, client, &WorkerOptions::default()));
    let [first, second] = &pools;
    let pids = [first, second].map(|pool| pool.apply(own_pid, ()).expect("a worker"));
    assert_ne!(pids[0], pids[1]);
    first.terminate();
    assert_eq!(second.apply(own_pid, ()), Ok(pids[1]));
    procfs::wait_for_death(&pids[..1]);
    // The same number again is another client.
    let again = Loopback::new(&host, 2, &WorkerOptions::default());
    assert_ne!(again.apply(own_pid, ()), Ok(pids[1]));
    procfs::wait_for_death(&pids[1..]);
}

static GIVEN: OnceLock<(Broadcast<str>, u64)> = OnceLock::new();

fn options(backend: MakeBackend) {
    let host = host(backend, 1);
    let tally = Tally::new();
    let mut options = WorkerOptions::default();
    let words = Broadcast::<str>::new("some words".to_owned()).expect("memory");
    let keep = |given| GIVEN.set(given).map_err(|_| "it ran before");
    options.set_initializer(keep, &(words, 7_u64));
    options.set_finalizer(|| {
        let path = std::env::var("TALLY").expect("it was set");
        file_barrier::add(&path, "finalized");
    });
    options.set_max_tasks_per_child(1);
    options.set_env("TALLY".as_ref(), Some(tally.ticket().as_ref()));
    options.set_current_dir("/".as_ref());
    options.set_nice(1);
    let pool = Loopback::new(&host, 1, &options);
    let task = |(): ()| {
        let (words, number) = GIVEN.get().expect("the initializer has run");
        let folder = std::env::current_dir().expect("there is one");
        (words.to_string(), *number, folder)
    };
    for round in 1..3 {
        let (words, number, folder) = pool.apply(task, ()).expect("a value");
        assert_eq!((&*words, number), ("some words", 7));
        assert_eq!(folder.to_str(), Some("/"));
        wait_until(|| tally.count() == round);
    }
}

/// Of the agent's, what a worker has, and what a program has that it starts.
fn variables((): ()) -> (Vec<String>, Vec<String>) {
    let is_own = |it: &String| it.starts_with("PROCPOOL_AGENT");
    let own = std::env::vars().map(|(name, _)| name).filter(is_own);
    let output = std::process::Command::new("env").output();
    let output = String::from_utf8(output.expect("it runs").stdout).expect("text");
    let started = output.lines().map(str::to_owned).filter(is_own);
    (own.collect(), started.collect())
}

fn environment(backend: MakeBackend) {
    let names = [crate::ADDRESS.0, crate::BACKEND.0];
    assert!(names.iter().all(|it| std::env::var_os(it).is_some()));
    let host = host(backend, 1);
    let pool = Loopback::new(&host, 1, &WorkerOptions::default());
    assert_eq!(pool.apply(variables, ()), Ok((Vec::new(), Vec::new())));
    let mut options = WorkerOptions::default();
    options.set_env(names[0].as_ref(), Some("mine".as_ref()));
    let pool = Loopback::new(&host, 2, &options);
    let (own, started) = pool.apply(variables, ()).expect("a value");
    assert_eq!(own, [names[0]]);
    assert_eq!(started, [format!("{}=mine", names[0])]);
}

fn errors(backend: MakeBackend) {
    let host = host(backend, 1);
    let pool = Loopback::new(&host, 1, &WorkerOptions::default());
    let panic = pool.apply(|x: u64| 1 / x, 0).expect_err("by zero");
    let lost = pool.apply(exit, 3);
    let lost = lost.expect_err("it has exited");
    assert!(panic.is_panic() && lost.is_worker_lost() && lost.exit_code() == Some(3));
    for error in [panic, lost] {
        assert_eq!(error.machine(), Some("m1"));
        let worker = error.worker().expect("it is known");
        assert_eq!(worker.machine(), Some("m1"));
    }
    let measured = pool.call(square).measured().map(0..3);
    for item in measured {
        let worker = item.metrics.worker.expect("it is known");
        assert_eq!(worker.machine(), Some("m1"));
    }
}

/// Fails as long as there is a line in this file, after it has passed the gate.
fn unless_there((file, gate): (String, String)) -> Result<(), String> {
    file_barrier::pass(&gate);
    match file_barrier::lines(&file) {
        0 => Ok(()),
        _ => Err(format!("there is {file}")),
    }
}

/// What it is that the initializer does not like, and what it waits at.
fn unwilling() -> (Tally, Gate, WorkerOptions) {
    let (file, gate) = (Tally::new(), Gate::new());
    let mut options = WorkerOptions::default();
    options.set_initializer(unless_there, &(file.ticket(), gate.ticket()));
    (file, gate, options)
}

fn failing(backend: MakeBackend) {
    let host = host(backend, 1);
    let (file, gate, options) = unwilling();
    let pool = Loopback::new(&host, 1, &options);
    file_barrier::add(&file.ticket(), "no");
    let first = pool.call(square).chunksize(10).map_async(0..30);
    let second = pool.apply_async(square, 7);
    gate.wait_for(1);
    assert!(!first.is_ready() && !second.is_ready());
    gate.open();
    let errors = [first.get().expect_err("no"), second.get().expect_err("no")];
    for error in errors {
        assert_eq!(error.kind(), TaskErrorKind::Initializer);
        assert_eq!(error.machine(), Some("m1"));
        let text = error.to_string();
        assert!(text.contains(&file.ticket()), "{text}");
    }
    // The next one tries again, and fails again, until there is no reason any more.
    let again = pool.apply(square, 7).expect_err("no");
    assert_eq!(again.kind(), TaskErrorKind::Initializer);
    fs::remove_file(file.ticket()).expect("it is there");
    assert_eq!(pool.apply(square, 7), Ok(49));
}

fn failing_later(backend: MakeBackend) {
    let host = host(backend, 1);
    let (file, gate, options) = unwilling();
    let pool = Loopback::new(&host, 1, &options);
    gate.open();
    let before = pool.apply(own_pid, ()).expect("a worker");
    file_barrier::add(&file.ticket(), "no");
    let lost = pool.apply(exit, 0);
    assert!(lost.expect_err("it has exited").is_worker_lost());
    let error = pool.apply(square, 7).expect_err("no worker comes up");
    assert_eq!(error.kind(), TaskErrorKind::Initializer);
    assert_eq!(error.machine(), Some("m1"));
    fs::remove_file(file.ticket()).expect("it is there");
    assert_eq!(pool.apply(square, 7), Ok(49));
    assert_ne!(pool.apply(own_pid, ()), Ok(before));
    // That is another pool.
    assert_eq!(pool.stats().workers_started, 1);
}

fn cancelled_early(backend: MakeBackend) {
    let host = host(backend, 1);
    let (_file, gate, options) = unwilling();
    let pool = Loopback::new(&host, 1, &options);
    let first = pool.call(square).chunksize(10).map_async(0..30);
    let second = pool.apply_async(square, 7);
    let stream = pool.call(emit).stream(3);
    gate.wait_for(1);
    first.cancel();
    assert!(first.get().expect_err("cancelled").is_cancelled());
    drop(stream);
    assert!(!second.is_ready());
    gate.open();
    assert_eq!(second.get(), Ok(49));
}

fn heed(ticket: String) -> bool {
    file_barrier::add(&ticket, std::process::id());
    while !worker::is_cancelled() {
        std::thread::yield_now();
    }
    true
}

fn cancelled(backend: MakeBackend) {
    let host = host(backend, 1);
    let pool = Loopback::new(&host, 1, &WorkerOptions::default());
    let (gate, first) = (Gate::new(), pool.apply(own_pid, ()).expect("a worker"));
    let handle = pool.apply_async(heed, gate.ticket());
    gate.wait_for(1);
    handle.cancel();
    assert!(handle.get().expect_err("cancelled").is_cancelled());
    // It was asked, and lives.
    assert_eq!(pool.apply(own_pid, ()), Ok(first));
    let gate = Gate::new();
    let handle = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    handle.kill();
    assert!(handle.get().expect_err("killed").is_cancelled());
    procfs::wait_for_death(&[first]);
}

/// The chunk of a call that nobody runs.
fn some_chunk() -> EncodedChunk {
    struct Keep(Mutex<mpsc::Sender<EncodedChunk>>, Callbacks);

    impl Executor for Keep {
        fn submit(&self, chunk: Chunk) {
            let sender = self.0.lock().expect("nobody panics");
            sender.send(chunk.into_parts().0).expect("it is taken");
        }

        fn cancel(&self, _: CallId, _: Cancel) -> bool {
            false
        }

        fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
            self.1.run(job);
        }

        fn processes(&self) -> usize {
            1
        }

        fn close(&self) {}

        fn terminate(&self) {}

        fn join(&self, _: Option<std::time::Instant>) -> Result<bool, JoinError> {
            Ok(true)
        }

        fn stats(&self) -> Stats {
            Stats::default()
        }
    }

    struct KeepingPool(Arc<dyn Executor>);

    impl Pool for KeepingPool {
        fn executor(&self) -> &Arc<dyn Executor> {
            &self.0
        }
    }

    let (sender, chunks) = mpsc::channel();
    let pool = KeepingPool(Arc::new(Keep(Mutex::new(sender), Callbacks::new())));
    let _handle = pool.apply_async(square, 7);
    chunks.recv().expect("it was submitted")
}

fn forgotten(backend: MakeBackend) {
    let host = host(backend, 2);
    let pool = Loopback::new(&host, 1, &WorkerOptions::default());
    let gate = Gate::new();
    let tickets: Vec<String> = (0..5).map(|_| gate.ticket()).collect();
    let handle = pool.call(pass).chunksize(1).map_async(tickets);
    let pids = gate.wait_for(2);
    host.forget(1);
    let error = handle.get().expect_err("it was killed");
    assert!(
        error.is_cancelled() && error.machine() == Some("m1"),
        "{error}"
    );
    procfs::wait_for_death(&pids);
    assert_eq!(gate.arrivals().len(), 2);
    let error = refusal(&host, 1, some_chunk());
    assert_eq!(error.machine(), Some("m1"));
    assert_eq!(host.stats(1), Stats::default());
    assert!(host.dump(1).workers.is_empty());
    // Once more is no harm.
    host.forget(1);
}

fn forgotten_early(backend: MakeBackend) {
    let host = host(backend, 1);
    let (_file, gate, options) = unwilling();
    let pool = Loopback::new(&host, 1, &options);
    let handle = pool.apply_async(square, 7);
    let pids = gate.wait_for(1);
    host.forget(1);
    let error = handle.get().expect_err("it is not waited for");
    assert!(
        error.is_cancelled() && error.machine() == Some("m1"),
        "{error}"
    );
    gate.open();
    procfs::wait_for_death(&pids);
}

fn dropped(backend: MakeBackend) {
    let host = host(backend, 1);
    let pools = [1, 2].map(|client| Loopback::new(&host, client, &WorkerOptions::default()));
    let gate = Gate::new();
    let handles = [0, 1].map(|at: usize| pools[at].apply_async(pass, gate.ticket()));
    let pids = gate.wait_for(2);
    drop(host);
    let errors = handles.map(|it| it.get().expect_err("it was killed"));
    assert!(errors.iter().all(|it| it.is_cancelled()));
    procfs::wait_for_death(&pids);
}

fn emit(count: u64, emitter: &procpool_core::Emitter<u64>) -> u64 {
    for value in 0..count {
        emitter.emit(value).expect("it is read");
    }
    count
}

fn streamed(backend: MakeBackend) {
    let host = host(backend, 1);
    let pool = Loopback::new(&host, 1, &WorkerOptions::default());
    // The first one waits for the pool.
    for count in [100, 1000] {
        let mut stream = pool.call(emit).buffer(2).stream(count);
        let values: Vec<u64> = stream.by_ref().map(|it| it.expect("a value")).collect();
        assert_eq!(values, Vec::from_iter(0..count));
        assert_eq!(stream.result(), Ok(count));
    }
}

fn shared(backend: MakeBackend) {
    let host = host(backend, 2);
    let pool = Loopback::new(&host, 1, &WorkerOptions::default());
    let given = pool.broadcast(Vec::from_iter(0..1000_u64)).expect("memory");
    let double = |(given, x): (Broadcast<[u64]>, usize)| {
        let doubled: Vec<u64> = given.iter().map(|it| 2 * it).collect();
        (given, Broadcast::new(doubled).expect("memory"), x)
    };
    let items = (0..20).map(|x| (given.clone(), x));
    let all = pool.call(double).chunksize(3).map(items).expect("values");
    for (x, (back, made, at)) in all.iter().enumerate() {
        assert_eq!(x, *at);
        assert!(std::ptr::eq(&raw const **back, &raw const *given));
        assert_eq!((made[7], made.len()), (14, 1000));
    }
}

fn printed(backend: MakeBackend) {
    let (sender, lines) = mpsc::channel();
    let sender = Mutex::new(sender);
    let host = Host::new(1, backend(), "m1", move |client, worker, line| {
        let sender = sender.lock().expect("nobody panics");
        let said = (client, worker, line.text().into_owned());
        sender.send(said).expect("it is taken");
    });
    let host = Arc::new(host);
    let captures = Captures {
        stdout: Printed::Sent,
        stderr: Printed::Inherited,
    };
    let pool = Loopback::capturing(&host, 5, &WorkerOptions::default(), captures);
    let say = |text: String| {
        println!("{text}");
        std::process::id()
    };
    let pid = pool.apply(say, "hello".into()).expect("it prints");
    let (client, worker, text) = lines.recv().expect("a line");
    assert_eq!((client, &*text), (5, "hello"));
    assert_eq!((worker.pid(), worker.machine()), (pid, Some("m1")));
}

/// Also what is more than goes into one message, and what has happened in a pool that is no more.
fn observed(backend: MakeBackend) {
    const ITEMS: usize = 5_000;
    let chunks = Observe::Chunks {
        shortest: Duration::ZERO,
    };
    let host = host(backend, 1);
    let pool = Loopback::new(&host, 1, &WorkerOptions::default());
    // Before there is a pool.
    host.observe(1, Some(chunks));
    assert!(host.take_observed(1).is_none());
    let squares = || pool.call(square).name("squares").chunksize(1);
    let told = |messages: &mut Vec<ObservedEvents>| {
        while let Some(events) = host.take_observed(1) {
            messages.push(events);
        }
        let events = messages.iter().flat_map(|it| &it.events);
        let chunks = events.filter_map(|event| match event {
            ObservedEvent::Chunk {
                worker,
                call,
                first,
                ..
            } => {
                assert_eq!((&**call, worker.machine()), ("squares", Some("m1")));
                Some(*first)
            }
            _ => None,
        });
        chunks.count()
    };
    let starts = |messages: &[ObservedEvents]| messages.iter().filter(|it| it.is_start).count();
    squares().map(0..ITEMS as u64).expect("it is easy");
    // It wants to know something else; what it wanted before is not lost.
    host.observe(1, Some(chunks));
    squares().map(0..10).expect("it is easy");
    let mut messages = Vec::new();
    wait_until(|| told(&mut messages) == ITEMS + 10);
    assert!(messages.len() > 2 && messages[0].is_start);
    assert_eq!(starts(&messages), 2);
    assert!(messages.iter().all(|it| it.lost == 0));
    // And nothing, if it does not want to know.
    host.observe(1, None);
    squares().map(0..10).expect("it is easy");
    assert!(host.take_observed(1).is_none());
    host.observe(1, Some(Observe::Workers));
    squares().map(0..10).expect("it is easy");
    let mut messages = Vec::new();
    assert_eq!((told(&mut messages), starts(&messages)), (0, 1));
}

fn reports(backend: MakeBackend) {
    let host = host(backend, 1);
    let pool = Loopback::new(&host, 1, &WorkerOptions::default());
    let gate = Gate::new();
    let handle = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    let dump = pool.dump();
    let worker = &dump.workers[0];
    assert_eq!(worker.state, WorkerState::Running);
    let info = worker.info.as_ref().expect("it is known");
    assert_eq!(info.machine(), Some("m1"));
    assert!(dump.to_string().contains(" on m1: runs"), "{dump}");
    let stats = pool.stats();
    assert_eq!((stats.running, stats.workers.len()), (1, 1));
    assert_eq!(stats.workers[0].info.machine(), Some("m1"));
    assert!(stats.to_string().ends_with("  m1"), "{stats}");
    gate.open();
    handle.get().expect("it has passed");
}

fn deadline(backend: MakeBackend) {
    let host = host(backend, 1);
    let (_file, gate, options) = unwilling();
    let pool = Loopback::new(&host, 1, &options);
    let call = pool.call(square).deadline(Duration::from_millis(1));
    let late = call.apply_async(7);
    gate.wait_for(1);
    gate.open();
    let error = late
        .get()
        .expect_err("it was over before there was a worker");
    assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded);
    assert_eq!(pool.apply(square, 7), Ok(49));
}
