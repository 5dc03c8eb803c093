//! What happened: metrics of single tasks, the statistics of a pool, what its workers are at right
//! now, and a trace of everything.
//!
//! ```text
//! --- metrics ---
//! 168 primes: ran 184.9µs (197.9µs of processor time) in PoolWorker-2 (pid 29247); queued 89.9µs; encode 7.3µs, decode 25.3µs; 8 bytes in, 8 out; peak 6.4 MiB
//! 17984 primes: ran 534.7ms (188.6ms of processor time) in PoolWorker-1 (pid 29244); queued 396.2µs; encode 1.3µs, decode 11.0µs; 8 bytes in, 8 out; peak 6.1 MiB
//! 5133 primes: ran 244.2ms (30.0ms of processor time) in PoolWorker-2 (pid 29247); queued 6.3ms; encode 771.0ns, decode 8.1µs; 8 bytes in, 8 out; peak 6.4 MiB
//! Ok("at the second attempt"): ran 9.7µs (24.1µs of processor time) in PoolWorker-2 (pid 29247), attempt 2; queued 237.0µs; encode 25.5µs, decode 26.2µs; 45 bytes in, 29 out; peak 6.4 MiB
//!
//! --- stats ---
//! 4 items: 4 succeeded, 0 failed, 0 queued, 0 running
//! 338 B to workers, 337 B from them; 2 workers started, 1 lost (1 Crashed)
//! worker               pid       up  busy     idle    items  queued     memory
//! PoolWorker-2       29247  538.2ms   45%  293.3ms        3       0    6.4 MiB
//!
//! --- dump ---
//! 2 workers, 0 items queued
//! PoolWorker-1 (pid 29331): runs observe::wait_for_godot, item 1, for 156.99µs; 1 item waits behind it
//!     the kernel says: S (sleeping), waits in futex_do_wait, in system call 202
//!        0: syscall
//!                  at ./misc/../sysdeps/unix/sysv/linux/x86_64/syscall.S:36:0
//!        1: std::sys::pal::unix::futex::futex_wait
//!                  at /rustc/…/library/std/src/sys/pal/unix/futex.rs:73:21
//!        1: <std::sys::sync::thread_parking::futex::Parker>::park
//!                  at /rustc/…/library/std/src/sys/sync/thread_parking/futex.rs:55:13
//!        1: <std::thread::thread::Thread>::park
//!                  at /rustc/…/library/std/src/thread/thread.rs:121:47
//!        1: std::thread::functions::park
//!                  at /rustc/…/library/std/src/thread/functions.rs:529:19
//!        2: observe::wait_for_godot
//!                  at examples/observe.rs:101:9
//! PoolWorker-2 (pid 29333): runs observe::wait_for_godot, item 0, for 84.22µs
//!     the kernel says: S (sleeping), waits in futex_do_wait, in system call 202
//!        0: syscall
//!                  at ./misc/../sysdeps/unix/sysv/linux/x86_64/syscall.S:36:0
//!        1: std::sys::pal::unix::futex::futex_wait
//!                  at /rustc/…/library/std/src/sys/pal/unix/futex.rs:73:21
//!        1: <std::sys::sync::thread_parking::futex::Parker>::park
//!                  at /rustc/…/library/std/src/sys/sync/thread_parking/futex.rs:55:13
//!        1: <std::thread::thread::Thread>::park
//!                  at /rustc/…/library/std/src/thread/thread.rs:121:47
//!        1: std::thread::functions::park
//!                  at /rustc/…/library/std/src/thread/functions.rs:529:19
//!        2: observe::wait_for_godot
//!                  at examples/observe.rs:101:9
//!
//! --- trace ---
//! 59 of 60 texts have been read
//! all pages were rendered: false
//! 161 lines were written; to keep and to draw them:
//!     cargo run --example observe trace.json
//!     cargo run -p procpool-cli timeline trace.json
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use procpool::{Pool, ProcessPool};

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    metrics()?;
    stuck()?;
    trace()
}

