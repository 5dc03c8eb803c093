//! Fork servers and standbys that are killed: the pools go on.

#![allow(
    clippy::extra_unused_type_parameters,
    reason = "programs are written over a kind of pool, though these have one only"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use procpool::{BuildErrorKind, ForkPool, ForkServer, Pool, TaskError, TaskErrorKind};
use procpool_conformance::Test;
use procpool_conformance::failure_modes::{Fate, strike};
use procpool_conformance::file_barrier::{self, Gate};
use procpool_conformance::procfs::{self, signal, wait_for_death, wait_until, workers};
use procpool_conformance::program::{Program, again, name};
use procpool_conformance::watchdog;
use rustix::process::Signal;

use crate::Fork;

/// Runs a program of this module to its end: the tests of this process share one server.
macro_rules! alone {
    ($($name:ident: $program:ident),+ $(,)?) => {
        vec![$((stringify!($name), || {
            watchdog::allow(2);
            assert_eq!(again::<Fork>(stringify!($program)).lines(), [""; 0]);
        })),+]
    };
}

pub(crate) fn tests() -> Vec<Test> {
    alone![
        a_pool_survives_its_own_server: own_server,
        all_pools_of_a_server_survive_it: users_server,
        all_pools_of_the_global_server_survive_it: global_server,
        a_server_killed_under_load_costs_what_its_workers_ran: under_load,
        with_retries_it_costs_nothing: under_load_with_retries,
        a_server_killed_while_pools_are_built_costs_nothing: while_building,
        a_server_killed_while_initializers_run_costs_nothing: while_initializing,
        a_standby_that_is_killed_costs_nothing: standbys_killed,
        server_and_standby_killed_at_once_are_the_end: both_killed,
        the_end_reaches_whoever_waits: both_killed_under_load,
        a_stopped_server_keeps_nobody: stopped_server,
        a_server_that_is_killed_while_it_is_stopped_keeps_nobody: stopped_server_killed,
        orphans_of_a_server_are_reaped: orphans_of_killed,
    ]
}

macro_rules! programs {
    ($($program:ident),+ $(,)?) => {
        vec![$((name::<Fork>(stringify!($program)), $program as fn())),+]
    };
}

pub(crate) fn programs() -> Vec<Program> {
    programs![
        own_server,
        users_server,
        global_server,
        under_load,
        under_load_with_retries,
        while_building,
        while_initializing,
        standbys_killed,
        both_killed,
        both_killed_under_load,
        stopped_server,
        stopped_server_killed,
        orphans_of_killed,
    ]
}

/// A child of this process with this name, once there is one; there is one server here.
fn child(name: &str) -> u32 {
    let mut found = None;
    wait_until(|| {
        found = procfs::children_called(name).first().copied();
        found.is_some()
    });
    found.expect("it was found")
}

fn server() -> u32 {
    child("procpool-server")
}

fn standby() -> u32 {
    child("procpool-spare")
}

/// Kills the server once it has a standby, and waits for its death.
fn kill_server() {
    wait_until(try_to_kill_server);
}

/// The same, if there is a server that has a standby: without a pool, nobody needs to notice that
/// it has died. `false`: there is none.
fn try_to_kill_server() -> bool {
    let one = |name| procfs::children_called(name).first().copied();
    // In this order: the other way round, the one that was found as the standby may be the server
    // that is found.
    let (Some(server), Some(_)) = (one("procpool-server"), one("procpool-spare")) else {
        return false;
    };
    signal(server, Signal::KILL);
    wait_for_death(&[server]);
    true
}

fn square(x: u64) -> u64 {
    x * x
}

fn assert_works(pool: &ForkPool) {
    // Tasks may meet a worker that is about to die with its server; retries are for that.
    let squares = pool.call(square).retries(10).map(0..100).unwrap();
    assert!(squares.into_iter().eq((0..100).map(|x| x * x)));
}

/// That nobody can say how the worker died is what the error says.
fn assert_orphaned(error: &TaskError) {
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert_eq!((error.exit_code(), error.signal()), (None, None), "{error}");
    assert!(error.worker().is_some(), "{error}");
    assert!(error.to_string().contains("nobody can say"), "{error}");
}

