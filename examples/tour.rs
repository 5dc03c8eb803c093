//! Python's five pool programs, as everybody writes them first, on every pool there is.
//!
//! Look at the numbers: the pool's output is that of the built-in map. `Starting` is said once by
//! each worker; in program 4 no worker runs more than two tasks, so more than four workers start.
//! In program 5 ten workers sleep three seconds at the same time. `SerialPool` has no workers, and
//! so nobody says `Starting` there.
//!
//! ```text
//! $ cargo run --release --example tour
//!
//! ===== ForkPool: workers are forked from a copy of this program =====
//!
//! --- 1: map ---
//! [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]
//!
//! --- 2: apply_async ---
//! 4
//! [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]
//!
//! --- 3: initializer, close, join ---
//! inputs:   [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
//! built-in: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
//! Starting PoolWorker-1
//! Starting PoolWorker-3
//! Starting PoolWorker-2
//! Starting PoolWorker-4
//! pool:     [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
//!
//! --- 4: max_tasks_per_child ---
//! inputs:   [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
//! built-in: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
//! Starting PoolWorker-2
//! Starting PoolWorker-3
//! Starting PoolWorker-1
//! Starting PoolWorker-4
//! Starting PoolWorker-5
//! Starting PoolWorker-6
//! Starting PoolWorker-7
//! Starting PoolWorker-8
//! pool:     [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
//! tasks:    {"PoolWorker-1": 2, "PoolWorker-2": 2, "PoolWorker-3": 2, "PoolWorker-4": 2, "PoolWorker-5": 1, "PoolWorker-6": 1}
//!
//! --- 5: tasks that take three pauses of 1s each ---
//! hello 8
//! hello 2
//! hello 3
//!   (27 more hellos)
//! all ten after 3.0 s
//! done hello 0
//! done hello 1
//!   (7 more)
//! done hello 9
//!
//!   (the same from SpawnPool and SerialPool)
//!
//! (On many machines: ClusterPool. Run this with `--features cluster`.)
//!
//! 15 programs ran with the right answers
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "tasks that take their time sleep"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "cluster")]
use procpool::ClusterPool;
#[cfg(feature = "spawn")]
use procpool::SpawnPool;
use procpool::{BuildError, Pool, SerialPool, Stats, worker};
#[cfg(feature = "fork")]
use procpool::{ForkPool, ForkServer};

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    // Forking is for programs with one thread, and pools have threads: so this comes first.
    #[cfg(feature = "fork")]
    let server = ForkServer::start()?;

    let programs = [
        #[cfg(feature = "fork")]
        on_fork_pool(&server)?,
        #[cfg(feature = "spawn")]
        on_spawn_pool()?,
        on_serial_pool()?,
        on_cluster_pool()?,
    ];
    let programs: u32 = programs.iter().sum();
    println!("\n{programs} programs ran with the right answers");
    Ok(())
}

#[cfg(feature = "fork")]
fn on_fork_pool(server: &ForkServer) -> Result<u32, Box<dyn Error>> {
    println!("\n===== ForkPool: workers are forked from a copy of this program =====");
    let builder = || ForkPool::builder().fork_server(server);
    squares(&builder().build()?, &builder().processes(3).build()?)?;
    squares_in_background(&builder().processes(4).build()?)?;
    let workers = builder().processes(4).initializer(start_process, ());
    let stats = doubles(|| workers.build())?;
    assert_eq!(stats.workers_started, 4);
    let workers = builder().processes(4).initializer(start_process, ());
    let stats = doubles_by_short_lived_workers(|| workers.max_tasks_per_child(2).build())?;
    assert!(stats.workers_started >= 5, "10 tasks, 2 for each worker");
    hellos(builder().processes(10).build()?, Duration::from_secs(1))?;
    Ok(5)
}

#[cfg(feature = "spawn")]
fn on_spawn_pool() -> Result<u32, Box<dyn Error>> {
    println!("\n===== SpawnPool: workers are this program, started again =====");
    let builder = SpawnPool::builder;
    squares(&builder().build()?, &builder().processes(3).build()?)?;
    squares_in_background(&builder().processes(4).build()?)?;
    let workers = builder().processes(4).initializer(start_process, ());
    let stats = doubles(|| workers.build())?;
    assert_eq!(stats.workers_started, 4);
    let workers = builder().processes(4).initializer(start_process, ());
    let stats = doubles_by_short_lived_workers(|| workers.max_tasks_per_child(2).build())?;
    assert!(stats.workers_started >= 5, "10 tasks, 2 for each worker");
    hellos(builder().processes(10).build()?, Duration::from_secs(1))?;
    Ok(5)
}

fn on_serial_pool() -> Result<u32, Box<dyn Error>> {
    println!("\n===== SerialPool: no workers, every task runs in the caller =====");
    squares(&SerialPool::new(), &SerialPool::new())?;
    squares_in_background(&SerialPool::new())?;
    doubles(|| Ok(SerialPool::new()))?;
    doubles_by_short_lived_workers(|| Ok(SerialPool::new()))?;
    // One after the other: with pauses of a second that would take half a minute.
    hellos(SerialPool::new(), Duration::from_millis(100))?;
    Ok(5)
}

