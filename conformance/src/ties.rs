//! What ties workers to their parent and to what they share with it: its death, its privileges,
//! its terminal, its standard streams, and the copies that a fork makes of either.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::unistd::{ForkResult, Gid, Uid, setgid, setuid};
use procpool::{Pool, TaskErrorKind, worker};
use rustix::process::{
    Pid, Signal, getpid, getuid, parent_process_death_signal, set_child_subreaper,
    set_parent_process_death_signal, test_kill_process, waitpid,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Gate};
use crate::procfs::{self, wait_until};
use crate::program::{Program, Started, again, again_at, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        what_tasks_have_started_goes_with_the_parent,
        so_does_what_pools_in_pools_have_started,
        a_worker_without_its_first_tie_has_another,
        the_first_tie_is_made_again_after_the_initializer,
        a_worker_that_changes_its_user_goes_with_the_parent,
        a_parent_that_drops_its_privileges_can_end_its_workers,
        reading_the_terminal_is_an_error,
        closed_standard_streams_stay_closed,
        a_task_that_forks_has_one_answer,
        a_forked_copy_of_the_parent_gets_errors,
        the_system_ends_workers_first,
        what_is_killed_with_a_worker_is_reaped,
        each_worker_has_a_seed_of_its_own,
        a_program_may_ignore_its_children,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S:
        runs_programs,
        runs_programs_and_exits,
        runs_programs_in_pools_in_pools,
        cuts_the_first_tie,
        changes_its_users,
        drops_its_privileges,
        reads_the_terminal,
        closes_streams,
        forks_in_tasks,
        forks_itself,
        takes_orphans,
        ignores_children,
    ]
}

fn square(x: u64) -> u64 {
    x * x
}

fn never(_: u64) -> u64 {
    loop {
        std::thread::park();
    }
}

/// Runs a program that ends only when it is killed.
fn run_program(_: u64) {
    let ended = Command::new("sleep").arg("1000000").status();
    let _ = ended.expect("it can be started");
}

/// Waits until this many programs run below this process.
fn wait_for_programs(count: usize) {
    wait_until(|| procfs::below_called("sleep").len() == count);
}

fn runs_programs<S: Processes>() {
    let pool = S::pool(2);
    let _handle = pool.map_async(run_program, 0..2);
    wait_for_programs(2);
    println!("ready");
    never(0);
}

fn runs_programs_and_exits<S: Processes>() {
    let pool = S::pool(2);
    let _handle = pool.map_async(run_program, 0..2);
    wait_for_programs(2);
    println!("ready");
    std::process::exit(0);
}

/// Kills the program alone, and waits until nothing of it is left.
fn end_by(mut program: Started, signal: Signal) {
    assert_eq!(program.line(), "ready");
    assert!(program.processes().len() > 1, "this tests nothing");
    procfs::signal(program.id(), signal);
    program.status();
    wait_until(|| program.processes().is_empty());
}

/// By whatever the parent ends, the programs that its tasks have started end as well.
fn what_tasks_have_started_goes_with_the_parent<S: Processes>() {
    for signal in [Signal::KILL, Signal::TERM, Signal::HUP] {
        end_by(again::<S>("runs_programs").start(), signal);
    }
    assert_eq!(again::<S>("runs_programs_and_exits").lines(), ["ready"]);
}

/// Runs a program in a pool of this kind and in one of the other kind, in a worker.
fn run_programs_inside<S: Processes>(_: u64) {
    // A process that has threads is not copied, and a pool has threads: a pool of copies comes
    // first.
    let (pool, other);
    if S::IS_COPY {
        pool = S::pool(1);
        other = S::Other::pool(1);
    } else {
        other = S::Other::pool(1);
        pool = S::pool(1);
    }
    let _handle = pool.apply_async(run_program, 0);
    let _other_handle = other.apply_async(run_program, 0);
    never(0);
}

fn runs_programs_in_pools_in_pools<S: Processes>() {
    let pool = S::pool(1);
    let _handle = pool.apply_async(run_programs_inside::<S>, 0);
    wait_for_programs(2);
    println!("ready");
    never(0);
}

/// In pools of each kind inside of a pool of this kind.
fn so_does_what_pools_in_pools_have_started<S: Processes>() {
    for signal in [Signal::KILL, Signal::TERM] {
        end_by(
            again::<S>("runs_programs_in_pools_in_pools").start(),
            signal,
        );
    }
}