fn own_server() {
    let pool = ForkPool::builder().processes(2).build().unwrap();
    for _ in 0..3 {
        let before = workers(&pool);
        let gate = Gate::new();
        let handles = [(); 3].map(|()| {
            pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket())
        });
        gate.wait_for(2);
        kill_server();
        wait_for_death(&before);
        gate.open();
        // Two ran. The third had not begun, whichever it was.
        let results = handles.map(|handle| handle.get());
        let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert_eq!(errors.len(), 2);
        errors.iter().for_each(assert_orphaned);
        assert_works(&pool);
        wait_until(|| workers(&pool).len() == 2);
        assert!(!workers(&pool).iter().any(|pid| before.contains(pid)));
    }
    assert_eq!(pool.stats().workers_lost, 6);
    // What died had its reasons as before.
    let error = pool.apply(|x: u64| strike(Fate::Exit(x as i32)).is_ok(), 3);
    assert_eq!(error.unwrap_err().exit_code(), Some(3));
    pool.close();
    pool.join().unwrap();
}

fn users_server() {
    let server = ForkServer::start().expect("there is one thread");
    let build = || {
        let builder = ForkPool::builder().processes(2).fork_server(&server);
        builder.build().expect("there is a server")
    };
    let pools = [build(), build(), build()];
    for round in 0..5 {
        // One that has not heard of it, after one that has.
        kill_server();
        assert_works(&pools[round % 3]);
        kill_server();
        for pool in &pools {
            assert_works(pool);
        }
        assert_works(&build());
    }
    drop(server);
    for pool in &pools {
        kill_server();
        assert_works(pool);
    }
}

fn global_server() {
    let server = ForkServer::start().expect("there is one thread");
    server.set_global().expect("it is the first");
    let use_pools = || {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let pool = ForkPool::builder().processes(1).build();
                        let pool = pool.expect("there is a server");
                        for _ in 0..20 {
                            assert_works(&pool);
                        }
                    }
                });
            }
        });
    };
    beside_a_killer(use_pools, try_to_kill_server);
    assert_works(&ForkPool::new().expect("there is a server"));
}

/// Kills the server again and again while `body` runs, and lets it run again until there were some
/// deaths.
fn beside_a_killer(mut body: impl FnMut(), kill: fn() -> bool) {
    let over = Arc::new(AtomicBool::new(false));
    let kills = Arc::new(AtomicU64::new(0));
    let killer = std::thread::spawn({
        let (over, kills) = (over.clone(), kills.clone());
        move || {
            while !over.load(Ordering::Relaxed) {
                let count = kills.fetch_add(kill().into(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1 + count % 20));
            }
        }
    });
    while kills.load(Ordering::Relaxed) < 5 {
        body();
    }
    over.store(true, Ordering::Relaxed);
    killer.join().expect("it does not panic");
}

/// Takes a moment.
fn slow_square(x: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(100));
    x * x
}

fn under_load() {
    let pool = ForkPool::builder().processes(3).build().unwrap();
    beside_a_killer(
        || {
            let results = pool.try_map(slow_square, 0..5000);
            assert_eq!(results.len(), 5000);
            for (x, result) in (0..).zip(results) {
                match result {
                    Ok(y) => assert_eq!(y, x * x),
                    Err(error) => {
                        assert_orphaned(&error);
                        assert_eq!(error.index(), Some(x as usize));
                    }
                }
            }
        },
        try_to_kill_server,
    );
    assert_works(&pool);
}

fn under_load_with_retries() {
    let pool = ForkPool::builder().processes(3).build().unwrap();
    beside_a_killer(
        || {
            let squares = pool.call(slow_square).retries(1000).map(0..5000).unwrap();
            assert!(squares.into_iter().eq((0..5000).map(|x| x * x)));
            let call = pool.call(slow_square).retries(1000);
            let squares = call.imap(0..2000).collect::<Result<Vec<_>, _>>().unwrap();
            assert!(squares.into_iter().eq((0..2000).map(|x| x * x)));
        },
        try_to_kill_server,
    );
    assert_eq!(pool.stats().failed, 0);
}

