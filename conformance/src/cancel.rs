//! Tasks that somebody ends early: before they begin, while they run, by asking or by force.

use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

use procpool::{Pool, TaskErrorKind, worker};

use crate::backends::Processes;
use crate::failure_modes::run_a_program;
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{self, wait_for_death, wait_until, workers};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_queued_task_is_cancelled_at_once_and_never_runs,
        a_running_task_can_ask_whether_it_is_cancelled,
        every_item_of_a_chunk_can_ask,
        the_next_task_is_not_cancelled,
        a_running_task_that_does_not_ask_goes_on,
        cancelling_what_has_ended_changes_nothing,
        a_map_is_cancelled_as_a_whole,
        a_queued_task_can_be_killed,
        a_running_task_is_killed_with_its_worker,
        killing_one_task_harms_no_other,
        killing_what_has_ended_kills_nobody,
        a_map_is_killed_as_a_whole,
        what_a_killed_task_has_started_is_killed_with_it,
        cancelling_races_with_ending,
        a_handle_that_is_dropped_asks_its_task,
        a_handle_that_is_dropped_kills_its_task,
        a_future_that_is_dropped_kills_its_task,
        a_handle_whose_call_has_ended_ends_nothing,
        an_imap_is_killed_with_what_runs,
        an_imap_that_is_cancelled_asks_what_runs,
    ]
}

/// Says that it runs, and waits.
fn run((tally, gate): (String, Option<String>)) -> u32 {
    file_barrier::add(&tally, std::process::id());
    if let Some(gate) = gate {
        file_barrier::pass(&gate);
    }
    std::process::id()
}

/// A task behind another one, whether it waits in the pool or was handed to the worker already,
/// answers while that other one still runs, and is not run later.
fn a_queued_task_is_cancelled_at_once_and_never_runs<S: Processes>() {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let running = pool.apply_async(run, (tally.ticket(), Some(gate.ticket())));
    gate.wait_for(1);
    let queued: Vec<_> = (0..20)
        .map(|_| pool.apply_async(run, (tally.ticket(), None)))
        .collect();
    for (index, handle) in queued.iter().enumerate() {
        if index % 2 == 0 {
            handle.cancel();
        }
    }
    for (index, handle) in queued.into_iter().enumerate() {
        if index % 2 == 0 {
            let error = handle.get().unwrap_err();
            assert_eq!(error.kind(), TaskErrorKind::Cancelled, "{error}");
            assert!(!running.is_ready());
        } else {
            drop(handle);
        }
    }
    gate.open();
    running.get().unwrap();
    pool.close();
    pool.join().unwrap();
    assert_eq!(tally.count(), 1 + 10);
    assert_eq!(pool.stats().workers_lost, 0);
}

/// Runs until it is cancelled, and says so.
fn run_until_cancelled((tally, gate): (String, String)) -> u32 {
    file_barrier::add(&gate, std::process::id());
    wait_until(worker::is_cancelled);
    file_barrier::add(&tally, "cancelled");
    std::process::id()
}

/// A task that asks sees that it was cancelled, and ends in good order; its handle says that it
/// was cancelled.
fn a_running_task_can_ask_whether_it_is_cancelled<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let (gate, tally) = (Gate::new(), Tally::new());
    let handle = pool.apply_async(run_until_cancelled, (tally.ticket(), gate.ticket()));
    gate.wait_for(1);
    assert_eq!(tally.count(), 0);
    handle.cancel();
    handle.cancel();
    wait_until(|| tally.count() == 1);
    let error = handle.get().unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!(pool.apply(|()| std::process::id(), ()).unwrap(), pids[0]);
}

/// Cancelling a map reaches the item that runs, also when it is not the first of its chunk.
fn every_item_of_a_chunk_can_ask<S: Processes>() {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let items = [false, false, true, false].map(|waits| (waits, tally.ticket(), gate.ticket()));
    let task = |(waits, tally, gate)| {
        if waits {
            run_until_cancelled((tally, gate));
        }
    };
    let handle = pool.call(task).chunksize(4).map_async(items);
    gate.wait_for(1);
    handle.cancel();
    wait_until(|| tally.count() == 1);
    assert!(handle.get().unwrap_err().is_cancelled());
}