fn cut_first_tie(ticket: String) {
    set_parent_process_death_signal(None).expect("it can be taken back");
    file_barrier::pass(&ticket);
    run_program(0);
}

fn cuts_the_first_tie<S: Processes>() {
    let gate = Gate::new();
    let pool = S::pool(2);
    let _handles = [(); 2].map(|()| pool.apply_async(cut_first_tie, gate.ticket()));
    let workers = gate.wait_for(2);
    gate.open();
    // The folder has to be gone before this is killed.
    drop(gate);
    wait_for_programs(2);
    println!("{} {}", workers[0], workers[1]);
    never(0);
}

/// A task may take back the parent-death signal, as the kernel does when a process changes its
/// credentials; and where somebody else has started the worker, that process may be dead already.
fn a_worker_without_its_first_tie_has_another<S: Processes>() {
    let mut program = again::<S>("cuts_the_first_tie").start();
    let line = program.line();
    let workers: Vec<u32> = line
        .split(' ')
        .map(|pid| pid.parse().expect("a number"))
        .collect();
    let stays =
        |pid: &u32| workers.contains(pid) || *pid == program.id() || procfs::name(*pid) == "sleep";
    // A fork server and its standby.
    let between: Vec<u32> = program
        .processes()
        .into_iter()
        .filter(|pid| !stays(pid))
        .collect();
    for pid in &between {
        procfs::signal(*pid, Signal::KILL);
    }
    program.kill();
    wait_until(|| program.processes().is_empty());
}

fn the_first_tie_is_made_again_after_the_initializer<S: Processes>() {
    let cut = |()| set_parent_process_death_signal(None).expect("it can be taken back");
    let pool = S::builder().processes(1).initializer(cut, ()).build();
    let is_tied =
        |()| parent_process_death_signal().expect("it can be asked") == Some(Signal::KILL);
    assert!(pool.apply(is_tied, ()).unwrap());
}

const NOBODY: u32 = 65534;

fn change_user(ticket: String) {
    setgid(Gid::from_raw(NOBODY)).expect("this is root");
    setuid(Uid::from_raw(NOBODY)).expect("this is root");
    file_barrier::pass(&ticket);
    never(0);
}

fn changes_its_users<S: Processes>() {
    let gate = Gate::new();
    let pool = S::pool(1);
    let _handle = pool.apply_async(change_user, gate.ticket());
    wait_until(|| {
        let workers = procfs::workers(&pool);
        workers.iter().any(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains(&format!("Uid:\t{NOBODY}"))
        })
    });
    drop(gate);
    println!("ready");
    never(0);
}

/// Only root can do that.
fn a_worker_that_changes_its_user_goes_with_the_parent<S: Processes>() {
    if getuid().is_root() {
        end_by(again::<S>("changes_its_users").start(), Signal::KILL);
    }
}

fn drops_its_privileges<S: Processes>() {
    let pool = S::pool(3);
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
    let killed = pool.apply_async(never, 0);
    let limited = pool
        .call(never)
        .timeout(Duration::from_millis(50))
        .apply_async(0);
    setgid(Gid::from_raw(NOBODY)).expect("this is root");
    setuid(Uid::from_raw(NOBODY)).expect("this is root");
    let worker = Pid::from_raw(procfs::workers(&pool)[0].cast_signed()).expect("it is not zero");
    let refused = test_kill_process(worker).is_err();
    assert!(refused, "this tests nothing");
    assert_eq!(limited.get().unwrap_err().kind(), TaskErrorKind::TimedOut);
    killed.kill();
    killed.get().unwrap_err();
    drop(pool);
    println!("dropped");
}

/// A kill that the system refuses has another way: deadlines, `kill` and `drop` end. Only root has
/// privileges to drop.
fn a_parent_that_drops_its_privileges_can_end_its_workers<S: Processes>() {
    if getuid().is_root() {
        let mut program = again::<S>("drops_its_privileges").start();
        assert_eq!(program.line(), "dropped");
        assert!(program.status().success());
        wait_until(|| program.processes().is_empty());
    }
}

