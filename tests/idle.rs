//! An idle pool makes no context switches: neither its workers, nor its fork server, nor the
//! threads of the parent. Prints what the kernel counted before and after ten seconds.
//!
//! `cargo test --test idle -- --nocapture`; a main of its own, for a test harness has threads
//! that switch.

use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(any(feature = "fork", feature = "spawn"))]
use procpool::Output;
use procpool::Pool;

const LOOK_FOR: Duration = Duration::from_secs(10);

fn main() {
    procpool::init();
    #[cfg(feature = "fork")]
    {
        let builder = procpool::ForkPool::builder().processes(2);
        // With all the threads that a pool can have.
        let builder = builder.stdout(Output::lines(|_| {})).stderr(Output::tee());
        let pool = builder.forward_events().build();
        stays_idle("fork", &pool.expect("a pool"));
    }
    #[cfg(feature = "spawn")]
    {
        let builder = procpool::SpawnPool::builder().processes(2);
        let builder = builder.stdout(Output::lines(|_| {})).stderr(Output::tee());
        let pool = builder.forward_events().build();
        stays_idle("spawn", &pool.expect("a pool"));
    }
    println!("test result: ok. the idle pools made no context switches");
}

#[cfg_attr(not(any(feature = "fork", feature = "spawn")), expect(dead_code))]
fn stays_idle<P: Pool>(backend: &str, pool: &P) {
    // Some work first, so that an idle pool is one that has become idle.
    let squares = pool
        .map(|x: u64| x * x, 0..10_000)
        .expect("squares do not fail");
    pool.apply(|()| println!("a line"), ())
        .expect("to print does not fail");
    assert_eq!(squares.len(), 10_000);
    pool.apply_async(|x: u64| x, 1)
        .get()
        .expect("an echo does not fail");
    // Whoever still spins or naps goes to sleep.
    std::thread::sleep(Duration::from_millis(500));

    let before = context_switches(pool);
    std::thread::sleep(LOOK_FOR);
    let after = context_switches(pool);
    for (thread, switches) in &before {
        println!(
            "{backend}: {thread}: {switches} before, {} after",
            after[thread]
        );
    }
    assert_eq!(
        before, after,
        "an idle {backend} pool made context switches"
    );
}

/// How often each thread of the pool has gone to sleep or was put to sleep, ever. The main
/// thread, which only waits for this test, is left out.
fn context_switches<P: Pool>(pool: &P) -> BTreeMap<String, u64> {
    let parent = std::process::id();
    let workers = pool.stats().workers;
    assert_eq!(workers.len(), pool.processes());
    let mut switches = BTreeMap::new();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = children.unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    let pids = workers.iter().map(|worker| worker.pid()).chain(children);
    for pid in pids.chain([parent]) {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("a living process") {
            let task = task.expect("a living thread");
            if task.file_name().to_str() == Some(&parent.to_string()) {
                continue;
            }
            let status = std::fs::read_to_string(task.path().join("status")).expect("its status");
            let field = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name));
                line.and_then(|line| line.split_whitespace().nth(1))
                    .expect("a field")
            };
            let count = |name: &str| field(name).parse::<u64>().expect("a number");
            let thread = format!("{} {}", field("Name:"), field("Pid:"));
            let sum = count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:");
            switches.insert(thread, sum);
        }
    }
    switches
}
