//! Workers that come and go: by memory, by age, when they are idle, and because the pool is
//! resized.

use std::collections::BTreeSet;
use std::time::Duration;

use procpool::{BuildErrorKind, ExitReason, Pool, SerialPool, worker};
use rustix::process::Signal;

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Gate, Tally};
use crate::hooks::Diary;
use crate::procfs::{is_alive, signal, wait_for_death, wait_until, workers};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_worker_that_leaks_is_replaced,
        a_worker_below_its_limit_stays,
        a_worker_too_large_works_until_its_replacement_is_ready,
        a_worker_much_too_large_gets_nothing_more,
        a_limit_below_any_worker_fails_the_build,
        a_limit_below_what_the_initializer_needs_fails_the_build,
        an_old_worker_is_replaced_while_it_is_idle,
        an_old_worker_is_replaced_when_it_is_through,
        idle_workers_go_and_come_back,
        the_last_idle_worker_goes_if_it_may,
        a_pool_grows,
        a_pool_shrinks_and_loses_nothing,
        a_pool_shrinks_by_those_who_do_least,
        a_pool_is_resized_again_and_again_under_load,
        a_pool_is_resized_while_its_workers_are_replaced,
        a_pool_is_resized_while_its_workers_start,
        a_closed_pool_is_not_resized,
        sizes_that_make_no_sense_are_refused,
        options_that_make_no_sense_are_refused,
    ]
}

fn who((): ()) -> u32 {
    std::process::id()
}

fn pass(ticket: String) -> u32 {
    file_barrier::pass(&ticket);
    std::process::id()
}

/// Keeps this many bytes forever.
fn leak(bytes: usize) -> u32 {
    std::hint::black_box(vec![1_u8; bytes]).leak();
    std::process::id()
}

/// A limit that a worker of this program reaches when it has leaked some of this.
const LEAK: usize = 16 << 20;
const LIMIT: u64 = 128 << 20;

fn a_worker_that_leaks_is_replaced<S: Processes>() {
    let diary = Diary::default();
    let builder = S::builder().processes(2).max_memory_per_child(LIMIT);
    let pool = diary.of(builder).build();
    let pids = pool.call(leak).chunksize(1).map(vec![LEAK; 40]).unwrap();
    let pids: BTreeSet<u32> = pids.into_iter().collect();
    assert!(pids.len() >= 4, "40 of these do not go into {pids:?}");
    let ends = diary.wait_for_ends(2);
    assert!(
        ends.iter().all(|reason| *reason == ExitReason::MaxMemory),
        "{ends:?}"
    );
    assert_eq!(pool.stats().workers_lost, 0);
}

fn a_worker_below_its_limit_stays<S: Processes>() {
    let builder = S::builder().processes(1).max_memory_per_child(LIMIT);
    let pool = builder.build();
    let first = pool.apply(who, ()).unwrap();
    for _ in 0..20 {
        // Freed again, as is all that an item took.
        let large = pool.apply(|bytes: usize| vec![1_u8; bytes].len(), LEAK);
        assert_eq!(large.unwrap(), LEAK);
        assert_eq!(pool.apply(who, ()).unwrap(), first);
    }
    assert_eq!(pool.stats().workers_started, 1);
}

/// A pool of one worker with a limit. The initializers of its replacements wait at the gate.
fn slowly_replaced<S: Processes>(gate: &Gate) -> S::Pool {
    let builder = S::builder().processes(1).max_memory_per_child(LIMIT);
    let builder = builder.initializer(
        |ticket: String| {
            if worker::current().is_some_and(|worker| worker.generation() > 0) {
                file_barrier::pass(&ticket);
            }
        },
        gate.ticket(),
    );
    builder.build()
}

/// While the replacement's initializer takes its time, tasks go on.
fn a_worker_too_large_works_until_its_replacement_is_ready<S: Processes>() {
    let gate = Gate::new();
    let pool = slowly_replaced::<S>(&gate);
    let first = pool.apply(leak, LIMIT as usize).unwrap();
    let next = gate.wait_for(1)[0];
    for _ in 0..20 {
        assert_eq!(pool.apply(who, ()).unwrap(), first);
    }
    gate.open();
    wait_for_death(&[first]);
    assert_eq!(pool.apply(who, ()).unwrap(), next);
}

/// It goes at once, and its work waits for the replacement.
fn a_worker_much_too_large_gets_nothing_more<S: Processes>() {
    let gate = Gate::new();
    let pool = slowly_replaced::<S>(&gate);
    let first = pool.apply(leak, 2 * LIMIT as usize).unwrap();
    let task = pool.apply_async(who, ());
    let next = gate.wait_for(1)[0];
    wait_for_death(&[first]);
    gate.open();
    assert_eq!(task.get().unwrap(), next);
}

fn a_limit_below_any_worker_fails_the_build<S: Processes>() {
    let builder = S::builder().processes(2).max_memory_per_child(1000);
    let error = builder.try_build().map(drop).unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::Launch);
    let text = error.to_string();
    assert!(text.contains("max_memory_per_child is 1000"), "{text}");
}

