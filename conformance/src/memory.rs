//! Workers for which there is no memory: `memory_limit`, and the system's out-of-memory killer.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use procpool::{BuildErrorKind, ExitReason, Output, Pool, Resource, TaskError, TaskErrorKind};
use rustix::process::{Signal, getpid, kill_process};

use crate::backends::{Builder, Processes};
use crate::hooks::Diary;
use crate::procfs::signal;
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_task_over_the_limit_is_out_of_memory,
        so_is_one_that_is_over_it_by_and_by,
        so_is_a_thread_of_a_task,
        so_is_code_that_does_not_look_for_it,
        it_costs_one_item_of_a_chunk,
        retries_run_it_again_in_a_new_worker,
        code_that_copes_goes_on,
        other_deaths_are_as_ever,
        so_is_a_stack_overflow,
        a_copy_of_the_worker_dies_for_itself,
        what_was_survived_is_not_a_later_items,
        a_panic_is_a_panic,
        what_a_task_starts_has_the_limit_for_itself,
        an_initializer_without_memory_fails_the_build,
        a_memory_limit_that_makes_no_sense_fails_the_build,
        the_out_of_memory_killer_is_told_apart,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: is_chosen_by_the_system]
}

/// More than a worker of this program has.
const LIMIT: usize = 256 << 20;

/// A pool of one worker with that limit.
fn limited<S: Processes>() -> S::Builder {
    let builder = S::builder().processes(1).memory_limit(LIMIT as u64);
    builder.stderr(Output::discard())
}

fn fill(bytes: usize) -> usize {
    black_box(vec![1_u8; bytes]).len()
}

fn assert_out(error: &TaskError, signal: Signal) {
    assert_eq!(error.kind(), TaskErrorKind::OutOfMemory, "{error}");
    assert!(error.is_out_of_memory() && !error.is_worker_lost());
    assert_eq!(error.signal(), Some(signal.as_raw()), "{error}");
    let text = error.to_string();
    let words = format!("the task ran out of memory: the worker may have {LIMIT} bytes");
    assert!(text.starts_with(&words), "{text}");
}

fn a_task_over_the_limit_is_out_of_memory<S: Processes>() {
    let diary = Diary::default();
    let pool = diary.of(limited::<S>()).build();
    for bytes in [LIMIT, 1 << 40] {
        assert_out(&pool.apply(fill, bytes).unwrap_err(), Signal::ABORT);
    }
    assert_eq!(pool.apply(fill, LIMIT / 4).unwrap(), LIMIT / 4);
    assert_eq!(diary.wait_for_ends(2), [ExitReason::OutOfMemory; 2]);
    let stats = pool.stats();
    assert_eq!(stats.failed_as(TaskErrorKind::OutOfMemory), 2, "{stats}");
    assert_eq!(stats.ended_for(ExitReason::OutOfMemory), 2, "{stats}");
    assert_eq!(stats.ended_for(ExitReason::Crashed), 0, "{stats}");
}

/// The last straw is a small one.
fn so_is_one_that_is_over_it_by_and_by<S: Processes>() {
    fn leak(bytes: usize) {
        loop {
            black_box(vec![1_u8; bytes]).leak();
        }
    }
    let pool = limited::<S>().build();
    for bytes in [10_000, 1 << 20] {
        assert_out(&pool.apply(leak, bytes).unwrap_err(), Signal::ABORT);
    }
}

fn so_is_a_thread_of_a_task<S: Processes>() {
    fn fill_in_thread(bytes: usize) -> usize {
        let thread = std::thread::spawn(move || fill(bytes));
        thread.join().expect("it does not panic")
    }
    let pool = limited::<S>().build();
    assert_eq!(pool.apply(fill_in_thread, 1000).unwrap(), 1000);
    let error = pool.apply(fill_in_thread, LIMIT).unwrap_err();
    assert_out(&error, Signal::ABORT);
}

/// It writes where the allocator says that there is nothing, as bad C code does.
fn so_is_code_that_does_not_look_for_it<S: Processes>() {
    fn write(bytes: usize) {
        let layout = Layout::from_size_align(bytes, 1).expect("it makes sense");
        // SAFETY: it is not, on purpose: the layout has a size, but nobody looks for null.
        unsafe { alloc(layout).write_volatile(1) };
    }
    let pool = limited::<S>().build();
    pool.apply(write, 1000).unwrap();
    assert_out(&pool.apply(write, LIMIT).unwrap_err(), Signal::SEGV);
    // What has looked for it, and for other things since.
    let give_up = |bytes: usize| -> () {
        let mut kept = Vec::new();
        loop {
            let mut piece = Vec::<u8>::new();
            if piece.try_reserve_exact(bytes).is_err() {
                break;
            }
            kept.push(black_box(piece));
        }
        assert!(fs::read("/no/such/file").is_err());
        std::process::abort();
    };
    let error = pool.apply(give_up, 128 << 10).unwrap_err();
    assert_out(&error, Signal::ABORT);
}

