//! Agents that are not there, come late, or leave.

use std::sync::mpsc;
use std::time::Duration;

use procpool_core::{Output, OutputLine, Pool, TaskErrorKind, build_id};
use procpool_testing::procfs::{self, wait_until};
use rustix::process::Signal;

use crate::Scenario;
use crate::cluster::Cluster;
use crate::tasks::{What, Work, assert_values};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("there_are_no_agents", no_agents),
        ("agents_come_later", come_later),
        ("an_agent_leaves", leaves),
        ("an_agent_leaves_in_good_order", leaves_in_good_order),
        ("the_last_agent_dies", last_dies),
    ]
}

fn no_agents(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 0) else {
        return;
    };
    let limit = Duration::from_secs(1);
    let pool = cluster.builder().agents_timeout(limit).build();
    let pool = pool.expect("the server is there");
    assert!(pool.agents().is_empty());
    let handles = [1, 2].map(|x: u64| pool.apply_async(|x: u64| x * x, x));
    for handle in handles {
        let error = handle.get().expect_err("there is nobody");
        assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
        let text = error.to_string();
        let address = format!("PROCPOOL_AGENT={}", cluster.server.url());
        for part in [&*address, "1s", &build_id().to_string()] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("other build"), "{text}");
    }
    // The pool is as good as before.
    cluster.add_agent();
    cluster.wait_for_agents(&pool);
    assert_eq!(pool.apply(|x: u64| x * x, 7), Ok(49));
}

fn come_later(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 0) else {
        return;
    };
    let pool = cluster.pool();
    let work = Work::new();
    let started = work.start(&pool, 20, 0);
    cluster.add_agent();
    work.gate.wait_for(2);
    assert_eq!(pool.agents().len(), 1);
    // It does not take more than it can run: there is work for others.
    cluster.add_agent();
    let pids = work.gate.wait_for(4);
    let of_second = procfs::below(cluster.agents[1].pid());
    assert_eq!(pids.iter().filter(|pid| of_second.contains(pid)).count(), 2);
    work.gate.open();
    assert_values(started);
    work.assert_once(20);
}

fn leaves(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 2) else {
        return;
    };
    let pool = cluster.pool();
    let work = Work::new();
    let started = work.start(&pool, 20, 0);
    work.gate.wait_for(4);
    let workers = procfs::below(cluster.agents[0].pid());
    let begun = work.of(&workers);
    cluster.agents[0].signal(Signal::TERM);
    wait_until(|| {
        pool.agents()
            .iter()
            .any(|it| it.is_leaving && it.machine == "m0")
    });
    work.gate.open();
    assert_values(started);
    work.assert_once(20);
    assert_eq!(work.of(&workers), begun);
    let status = cluster.agents[0].status();
    assert!(status.success(), "{status}");
    assert!(!workers.into_iter().any(procfs::is_alive));
    // The other one does the rest.
    assert_values(Work::new().start_some(&pool, What::BeQuick, 0..100, 0));
    // One that has nothing to do leaves at once.
    cluster.agents[1].signal(Signal::TERM);
    let status = cluster.agents[1].status();
    assert!(status.success(), "{status}");
}

/// What a worker keeps, and says when it leaves.
struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        println!("farewell");
    }
}

/// Its workers do, and what they print then is heard.
fn leaves_in_good_order(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 1) else {
        return;
    };
    let (sender, lines) = mpsc::channel();
    let output = Output::lines(move |line: &OutputLine| {
        // Once it has heard enough, the test has ended.
        let _ = sender.send(line.bytes().to_vec());
    });
    let pool = cluster.built(cluster.builder().stdout(output));
    let keep = |_: &mut Farewell, x: u64| x;
    assert_eq!(pool.call(keep).state(|| Farewell).apply(7), Ok(7));
    cluster.agents[0].signal(Signal::TERM);
    let status = cluster.agents[0].status();
    assert!(status.success(), "{status}");
    assert_eq!(lines.recv().expect("it is said"), b"farewell");
    // Nobody has anything to do, and it is let go of all the same.
    wait_until(|| pool.agents().is_empty());
}

fn last_dies(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 1) else {
        return;
    };
    let limit = Duration::from_secs(2);
    let pool = cluster.built(cluster.builder().agents_timeout(limit));
    let work = Work::new();
    let started = work.start(&pool, 10, 1);
    work.gate.wait_for(2);
    cluster.agents[0].kill();
    for (_, handle) in started {
        let error = handle.get().expect_err("there is nobody");
        assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
    }
    assert!(pool.agents().is_empty());
    cluster.agents.clear();
    cluster.add_agent();
    let again = Work::new();
    assert_values(again.start_some(&pool, What::BeQuick, 0..100, 0));
    assert_eq!(work.counts().len(), 2);
}
