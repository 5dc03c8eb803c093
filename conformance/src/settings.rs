//! What workers set up for themselves before they run anything.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use procpool::{BuildErrorKind, Output, Pool, Resource, TaskErrorKind};
use rustix::process::{Signal, getpriority_process, getrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Tally};
use crate::hooks::Diary;
use crate::procfs::{signal, wait_until, workers};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        the_environment_is_as_asked_for,
        an_empty_environment_has_what_is_set_after_that,
        the_environment_is_there_before_the_initializer,
        workers_are_in_the_directory,
        workers_are_as_nice_as_asked_for,
        standard_input_is_empty,
        a_deep_task_runs_in_a_thread_of_its_own,
        workers_have_limits,
        a_worker_over_its_limit_costs_one_task,
        a_limit_below_what_a_worker_has_fails_the_build,
        each_worker_has_a_processor,
        replacements_have_the_same_settings,
        a_setting_that_fails_fails_the_build,
        a_setting_that_fails_later_fails_the_tasks,
        settings_that_make_no_sense_are_refused,
    ]
}

fn variable(key: String) -> Option<String> {
    std::env::var(key).ok()
}

fn the_environment_is_as_asked_for<S: Processes>() {
    let inherited = pool_of::<S>().apply(variable, "PATH".into()).unwrap();
    assert!(inherited.is_some(), "the tests run with a PATH");
    let builder = S::builder().processes(2).env("PROCPOOL_A", "first");
    let builder = builder.env("PROCPOOL_A", "last").env("PROCPOOL_B", "");
    let pool = builder.env_remove("PATH").build();
    let get = |key: &str| pool.apply(variable, key.into()).unwrap();
    assert_eq!(get("PROCPOOL_A").as_deref(), Some("last"));
    assert_eq!(get("PROCPOOL_B").as_deref(), Some(""));
    assert_eq!(get("PATH"), None);
    assert_eq!(std::env::var_os("PROCPOOL_A"), None, "not in this process");
}

fn pool_of<S: Processes>() -> S::Pool {
    S::builder().processes(1).build()
}

fn an_empty_environment_has_what_is_set_after_that<S: Processes>() {
    fn all((): ()) -> Vec<(String, String)> {
        std::env::vars().collect()
    }
    let builder = S::builder().processes(1).env("PROCPOOL_A", "lost");
    let builder = builder.env_clear().env("PROCPOOL_B", "kept");
    let expected = vec![("PROCPOOL_B".to_owned(), "kept".to_owned())];
    assert_eq!(builder.build().apply(all, ()).unwrap(), expected);
}

fn the_environment_is_there_before_the_initializer<S: Processes>() {
    let tally = Tally::new();
    let builder = S::builder().processes(1).env("PROCPOOL_A", "set");
    let pool = builder
        .initializer(
            |ticket: String| file_barrier::add(&ticket, std::env::var("PROCPOOL_A").unwrap()),
            tally.ticket(),
        )
        .build();
    pool.apply(variable, "PROCPOOL_A".into()).unwrap();
    assert_eq!(tally.lines(), ["set"]);
}

fn directory((): ()) -> PathBuf {
    std::env::current_dir().unwrap()
}

fn workers_are_in_the_directory<S: Processes>() {
    let here = directory(());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let pool = S::builder().processes(1).current_dir(&path).build();
    assert_eq!(pool.apply(directory, ()).unwrap(), path);
    assert_eq!(directory(()), here, "not this process");
    // Relative to where this program is, wherever a fork server was started.
    let pool = S::builder()
        .processes(1)
        .current_dir(Path::new(".."))
        .build();
    let above = here.parent().expect("tests do not run in the root folder");
    assert_eq!(pool.apply(directory, ()).unwrap(), above);
}

fn workers_are_as_nice_as_asked_for<S: Processes>() {
    fn niceness((): ()) -> i32 {
        getpriority_process(None).unwrap()
    }
    let plain = pool_of::<S>().apply(niceness, ()).unwrap();
    let pool = S::builder().processes(1).nice(3).build();
    assert_eq!(pool.apply(niceness, ()).unwrap(), (plain + 3).min(19));
}