/// Cancelling one task says nothing to the next one in the same worker, also within a chunk.
fn the_next_task_is_not_cancelled<S: Processes>() {
    let pool = S::pool(1);
    for _ in 0..5 {
        let (gate, tally) = (Gate::new(), Tally::new());
        let handle = pool.apply_async(run_until_cancelled, (tally.ticket(), gate.ticket()));
        let next = pool.map_async(|_: u64| worker::is_cancelled(), 0..10);
        gate.wait_for(1);
        handle.cancel();
        assert_eq!(next.get().unwrap(), [false; 10]);
        assert!(!pool.apply(|()| worker::is_cancelled(), ()).unwrap());
    }
}

/// It is asked, not forced: the worker lives, and the pool waits for it as ever.
fn a_running_task_that_does_not_ask_goes_on<S: Processes>() {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let task = |(tally, gate): (String, String)| {
        file_barrier::pass(&gate);
        file_barrier::add(&tally, "done");
    };
    let handle = pool.apply_async(task, (tally.ticket(), gate.ticket()));
    let pids = gate.wait_for(1);
    handle.cancel();
    gate.open();
    pool.close();
    pool.join().unwrap();
    assert_eq!(tally.count(), 1);
    assert!(handle.is_ready());
    assert_eq!(pool.stats().workers_lost, 0, "{pids:?}");
}

/// A value stays a value, an error an error.
fn cancelling_what_has_ended_changes_nothing<S: Processes>() {
    let pool = S::pool(1);
    let value = pool.apply_async(|x: u64| x, 7);
    let error = pool.apply_async(|x: u64| 1 / x, 0);
    let map = pool.map_async(|x: u64| x, 0..3);
    value.wait();
    error.wait();
    map.wait();
    value.cancel();
    error.cancel();
    map.cancel();
    assert_eq!(value.get().unwrap(), 7);
    assert!(error.get().unwrap_err().is_panic());
    assert_eq!(map.get().unwrap(), [0, 1, 2]);
}

/// Items that run are asked, the others never run, and the pool is free at once.
fn a_map_is_cancelled_as_a_whole<S: Processes>() {
    let pool = S::pool(2);
    for chunk in [1, 10] {
        let (gate, tally) = (Gate::new(), Tally::new());
        let items = vec![(tally.ticket(), gate.ticket()); 100];
        let map = pool
            .call(run_until_cancelled)
            .chunksize(chunk)
            .map_async(items);
        gate.wait_for(2);
        map.cancel();
        map.cancel();
        assert!(map.get().unwrap_err().is_cancelled());
        assert_eq!(pool.map(|x: u64| x, 0..4).unwrap(), [0, 1, 2, 3]);
        assert_eq!(tally.count(), 2, "the two that ran");
        assert_eq!(gate.arrivals().len(), 2);
    }
    assert_eq!(pool.stats().workers_lost, 0);
}

/// `kill` of a task that has not begun takes no worker.
fn a_queued_task_can_be_killed<S: Processes>() {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let running = pool.apply_async(run, (tally.ticket(), Some(gate.ticket())));
    let pids = gate.wait_for(1);
    let queued: Vec<_> = (0..10)
        .map(|_| pool.apply_async(run, (tally.ticket(), None)))
        .collect();
    for handle in queued {
        handle.kill();
        assert!(handle.get().unwrap_err().is_cancelled());
    }
    gate.open();
    assert_eq!(running.get().unwrap(), pids[0]);
    assert_eq!(pool.apply(run, (tally.ticket(), None)).unwrap(), pids[0]);
    assert_eq!(tally.count(), 2);
}

