//! Machines that are cut off, and come back.

use procpool_cluster::ClusterPool;
use procpool_testing::machine::Machine;
use procpool_testing::nats::{self, Agent, Config, Server};
use procpool_testing::procfs::{self, wait_for_death, wait_until};

use crate::Scenario;
use crate::cluster::{LONG, builder};
use crate::tasks::{Work, assert_lost, assert_values};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("a_machine_vanishes_and_nothing_is_retried", |test| {
            vanishes(test, 0)
        }),
        ("a_machine_vanishes_and_all_is_retried", |test| {
            vanishes(test, 1)
        }),
        ("a_machine_is_cut_off_for_a_moment", cut_off_for_a_moment),
    ]
}

/// Two machines with an agent each, and a client elsewhere.
struct Site {
    pool: ClusterPool,
    agents: [Agent; 2],
    machines: [Machine; 2],
    _server: Server,
}

impl Site {
    fn some_or_skip(test: &str) -> Option<Self> {
        let server = nats::server_or_skip(test, Config::new().for_machines())?;
        let machines: [Machine; 2] = Machine::some_or_skip(test)?;
        let start = |at: usize| {
            let machine = &machines[at];
            let url = server.url_at(&machine.gateway().to_string());
            Agent::start_on(machine, &url, &format!("m{at}"), 2)
        };
        let agents = [start(0), start(1)];
        let pool = builder(&server.url()).build().expect("the server is there");
        assert!(pool.wait_for_processes(4, LONG));
        Some(Self {
            pool,
            agents,
            machines,
            _server: server,
        })
    }
}

fn vanishes(test: &str, retries: u32) {
    procpool_testing::watchdog::allow(2);
    let Some(site) = Site::some_or_skip(test) else {
        return;
    };
    let work = Work::new();
    let mut started = work.start(&site.pool, 20, retries);
    let pids = work.gate.wait_for(4);
    let there: Vec<u32> = procfs::below(site.agents[0].pid());
    let pids: Vec<u32> = pids.into_iter().filter(|it| there.contains(it)).collect();
    let begun = work.of(&pids);
    assert_eq!(begun.len(), 2);
    site.machines[0].link_down();
    // The agent knows by itself that it is not waited for any longer.
    wait_for_death(&pids);
    // What it had begun is lost, or runs elsewhere; nothing else is.
    if retries == 0 {
        let is_begun = |it: &(u32, _)| begun.contains(&it.0);
        let (lost, rest) = started.into_iter().partition(is_begun);
        assert_lost(lost, &begun, "m0");
        started = rest;
        wait_until(|| site.pool.agents().len() == 1);
    }
    work.gate.open();
    assert_values(started);
    let runs_of = |number| 1 + usize::from(retries > 0 && begun.contains(&number));
    let expected = (0..20).map(|number| (number, runs_of(number))).collect();
    assert_eq!(work.counts(), expected);
    // It is back, and does what there is now, and nothing of what there was.
    let later = Work::new();
    let started = later.start(&site.pool, 20, retries);
    site.machines[0].link_up();
    let at_gate = later.gate.wait_for(4);
    let there = procfs::below(site.agents[0].pid());
    assert_eq!(at_gate.iter().filter(|it| there.contains(it)).count(), 2);
    later.gate.open();
    assert_values(started);
    later.assert_once(20);
    assert_eq!(work.counts(), expected);
}

/// Shorter than the lease: nothing comes of it.
fn cut_off_for_a_moment(test: &str) {
    let Some(site) = Site::some_or_skip(test) else {
        return;
    };
    let work = Work::new();
    let started = work.start(&site.pool, 20, 0);
    let pids = work.gate.wait_for(4);
    site.machines[0].link_down();
    std::thread::sleep(std::time::Duration::from_secs(2));
    site.machines[0].link_up();
    work.gate.open();
    assert_values(started);
    work.assert_once(20);
    assert!(pids.into_iter().all(procfs::is_alive));
}