/// What comes of reading the terminal, in a worker and in what it starts.
fn read_terminal(_: u64) -> (Option<i32>, String) {
    let read = File::open("/dev/tty").and_then(|mut terminal| terminal.read(&mut [0]));
    let output = Command::new("sh")
        .args(["-c", "read x </dev/tty; echo $?"])
        .output();
    let output = output.expect("there is a shell").stdout;
    (
        read.err().and_then(|error| error.raw_os_error()),
        String::from_utf8_lossy(&output).into_owned(),
    )
}

fn reads_the_terminal<S: Processes>() {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("it is this process's");
    unlockpt(&terminal).expect("it is this process's");
    let path = ptsname(&terminal, Vec::new()).expect("it has a name");
    // The leader of a session without a terminal gets the one that it opens.
    let _own = rustix::fs::open(&path, rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty());
    File::open("/dev/tty").expect("this process has a terminal");
    let pool = S::pool(1);
    let (error, status) = pool.apply(read_terminal, 0).unwrap();
    drop(pool);
    // Without the other side, the terminal would hang up on this process.
    let _for_good = terminal.into_raw_fd();
    println!("{error:?} {}", status.trim() != "0");
}

/// A terminal stops a background process that reads it; a worker gets an error instead.
fn reading_the_terminal_is_an_error<S: Processes>() {
    let this = std::env::current_exe().expect("it has a path");
    let leader = again_at::<S>("/usr/bin/setsid".as_ref(), "reads_the_terminal");
    let lines = leader.args(&[OsStr::new("-w"), this.as_os_str()]).lines();
    assert_eq!(lines, ["Some(5) true"]);
}

/// The streams that the program `closes_streams` is to close.
const STREAMS: &str = "CONFORMANCE_STREAMS";

/// What a process has as one of its standard streams.
fn stream(number: u32) -> Option<String> {
    let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    Some(target.to_string_lossy().into_owned())
}

fn closes_streams<S: Processes>() {
    let closed: Vec<u32> = std::env::var(STREAMS)
        .expect("it says which")
        .split(',')
        .map(|number| number.parse().expect("a number"))
        .collect();
    for number in &closed {
        // SAFETY: the standard streams are open from the beginning, and nobody owns them.
        unsafe { rustix::io::close(number.cast_signed()) };
    }
    let pool = S::pool(2);
    let print = |number: u32| {
        println!("This may go nowhere, but not into what is the library's.");
        eprintln!("Nor may this.");
        stream(number)
    };
    for number in &closed {
        assert_eq!(stream(*number), None, "the library has opened it");
        for target in pool.map(print, [*number; 8]).unwrap() {
            let is_empty = target.as_deref().is_none_or(|target| target == "/dev/null");
            assert!(is_empty, "{number} is {target:?}");
        }
    }
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
}

/// A descriptor that the library opens never becomes a standard stream that the program has
/// closed: what tasks print would go there.
fn closed_standard_streams_stay_closed<S: Processes>() {
    for streams in ["0", "1", "2", "0,1,2"] {
        let mut program = again::<S>("closes_streams").env(STREAMS, streams).start();
        let status = program.status();
        assert!(status.success(), "{streams}: {status}");
        wait_until(|| program.processes().is_empty());
    }
}

/// Forks, and lets both return.
fn fork() -> ForkResult {
    // SAFETY: the copy does what may be done in one: it has one thread, as this process does.
    let forked = unsafe { nix::unistd::fork() };
    forked.expect("the system has processes")
}

fn forks_in_tasks<S: Processes>() {
    let pool = S::pool(1);
    let number = |x: u64| {
        fork();
        x * 10
    };
    assert_eq!(pool.apply(number, 5).unwrap(), 50);
    assert_eq!(pool.map(number, 0..6).unwrap(), [0, 10, 20, 30, 40, 50]);
    let text = |x: u64| {
        fork();
        x.to_string()
    };
    assert_eq!(pool.map(text, 0..3).unwrap(), ["0", "1", "2"]);
    let bulk = |x: u64| {
        fork();
        vec![x; 100_000]
    };
    assert_eq!(pool.apply(bulk, 7).unwrap(), vec![7; 100_000]);
    let panic = |x: u64| -> u64 {
        fork();
        panic!("{x}")
    };
    assert_eq!(
        pool.apply(panic, 7).unwrap_err().kind(),
        TaskErrorKind::Panicked
    );
    // Nothing of the copies' is taken for what others return.
    for x in 0..200 {
        assert_eq!(pool.apply(square, x).unwrap(), x * x);
    }
    pool.close();
    pool.join().unwrap();
    println!("joined");
}

