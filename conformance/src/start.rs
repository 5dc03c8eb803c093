//! How workers begin: initializers, what workers inherit, and beginnings that fail.

use std::ffi::OsStr;

use nix::sched::{CloneFlags, unshare};
use procpool::{Broadcast, BuildErrorKind, Pool, TaskErrorKind, worker};
use rustix::process::{Pid, Signal, getpgid, getpid, kill_process};

use crate::backends::{Builder, Processes};
use crate::failure_modes::{Fate, REASON, strike};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{self, wait_for_death};
use crate::program::{Program, again, again_at, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        an_initializer_runs_once_before_the_first_task,
        an_initializer_gets_its_argument_in_every_worker,
        an_initializer_that_fails_fails_the_build,
        an_initializer_that_returns_an_error_fails_the_build,
        an_initializer_that_fails_in_one_worker_fails_the_build,
        an_initializer_that_fails_later_ends_the_pool_with_its_reason,
        an_initializer_that_fails_sometimes_is_tried_again,
        an_initializer_is_through_when_the_pool_is_built,
        an_initializer_that_never_returns_can_be_terminated,
        a_worker_begins_with_a_clean_slate,
        a_worker_has_the_programs_command_line,
        a_program_may_be_started_by_its_loader,
        a_program_may_have_dropped_its_privileges,
        a_program_may_see_another_namespace,
        only_forked_workers_have_what_was_set_up_before,
        a_replacement_that_the_system_refuses_fails_the_tasks,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S:
        sets_up,
        out_of_descriptors,
        command_line,
        started_by_its_loader,
        without_privileges,
        sees_another_namespace,
        is_numbered_anew,
    ]
}

fn command_line<S: Processes>() {
    let arguments = |()| std::env::args_os().collect::<Vec<_>>();
    let ours = arguments(());
    assert_eq!(ours[1..], ["--first", "", "two words", "-"]);
    assert_eq!(S::pool(1).apply(arguments, ()).unwrap(), ours);
}

/// As the environment, and as after a fork.
fn a_worker_has_the_programs_command_line<S: Processes>() {
    let arguments = ["--first", "", "two words", "-"].map(OsStr::new);
    again::<S>("command_line").args(&arguments).lines();
}

fn started_by_its_loader<S: Processes>() {
    let executed = std::env::current_exe().expect("there is a /proc");
    let name = executed.file_name().expect("a name").to_string_lossy();
    assert!(name.starts_with("ld-"), "this tests nothing: {name}");
    let arguments = |()| std::env::args_os().skip(1).collect::<Vec<_>>();
    assert_eq!(S::pool(2).apply(arguments, ()).unwrap(), arguments(()));
}

/// What the kernel has executed, and what `/proc/self/exe` is, is the loader then.
fn a_program_may_be_started_by_its_loader<S: Processes>() {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("there is a /proc");
    let paths = maps
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(5));
    let mut loaders = paths.filter(|path| path.rsplit('/').next().unwrap().starts_with("ld-"));
    // A program that is linked statically has none.
    let Some(loader) = loaders.next() else { return };
    let this = std::env::current_exe().expect("there is a /proc");
    let arguments = [this.as_os_str(), OsStr::new("--more")];
    let again = again_at::<S>(loader.as_ref(), "started_by_its_loader");
    again.args(&arguments).lines();
}

/// A namespace of processes that begins with this one, beneath a `/proc` that counts otherwise.
fn is_numbered_anew<S: Processes>() {
    let shown = std::fs::read_link("/proc/self").expect("there is a /proc");
    assert_ne!(shown.as_os_str(), OsStr::new("1"), "this tests nothing");
    let pool = S::pool(2);
    let share = |x: u64| Broadcast::new(vec![x; 10_000]).expect("there is memory");
    let shared = pool.apply(share, 5).unwrap();
    assert_eq!(
        pool.apply(|shared: Broadcast<[u64]>| shared[9], shared)
            .unwrap(),
        5
    );
    let error = pool.apply(|()| -> () { std::process::abort() }, ());
    assert!(error.unwrap_err().is_worker_lost());
    assert_eq!(pool.map(|x: u64| x, 0..9).unwrap(), Vec::from_iter(0..9));
    // What is not known is not somebody else's.
    assert!(
        pool.stats()
            .workers
            .iter()
            .all(|worker| worker.rss.is_none())
    );
    println!("right");
}

/// Only the system's administrator may begin one; for others it says so.
fn sees_another_namespace<S: Processes>() {
    match unshare(CloneFlags::CLONE_NEWPID) {
        Ok(()) => again::<S>("is_numbered_anew")
            .lines()
            .iter()
            .for_each(|line| println!("{line}")),
        Err(_) => println!("refused"),
    }
}

