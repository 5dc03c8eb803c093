//! An idle pool makes no context switches: neither its workers, nor its fork server, nor the
//! threads of the parent. Prints what the kernel counted before and after ten seconds.
//!
//! `cargo test -p procpool-tests --test idle -- --nocapture`; a main of its own, for a test harness
//! has threads that switch.
#![allow(clippy::disallowed_methods, reason = "tests sleep")]
#![cfg_attr(
    not(any(feature = "fork", feature = "spawn")),
    allow(
        dead_code,
        unused_imports,
        unused_macros,
        unused_mut,
        reason = "without a backend there is no pool that could be idle"
    )
)]

use std::collections::BTreeMap;
use std::time::Duration;

use procpool::{Output, Pool};

const LOOK_FOR: Duration = Duration::from_secs(10);
/// What is due then does not tick until then.
const HOUR: Duration = Duration::from_secs(3600);

/// A pool that has become idle.
struct Idle {
    name: String,
    /// The processes of its workers.
    workers: Box<dyn Fn() -> Vec<u32>>,
    /// How many there are when it has come to rest.
    least: usize,
}

/// Pools of a backend, each with other things that it could wake up for.
macro_rules! idle_pools {
    ($backend:literal, $pool:ty) => {{
        let builder = || <$pool>::builder().processes(2);
        // With all the threads that a pool can have.
        let captured = builder()
            .stdout(Output::lines(|_| {}))
            .stderr(Output::tee())
            .forward_events();
        let soon = Duration::from_millis(50);
        [
            ("captured", captured, 2),
            ("with an age", builder().max_age(HOUR), 2),
            ("with an idle timeout", builder().idle_timeout(HOUR), 2),
            (
                "at its least",
                builder().idle_timeout(soon).min_processes(1),
                1,
            ),
        ]
        .map(|(what, builder, least)| {
            let pool = builder.build().expect("a pool");
            Idle::new(format!("{} {what}", $backend), pool, least)
        })
    }};
}

fn main() {
    procpool::init();
    // While there is one thread.
    #[cfg(feature = "fork")]
    procpool::ForkServer::start()
        .expect("a fork server")
        .set_global()
        .expect("it is the first");
    // Calls are made in a span of its.
    tracing_subscriber::fmt().with_writer(std::io::sink).init();
    let mut pools: Vec<Idle> = Vec::new();
    #[cfg(feature = "fork")]
    pools.extend(idle_pools!("fork", procpool::ForkPool));
    #[cfg(feature = "spawn")]
    pools.extend(idle_pools!("spawn", procpool::SpawnPool));
    if pools.is_empty() {
        return;
    }
    for pool in &pools {
        while (pool.workers)().len() > pool.least {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    // A thread that still spins or naps goes to sleep.
    std::thread::sleep(Duration::from_millis(500));

    let before = context_switches(&pools);
    std::thread::sleep(LOOK_FOR);
    let after = context_switches(&pools);
    for (thread, switches) in &before {
        println!("{thread}: {switches} before, {} after", after[thread]);
    }
    assert_eq!(before, after, "an idle pool made context switches");
    println!("test result: ok. the idle pools made no context switches");
}

impl Idle {
    fn new<P: Pool + 'static>(name: String, pool: P, least: usize) -> Self {
        // Some work first, so that an idle pool is one that has become idle.
        let _span = tracing::info_span!("work").entered();
        let squares = pool
            .map(|x: u64| x * x, 0..10_000)
            .expect("squares do not fail");
        let talk = |()| {
            println!("a line");
            tracing::info!("an event");
        };
        pool.apply(talk, ()).expect("to print does not fail");
        assert_eq!(squares.len(), 10_000);
        // An item that is tried again in an hour.
        let fails = |x: u64| -> Result<u64, u64> { Err(x) };
        let call = pool.call(fails).retries(1).retry_errors(|_: &u64| true);
        drop(call.backoff(HOUR).apply_async(1));
        while pool.stats().queued == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        pool.apply_async(|x: u64| x, 1)
            .get()
            .expect("an echo does not fail");
        let pids = move || {
            let workers = pool.stats().workers;
            workers.iter().map(|worker| worker.pid()).collect()
        };
        Self {
            name,
            workers: Box::new(pids),
            least,
        }
    }
}

/// How often each thread of the pools has gone to sleep or was put to sleep, ever. The main
/// thread, which only waits for this test, is left out.
fn context_switches(pools: &[Idle]) -> BTreeMap<String, u64> {
    let parent = std::process::id();
    let mut pids: BTreeMap<u32, &str> = BTreeMap::new();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace();
    pids.extend(children.filter_map(|pid| Some((pid.parse().ok()?, "child"))));
    pids.insert(parent, "parent");
    for pool in pools {
        let workers = (pool.workers)();
        assert_eq!(workers.len(), pool.least, "{}", pool.name);
        pids.extend(workers.into_iter().map(|pid| (pid, &*pool.name)));
    }
    let mut switches = BTreeMap::new();
    for (pid, whose) in pids {
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
            let thread = format!("{whose}: {} {}", field("Name:"), field("Pid:"));
            let sum = count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:");
            switches.insert(thread, sum);
        }
    }
    switches
}
