//! What only a pool of many machines has.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use procpool::sandbox::Refusal;
use procpool::{
    Broadcast, BuildErrorKind, ClusterPool, Observe, Pool, PoolEvent, Sandbox, TaskErrorKind,
};
use procpool_conformance::program::{self, Program};
use procpool_conformance::{Test, procfs};
use procpool_testing::file_barrier::{self, Gate};
use rustix::process::Signal;

use crate::{Cluster, TestPool, server};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("results_name_the_machine", results_name_the_machine),
        ("agents_are_listed", agents_are_listed),
        (
            "nothing_is_left_of_a_pool_that_is_dropped",
            nothing_is_left_of_a_pool_that_is_dropped,
        ),
        (
            "nothing_is_left_of_a_program_that_exits",
            nothing_is_left_of_a_program_that_exits,
        ),
        (
            "a_server_of_its_own_that_ends",
            a_server_of_its_own_that_ends,
        ),
        ("pools_follow_one_another", pools_follow_one_another),
        ("clients_share_agents_fairly", clients_share_agents_fairly),
        ("workers_are_in_a_sandbox", workers_are_in_a_sandbox),
        (
            "a_sandbox_that_cannot_be_had_fails_tasks",
            a_sandbox_that_cannot_be_had_fails_tasks,
        ),
    ]
}

pub(crate) fn programs() -> Vec<Program> {
    let programs: [(&str, fn()); 4] = [
        ("loses_its_server", loses_its_server),
        ("drops_pools", drops_pools),
        ("exits_with_a_pool", exits_with_a_pool),
        ("many_pools", many_pools),
    ];
    let named = programs.map(|(name, main)| (program::name::<Cluster>(name), main));
    named.to_vec()
}

fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

fn triple(x: u64) -> u64 {
    3 * x
}

fn panics((): ()) {
    std::panic::resume_unwind(Box::new("on purpose"));
}

fn exits((): ()) {
    std::process::exit(3);
}

fn socket((): ()) -> bool {
    std::net::UdpSocket::bind("127.0.0.1:0").is_ok()
}

/// On their machines, with what was asked for here.
fn workers_are_in_a_sandbox() {
    let server = server();
    let pool = |sandbox: Sandbox| {
        let builder = ClusterPool::builder(&server.url()).local_agents(&[1, 1]);
        builder.sandbox(sandbox).build().expect("a pool")
    };
    let strict = pool(Sandbox::strict());
    let value = strict
        .broadcast(vec![7_u8; 1 << 20])
        .expect("there is room");
    let length = |value: Broadcast<[u8]>| value.len();
    assert_eq!(
        strict.map(length, vec![value; 20]).expect("it computes"),
        [1 << 20; 20]
    );
    let is_denied = |path: String| {
        let error = std::fs::read(path).expect_err("it is refused");
        error.kind() == ErrorKind::PermissionDenied
    };
    assert_eq!(strict.apply(is_denied, "/etc/passwd".into()), Ok(true));
    let error = strict.apply(socket, ()).expect_err("it is refused");
    assert!(error.is_worker_lost(), "{error}");
    assert!(error.to_string().contains("`socket`"), "{error}");
    assert!(error.machine().is_some(), "{error}");
    assert_eq!(strict.map(triple, 0..3), Ok(vec![0, 3, 6]));

    let failing = pool(Sandbox::strict().on_refusal(Refusal::Fail));
    let mut observer = failing
        .observe(Observe::Workers)
        .expect("it can be observed");
    assert_eq!(failing.apply(socket, ()), Ok(false));
    let (worker, call) = loop {
        let event = observer.recv_timeout(Duration::from_secs(60));
        if let PoolEvent::CallRefused { worker, call, .. } = event.expect("something happens") {
            break (worker, call);
        }
    };
    assert_eq!(call, "socket");
    assert!(worker.machine().is_some(), "{worker}");
}