fn while_building() {
    let server = ForkServer::start().expect("there is one thread");
    beside_a_killer(
        || {
            for _ in 0..20 {
                let builder = ForkPool::builder().processes(8).fork_server(&server);
                let pool = builder.build().expect("there is always a server");
                assert_works(&pool);
            }
        },
        try_to_kill_server,
    );
}

fn while_initializing() {
    fn start(_: ()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pool = ForkPool::builder().processes(4).initializer(start, ());
    let pool = pool.build().unwrap();
    beside_a_killer(
        || {
            let call = pool.call(slow_square).retries(1000);
            let squares = call.map(0..2000).unwrap();
            assert!(squares.into_iter().eq((0..2000).map(|x| x * x)));
        },
        // Slow enough that a worker comes to work now and then.
        || {
            std::thread::sleep(Duration::from_millis(20));
            try_to_kill_server()
        },
    );
}

fn standbys_killed() {
    let pool = ForkPool::builder().processes(2).build().unwrap();
    let before = workers(&pool);
    let kill_standby = || {
        let standbys = procfs::children_called("procpool-spare");
        standbys.iter().for_each(|pid| signal(*pid, Signal::KILL));
        !standbys.is_empty()
    };
    beside_a_killer(
        || {
            let squares = pool.map(slow_square, 0..5000).unwrap();
            assert!(squares.into_iter().eq((0..5000).map(|x| x * x)));
        },
        kill_standby,
    );
    assert_eq!(workers(&pool), before);
    // Those that died are reaped when the pool has to do with its server.
    signal(before[0], Signal::KILL);
    wait_for_death(&before[..1]);
    wait_until(|| workers(&pool).len() == 2);
    kill_server();
    assert_works(&pool);
}

/// Kills both before one can do anything about the other's death.
fn kill_both() {
    let (server, standby) = (server(), standby());
    signal(server, Signal::STOP);
    signal(standby, Signal::KILL);
    wait_for_death(&[standby]);
    signal(server, Signal::KILL);
    wait_for_death(&[server]);
}

fn assert_ended(error: &TaskError) {
    assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
    let text = error.to_string();
    assert!(text.contains("the fork server"), "{text}");
    assert!(text.contains("standby"), "{text}");
    assert!(text.contains("SIGKILL"), "{text}");
}

fn both_killed() {
    let server = ForkServer::start().expect("there is one thread");
    let builder = || ForkPool::builder().processes(2).fork_server(&server);
    let (pool, idle) = (builder().build().unwrap(), builder().build().unwrap());
    let pids = [workers(&pool), workers(&idle)].concat();
    kill_both();
    wait_for_death(&pids);
    for pool in [&pool, &idle] {
        assert_ended(&pool.apply(square, 3).unwrap_err());
        assert_ended(&pool.map(square, 0..10).unwrap_err());
        assert_ended(&pool.apply_async(square, 3).get().unwrap_err());
        assert_ended(&pool.imap(square, 0..10).next().unwrap().unwrap_err());
    }
    let error = builder().build().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::Launch, "{error}");
    assert!(error.to_string().contains("standby"), "{error}");
    pool.close();
    pool.join().unwrap();
    drop((pool, idle, server));
    assert!(procfs::below(std::process::id()).is_empty());
}

fn both_killed_under_load() {
    let pool = ForkPool::builder().processes(2).build().unwrap();
    let gate = Gate::new();
    let pass = |ticket: String| file_barrier::pass(&ticket);
    let running = pool.map_async(pass, [gate.ticket(), gate.ticket()]);
    gate.wait_for(2);
    let waiting = [(); 100].map(|()| pool.apply_async(square, 3));
    std::thread::scope(|scope| {
        let mapping = scope.spawn(|| pool.try_map(square, 0..100));
        kill_both();
        for result in mapping.join().expect("it does not panic") {
            assert_ended(&result.unwrap_err());
        }
    });
    assert_orphaned(&running.get().unwrap_err());
    for handle in waiting {
        assert_ended(&handle.get().unwrap_err());
    }
}