fn it_costs_one_item_of_a_chunk<S: Processes>() {
    let pool = limited::<S>().build();
    let sizes = (0..20).map(|place| if place == 7 { LIMIT } else { place });
    let results = pool.call(fill).chunksize(20).try_map(sizes);
    for (place, result) in results.iter().enumerate() {
        match result {
            Ok(bytes) => assert_eq!(*bytes, place),
            Err(error) => {
                assert_eq!((error.index(), place), (Some(7), 7));
                assert_eq!(error.kind(), TaskErrorKind::OutOfMemory, "{error}");
            }
        }
    }
    assert!(results[7].is_err());
}

/// The first worker is full of what was left in it.
fn retries_run_it_again_in_a_new_worker<S: Processes>() {
    fn leak(bytes: usize) {
        black_box(vec![1_u8; bytes]).leak();
    }
    let pool = limited::<S>().build();
    pool.apply(leak, LIMIT / 2).unwrap();
    let error = pool.apply(fill, LIMIT / 2).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::OutOfMemory, "{error}");
    pool.apply(leak, LIMIT / 2).unwrap();
    let again = pool.call(fill).retries(1).apply(LIMIT / 2);
    assert_eq!(again.unwrap(), LIMIT / 2);
    let never = pool.call(fill).retries(1).apply(LIMIT).unwrap_err();
    assert_eq!(never.kind(), TaskErrorKind::OutOfMemory, "{never}");
}

fn code_that_copes_goes_on<S: Processes>() {
    fn try_to_fill(bytes: usize) -> (bool, u32) {
        let reserved = Vec::<u8>::new().try_reserve_exact(bytes);
        (reserved.is_ok(), std::process::id())
    }
    let pool = limited::<S>().build();
    let (is_there, first) = pool.apply(try_to_fill, LIMIT / 4).unwrap();
    assert!(is_there);
    assert_eq!(pool.apply(try_to_fill, LIMIT).unwrap(), (false, first));
    assert_eq!(pool.apply(fill, 1000).unwrap(), 1000);
    assert_eq!(pool.stats().workers_lost, 0);
}

fn other_deaths_are_as_ever<S: Processes>() {
    fn die(number: i32) {
        let at_limit = black_box(vec![1_u8; LIMIT / 2]);
        match Signal::from_named_raw(number) {
            Some(Signal::ABORT) => std::process::abort(),
            // SAFETY: it is not, on purpose.
            Some(Signal::SEGV) => unsafe {
                black_box(std::ptr::null_mut::<u8>()).write_volatile(1)
            },
            Some(signal) => kill_process(getpid(), signal).expect("a process may kill itself"),
            None => std::process::exit(3),
        }
        drop(at_limit);
    }
    let diary = Diary::default();
    let pool = diary.of(limited::<S>()).build();
    let all = [
        Signal::ABORT,
        Signal::SEGV,
        Signal::ILL,
        Signal::KILL,
        Signal::TERM,
    ];
    for how in all {
        let error = pool.apply(die, how.as_raw()).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
        assert_eq!(error.signal(), Some(how.as_raw()), "{error}");
    }
    assert_eq!(pool.apply(die, -1).unwrap_err().exit_code(), Some(3));
    // From outside.
    for how in [Signal::ABORT, Signal::ILL] {
        let pid = pool.apply(|()| std::process::id(), ()).unwrap();
        signal(pid, how);
    }
    let ends = diary.wait_for_ends(all.len() + 3);
    assert_eq!(ends, vec![ExitReason::Crashed; all.len() + 3]);
}

/// The handler runs where the stack has ended, and the Rust runtime's after it.
fn so_is_a_stack_overflow<S: Processes>() {
    #[allow(unconditional_recursion, reason = "that is the point")]
    fn deeper(x: u64) -> u64 {
        black_box(deeper(black_box(x) + 1) + 1)
    }
    let error = limited::<S>().build().apply(deeper, 1).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    let usual = S::quiet_pool(1).apply(deeper, 1).unwrap_err();
    assert_eq!(error.signal(), usual.signal(), "{error}");
}

/// It has the worker's handler, and its memory.
fn a_copy_of_the_worker_dies_for_itself<S: Processes>() {
    fn fork_and_abort(bytes: usize) {
        // SAFETY: the copy allocates, which the C library allows after a fork, and ends by that.
        match unsafe { fork() }.expect("a process") {
            ForkResult::Child => {
                fill(bytes);
            }
            ForkResult::Parent { child } => {
                let status = waitpid(child, None).expect("it is a child");
                let signal = nix::sys::signal::Signal::SIGABRT;
                assert!(matches!(status, WaitStatus::Signaled(_, it, _) if it == signal));
                std::process::abort();
            }
        }
    }
    let error = limited::<S>()
        .build()
        .apply(fork_and_abort, LIMIT)
        .unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
}