fn a_limit_below_what_the_initializer_needs_fails_the_build<S: Processes>() {
    fn fill(bytes: usize) {
        leak(bytes);
    }
    let builder = S::builder().processes(1).max_memory_per_child(LIMIT);
    let built = builder.initializer(fill, LIMIT as usize).try_build();
    let error = built.map(|_| "a pool").unwrap_err();
    assert!(
        error.to_string().contains("max_memory_per_child"),
        "{error}"
    );
}

fn an_old_worker_is_replaced_while_it_is_idle<S: Processes>() {
    let diary = Diary::default();
    let builder = S::builder().processes(2).max_age(Duration::from_millis(30));
    let pool = diary.of(builder).build();
    let ends = diary.wait_for_ends(6);
    assert!(
        ends.iter().all(|reason| *reason == ExitReason::MaxAge),
        "{ends:?}"
    );
    pool.apply(who, ()).unwrap();
    assert_eq!(pool.stats().workers_lost, 0);
}

/// A task is not interrupted; the next one is another worker's, who is ready by then.
fn an_old_worker_is_replaced_when_it_is_through<S: Processes>() {
    let diary = Diary::default();
    let builder = S::builder().processes(1).max_age(Duration::from_millis(50));
    let pool = diary.of(builder).build();
    let gate = Gate::new();
    let task = pool.apply_async(pass, gate.ticket());
    let here = gate.wait_for(1)[0];
    // All that were too old before have gone; this one is old while it is at the gate.
    wait_until(|| {
        diary
            .started()
            .last()
            .is_some_and(|last| last.pid() != here)
    });
    assert!(is_alive(here));
    assert!(diary.reasons().len() < diary.started().len());
    gate.open();
    assert_eq!(task.get().unwrap(), here);
    wait_for_death(&[here]);
    assert_ne!(pool.apply(who, ()).unwrap(), here);
}

/// Down to the least number, which stays; and when there is more to do than they can, the others
/// are there again.
fn idle_workers_go_and_come_back<S: Processes>() {
    let diary = Diary::default();
    let builder = S::builder().processes(4).min_processes(2);
    let pool = diary
        .of(builder.idle_timeout(Duration::from_millis(20)))
        .build();
    for round in 1..4 {
        let ends = diary.wait_for_ends(2 * round);
        assert_eq!(ends, vec![ExitReason::Idle; 2 * round]);
        assert_eq!(workers(&pool).len(), 2);
        assert_eq!(pool.processes(), 4);
        let gate = Gate::new();
        let tasks: Vec<_> = (0..4)
            .map(|_| pool.apply_async(pass, gate.ticket()))
            .collect();
        let pids: BTreeSet<u32> = gate.wait_for(4).into_iter().collect();
        assert_eq!(pids.len(), 4, "all work at the same time");
        gate.open();
        for task in tasks {
            assert!(pids.contains(&task.get().unwrap()));
        }
    }
    pool.close();
    pool.join().unwrap();
    assert_eq!(pool.stats().workers_lost, 0);
}

fn the_last_idle_worker_goes_if_it_may<S: Processes>() {
    let diary = Diary::default();
    let builder = S::builder().processes(2).min_processes(0);
    let pool = diary
        .of(builder.idle_timeout(Duration::from_millis(10)))
        .build();
    for round in 1..4 {
        wait_until(|| workers(&pool).is_empty());
        let x = pool.call(|x: u64| x + 1).apply(round);
        assert_eq!(x.unwrap(), round + 1);
    }
    wait_until(|| workers(&pool).is_empty());
    pool.close();
    pool.join().unwrap();
}

fn a_pool_grows<S: Processes>() {
    let pool = S::builder().processes(1).build();
    let gate = Gate::new();
    let tasks: Vec<_> = (0..4)
        .map(|_| pool.apply_async(pass, gate.ticket()))
        .collect();
    gate.wait_for(1);
    pool.resize(4).unwrap();
    assert_eq!(pool.processes(), 4);
    let pids: BTreeSet<u32> = gate.wait_for(4).into_iter().collect();
    assert_eq!(pids.len(), 4, "all work at the same time");
    gate.open();
    for task in tasks {
        task.get().unwrap();
    }
    assert_eq!(pool.stats().workers_started, 4);
}

/// Those who go finish what they run, and run their finalizer; what waits behind that is run by the
/// others.
fn a_pool_shrinks_and_loses_nothing<S: Processes>() {
    let diary = Diary::default();
    let ends = Tally::new();
    static TICKET: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let builder = S::builder().processes(4).initializer(
        |ticket: String| TICKET.set(ticket).expect("it runs once in a worker"),
        ends.ticket(),
    );
    let builder =
        builder.finalizer(|| file_barrier::add(TICKET.get().unwrap(), std::process::id()));
    let pool = diary.of(builder).build();
    let gate = Gate::new();
    let tasks: Vec<_> = (0..12)
        .map(|_| pool.apply_async(pass, gate.ticket()))
        .collect();
    gate.wait_for(4);
    pool.resize(1).unwrap();
    assert_eq!(pool.processes(), 1);
    gate.open();
    for task in tasks {
        task.get().unwrap();
    }
    assert_eq!(diary.wait_for_ends(3), [ExitReason::Resized; 3]);
    assert_eq!(ends.count(), 3);
    assert_eq!(workers(&pool).len(), 1);
    let stats = pool.stats();
    assert_eq!((stats.workers_started, stats.workers_lost), (4, 0));
}

