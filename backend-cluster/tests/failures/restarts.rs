//! A server that restarts, or stays away.

use std::time::Duration;

use procpool_cluster::{ClusterPool, Storage};
use procpool_core::{BuildErrorKind, Pool, TaskErrorKind};
use procpool_testing::procfs::{self, wait_for_death};
use rustix::process::Signal;

use crate::Scenario;
use crate::cluster::{Cluster, LONG, WORKERS};
use crate::tasks::{What, Work, assert_values};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("the_server_restarts_with_a_queue_in_memory", |test| {
            restarts(test, Storage::Memory)
        }),
        ("the_server_restarts_with_a_queue_in_a_file", |test| {
            restarts(test, Storage::File)
        }),
        (
            "the_server_restarts_while_nothing_is_under_way",
            restarts_idle,
        ),
        (
            "an_agent_is_found_that_is_back_later_than_the_client",
            back_later,
        ),
        ("the_server_stays_away", stays_away),
        ("the_server_is_not_there", is_not_there),
    ]
}

fn restarts(test: &str, storage: Storage) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.built(cluster.builder().storage(storage));
    for what in [What::TakeAMoment, What::BeQuick] {
        let work = Work::new();
        let tasks = match what {
            What::BeQuick => 10_000,
            _ => 400,
        };
        let started = work.start_some(&pool, what, 0..tasks, 0);
        for tenths in [1, 3, 5] {
            work.wait_for_runs(tasks as usize * tenths / 10);
            cluster.server.kill();
            cluster.server.start_again();
        }
        assert_values(started);
        work.assert_once(tasks);
    }
    // While the server is away, what runs goes on.
    let work = Work::new();
    let started = work.start(&pool, 20, 0);
    work.gate.wait_for(4);
    cluster.server.kill();
    work.gate.open();
    cluster.server.start_again();
    assert_values(started);
    work.assert_once(20);
}

fn restarts_idle(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.pool();
    for _ in 0..3 {
        let work = Work::new();
        assert_values(work.start_some(&pool, What::BeQuick, 0..100, 0));
        work.assert_once(100);
        cluster.server.kill();
        cluster.server.start_again();
    }
    assert_eq!(pool.apply(|x: u64| x * x, 7), Ok(49));
}

/// It has not heard the client ask who is there, and the client has nothing to do that it could
/// take.
fn back_later(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    // So that they are connected.
    drop(cluster.pool());
    let late = cluster.agents[0].pid();
    procfs::signal(late, Signal::STOP);
    cluster.server.kill();
    cluster.server.start_again();
    let pool = cluster.builder().build().expect("the server is there");
    assert!(pool.wait_for_processes(WORKERS, LONG));
    procfs::signal(late, Signal::CONT);
    assert!(pool.wait_for_processes(2 * WORKERS, LONG));
    assert_eq!(pool.agents().len(), 2);
}

fn stays_away(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let limit = Duration::from_secs(2);
    let pool = cluster.built(cluster.builder().server_timeout(limit));
    let work = Work::new();
    let started = work.start(&pool, 20, 0);
    let pids = work.gate.wait_for(4);
    assert!(pids.iter().all(|pid| procfs::is_alive(*pid)));
    cluster.server.kill();
    for (_, handle) in started {
        let error = handle.get().expect_err("there is no server");
        assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&cluster.server.url()) && text.contains("2s"),
            "{text}"
        );
    }
    // What is submitted meanwhile waits as long.
    let error = pool.apply(|x: u64| x, 1).expect_err("there is no server");
    assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
    // Nobody wants what ran.
    wait_for_death(&pids);
    cluster.server.start_again();
    assert!(pool.wait_for_processes(4, LONG));
    let again = Work::new();
    assert_values(again.start_some(&pool, What::TakeAMoment, 0..50, 0));
    again.assert_once(50);
    assert_eq!(work.counts().len(), 4);
}

fn is_not_there(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 0) else {
        return;
    };
    cluster.server.kill();
    let url = cluster.server.url();
    let error = ClusterPool::connect(&url).expect_err("there is none");
    assert_eq!(error.kind(), BuildErrorKind::Launch);
    assert!(error.to_string().contains(&url), "{error}");
}