/// `kill` ends a task that would never end.
fn a_running_task_is_killed_with_its_worker<S: Processes>() {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let handle = pool.apply_async(run, (tally.ticket(), Some(gate.ticket())));
    let pids = gate.wait_for(1);
    handle.kill();
    let error = handle.get().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Cancelled, "{error}");
    wait_for_death(&pids);
    let next = pool.apply(run, (tally.ticket(), None)).unwrap();
    assert_ne!(next, pids[0]);
}

/// What waits behind the killed task in the same worker, in the same chunk of other calls or in
/// another worker, gets its value.
fn killing_one_task_harms_no_other<S: Processes>() {
    let pool = S::pool(2);
    let (gate, other, tally) = (Gate::new(), Gate::new(), Tally::new());
    let victim = pool.apply_async(run, (tally.ticket(), Some(gate.ticket())));
    gate.wait_for(1);
    let bystander = pool.apply_async(run, (tally.ticket(), Some(other.ticket())));
    let pid = other.wait_for(1)[0];
    let behind: Vec<_> = (0..20).map(|x| pool.apply_async(|x: u64| x, x)).collect();
    let map = pool.map_async(|x: u64| x, 0..100);
    victim.kill();
    assert!(victim.get().unwrap_err().is_cancelled());
    for (x, handle) in (0..).zip(behind) {
        assert_eq!(handle.get().unwrap(), x);
    }
    assert_eq!(map.get().unwrap(), Vec::from_iter(0..100));
    other.open();
    assert_eq!(bystander.get().unwrap(), pid);
    assert_eq!(pool.stats().workers_lost, 1);
}

/// `kill` of a task that has ended is too late, and hits nobody else.
fn killing_what_has_ended_kills_nobody<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let ended = pool.apply_async(|x: u64| x, 7);
    ended.wait();
    let gate = Gate::new();
    let tally = Tally::new();
    let running = pool.apply_async(run, (tally.ticket(), Some(gate.ticket())));
    gate.wait_for(1);
    ended.kill();
    gate.open();
    assert_eq!(running.get().unwrap(), pids[0]);
    assert_eq!(ended.get().unwrap(), 7);
    assert_eq!(workers(&pool), pids);
}

/// Items that run are killed, the others never run.
fn a_map_is_killed_as_a_whole<S: Processes>() {
    let pool = S::pool(2);
    let (gate, tally) = (Gate::new(), Tally::new());
    let items = vec![(tally.ticket(), Some(gate.ticket())); 100];
    let map = pool.call(run).chunksize(10).map_async(items);
    let pids = gate.wait_for(2);
    map.kill();
    assert!(map.get().unwrap_err().is_cancelled());
    wait_for_death(&pids);
    assert_eq!(pool.map(|x: u64| x, 0..4).unwrap(), [0, 1, 2, 3]);
    assert_eq!(tally.count(), 2);
}

/// A child process that a task has started goes when the task is killed.
fn what_a_killed_task_has_started_is_killed_with_it<S: Processes>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let handle = pool.apply_async(run_a_program, tally.ticket());
    wait_until(|| tally.count() == 1);
    let child = tally.numbers()[0];
    assert!(procfs::is_alive(child));
    handle.kill();
    assert!(handle.get().unwrap_err().is_cancelled());
    wait_for_death(&[child]);
}

/// At whatever moment a task is cancelled or killed, it ends: with its value or as cancelled.
fn cancelling_races_with_ending<S: Processes>() {
    let pool = S::pool(2);
    for round in 0..300 {
        let handles: Vec<_> = (0..4).map(|x| pool.apply_async(|x: u64| x, x)).collect();
        for _ in 0..round * 10 {
            std::hint::spin_loop();
        }
        for (x, handle) in handles.iter().enumerate() {
            match (x + round) % 4 {
                0 => handle.cancel(),
                1 => handle.kill(),
                _ => {}
            }
        }
        for (x, handle) in handles.into_iter().enumerate() {
            match handle.get() {
                Ok(y) => assert_eq!(y, x as u64),
                Err(error) => assert!(error.is_cancelled() && (x + round) % 4 < 2, "{error}"),
            }
        }
    }
    assert_eq!(pool.map(|x: u64| x, 0..4).unwrap(), [0, 1, 2, 3]);
}