fn a_program_may_see_another_namespace<S: Processes>() {
    let said = again::<S>("sees_another_namespace").lines();
    assert!(said == ["right"] || said == ["refused"], "{said:?}");
}

fn without_privileges<S: Processes>() {
    use rustix::process::{DumpableBehavior, Gid, Uid, geteuid, set_dumpable_behavior};
    use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
    if geteuid().is_root() {
        let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
        set_thread_res_gid(group, group, group).expect("root may be anybody");
        set_thread_res_uid(user, user, user).expect("root may be anybody");
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).expect("anybody may");
    // That is what is hard about it.
    std::fs::read("/proc/self/auxv").expect_err("it is somebody else's");
    let pool = S::pool(2);
    assert_eq!(pool.map(|x: u64| x * x, 0..3).unwrap(), [0, 1, 4]);
    let panics = pool.apply(|()| -> u8 { panic!("it has a place") }, ());
    assert!(panics.unwrap_err().to_string().contains("it has a place"));
}

/// As daemons do. The process may not look into `/proc/self` then.
fn a_program_may_have_dropped_its_privileges<S: Processes>() {
    again::<S>("without_privileges").lines();
}

/// Each worker, replacements included, runs the initializer once, and before its first task.
fn an_initializer_runs_once_before_the_first_task<S: Processes>() {
    fn note((tally, what): (String, &'static str)) {
        file_barrier::add(&tally, format!("{} {what}", std::process::id()));
    }
    fn start(tally: String) {
        note((tally, "start"));
    }
    fn task((tally, dies): (String, bool)) {
        note((tally, "task"));
        if dies {
            std::process::abort();
        }
    }
    let tally = Tally::new();
    let builder = S::builder().processes(2);
    let pool = builder.initializer(start, tally.ticket()).build();
    for dies in [false, true, false] {
        let items = vec![(tally.ticket(), dies); 4];
        let results = pool.call(task).chunksize(1).try_map(items);
        assert!(results.iter().all(|result| result.is_err() == dies));
    }
    let mut started = Vec::new();
    for line in tally.lines() {
        let (pid, what) = line.split_once(' ').unwrap();
        if what == "start" {
            assert!(!started.contains(&pid.to_owned()), "twice in {pid}");
            started.push(pid.to_owned());
        } else {
            assert!(started.contains(&pid.to_owned()), "not before in {pid}");
        }
    }
    assert!(started.len() >= 5, "four workers have died: {started:?}");
}

/// The argument is any value that can travel, and what the initializer sets up is there for the
/// tasks.
fn an_initializer_gets_its_argument_in_every_worker<S: Processes>() {
    use std::sync::Mutex;
    static WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    fn start((words, times): (Vec<String>, usize)) {
        *WORDS.lock().unwrap() = [words.as_slice()].repeat(times).concat();
    }
    let words = vec!["a".to_owned(), "b".repeat(1 << 20)];
    let builder = S::builder().processes(3).max_tasks_per_child(1);
    let pool = builder.initializer(start, (words.clone(), 2)).build();
    let task = |index: usize| WORDS.lock().unwrap()[index].clone();
    let results = pool.call(task).chunksize(1).map(0..4).unwrap();
    assert_eq!(results, [words.as_slice(), &words].concat());
    assert!(WORDS.lock().unwrap().is_empty(), "not in the parent");
}

/// Ways to fail, and what the reason says then.
const FATES: [(Fate, &str); 5] = [
    (Fate::Panic, REASON),
    (Fate::Exit(0), "code 0"),
    (Fate::Exit(42), "code 42"),
    (Fate::Abort, "SIGABRT"),
    (Fate::Kill, "SIGKILL"),
];

/// Whatever way it fails, the pool is not built, and the error says why. It is not tried again.
fn an_initializer_that_fails_fails_the_build<S: Processes>() {
    fn start((tally, fate): (String, Fate)) {
        file_barrier::add(&tally, "try");
        strike(fate).expect("it has to end otherwise");
    }
    for (fate, told) in FATES {
        let tally = Tally::new();
        let builder = S::builder().processes(2);
        let error = builder
            .initializer(start, (tally.ticket(), fate))
            .try_build()
            .map(|_| "a pool")
            .unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::Initializer, "{error}");
        let text = error.to_string();
        for words in ["the initializer", told] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
        for stray in ["task", "item"] {
            assert!(!text.contains(stray), "{stray:?} in {text}");
        }
        assert!((1..=2).contains(&tally.count()), "{} tries", tally.count());
    }
}