/// The copy of the worker leaves when it comes back from the task.
fn a_task_that_forks_has_one_answer<S: Processes>() {
    let mut program = again::<S>("forks_in_tasks").start();
    assert_eq!(program.line(), "joined");
    assert!(program.status().success());
    wait_until(|| program.processes().is_empty());
}

fn forks_itself<S: Processes>() {
    let pool = S::pool(2);
    let some = |x: u64| if x.is_multiple_of(2) { x } else { never(x) };
    let mut task = pool.apply_async(never, 0);
    let mut all = pool.call(some).chunksize(1).map_async(0..6);
    let mut finished = pool.apply_async(square, 3);
    let measured = pool.call(some).measured().map_async(0..6);
    let mut results = pool.imap(some, 0..6);
    if let ForkResult::Parent { child } = fork() {
        let child = Pid::from_raw(child.as_raw());
        let (_, status) = waitpid(child, rustix::process::WaitOptions::empty())
            .expect("it is a child")
            .expect("it has ended");
        assert_eq!(status.exit_status(), Some(0));
        println!("ended");
        return;
    }
    let refused = |error: procpool::TaskError| {
        assert_eq!(error.kind(), TaskErrorKind::Closed, "{error}");
        assert!(error.to_string().contains("fork of the one"), "{error}");
    };
    let soon = Duration::from_secs(1_000_000);
    refused(
        task.get_timeout(soon)
            .expect("it is said at once")
            .unwrap_err(),
    );
    refused(
        all.get_timeout(soon)
            .expect("it is said at once")
            .unwrap_err(),
    );
    refused(
        finished
            .get_timeout(soon)
            .expect("it is said at once")
            .unwrap_err(),
    );
    assert_eq!(all.is_successful(), Some(false));
    task.wait();
    task.cancel();
    all.kill();
    refused(task.get().unwrap_err());
    refused(all.get().unwrap_err());
    let measured = measured.get();
    assert!(measured.into_iter().all(|it| it.outcome.is_err()));
    refused(results.next().expect("it is said once").unwrap_err());
    assert!(results.next().is_none());
    refused(pool.apply(square, 2).unwrap_err());
    refused(pool.map(square, 0..4).unwrap_err());
    pool.resize(3).unwrap_err();
    pool.close();
    pool.join().unwrap_err();
    pool.terminate();
    drop((results, finished, pool));
    std::process::exit(0);
}

/// In a fork of the program, every call on what it has of the pool is an error at once, and never
/// a value that is not whole.
fn a_forked_copy_of_the_parent_gets_errors<S: Processes>() {
    let mut program = again::<S>("forks_itself").start();
    assert_eq!(program.line(), "ended");
    assert!(program.status().success());
    wait_until(|| program.processes().is_empty());
}

fn oom_score(_: u64) -> i64 {
    let score = fs::read_to_string("/proc/self/oom_score_adj").expect("there is a /proc");
    score.trim().parse().expect("a number")
}

/// When memory runs out, it is not the parent that goes.
fn the_system_ends_workers_first<S: Processes>() {
    let pool = S::pool(1);
    let expected = (oom_score(0) + 300).min(1000);
    assert_eq!(pool.apply(oom_score, 0).unwrap(), expected);
    // And the programs of their tasks.
    let of_program = |_: u64| -> String {
        let read = Command::new("cat").arg("/proc/self/oom_score_adj").output();
        String::from_utf8_lossy(&read.expect("it can be started").stdout).into_owned()
    };
    let score = pool.apply(of_program, 0).unwrap();
    assert_eq!(score.trim(), expected.to_string());
}

/// Dies when the program that it has started does not.
fn run_program_and_die(_: u64) {
    let started = Command::new("sleep").arg("1000000").spawn();
    let _ = started.expect("it can be started");
    std::process::abort();
}