/// A name is wrong everywhere, and a path on the machine that lacks it.
fn a_sandbox_that_cannot_be_had_fails_tasks() {
    let server = server();
    let build = |sandbox: Sandbox| {
        let builder = ClusterPool::builder(&server.url()).local_agents(&[1]);
        builder.sandbox(sandbox).build()
    };
    let error = build(Sandbox::strict().allow_syscalls(["sockett"])).expect_err("it is none");
    assert_eq!(error.kind(), BuildErrorKind::InvalidConfig);
    assert!(error.to_string().contains("sockett"), "{error}");
    let pool = build(Sandbox::strict().allow_read("/not/there")).expect("it may be there");
    let error = pool.apply(triple, 1).expect_err("it is not");
    assert!(error.to_string().contains("/not/there"), "{error}");
    assert!(error.machine().is_some(), "{error}");
    assert_eq!(error.kind(), TaskErrorKind::Invalid, "{error}");
}

fn results_name_the_machine() {
    let pool = TestPool::new(2);
    let gate = Gate::new();
    let call = || pool.call(pass).measured();
    let handles = [(); 2].map(|()| call().apply_async(gate.ticket()));
    gate.wait_for(2);
    gate.open();
    let machines = handles.map(|handle| {
        let worker = handle.get().metrics.worker.expect("it has run");
        worker.machine().expect("it is said").to_owned()
    });
    let expected = ["agent-1", "agent-2"].map(str::to_owned);
    assert_eq!(BTreeSet::from(machines), BTreeSet::from(expected));
    let errors = [pool.apply(panics, ()), pool.apply(exits, ())];
    let kinds = [TaskErrorKind::Panicked, TaskErrorKind::WorkerLost];
    for (error, kind) in errors.into_iter().zip(kinds) {
        let error = error.expect_err("it fails");
        assert_eq!(error.kind(), kind);
        let machine = error.machine().expect("it is said");
        assert!(machine.starts_with("agent-"), "{error}");
    }
}

fn agents_are_listed() {
    let TestPool { pool, _server } = TestPool::new(3);
    let listed = || {
        let mut agents = pool.agents();
        agents.sort_by(|a, b| a.machine.cmp(&b.machine));
        agents
    };
    let agents = listed();
    let names: Vec<_> = agents
        .iter()
        .map(|it| (&*it.machine, it.processes))
        .collect();
    assert_eq!(names, [("agent-1", 2), ("agent-2", 1)]);
    assert_eq!(pool.processes(), 3);
    for agent in &agents {
        assert_eq!(procfs::parent(agent.pid), Some(std::process::id()));
        assert!(!agent.is_leaving, "{agent}");
    }
    procfs::signal(agents[0].pid, Signal::KILL);
    procfs::wait_until(|| listed().len() == 1);
    assert_eq!(listed()[0].pid, agents[1].pid);
    procfs::wait_until(|| pool.processes() == 1);
    assert_eq!(pool.map(triple, 0..10).map(|it| it.len()), Ok(10));
    // One that is asked to go is not listed any more, once it has gone.
    procfs::signal(agents[1].pid, Signal::TERM);
    procfs::wait_until(|| listed().is_empty());
}

/// A pool of a server and two agents with workers, which are all at work until the gate goes. Says
/// which processes are below this one then.
fn busy_pool() -> (ClusterPool, Gate, Vec<u32>) {
    let pool = ClusterPool::local(2).expect("a pool can be built");
    assert!(pool.wait_for_processes(2, Duration::from_secs(20)));
    let gate = Gate::new();
    let handles = [(); 2].map(|()| pool.apply_async(pass, gate.ticket()));
    gate.wait_for(2);
    drop(handles);
    let below = procfs::below(std::process::id());
    // The server, two agents, and what is below these.
    assert!(below.len() >= 5, "{below:?}");
    (pool, gate, below)
}