/// Whatever can be shown is an error, and nothing else has to be done with it.
fn an_initializer_that_returns_an_error_fails_the_build<S: Processes>() {
    fn boxed(path: String) -> Result<(), Box<dyn std::error::Error>> {
        std::fs::read(path)?;
        Ok(())
    }
    let builder = || S::builder().processes(2);
    let path = || "/does/not/exist".to_owned();
    let refused = [
        builder().initializer(boxed, path()).try_build(),
        builder()
            .initializer(|path: String| std::fs::read(path).map(drop), path())
            .try_build(),
        builder()
            .initializer(|_: String| Err("No such file, they say"), path())
            .try_build(),
    ];
    for error in refused.map(|built| built.map(|_| "a pool").unwrap_err()) {
        assert_eq!(error.kind(), BuildErrorKind::Initializer, "{error}");
        let text = error.to_string();
        for words in ["the initializer failed: No such file", "in PoolWorker-"] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
    }
    let pool = builder().initializer(boxed, "/proc/self/stat".to_owned());
    assert_eq!(pool.build().apply(|x: u64| x + 1, 1).unwrap(), 2);
}

/// The others are through already.
fn an_initializer_that_fails_in_one_worker_fails_the_build<S: Processes>() {
    let tally = Tally::new();
    let start = |tally: String| {
        file_barrier::add(&tally, "here");
        let is_last = worker::current().is_some_and(|worker| worker.number() == 3);
        while is_last && std::fs::read_to_string(&tally).unwrap().lines().count() < 3 {
            std::thread::yield_now();
        }
        if is_last { Err("no third") } else { Ok(()) }
    };
    let builder = S::builder().processes(3);
    let built = builder.initializer(start, tally.ticket()).try_build();
    let error = built.map(|_| "a pool").unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::Initializer);
    assert!(error.to_string().contains("no third"), "{error}");
}

/// Of replacements, none of which can begin: every task fails with the reason, after a few tries
/// and not one for each task.
fn an_initializer_that_fails_later_ends_the_pool_with_its_reason<S: Processes>() {
    fn start((tally, fate): (String, Fate)) -> Result<(), &'static str> {
        if worker::current().is_none_or(|worker| worker.generation() == 0) {
            return Ok(());
        }
        file_barrier::add(&tally, "try");
        strike(fate)
    }
    for (fate, _) in FATES {
        let tally = Tally::new();
        let builder = S::builder().processes(2);
        let pool = builder.initializer(start, (tally.ticket(), fate)).build();
        let crash = pool.call(|()| -> () { std::process::abort() });
        let lost = crash.chunksize(1).try_map([(); 2]);
        assert!(lost.iter().all(Result::is_err));
        for error in [
            pool.apply(|x: u64| x, 1).unwrap_err(),
            pool.map(|x: u64| x, 0..50).unwrap_err(),
            pool.map_async(|x: u64| x, 0..50).get().unwrap_err(),
            pool.imap(|x: u64| x, 0..50).next().unwrap().unwrap_err(),
        ] {
            assert_eq!(error.kind(), TaskErrorKind::Initializer, "{error}");
            assert!(error.to_string().contains("initializer"), "{error}");
            fate.assert_told(&error);
        }
        pool.close();
        pool.join().unwrap();
        let tries = tally.count();
        assert!((1..=20).contains(&tries), "{tries} tries");
        // Once more, to see that nobody goes on trying.
        assert!(pool.apply(|x: u64| x, 1).is_err());
        assert_eq!(tally.count(), tries);
    }
}

/// One failure of a replacement is not yet the end.
fn an_initializer_that_fails_sometimes_is_tried_again<S: Processes>() {
    fn start(tally: String) -> Result<(), &'static str> {
        file_barrier::add(&tally, "try");
        let tries = std::fs::read_to_string(&tally).unwrap();
        match tries.lines().count() {
            2 => Err("the first replacement fails"),
            _ => Ok(()),
        }
    }
    let tally = Tally::new();
    let builder = S::builder().processes(1);
    let pool = builder.initializer(start, tally.ticket()).build();
    let crash = pool.apply(|()| -> () { std::process::abort() }, ());
    assert!(crash.unwrap_err().is_worker_lost());
    assert_eq!(pool.map(|x: u64| x, 0..3).unwrap(), [0, 1, 2]);
    assert_eq!(tally.count(), 3);
}

/// In all workers, before anything else happens to the pool.
fn an_initializer_is_through_when_the_pool_is_built<S: Processes>() {
    let (tally, gate) = (Tally::new(), Gate::new());
    let start = |(tally, gate): (String, String)| {
        file_barrier::pass(&gate);
        file_barrier::add(&tally, "through");
    };
    let builder = S::builder().processes(3);
    let builder = builder.initializer(start, (tally.ticket(), gate.ticket()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            gate.wait_for(3);
            gate.open();
        });
        let _pool = builder.build();
        assert_eq!(tally.count(), 3);
    });
}

