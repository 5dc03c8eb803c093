//! Workers, agents and clients that die.

use procpool_core::{Pool, TaskErrorKind};
use procpool_testing::file_barrier::{self, Gate, Tally};
use procpool_testing::procfs::{self, wait_for_death};
use rustix::process::Signal;

use crate::Scenario;
use crate::cluster::Cluster;
use crate::program::{QUEUED, program};
use crate::tasks::{What, Work, assert_lost, assert_values};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("a_worker_dies", a_worker_dies),
        ("a_worker_dies_and_its_task_is_retried", a_worker_dies_again),
        ("an_agent_dies_and_nothing_is_retried", |test| {
            agent_dies(test, 0)
        }),
        ("an_agent_dies_and_all_is_retried", |test| {
            agent_dies(test, 1)
        }),
        ("an_agent_dies_with_many_small_tasks", |test| {
            agent_dies_with_many(test, 0)
        }),
        ("an_agent_dies_with_many_small_tasks_to_retry", |test| {
            agent_dies_with_many(test, 1)
        }),
        ("what_a_dead_agent_had_taken_goes_on_elsewhere", |test| {
            dies_with_what_it_has_taken(test, false)
        }),
        (
            "what_a_dead_agent_had_taken_waits_for_another_agent",
            |test| dies_with_what_it_has_taken(test, true),
        ),
        ("a_closed_pool_tries_again", a_closed_pool_tries_again),
        ("the_dead_are_not_waited_for", dead_are_asked),
        ("a_client_dies", client_dies),
    ]
}

/// A question to all agents has an answer without those that are dead, though nothing is under way
/// that would show it. (If it waited for them, the watchdog would come.)
fn dead_are_asked(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.pool();
    assert_eq!(pool.map(|x: u64| x, 0..100).map(|it| it.len()), Ok(100));
    cluster.agents[0].kill();
    for _ in 0..50 {
        assert_eq!(pool.stats().succeeded, 100);
        assert!(pool.dump().workers.len() <= 4);
    }
    // It was asked, so it is missed.
    procfs::wait_until(|| pool.agents().len() == 1);
    assert_eq!(pool.map(|x: u64| x, 0..100).map(|it| it.len()), Ok(100));
}

fn a_worker_dies(test: &str) {
    let Some(cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.pool();
    let work = Work::new();
    let started = work.start(&pool, 8, 0);
    let victim = work.gate.wait_for(4)[0];
    let is_of = |agent: usize| procfs::above(victim).contains(&cluster.agents[agent].pid());
    let machine = if is_of(0) { "m0" } else { "m1" };
    assert!(is_of(0) || is_of(1));
    let lost = work.of(&[victim]);
    procfs::signal(victim, Signal::KILL);
    wait_for_death(&[victim]);
    work.gate.open();
    for (number, handle) in started {
        if lost != [number] {
            assert_eq!(handle.get(), Ok(number));
            continue;
        }
        let error = handle.get().expect_err("it was killed");
        assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
        assert_eq!(error.signal(), Some(Signal::KILL.as_raw()));
        let worker = error.worker().expect("it is known");
        assert_eq!((worker.pid(), worker.machine()), (victim, Some(machine)));
        assert_eq!(error.machine(), Some(machine));
    }
    work.assert_once(8);
    let abort = |(): ()| -> () { std::process::abort() };
    let error = pool.apply(abort, ()).expect_err("it aborts");
    assert!(error.is_worker_lost(), "{error}");
    assert_eq!(error.signal(), Some(Signal::ABORT.as_raw()));
}

/// A pool that is closed ends what it has, with all its attempts.
fn a_closed_pool_tries_again(test: &str) {
    let Some(cluster) = Cluster::some_or_skip(test, 1) else {
        return;
    };
    let pool = cluster.pool();
    let (gate, tally) = (Gate::new(), Tally::new());
    let succeed_at_last = |(gate, tally): (String, String)| {
        file_barrier::pass(&gate);
        file_barrier::add(&tally, "attempt");
        let attempts = file_barrier::lines(&tally);
        assert!(attempts > 3, "not yet");
        attempts
    };
    let call = pool.call(succeed_at_last).retries(3).retry_if(|_| true);
    let handle = call.apply_async((gate.ticket(), tally.ticket()));
    gate.wait_for(1);
    pool.close();
    gate.open();
    assert_eq!(handle.get(), Ok(4));
    pool.join().expect("it is closed");
}

/// Where it may be tried again, the caller sees nothing.
fn a_worker_dies_again(test: &str) {
    let Some(cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.pool();
    let work = Work::new();
    let started = work.start(&pool, 4, 1);
    let victim = work.gate.wait_for(4)[0];
    procfs::signal(victim, Signal::KILL);
    work.gate.wait_for(5);
    work.gate.open();
    assert_values(started);
}

fn agent_dies(test: &str, retries: u32) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.pool();
    let work = Work::new();
    let started = work.start(&pool, 20, retries);
    work.gate.wait_for(4);
    let workers = procfs::below(cluster.agents[0].pid());
    let begun = work.of(&workers);
    assert_eq!(begun.len(), 2);
    cluster.agents[0].kill();
    wait_for_death(&workers);
    work.gate.open();
    if retries == 0 {
        assert_lost(started, &begun, "m0");
        work.assert_once(20);
    } else {
        assert_values(started);
        let twice = |number| 1 + usize::from(begun.contains(&number));
        let expected = (0..20).map(|number| (number, twice(number))).collect();
        assert_eq!(work.counts(), expected);
    }
    assert_eq!(pool.agents().len(), 1);
}

fn agent_dies_with_many(test: &str, retries: u32) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.pool();
    // So that it is known how long they take, and many travel together.
    let before = Work::new();
    assert_values(before.start_some(&pool, What::BeQuick, 0..100, 0));
    let work = Work::new();
    let tasks = 20_000;
    let started = work.start_some(&pool, What::BeQuick, 0..tasks, retries);
    work.wait_for_runs(1000);
    let workers = procfs::below(cluster.agents[0].pid());
    cluster.agents[0].kill();
    let mut lost = Vec::new();
    for (number, handle) in started {
        match handle.get() {
            Ok(value) => assert_eq!(value, number),
            Err(error) => {
                assert!(retries == 0 && error.is_worker_lost(), "{error}");
                assert_eq!(error.machine(), Some("m0"), "{error}");
                lost.push(number);
            }
        }
    }
    let of_dead = work.of(&workers);
    let counts = work.counts();
    for number in 0..tasks {
        let runs = counts.get(&number).copied().unwrap_or(0);
        if lost.contains(&number) {
            // It was begun, or was about to be in the same delivery; by nobody else.
            assert!(
                runs == usize::from(of_dead.contains(&number)),
                "{number}: {runs}"
            );
        } else if retries == 0 {
            assert_eq!(runs, 1, "{number}");
        } else {
            let of_dead = usize::from(of_dead.contains(&number));
            assert!((1..=1 + of_dead).contains(&runs), "{number}: {runs}");
        }
    }
}