fn a_handle_that_is_dropped_asks_its_task<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let (gate, tally) = (Gate::new(), Tally::new());
    let handle = pool.apply_async(run_until_cancelled, (tally.ticket(), gate.ticket()));
    let handle = handle.cancel_on_drop();
    let queued = pool
        .apply_async(run, (tally.ticket(), None))
        .cancel_on_drop();
    gate.wait_for(1);
    drop((queued, handle));
    wait_until(|| tally.count() == 1);
    assert_eq!(pool.apply(|()| std::process::id(), ()).unwrap(), pids[0]);
    assert_eq!(
        tally.lines(),
        ["cancelled"],
        "what had not begun is not run"
    );
}

fn a_handle_that_is_dropped_kills_its_task<S: Processes>() {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let items = [
        (tally.ticket(), Some(gate.ticket())),
        (tally.ticket(), None),
    ];
    let map = pool.map_async(run, items).kill_on_drop();
    let pids = gate.wait_for(1);
    drop(map);
    wait_for_death(&pids);
    pool.apply(|()| (), ()).unwrap();
    assert_eq!(tally.count(), 1, "what had not begun is not run");
}

/// As a timeout of a runtime drops it.
fn a_future_that_is_dropped_kills_its_task<S: Processes>() {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let task = pool.apply_async(run, (tally.ticket(), Some(gate.ticket())));
    let mut task = Box::pin(async move { task.kill_on_drop().await });
    let mut context = Context::from_waker(Waker::noop());
    assert!(task.as_mut().poll(&mut context).is_pending());
    let pids = gate.wait_for(1);
    drop(task);
    wait_for_death(&pids);
}

fn a_handle_whose_call_has_ended_ends_nothing<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let task = || pool.apply_async(|()| std::process::id(), ()).kill_on_drop();
    assert_eq!(task().get().unwrap(), pids[0]);
    let unread = task();
    unread.wait();
    drop(unread);
    let mut read_in_time = task();
    wait_until(|| read_in_time.is_ready());
    assert!(read_in_time.get_timeout(Duration::ZERO).is_some());
    drop(read_in_time);
    assert_eq!(task().get().unwrap(), pids[0]);
    assert_eq!(pool.stats().workers_lost, 0);
}

/// The first result is enough.
fn an_imap_is_killed_with_what_runs<S: Processes>() {
    let pool = S::pool(3);
    let (gate, tally) = (Gate::new(), Tally::new());
    // An input that never waits is read by this thread, any other by one of its own.
    for by_itself in [false, true] {
        let mut items = vec![(tally.ticket(), None); 5];
        items[0].1 = Some(gate.ticket());
        items[1].1 = Some(gate.ticket());
        let before = gate.arrivals().len();
        let call = pool.call(run).chunksize(1);
        let mut results = match by_itself {
            false => call.imap_unordered(items),
            true => call.imap_unordered(items.into_iter().filter(|_| true)),
        };
        assert!(results.next().unwrap().is_ok());
        let pids = gate.wait_for(before + 2).split_off(before);
        results.kill();
        wait_for_death(&pids);
    }
    assert_eq!(pool.apply(|x: u64| x, 7).unwrap(), 7);
}

fn an_imap_that_is_cancelled_asks_what_runs<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let (gate, tally) = (Gate::new(), Tally::new());
    let items = vec![(tally.ticket(), gate.ticket()); 5];
    let task = |item: (String, String)| {
        // The first is over at once.
        if gate_is_empty(&item.1) {
            file_barrier::add(&item.1, std::process::id());
        } else {
            run_until_cancelled(item);
        }
    };
    let mut results = pool.call(task).chunksize(1).imap(items);
    results.next().unwrap().unwrap();
    gate.wait_for(2);
    results.cancel();
    wait_until(|| tally.count() == 1);
    assert_eq!(pool.apply(|()| std::process::id(), ()).unwrap(), pids[0]);
}

fn gate_is_empty(ticket: &str) -> bool {
    file_barrier::lines(ticket) == 0
}