/// The pool is there after a while, and can be ended like any other. Its tasks answer.
fn an_initializer_that_never_returns_can_be_terminated<S: Processes>() {
    let gate = Gate::new();
    let builder = S::builder().processes(2);
    let builder = builder.launch_timeout(std::time::Duration::from_secs(3));
    let start = |ticket: String| file_barrier::pass(&ticket);
    let pool = builder.initializer(start, gate.ticket()).build();
    let pids = gate.wait_for(2);
    let handle = pool.apply_async(|x: u64| x, 1);
    assert!(!handle.is_ready());
    pool.terminate();
    assert!(handle.get().unwrap_err().is_cancelled());
    pool.join().unwrap();
    wait_for_death(&pids);
}

/// A task finds no signal blocked, and one that ends programs ends it. The terminal's Ctrl-C does
/// not reach it, since it is not in the group of the program: what that means, the parent decides.
fn a_worker_begins_with_a_clean_slate<S: Processes>() {
    fn signals() -> [u64; 2] {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        ["SigBlk:", "SigPnd:"].map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        })
    }
    fn end_by(signal: Signal) {
        kill_process(getpid(), signal).unwrap();
        loop {
            std::thread::park();
        }
    }
    let pool = S::pool(2);
    let results = pool.map(|_: u64| signals(), 0..4).unwrap();
    assert_eq!(results, [[0, 0]; 4]);
    for pid in procfs::workers(&pool) {
        let pid = Pid::from_raw(pid.cast_signed());
        assert_eq!(getpgid(pid).unwrap(), pid.unwrap(), "a group of its own");
    }
    let error = pool.apply(|()| end_by(Signal::TERM), ()).unwrap_err();
    assert_eq!(error.signal(), Some(Signal::TERM.as_raw()));
}

fn sets_up<S: Processes>() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = |()| COUNT.fetch_add(1, Ordering::Relaxed);
    COUNT.store(7, Ordering::Relaxed);
    let pool = S::pool(1);
    COUNT.store(100, Ordering::Relaxed);
    let mut counts = Vec::new();
    for _ in 0..2 {
        // Each worker counts for itself, and so does its replacement, from the same beginning.
        counts.extend(pool.map(count, [(), ()]).unwrap());
        assert!(
            pool.apply(|()| -> () { std::process::abort() }, ())
                .is_err()
        );
    }
    println!("{counts:?} {COUNT:?}");
}

/// A forked worker, the replacement too, has the program's memory as it was when the pool was
/// built; one that was executed again begins with nothing. None sees what another one changes.
fn only_forked_workers_have_what_was_set_up_before<S: Processes>() {
    let expected = match S::IS_COPY {
        true => "[7, 8, 7, 8] 100",
        false => "[0, 1, 0, 1] 100",
    };
    assert_eq!(again::<S>("sets_up").lines(), [expected]);
}

fn out_of_descriptors<S: Processes>() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let gate = Gate::new();
    let pool = S::pool(2);
    let handles = [(); 4].map(|()| {
        pool.apply_async(
            |ticket: String| -> () {
                file_barrier::pass(&ticket);
                std::process::abort()
            },
            gate.ticket(),
        )
    });
    gate.wait_for(2);
    let pids = procfs::workers(&pool);
    // This process has its limit from now on, lower than anything that is open or gets free; those
    // that run have theirs already.
    let before = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(3),
        maximum: before.maximum,
    };
    setrlimit(Resource::Nofile, none).unwrap();
    for pid in pids {
        procfs::signal(pid, Signal::KILL);
    }
    let mut kinds: Vec<TaskErrorKind> = Vec::new();
    for handle in handles {
        let error = handle.get().unwrap_err();
        if error.kind() == TaskErrorKind::Launch {
            assert!(error.to_string().contains("open files"), "{error}");
        }
        kinds.push(error.kind());
    }
    let late = pool.apply(|x: u64| x, 1).unwrap_err();
    kinds.push(late.kind());
    setrlimit(Resource::Nofile, before).unwrap();
    drop(pool);
    println!("{kinds:?}");
}

/// When the system has no descriptors left for a replacement, the tasks that wait for it fail with
/// that reason, promptly.
fn a_replacement_that_the_system_refuses_fails_the_tasks<S: Processes>() {
    let lines = again::<S>("out_of_descriptors").lines();
    assert_eq!(lines, ["[WorkerLost, WorkerLost, Launch, Launch, Launch]"]);
}
