//! Tasks that go to an agent without the queue, since the client knows of a free worker there.

use std::thread;
use std::time::Duration;

use procpool_cluster::ClusterPool;
use procpool_core::{Pool, TaskErrorKind};
use procpool_testing::procfs;
use rustix::process::Signal;

use crate::Scenario;
use crate::cluster::Cluster;
use crate::tasks::{What, Work, assert_values};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("idle_agents_die_and_nothing_is_lost", idle_agents_die),
        ("the_workers_are_taken", workers_are_taken),
        ("an_agent_without_a_lease_asks", without_a_lease),
        ("a_stopped_agent_gets_a_task", stopped_agent_gets_one),
        (
            "a_stopped_agent_has_a_task_cancelled",
            stopped_agent_is_cancelled,
        ),
    ]
}

/// One task after the other. Whoever is sent the next one is dead, and it must not run twice.
fn idle_agents_die(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 4) else {
        return;
    };
    // The other one sees what the server knows, and tells nobody.
    let (pool, watcher) = (cluster.pool(), cluster.pool());
    let work = Work::new();
    let mut numbers = 0..;
    let mut run_some = || {
        for number in numbers.by_ref().take(20) {
            assert_values(work.start_some(&pool, What::BeQuick, number..number + 1, 0));
        }
    };
    run_some();
    for left in [3, 2, 1] {
        let (_, worker) = work.runs().pop().expect("there were some");
        let last = procfs::above(worker);
        let mut agents = cluster.agents.iter_mut();
        let last = agents.find(|it| last.contains(&it.pid()));
        last.expect("the worker is one of theirs").kill();
        procfs::wait_until(|| {
            watcher.stats();
            watcher.agents().len() == left
        });
        run_some();
        assert_eq!(pool.agents().len(), left);
    }
    work.assert_once(80);
}

/// Another client has all workers. A task waits for the first one that is free.
fn workers_are_taken(test: &str) {
    let Some(cluster) = Cluster::some_or_skip(test, 1) else {
        return;
    };
    let (first, second) = (cluster.pool(), cluster.pool());
    let (of_first, of_second) = (Work::new(), Work::new());
    let started = of_first.start(&first, 2, 0);
    of_first.gate.wait_for(2);
    let waiting = of_second.start_some(&second, What::BeQuick, 0..1, 0);
    // Its agent has said so, or the queue has it.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(of_second.runs(), []);
    of_first.gate.open();
    assert_values(started);
    assert_values(waiting);
    assert_values(of_second.start_some(&second, What::BeQuick, 1..50, 0));
    of_second.assert_once(50);
}

/// For longer than a lease, nobody has asked whether anybody lives.
fn without_a_lease(test: &str) {
    let Some(cluster) = Cluster::some_or_skip(test, 1) else {
        return;
    };
    let pool = cluster.pool();
    let work = Work::new();
    for number in 0..2 {
        assert_values(work.start_some(&pool, What::BeQuick, number..number + 1, 0));
        thread::sleep(Duration::from_millis(5500));
    }
    assert_values(work.start_some(&pool, What::BeQuick, 2..3, 0));
    work.assert_once(3);
}

/// It says nothing for a moment, and begins when it goes on.
fn stopped_agent_gets_one(test: &str) {
    let Some((_cluster, pool, work, agent)) = one_that_is_stopped(test) else {
        return;
    };
    let started = work.start_some(&pool, What::BeQuick, 1..3, 0);
    thread::sleep(Duration::from_millis(500));
    procfs::signal(agent, Signal::CONT);
    assert_values(started);
    work.assert_once(3);
}

/// What it was sent meanwhile does not stay.
fn stopped_agent_is_cancelled(test: &str) {
    let Some((_cluster, pool, work, agent)) = one_that_is_stopped(test) else {
        return;
    };
    let (_, handle) = work.start_some(&pool, What::Pass, 1..2, 0).remove(0);
    thread::sleep(Duration::from_millis(200));
    handle.kill();
    procfs::signal(agent, Signal::CONT);
    let error = handle.get().expect_err("it was killed");
    assert_eq!(error.kind(), TaskErrorKind::Cancelled, "{error}");
    assert_values(work.start_some(&pool, What::BeQuick, 2..20, 0));
}

/// An agent that has run a task, and is stopped now.
fn one_that_is_stopped(test: &str) -> Option<(Cluster, ClusterPool, Work, u32)> {
    let cluster = Cluster::some_or_skip(test, 1)?;
    let pool = cluster.pool();
    let work = Work::new();
    assert_values(work.start_some(&pool, What::BeQuick, 0..1, 0));
    let agent = cluster.agents[0].pid();
    procfs::signal(agent, Signal::STOP);
    Some((cluster, pool, work, agent))
}
