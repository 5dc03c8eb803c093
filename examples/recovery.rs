//! How long it takes until a task knows that its worker was killed, until another worker has done
//! something, and the same when the fork server is killed with all its workers; each beside what
//! the system itself takes to start a process. Look at the ratios: `cargo run --release --example
//! recovery`.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use procpool::{ForkPool, ForkServer, Pool, SpawnPool};
use rustix::process::{Pid, Signal, kill_process};

/// How often each is measured. What is printed is the median.
const ROUNDS: usize = 200;

/// Says that this process is to end at once.
const FLOOR: &str = "RECOVERY_FLOOR";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    procpool::init();
    if std::env::var_os(FLOOR).is_some() {
        return Ok(());
    }
    // While there is one thread.
    let raw_fork = median(ROUNDS, fork_once)?;
    let server = ForkServer::start()?;
    let raw_spawn = median(ROUNDS, spawn_once)?;
    println!("fork, exit, wait             {raw_fork:>9.1?}");
    println!("execute again, exit, wait    {raw_spawn:>9.1?}");

    let builder = || ForkPool::builder().processes(1).fork_server(&server);
    kill_workers("fork", &builder().build()?, raw_fork)?;
    kill_workers(
        "spawn",
        &SpawnPool::builder().processes(1).build()?,
        raw_spawn,
    )?;

    println!("\nA fork server is killed, with a worker that runs a task:");
    let pool = builder().build()?;
    let mut times = Times::default();
    for _ in 0..ROUNDS {
        let standby = standby()?;
        let handle = pool.apply_async(run_until_killed, note()?);
        wait_for_note()?;
        let begun = Instant::now();
        kill(server.pid())?;
        assert!(handle.get().is_err());
        times.add("the error", begun);
        pool.call(square).retries(1).apply(3)?;
        times.add("a result of a new worker", begun);
        assert_eq!(server.pid(), standby, "it has taken over");
    }
    times.print(raw_fork);

    println!("\nWhat a standby costs:");
    let memory = fs::read_to_string(format!("/proc/{}/smaps_rollup", standby()?))?;
    for field in ["Private_Dirty:", "Private_Clean:", "Pss:"] {
        let line = memory.lines().find(|line| line.starts_with(field));
        println!("  {}", line.unwrap_or(field));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", standby()?))?;
    let tables = status.lines().find(|line| line.starts_with("VmPTE:"));
    println!("  {}", tables.unwrap_or("VmPTE:"));
    Ok(())
}

/// Kills the one worker again and again while it runs a task.
fn kill_workers(name: &str, pool: &impl Pool, raw: Duration) -> Result<()> {
    println!("\nA worker of a {name} pool is killed while it runs a task:");
    let mut times = Times::default();
    for _ in 0..ROUNDS {
        let handle = pool.apply_async(run_until_killed, note()?);
        let pid = wait_for_note()?;
        let begun = Instant::now();
        kill(pid)?;
        assert!(handle.get().is_err());
        times.add("the error", begun);
        pool.apply(square, 3)?;
        times.add("a result of a new worker", begun);
    }
    times.print(raw);
    Ok(())
}

fn square(x: u64) -> u64 {
    x * x
}

/// Says which process it is in, and stays there.
fn run_until_killed(note: String) {
    let begun = format!("{note}.new");
    fs::write(&begun, std::process::id().to_string()).expect("a note can be written");
    fs::rename(&begun, &note).expect("a note can be written");
    loop {
        std::thread::park();
    }
}

/// Where a task says that it has begun.
fn note() -> Result<String> {
    let path = std::env::temp_dir().join(format!("recovery-{}", std::process::id()));
    Ok(path.to_str().ok_or("a name that is no text")?.to_owned())
}

/// Waits until it does, and answers where it runs.
fn wait_for_note() -> Result<u32> {
    let note = note()?;
    while !Path::new(&note).exists() {
        std::thread::yield_now();
    }
    let pid = fs::read_to_string(&note)?.parse()?;
    fs::remove_file(&note)?;
    Ok(pid)
}

/// The fork server's standby, as soon as there is one.
fn standby() -> Result<u32> {
    let own = std::process::id();
    loop {
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            // A process may be gone meanwhile.
            let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
            let Some((head, fields)) = stat.rsplit_once(") ") else {
                continue;
            };
            let mut fields = fields.split(' ');
            let lives = fields.next().is_some_and(|state| state != "Z");
            let is_ours = fields.next() == Some(&own.to_string());
            if let Some((pid, "procpool-spare")) = head.split_once(" (")
                && lives
                && is_ours
            {
                return Ok(pid.parse()?);
            }
        }
        std::thread::yield_now();
    }
}

fn kill(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or("no process has the number 0")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

#[allow(
    clippy::disallowed_methods,
    reason = "what a fork costs is the question"
)]
fn fork_once() -> Result<()> {
    // SAFETY: there is one thread, and the copy does nothing but leave.
    match unsafe { fork()? } {
        // SAFETY: always sound.
        ForkResult::Child => unsafe { nix::libc::_exit(0) },
        ForkResult::Parent { child } => {
            waitpid(child, None)?;
            Ok(())
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "what an exec costs is the question"
)]
fn spawn_once() -> Result<()> {
    let status = Command::new("/proc/self/exe").env(FLOOR, "").status()?;
    assert!(status.success());
    Ok(())
}

/// The median of so many runs.
fn median(rounds: usize, mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        run()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Times by what happened.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<Duration>>);

impl Times {
    fn add(&mut self, what: &'static str, since: Instant) {
        self.0.entry(what).or_default().push(since.elapsed());
    }

    fn print(self, raw: Duration) {
        for (what, mut times) in self.0.into_iter().rev() {
            times.sort_unstable();
            let median = times[times.len() / 2];
            let ratio = median.as_secs_f64() / raw.as_secs_f64();
            println!("  {what:<26} {median:>9.1?}  {ratio:>5.2} times the raw cost");
        }
    }
}
