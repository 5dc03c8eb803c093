//! Clients and agents that are stopped for longer than anybody waits for them.

use std::thread;
use std::time::Duration;

use procpool_testing::{procfs, watchdog};
use rustix::process::Signal;

use crate::Scenario;
use crate::cluster::Cluster;
use crate::program::{LARGE, program};
use crate::tasks::{What, Work, assert_values};

/// Longer than the lease, and than an agent that says nothing is waited for.
const STOP: Duration = Duration::from_secs(8);

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("a_client_is_stopped", client_is_stopped),
        ("an_agent_is_stopped", agent_is_stopped),
    ]
}

fn client_is_stopped(test: &str) {
    watchdog::allow(2);
    let Some(cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let work = Work::new();
    let url = cluster.server.url();
    let mut client = program("large", &url, &work.tickets()).start();
    work.wait_for_runs(50);
    procfs::signal(client.id(), Signal::STOP);
    thread::sleep(STOP);
    // Nobody works for one who is not there.
    let runs = work.runs().len();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(work.runs().len(), runs);
    procfs::signal(client.id(), Signal::CONT);
    assert_eq!(client.line(), "all have values");
    assert!(client.status().success());
    let counts = work.counts();
    assert_eq!(counts.len(), LARGE.0 as usize);
    assert!(counts.values().all(|runs| *runs <= 2), "{counts:?}");
}

fn agent_is_stopped(test: &str) {
    watchdog::allow(2);
    let Some(cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.pool();
    let work = Work::new();
    let started = work.start_some(&pool, What::TakeAMoment, 0..1000, 1);
    work.wait_for_runs(50);
    let agent = cluster.agents[0].pid();
    procfs::signal(agent, Signal::STOP);
    thread::sleep(STOP);
    assert_values(started);
    // It comes back, and serves again.
    let later = Work::new();
    let started = later.start(&pool, 20, 1);
    procfs::signal(agent, Signal::CONT);
    later.gate.wait_for(4);
    later.gate.open();
    assert_values(started);
    later.assert_once(20);
    let counts = work.counts();
    assert_eq!(counts.len(), 1000);
    assert!(counts.values().all(|runs| *runs <= 2), "{counts:?}");
}