/// One that is busy, one that has nothing to do, one that was closed.
fn drops_pools() {
    let (pool, _gate, below) = busy_pool();
    drop(pool);
    procfs::wait_for_death(&below);
    let (pool, _gate, below) = busy_pool();
    let copy = pool.clone();
    drop(pool);
    assert_eq!(copy.processes(), 2, "somebody has it");
    copy.terminate();
    copy.join().expect("it ends");
    drop(copy);
    procfs::wait_for_death(&below);
    let pool = ClusterPool::local(2).expect("a pool can be built");
    assert_eq!(pool.map(triple, 0..10).map(|it| it.len()), Ok(10));
    let below = procfs::below(std::process::id());
    pool.close();
    pool.join().expect("it ends");
    drop(pool);
    procfs::wait_for_death(&below);
    assert!(procfs::below(std::process::id()).is_empty());
    println!("gone");
}

fn nothing_is_left_of_a_pool_that_is_dropped() {
    assert_eq!(program::again::<Cluster>("drops_pools").lines(), ["gone"]);
}

fn exits_with_a_pool() {
    let (_pool, _gate, below) = busy_pool();
    let below: Vec<String> = below.iter().map(u32::to_string).collect();
    println!("{}", below.join(" "));
    std::process::exit(0);
}

fn nothing_is_left_of_a_program_that_exits() {
    let mut program = program::again::<Cluster>("exits_with_a_pool").start();
    let line = program.line();
    let pids = line.split(' ').map(|pid| pid.parse().expect("a number"));
    assert!(program.status().success());
    // Nobody has waited for them, so they take a moment.
    procfs::wait_for_death(&Vec::from_iter(pids));
}

/// Nobody starts it again, so nothing waits for that.
fn loses_its_server() {
    let (pool, _gate, _below) = busy_pool();
    let server = procfs::children_called("nats-server");
    let waiting = pool.apply_async(triple, 1);
    procfs::signal(server[0], Signal::KILL);
    for outcome in [waiting.get(), pool.apply(triple, 2)] {
        let error = outcome.expect_err("there is no server");
        assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
        assert!(error.to_string().contains("killed by signal 9"), "{error}");
    }
    drop(pool);
    println!("told");
}

fn a_server_of_its_own_that_ends() {
    assert_eq!(
        program::again::<Cluster>("loses_its_server").lines(),
        ["told"]
    );
}

fn many_pools() {
    let this = std::process::id();
    let mut open = 0;
    for round in 0..20 {
        let pool = ClusterPool::local(1).expect("a pool can be built");
        assert_eq!(
            pool.map(triple, 0..round).map(|it| it.len() as u64),
            Ok(round)
        );
        drop(pool);
        procfs::wait_until(|| procfs::below(this).is_empty());
        let now = || procfs::descriptors(this).len();
        if round == 0 {
            open = now();
        }
        procfs::wait_until(|| now() <= open);
    }
    println!("done");
}

fn pools_follow_one_another() {
    assert_eq!(program::again::<Cluster>("many_pools").lines(), ["done"]);
}

/// What one client wants gets done while the other has thousands of items.
fn clients_share_agents_fairly() {
    let server = server();
    let url = server.url();
    let builder = ClusterPool::builder(&url).local_agents(&[1, 1]);
    let first = builder.build().expect("a pool can be built");
    let second = ClusterPool::connect(&url).expect("a pool can be built");
    for pool in [&first, &second] {
        assert!(pool.wait_for_processes(2, Duration::from_secs(20)));
    }
    let work = |x: u64| {
        thread::sleep(Duration::from_millis(1));
        x
    };
    for (many, few) in [(&first, &second), (&second, &first)] {
        let all = many.call(work).chunksize(1).map_async(0..20_000);
        procfs::wait_until(|| many.stats().succeeded > 100);
        for x in 0..5 {
            assert_eq!(few.apply(triple, x), Ok(3 * x));
        }
        let done = many.stats().succeeded;
        assert!(!all.is_ready(), "{done} were done first");
        procfs::wait_until(|| many.stats().succeeded > done);
        all.cancel();
        assert!(all.get().expect_err("it was cancelled").is_cancelled());
    }
}