/// It has tasks that it has not begun, since its workers wait. They go to another agent, which
/// `comes_later` or is there, before the dead one is given up: that is when what must not run twice
/// is lost.
fn dies_with_what_it_has_taken(test: &str, comes_later: bool) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 1) else {
        return;
    };
    let pool = cluster.pool();
    // So that it is known that they are quick, and some are taken ahead.
    assert_values(Work::new().start_some(&pool, What::TakeAMoment, 0..50, 0));
    let work = Work::new();
    let once = work.start_some(&pool, What::Pass, 0..1, 0);
    let again = work.start_some(&pool, What::Pass, 1..2, 1);
    work.gate.wait_for(2);
    let started = work.start_some(&pool, What::TakeAMoment, 2..50, 1);
    // It is answered behind what was submitted.
    assert_eq!(pool.stats().workers.len(), 2);
    let workers = procfs::below(cluster.agents[0].pid());
    if !comes_later {
        cluster.add_agent();
        cluster.wait_for_agents(&pool);
    }
    cluster.agents[0].kill();
    wait_for_death(&workers);
    work.gate.open();
    if comes_later {
        cluster.add_agent();
    }
    assert_values(started);
    assert_values(again);
    assert!(!once[0].1.is_ready(), "the dead agent was given up before");
    assert_lost(once, &[0], "m0");
    let twice = |number| 1 + usize::from(number == 1);
    let expected = (0..50).map(|number| (number, twice(number))).collect();
    assert_eq!(work.counts(), expected);
}

fn client_dies(test: &str) {
    let Some(cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let work = Work::new();
    let url = cluster.server.url();
    let mut client = program("queue", &url, &work.tickets()).start();
    let pids = work.gate.wait_for(4);
    client.kill();
    wait_for_death(&pids);
    work.gate.open();
    // Agents serve others. What is behind it in the queue comes later.
    let pool = cluster.pool();
    let other = Work::new();
    assert_values(other.start_some(&pool, What::TakeAMoment, 0..50, 0));
    other.assert_once(50);
    assert_eq!(work.counts().len(), 4);
    assert!(work.counts().values().all(|runs| *runs == 1));
    // And one that is not killed has all of its values, so that the test is one.
    let work = Work::new();
    let mut client = program("queue", &url, &work.tickets()).start();
    work.gate.wait_for(4);
    work.gate.open();
    assert_eq!(client.line(), "all have values");
    assert!(client.status().success());
    work.assert_once(QUEUED);
}
