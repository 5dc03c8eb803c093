//! Programs that are clients, to be killed or stopped.

use std::env;
use std::io::Write;

use procpool_core::Pool;
use procpool_testing::again::Again;

use crate::cluster::{LONG, builder};
use crate::tasks::{self, What};

/// Where the server is, and the tickets of tally and gate.
const URL: &str = "TEST_URL";
const TALLY: &str = "TEST_TALLY";
const GATE: &str = "TEST_GATE";

/// How many tasks the client called `queue` has.
pub(crate) const QUEUED: u32 = 20;
/// How many items the client called `large` has, and how large their results are.
pub(crate) const LARGE: (u32, usize) = (300, 100_000);

/// Is the program of this name.
pub(crate) fn run(name: &str) {
    match name {
        "queue" => queue(),
        "large" => large(),
        other => panic!("there is no program {other}"),
    }
}

/// The program of this name, to be run.
pub(crate) fn program(name: &str, url: &str, (tally, gate): &(String, String)) -> Again {
    let again = Again::new(name).env(URL, url);
    again.env(TALLY, tally).env(GATE, gate)
}

fn tickets() -> (String, String) {
    let variable = |name| env::var(name).expect("it is set");
    (variable(TALLY), variable(GATE))
}

fn pool() -> procpool_cluster::ClusterPool {
    let url = env::var(URL).expect("it is set");
    let pool = builder(&url).build().expect("the server is there");
    assert!(pool.wait_for_processes(4, LONG));
    pool
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").expect("the test reads it");
    out.flush().expect("the test reads it");
}

/// Queues tasks that wait at the gate, and waits for them.
fn queue() {
    let pool = pool();
    let started = tasks::start(&pool, &tickets(), What::Pass, 0..QUEUED, 0);
    tasks::assert_values(started);
    say("all have values");
}

/// Gets results that are large.
fn large() {
    let pool = pool();
    let (tally, _) = tickets();
    let (items, size) = LARGE;
    let items = (0..items).map(move |number| (tally.clone(), number, size));
    let fill = |(tally, number, size): (String, u32, usize)| {
        procpool_testing::file_barrier::add(&tally, format!("{number} {}", std::process::id()));
        std::thread::sleep(std::time::Duration::from_millis(10));
        vec![number.to_le_bytes()[0]; size]
    };
    let results = pool.call(fill).chunksize(1).retries(1).imap(items);
    for (number, result) in (0_u32..).zip(results) {
        let expected = vec![number.to_le_bytes()[0]; size];
        assert!(result.expect("a value") == expected, "{number}");
    }
    say("all have values");
}