fn never(_: u64) {
    loop {
        std::thread::park();
    }
}

/// Two pools of one server, which is stopped, with the server's process identifier.
fn pools_of_stopped_server() -> ([ForkPool; 2], u32) {
    let server = ForkServer::start().expect("there is one thread");
    let build = || {
        ForkPool::builder()
            .processes(2)
            .fork_server(&server)
            .build()
    };
    let pools = [build().unwrap(), build().unwrap()];
    let (pid, _) = (self::server(), standby());
    signal(pid, Signal::STOP);
    (pools, pid)
}

/// Two tasks that take each of both workers, while there is nobody to start or to reap one.
fn assert_limits(pool: &ForkPool) {
    let limit = Duration::from_millis(50);
    let mut running = pool.apply_async(never, 0);
    assert!(running.get_timeout(limit).is_none());
    let timed_out = pool.call(never).timeout(limit).apply(0).unwrap_err();
    assert_eq!(timed_out.kind(), TaskErrorKind::TimedOut, "{timed_out}");
    running.kill();
    let killed = running.get().unwrap_err();
    assert_eq!(killed.kind(), TaskErrorKind::Cancelled, "{killed}");
}

fn stopped_server() {
    let (pools, _) = pools_of_stopped_server();
    assert_limits(&pools[0]);
    // Nobody is left to begin these.
    let waiting = pools[0].apply_async(square, 3);
    let cancelled = pools[0].apply_async(square, 4);
    cancelled.cancel();
    let cancelled = cancelled.get().unwrap_err();
    assert_eq!(cancelled.kind(), TaskErrorKind::Cancelled, "{cancelled}");
    pools[0].close();
    assert!(!pools[0].join_timeout(Duration::from_millis(1)).unwrap());
    pools[0].terminate();
    assert_eq!(waiting.get().unwrap_err().kind(), TaskErrorKind::Cancelled);
    pools[0].join().unwrap();
    // One that has workers at work when it is dropped.
    let _running = pools[1].map_async(never, 0..4);
    drop(pools);
    assert!(procfs::below(std::process::id()).is_empty());
}

/// Nobody can say how the workers died that the server had yet to reap.
fn stopped_server_killed() {
    let (pools, server) = pools_of_stopped_server();
    assert_limits(&pools[0]);
    let abort = |_: u64| -> () { std::process::abort() };
    let aborted = pools[1].apply_async(abort, 0);
    signal(server, Signal::KILL);
    let aborted = aborted.get().unwrap_err();
    assert_eq!(aborted.kind(), TaskErrorKind::WorkerLost, "{aborted}");
    pools.iter().for_each(assert_works);
    drop(pools);
    assert!(procfs::below(std::process::id()).is_empty());
}

/// Of a program that takes orphans, such as process 1 of a container: workers whose server has died
/// are its children, and so is what their tasks have started.
fn orphans_of_killed() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("it can be asked");
    let server = ForkServer::start().expect("there is one thread");
    let builder = || ForkPool::builder().processes(3).fork_server(&server);
    let pools = [builder().build().unwrap(), builder().build().unwrap()];
    let run = |_: u64| {
        let _started = std::process::Command::new("sleep").arg("1000000").spawn();
        never(0);
    };
    let running = pools.each_ref().map(|pool| pool.map_async(run, 0..2));
    wait_until(|| procfs::below_called("sleep").len() == 4);
    // Some die with the server, the others before, so that it has yet to reap them.
    let (server_pid, standby) = (self::server(), standby());
    signal(server_pid, Signal::STOP);
    let first = workers(&pools[0]);
    first.iter().for_each(|pid| signal(*pid, Signal::KILL));
    signal(standby, Signal::KILL);
    wait_for_death(&[first, vec![standby]].concat());
    signal(server_pid, Signal::KILL);
    for handle in running {
        handle.get().unwrap_err();
    }
    // Zombies count.
    wait_until(|| procfs::below(std::process::id()).is_empty());
    drop((pools, server));
}