#[cfg(feature = "cluster")]
fn on_cluster_pool() -> Result<u32, Box<dyn Error>> {
    println!("\n===== ClusterPool: workers on other machines; here, two agents on this one =====");
    let pool = match ClusterPool::local(2) {
        Ok(pool) => pool,
        Err(error) => {
            // Not everybody has a NATS server. The error says how to get one.
            println!("{error}");
            return Ok(0);
        }
    };
    squares(&pool, &pool)?;
    squares_in_background(&pool)?;
    hellos(pool, Duration::from_millis(100))?;
    Ok(3)
}

#[cfg(not(feature = "cluster"))]
#[allow(
    clippy::unnecessary_wraps,
    reason = "with the feature `cluster` it does more"
)]
fn on_cluster_pool() -> Result<u32, Box<dyn Error>> {
    println!("\n(On many machines: ClusterPool. Run this with `--features cluster`.)");
    Ok(0)
}

/// Program 1: a map, on a pool with as many processes as there are cores, and on one with three.
fn squares<P: Pool>(pool: &P, pool_of_three: &P) -> Result<(), Box<dyn Error>> {
    println!("\n--- 1: map ---");
    let squares = pool.map(|x: u64| x * x, 0..10)?;
    println!("{squares:?}");
    assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
    assert_eq!(squares, pool_of_three.map(|x: u64| x * x, 0..10)?);
    Ok(())
}

/// Program 2: the same without waiting for each task.
fn squares_in_background<P: Pool>(pool: &P) -> Result<(), Box<dyn Error>> {
    fn job(x: u64) -> u64 {
        x * x
    }

    println!("\n--- 2: apply_async ---");
    let four = pool.apply_async(job, 2).get()?;
    println!("{four}");
    assert_eq!(four, 4);

    let handles: Vec<_> = (0..10).map(|x| pool.apply_async(job, x)).collect();
    let squares: Result<Vec<u64>, _> = handles.into_iter().map(|handle| handle.get()).collect();
    let squares = squares?;
    println!("{squares:?}");
    assert_eq!(squares, pool.map(job, 0..10)?);
    Ok(())
}

/// Runs in each worker before its first task.
#[cfg(any(feature = "fork", feature = "spawn"))]
fn start_process((): ()) {
    let name = worker::current().expect("this is a worker").name();
    println!("Starting {name}");
}

fn do_calculation(data: i64) -> i64 {
    data * 2
}

/// Program 3: workers that say who they are, and a pool that is closed and waited for.
fn doubles<P: Pool>(
    start_pool: impl FnOnce() -> Result<P, BuildError>,
) -> Result<Stats, Box<dyn Error>> {
    println!("\n--- 3: initializer, close, join ---");
    let inputs = Vec::from_iter(0..10);
    println!("inputs:   {inputs:?}");
    let builtin_outputs: Vec<i64> = inputs.iter().copied().map(do_calculation).collect();
    println!("built-in: {builtin_outputs:?}");

    let pool = start_pool()?;
    let pool_outputs = pool.map(do_calculation, inputs)?;
    pool.close(); // no more tasks
    pool.join()?; // until all tasks have ended and all workers are gone
    println!("pool:     {pool_outputs:?}");
    assert_eq!(pool_outputs, builtin_outputs);
    Ok(pool.stats())
}

/// Program 4: the same with workers that are replaced after two tasks.
fn doubles_by_short_lived_workers<P: Pool>(
    start_pool: impl FnOnce() -> Result<P, BuildError>,
) -> Result<Stats, Box<dyn Error>> {
    println!("\n--- 4: max_tasks_per_child ---");
    let inputs = Vec::from_iter(0..10);
    println!("inputs:   {inputs:?}");
    let builtin_outputs: Vec<i64> = inputs.iter().copied().map(do_calculation).collect();
    println!("built-in: {builtin_outputs:?}");

    let pool = start_pool()?;
    let signed = |data| (worker::current().map(|w| w.name()), do_calculation(data));
    let signed_outputs = pool.call(signed).chunksize(1).map(inputs)?;
    pool.close();
    pool.join()?;
    let (names, pool_outputs): (Vec<_>, Vec<_>) = signed_outputs.into_iter().unzip();
    println!("pool:     {pool_outputs:?}");
    assert_eq!(pool_outputs, builtin_outputs);

    let mut tasks_by_worker = BTreeMap::new();
    for name in names.into_iter().flatten() {
        *tasks_by_worker.entry(name).or_insert(0) += 1;
    }
    if !tasks_by_worker.is_empty() {
        println!("tasks:    {tasks_by_worker:?}");
    }
    assert!(tasks_by_worker.values().all(|&tasks| tasks <= 2));
    Ok(pool.stats())
}

/// Program 5: ten tasks that take their time, and run at the same time if there are ten workers.
/// Two arguments are a tuple.
fn hellos<P: Pool>(pool: P, pause: Duration) -> Result<(), Box<dyn Error>> {
    fn say_three_times((message, pause): (String, Duration)) -> String {
        for _ in 0..3 {
            println!("{message}");
            thread::sleep(pause);
        }
        format!("done {message}")
    }

    println!("\n--- 5: tasks that take three pauses of {pause:?} each ---");
    let begin = Instant::now();
    let handles: Vec<_> = (0..10)
        .map(|i| pool.apply_async(say_three_times, (format!("hello {i}"), pause)))
        .collect();
    pool.close();
    pool.join()?;
    println!("all ten after {:.1} s", begin.elapsed().as_secs_f64());
    for (i, handle) in handles.into_iter().enumerate() {
        let done = handle.get()?;
        println!("{done}");
        assert_eq!(done, format!("done hello {i}"));
    }
    Ok(())
}