/// The Rust runtime's handler takes a SIGSEGV that was sent for nothing.
fn what_was_survived_is_not_a_later_items<S: Processes>() {
    fn survive(bytes: usize) {
        assert!(Vec::<u8>::new().try_reserve_exact(bytes).is_err());
        kill_process(getpid(), Signal::SEGV).expect("a process may");
        assert!(fs::read("/no/such/file").is_err());
    }
    let pool = limited::<S>().build();
    pool.apply(survive, LIMIT).unwrap();
    let error = pool.apply(|()| -> () { std::process::abort() }, ());
    let error = error.unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert_eq!(pool.stats().workers_lost, 1);
}

fn a_panic_is_a_panic<S: Processes>() {
    fn panic(bytes: usize) {
        let mut text = Vec::<u8>::new();
        text.try_reserve_exact(bytes).expect("there is memory");
    }
    let pool = limited::<S>().build();
    let error = pool.apply(panic, LIMIT).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Panicked, "{error}");
    assert_eq!(pool.stats().workers_lost, 0);
}

/// A program that has none is none of the worker's.
fn what_a_task_starts_has_the_limit_for_itself<S: Processes>() {
    fn limit_of_child((): ()) -> String {
        let output = Command::new("sh").args(["-c", "ulimit -d"]).output();
        let text = output.expect("there is a shell").stdout;
        String::from_utf8_lossy(&text).trim().to_owned()
    }
    let pool = limited::<S>().build();
    let kib = (LIMIT >> 10).to_string();
    assert_eq!(pool.apply(limit_of_child, ()).unwrap(), kib);
}

fn an_initializer_without_memory_fails_the_build<S: Processes>() {
    fn prepare(bytes: usize) {
        fill(bytes);
    }
    let built = limited::<S>().initializer(prepare, LIMIT).try_build();
    let error = built.map(|_| "a pool").unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::Initializer, "{error}");
    let text = error.to_string();
    assert!(text.contains("the initializer ran out of memory"), "{text}");
}

fn a_memory_limit_that_makes_no_sense_fails_the_build<S: Processes>() {
    for (builder, kind, what) in [
        (
            S::builder().memory_limit(0),
            BuildErrorKind::InvalidConfig,
            "memory_limit is 0",
        ),
        (
            limited::<S>().rlimit(Resource::DataSize, 1 << 30, 1 << 30),
            BuildErrorKind::InvalidConfig,
            "leave one of them out",
        ),
        (
            S::builder().memory_limit(4096),
            BuildErrorKind::Launch,
            "cannot have a memory_limit of 4096 bytes: it has ",
        ),
    ] {
        let error = builder.processes(1).try_build().map(|_| "a pool");
        let error = error.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// The files in which a control group may count, in the two versions that there are.
const COUNTS: [&str; 2] = ["memory.events", "memory/memory.oom_control"];

fn set_count(kills: u32) {
    for file in COUNTS {
        let text = format!("oom 7\noom_kill {kills}\n");
        fs::write(Path::new("/sys/fs/cgroup").join(file), text).expect("it is ours");
    }
}

/// Only the system's administrator may have other control groups; for others it says so.
fn is_chosen_by_the_system<S: Processes>() {
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        return println!("refused");
    }
    let mounted = |from: &str, to: &str, kind: &str, flags| {
        mount(Some(from), to, Some(kind), flags, None::<&str>).expect("an administrator may");
    };
    mounted("none", "/", "", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mounted("none", "/sys/fs/cgroup", "tmpfs", MsFlags::empty());
    fs::create_dir("/sys/fs/cgroup/memory").expect("it is ours");
    set_count(1);
    let die = |kills: u32| -> () {
        set_count(kills);
        let _ = kill_process(getpid(), Signal::KILL);
    };
    let diary = Diary::default();
    let pool = diary.of(S::builder().processes(1)).build();
    for (kills, kind) in [
        (1, TaskErrorKind::WorkerLost),
        (2, TaskErrorKind::OutOfMemory),
        (2, TaskErrorKind::WorkerLost),
    ] {
        let error = pool.apply(die, kills).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.signal(), Some(Signal::KILL.as_raw()), "{error}");
        let says = error.to_string().contains("the system had none left");
        assert_eq!(says, kind == TaskErrorKind::OutOfMemory, "{error}");
    }
    // What the pool itself has killed, it knows.
    let killed = pool.apply_async(
        |kills| {
            set_count(kills);
            loop {
                std::thread::park();
            }
        },
        3,
    );
    let _: &procpool::TaskHandle<()> = &killed;
    crate::procfs::wait_until(|| {
        fs::read_to_string("/sys/fs/cgroup/memory.events").is_ok_and(|text| text.contains("kill 3"))
    });
    killed.kill();
    assert!(killed.get().unwrap_err().is_cancelled());
    let ends = diary.wait_for_ends(4);
    let crashed = ExitReason::Crashed;
    let expected = [
        crashed,
        ExitReason::OutOfMemory,
        crashed,
        ExitReason::Cancelled,
    ];
    assert_eq!(ends, expected);
    println!("told apart");
}

fn the_out_of_memory_killer_is_told_apart<S: Processes>() {
    let mut program = again::<S>("is_chosen_by_the_system").start();
    let line = program.line();
    assert!(line == "told apart" || line == "refused", "{line}");
    assert!(program.status().success());
}