/// Three idle workers go at once, though another one is at a task that does not end.
fn a_pool_shrinks_by_those_who_do_least<S: Processes>() {
    let diary = Diary::default();
    let pool = diary.of(S::builder().processes(4)).build();
    let gate = Gate::new();
    let task = pool.apply_async(pass, gate.ticket());
    let here = gate.wait_for(1);
    pool.resize(1).unwrap();
    assert_eq!(diary.wait_for_ends(3), [ExitReason::Resized; 3]);
    assert_eq!(workers(&pool), here);
    gate.open();
    task.get().unwrap();
}

fn a_pool_is_resized_again_and_again_under_load<S: Processes>() {
    let pool = &S::builder().processes(2).build();
    std::thread::scope(|scope| {
        let work = scope.spawn(move || {
            for _ in 0..5 {
                let values = pool.call(|x: u64| x * x).chunksize(1).map(0..200).unwrap();
                assert!(values.into_iter().eq((0..200).map(|x| x * x)));
            }
        });
        let mut size = 0;
        while !work.is_finished() {
            size = size % 5 + 1;
            pool.resize(size).unwrap();
            // A change that is overtaken by the next one is one to get right, too.
            if size % 2 == 0 {
                wait_until(|| work.is_finished() || !workers(pool).is_empty());
            }
        }
        work.join().unwrap();
    });
    pool.resize(3).unwrap();
    wait_until(|| workers(pool).len() == 3);
    let stats = pool.stats();
    assert_eq!(stats.workers_lost, 0, "{stats:?}");
}

fn a_pool_is_resized_while_its_workers_are_replaced<S: Processes>() {
    let pool = S::builder().processes(3).max_tasks_per_child(1).build();
    let tasks: Vec<_> = (0..60).map(|_| pool.apply_async(who, ())).collect();
    for size in [1, 4, 2, 5, 1, 3] {
        pool.resize(size).unwrap();
        let killed = workers(&pool);
        if let Some(pid) = killed.last().filter(|_| size == 5) {
            signal(*pid, Signal::KILL);
        }
    }
    let lost = tasks.into_iter().filter_map(|task| task.get().err());
    assert!(
        lost.inspect(|error| assert!(error.is_worker_lost()))
            .count()
            <= 1
    );
    wait_until(|| workers(&pool).len() == 3);
    pool.close();
    pool.join().unwrap();
}

/// A size that is overtaken by the next one leaves no trace.
fn a_pool_is_resized_while_its_workers_start<S: Processes>() {
    let pool = S::builder().processes(2).build();
    for size in [16, 1, 8, 3, 20, 2, 1, 5] {
        pool.resize(size).unwrap();
        assert_eq!(pool.processes(), size);
    }
    // All five work at once, and then there is nobody else.
    let gate = Gate::new();
    let tasks: Vec<_> = (0..5)
        .map(|_| pool.apply_async(pass, gate.ticket()))
        .collect();
    let busy: BTreeSet<u32> = gate.wait_for(5).into_iter().collect();
    wait_until(|| workers(&pool).into_iter().collect::<BTreeSet<_>>() == busy);
    gate.open();
    for task in tasks {
        assert!(busy.contains(&task.get().unwrap()));
    }
    wait_until(|| {
        let ended: u64 = pool.stats().workers_ended.values().sum();
        pool.stats().workers_started == ended + 5
    });
    assert_eq!(workers(&pool).len(), 5);
}

fn a_closed_pool_is_not_resized<S: Processes>() {
    let pool = S::builder().processes(1).build();
    pool.close();
    let error = pool.resize(2).unwrap_err().to_string();
    assert_eq!(error, "cannot resize the pool: it is closed");
    pool.join().unwrap();
}

fn sizes_that_make_no_sense_are_refused<S: Processes>() {
    let pool = S::builder().processes(1).build();
    for size in [0, usize::MAX] {
        let error = pool.resize(size).unwrap_err().to_string();
        assert!(error.contains(&format!("processes is {size}")), "{error}");
    }
    assert_eq!(pool.processes(), 1);
    let serial = SerialPool::new();
    serial.resize(serial.processes()).unwrap();
    serial.resize(serial.processes() + 1).unwrap_err();
}

fn options_that_make_no_sense_are_refused<S: Processes>() {
    let second = Duration::from_secs(1);
    for (builder, what) in [
        (
            S::builder().max_memory_per_child(0),
            "max_memory_per_child is 0",
        ),
        (S::builder().max_age(Duration::ZERO), "max_age is 0"),
        (
            S::builder().idle_timeout(Duration::ZERO),
            "idle_timeout is 0",
        ),
        (S::builder().min_processes(1), "set that, too"),
        (
            S::builder().idle_timeout(second).min_processes(3),
            "min_processes is 3",
        ),
    ] {
        let error = builder.processes(2).try_build().map(drop).unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}