/// Whatever the program reads: two processes cannot read it in order.
fn standard_input_is_empty<S: Processes>() {
    fn input((): ()) -> (PathBuf, Vec<u8>) {
        let file = std::fs::read_link("/proc/self/fd/0").expect("it is open");
        let mut bytes = Vec::new();
        let read = std::io::stdin().read_to_end(&mut bytes);
        read.expect("it can be read");
        (file, bytes)
    }
    let (file, bytes) = pool_of::<S>().apply(input, ()).unwrap();
    assert_eq!((file.as_path(), bytes), (Path::new("/dev/null"), vec![]));
}

/// Deeper than any stack that a worker begins with, as the documentation says it is done.
fn a_deep_task_runs_in_a_thread_of_its_own<S: Processes>() {
    fn deep(levels: u64) -> u64 {
        let here = std::hint::black_box([levels; 128]);
        if levels == 0 {
            0
        } else {
            deep(levels - 1) + here[0] / levels
        }
    }
    let task = |levels: u64| {
        let thread = std::thread::Builder::new().stack_size(1 << 30);
        let running = thread.spawn(move || deep(levels)).unwrap();
        running.join().unwrap()
    };
    let levels = (256 << 20) / 1024;
    assert_eq!(pool_of::<S>().apply(task, levels).unwrap(), levels);
}

fn workers_have_limits<S: Processes>() {
    fn limits((): ()) -> [Option<u64>; 4] {
        let core = getrlimit(rustix::process::Resource::Core);
        let files = getrlimit(rustix::process::Resource::Nofile);
        [core.current, core.maximum, files.current, files.maximum]
    }
    let builder = S::builder()
        .processes(1)
        .rlimit(Resource::CoreSize, 0, 4096);
    let pool = builder.rlimit(Resource::OpenFiles, 50, 60).build();
    assert_eq!(
        pool.apply(limits, ()).unwrap(),
        [Some(0), Some(4096), Some(50), Some(60)]
    );
}

/// More memory than there may be: the allocation fails, the worker aborts, another one goes on.
fn a_worker_over_its_limit_costs_one_task<S: Processes>() {
    fn fill(bytes: usize) -> usize {
        std::hint::black_box(vec![1_u8; bytes]).len()
    }
    let builder = S::builder().processes(1).stderr(Output::discard());
    let builder = builder.rlimit(Resource::CoreSize, 0, 0);
    // The program, its stacks and what the test's machinery has mapped are below that.
    let pool = builder
        .rlimit(Resource::AddressSpace, 4 << 30, 4 << 30)
        .build();
    let error = pool.apply(fill, 8 << 30).unwrap_err();
    assert!(error.is_worker_lost(), "{error}");
    assert_eq!(error.signal(), Some(6), "{error}");
    assert_eq!(pool.apply(fill, 1 << 20).unwrap(), 1 << 20);
}

/// It would abort at its first allocation, and so would each task.
fn a_limit_below_what_a_worker_has_fails_the_build<S: Processes>() {
    for resource in [Resource::AddressSpace, Resource::DataSize] {
        let builder = S::builder().processes(1).rlimit(resource, 4096, 4096);
        let error = builder.try_build().map(|_| "a pool").unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::Launch, "{error}");
        let text = error.to_string();
        for words in [format!("{resource:?}"), "before its first task".into()] {
            assert!(text.contains(&words), "no {words:?} in {text}");
        }
    }
}

fn processors((): ()) -> (u32, Vec<usize>) {
    let allowed = sched_getaffinity(None).unwrap();
    let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    (std::process::id(), cpus.collect())
}

/// What each of the pool's workers says, by their numbers.
fn of_each<S: Processes>(pool: &S::Pool, count: usize) -> BTreeMap<u32, Vec<usize>> {
    let mut found = BTreeMap::new();
    wait_until(|| {
        let rows = pool.call(processors).chunksize(1).map(vec![(); 4 * count]);
        found.extend(rows.unwrap());
        found.len() >= count
    });
    found
}