/// What each task took, and who ran it.
fn metrics() -> Result<(), Box<dyn Error>> {
    println!("--- metrics ---");
    let pool = ProcessPool::builder().processes(2).build()?;
    let primes = pool
        .call(count_primes)
        .measured()
        .map([1_000, 200_000, 50_000]);
    for one in primes {
        println!("{} primes: {}", one.outcome?, one.metrics);
    }
    // A failure has one, too: this task kills its worker at the first attempt.
    let marker = std::env::temp_dir().join(format!("observe-{}", std::process::id()));
    let crash = pool.call(crash_once).retries(1).measured();
    let one = crash.apply(marker.to_string_lossy().into_owned());
    std::fs::remove_file(&marker)?;
    println!("{:?}: {}", one.outcome, one.metrics);
    println!("\n--- stats ---\n{}", pool.stats());
    Ok(())
}

/// What hangs, and where.
fn stuck() -> Result<(), Box<dyn Error>> {
    println!("\n--- dump ---");
    let pool = ProcessPool::builder().processes(2).build()?;
    let forever = pool.call(wait_for_godot).timeout(Duration::from_secs(3600));
    let handle = forever.map_async(["Vladimir", "Estragon", "Pozzo"].map(str::to_owned));
    // Until the workers are at it.
    loop {
        let dump = pool.dump();
        if dump.workers.iter().all(|worker| worker.stack.is_some()) {
            println!("{dump}");
            break;
        }
    }
    handle.kill();
    Ok(())
}

/// Everything that every worker does, as a file.
fn trace() -> Result<(), Box<dyn Error>> {
    println!("\n--- trace ---");
    let kept = std::env::args_os().nth(1).map(PathBuf::from);
    let name = format!("observe-{}.json", std::process::id());
    let path = kept
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(name));
    let pool = ProcessPool::builder()
        .processes(4)
        .max_tasks_per_child(12)
        .build()?;
    let trace = pool.trace_to(&path)?;
    let pages = pool
        .call(render)
        .timeout(Duration::from_millis(80))
        .chunksize(1);
    let pages = pages.map_async(0..40);
    let words = pool.call(count_words).chunksize(1).try_map(0..60);
    println!(
        "{} of 60 texts have been read",
        words.iter().flatten().count()
    );
    println!("all pages were rendered: {:?}", pages.get().is_ok());
    trace.finish()?;
    let lines = std::fs::read_to_string(&path)?.lines().count();
    if kept.is_some() {
        println!(
            "{lines} lines were written to {}; to draw them:",
            path.display()
        );
        println!("    cargo run -p procpool-cli timeline {}", path.display());
    } else {
        std::fs::remove_file(&path)?;
        println!("{lines} lines were written; to keep and to draw them:");
        println!("    cargo run --example observe trace.json");
        println!("    cargo run -p procpool-cli timeline trace.json");
    }
    Ok(())
}

fn count_primes(below: u64) -> usize {
    let is_prime = |n: &u64| {
        (2..)
            .take_while(|d| d * d <= *n)
            .all(|d| !n.is_multiple_of(d))
    };
    (2..below).filter(is_prime).count()
}

fn crash_once(marker: String) -> String {
    if std::fs::File::create_new(marker).is_ok() {
        std::process::abort();
    }
    "at the second attempt".to_owned()
}

fn wait_for_godot(who: String) {
    while !who.is_empty() {
        std::thread::park();
    }
}

/// Keeps the processor busy for a while.
fn toil(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Takes longer for some pages than for others, and for one too long.
fn render(page: u64) -> u64 {
    let time = if page == 23 { 1000 } else { 4 + page * 7 % 13 };
    toil(Duration::from_millis(time));
    page
}

fn count_words(text: u64) -> u64 {
    toil(Duration::from_millis(1 + text % 3));
    assert_ne!(text, 31, "this is no text");
    text
}