fn takes_orphans<S: Processes>() {
    set_child_subreaper(Some(getpid())).expect("it can be asked for");
    // The program's own children, in its group and in another.
    let mut children = [
        Command::new("true").spawn().expect("it can be started"),
        Command::new("true")
            .process_group(0)
            .spawn()
            .expect("it can be started"),
    ];
    let pool = S::pool(2);
    for _ in 0..5 {
        let handle = pool.apply_async(run_program, 0);
        wait_for_programs(1);
        handle.kill();
        handle.get().unwrap_err();
        let died = pool.apply(run_program_and_die, 0).unwrap_err();
        assert_eq!(died.kind(), TaskErrorKind::WorkerLost, "{died}");
        // Zombies have names as well.
        wait_for_programs(0);
    }
    drop(pool);
    wait_until(|| procfs::below(std::process::id()).len() == children.len());
    for child in &mut children {
        assert!(child.wait().expect("it is still there").success());
    }
    println!("reaped");
}

/// A program that takes orphans, as process 1 of a container does, keeps no zombies of what its
/// tasks have started; and it keeps its own.
fn what_is_killed_with_a_worker_is_reaped<S: Processes>() {
    assert_eq!(again::<S>("takes_orphans").lines(), ["reaped"]);
}

thread_local!(static GENERATOR: Cell<u64> = const { Cell::new(0) });

fn seed_generator((): ()) {
    let worker = worker::current().expect("an initializer runs in a worker");
    GENERATOR.set(worker.seed());
}

fn draw(_: u64) -> (u32, u64) {
    let worker = worker::current().expect("a task runs in a worker");
    assert_eq!(GENERATOR.get(), worker.seed(), "it stays the same");
    (worker.number(), worker.seed())
}

/// Also the replacements, and the workers of other pools. The parent knows the seeds as well.
fn each_worker_has_a_seed_of_its_own<S: Processes>() {
    let mut seeds = BTreeSet::new();
    for _ in 0..2 {
        let builder = S::builder().processes(2).max_tasks_per_child(1);
        let pool = builder.initializer(seed_generator, ()).build();
        let drawn = pool.call(draw).chunksize(1).map(0..6).unwrap();
        let numbers: BTreeSet<u32> = drawn.iter().map(|drawn| drawn.0).collect();
        assert_eq!(numbers.len(), 6, "this tests nothing");
        seeds.extend(drawn.iter().map(|drawn| drawn.1));
    }
    assert_eq!(seeds.len(), 12, "{seeds:?}");
    let pool = S::pool(1);
    let (_, seed) = pool.call(own_seed).apply(0).unwrap();
    assert_eq!(pool.stats().workers[0].info.seed(), seed);
}

fn own_seed(_: u64) -> (u32, u64) {
    let worker = worker::current().expect("a task runs in a worker");
    (worker.number(), worker.seed())
}

/// The exit code of a program that a task runs.
fn run_and_ask(code: i32) -> Option<i32> {
    let status = Command::new("sh")
        .args(["-c", &format!("exit {code}")])
        .status();
    status.expect("it can be run and waited for").code()
}

/// Whether the system says how a process ended that it has reaped.
fn tells_of_the_reaped() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("there is a /proc");
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse::<u32>());
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next()) >= (6, 15)
}

fn ignores_children<S: Processes>() {
    // SAFETY: no handler is installed.
    unsafe { nix::libc::signal(nix::libc::SIGCHLD, nix::libc::SIG_IGN) };
    let pool = S::pool(2);
    assert_eq!(
        pool.map(run_and_ask, [0, 3, 7]).unwrap(),
        [Some(0), Some(3), Some(7)]
    );
    let exited = pool
        .apply(|code: i32| -> () { std::process::exit(code) }, 7)
        .unwrap_err();
    let aborted = pool
        .apply(|_: i32| -> () { std::process::abort() }, 0)
        .unwrap_err();
    let has_cause = !S::STARTERS.is_empty() || tells_of_the_reaped();
    if has_cause {
        assert_eq!(exited.exit_code(), Some(7), "{exited}");
        assert_eq!(aborted.signal(), Some(6), "{aborted}");
    }
    assert_eq!(exited.kind(), TaskErrorKind::WorkerLost, "{exited}");
    assert_eq!(aborted.kind(), TaskErrorKind::WorkerLost, "{aborted}");
    pool.close();
    pool.join().unwrap();
    println!("ignored");
}

/// Tasks see how the programs end that they run, and their errors say how workers died, though the
/// program ignores SIGCHLD.
fn a_program_may_ignore_its_children<S: Processes>() {
    assert_eq!(again::<S>("ignores_children").lines(), ["ignored"]);
}