fn each_worker_has_a_processor<S: Processes>() {
    let (_, allowed) = processors(());
    let pool = S::builder().processes(3).pin_cpus().build();
    let mut pinned: Vec<_> = of_each::<S>(&pool, 3).into_values().collect();
    pinned.sort();
    let mut expected: Vec<_> = (0..3)
        .map(|slot| vec![allowed[slot % allowed.len()]])
        .collect();
    expected.sort();
    assert_eq!(pinned, expected);
    let last = *allowed.last().unwrap();
    let pool = S::builder().processes(2).pin_cpus_to(vec![last]).build();
    for cpus in of_each::<S>(&pool, 2).into_values() {
        assert_eq!(cpus, [last]);
    }
}

/// Also those that take the place of a worker that was killed, and of one that was recycled.
fn replacements_have_the_same_settings<S: Processes>() {
    let (_, allowed) = processors(());
    let last = *allowed.last().unwrap();
    let builder = S::builder().processes(1).max_tasks_per_child(2);
    let builder = builder.env("PROCPOOL_A", "set").pin_cpus_to(vec![last]);
    let pool = builder.build();
    for _ in 0..3 {
        let killed = workers(&pool);
        killed.iter().for_each(|pid| signal(*pid, Signal::KILL));
        wait_until(|| workers(&pool).iter().any(|pid| !killed.contains(pid)));
        for _ in 0..2 {
            let set = pool.apply(variable, "PROCPOOL_A".into()).unwrap();
            assert_eq!(set.as_deref(), Some("set"));
            assert_eq!(pool.apply(processors, ()).unwrap().1, [last]);
        }
    }
}

fn a_setting_that_fails_fails_the_build<S: Processes>() {
    for (builder, what) in [
        (
            S::builder().current_dir(Path::new("/no/such/folder")),
            "cannot go to the folder \"/no/such/folder\"",
        ),
        (
            S::builder().pin_cpus_to(vec![CpuSet::MAX_CPU - 1]),
            "cannot run on processor",
        ),
        (
            S::builder().rlimit(Resource::OpenFiles, u64::MAX, u64::MAX),
            "cannot have the limits",
        ),
    ] {
        let diary = Diary::default();
        let error = diary
            .of(builder.processes(3))
            .try_build()
            .map(drop)
            .unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::Launch);
        assert!(error.to_string().contains(what), "{error}");
        assert!(diary.started().len() <= 3, "it tries again and again");
    }
}

/// The folder that the workers should be in is removed: there are no replacements.
fn a_setting_that_fails_later_fails_the_tasks<S: Processes>() {
    let folder = tempfile::tempdir().unwrap();
    let pool = S::builder().processes(2).current_dir(folder.path()).build();
    pool.apply(directory, ()).unwrap();
    folder.close().unwrap();
    for pid in workers(&pool) {
        signal(pid, Signal::KILL);
    }
    wait_until(|| match pool.apply(variable, "PATH".into()) {
        Ok(_) => false,
        Err(error) => error.kind() == TaskErrorKind::Launch,
    });
    let error = pool.apply(variable, "PATH".into()).unwrap_err();
    assert!(error.to_string().contains("go to the folder"), "{error}");
    pool.close();
    pool.join().unwrap();
}

fn settings_that_make_no_sense_are_refused<S: Processes>() {
    for (builder, what) in [
        (S::builder().env("", "x"), "name of a variable"),
        (S::builder().env("A=B", "x"), "name of a variable"),
        (S::builder().env("A", "x\0y"), "zero byte"),
        (S::builder().env_remove("A\0"), "name of a variable"),
        (S::builder().nice(40), "nice is 40"),
        (
            S::builder().rlimit(Resource::CpuTime, 2, 1),
            "above the hard one",
        ),
        (
            S::builder().pin_cpus_to(Vec::new()),
            "no processor in the list",
        ),
        (S::builder().pin_cpus_to(vec![1 << 20]), "is no processor"),
        (S::builder().current_dir(Path::new("")), "current_dir"),
    ] {
        let error = builder.processes(1).try_build().map(drop).unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}
