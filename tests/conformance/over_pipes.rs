//! What a pool over pipes promises beyond what every pool does: children that die, deadlines,
//! cancelling, and values that travel once.

use std::time::Duration;

use procpool::dump::WorkerState;
use procpool::{Broadcast, ExitReason, Pool, TaskErrorKind, worker};
use procpool_conformance::failure_modes::{Fate, strike};
use procpool_conformance::{Subject, Test};
use procpool_testing::file_barrier::{self, Gate, Tally};

use crate::pipes::{PipePool, Pipes};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("a_child_that_dies_costs_one_item", dying),
        ("a_lost_item_is_tried_again", retried),
        ("an_item_at_its_deadline_costs_no_other", late),
        ("a_task_is_asked_to_stop", asked),
        ("a_task_is_killed", killed),
        ("what_waits_is_cancelled", waiting),
        ("terminating_ends_what_runs", terminated),
        ("a_value_travels_once", once),
        ("a_value_travels_to_the_next_child", twice),
        ("a_dump_says_what_runs", dumped),
        ("items_are_counted", counted),
    ]
}

fn pool(workers: usize) -> PipePool {
    Pipes::pool(workers)
}

fn strike_at((x, fate): (u64, Option<Fate>)) -> u64 {
    if let Some(fate) = fate {
        let _ = strike(fate);
    }
    x
}

/// In the middle of a chunk: the error says how, which worker, and where; all others have values.
fn dying() {
    let pool = pool(2);
    for fate in Fate::DEADLY {
        let items = (0..30).map(|x| (x, (x == 13).then_some(fate)));
        let all = pool.call(strike_at).chunksize(10).try_map(items);
        for (x, result) in (0..).zip(all) {
            if x != 13 {
                assert_eq!(result, Ok(x));
                continue;
            }
            let error = result.expect_err("its child is dead");
            assert!(error.is_worker_lost(), "{error}");
            assert_eq!(error.index(), Some(13));
            assert_eq!(error.machine(), Some("pipes"));
            fate.assert_told(&error);
        }
    }
    let stats = pool.stats();
    let deaths = Fate::DEADLY.len() as u64;
    assert_eq!(stats.ended_for(ExitReason::Crashed), deaths);
    assert_eq!(stats.failed_as(TaskErrorKind::WorkerLost), deaths);
}

/// Dies the first time.
fn die_once(ticket: String) -> usize {
    file_barrier::add(&ticket, "here");
    if file_barrier::lines(&ticket) == 1 {
        std::process::abort();
    }
    file_barrier::lines(&ticket)
}

fn retried() {
    let pool = pool(1);
    let tally = Tally::new();
    let again = pool.call(die_once).retries(1).measured();
    let again = again.apply(tally.ticket());
    assert_eq!((again.outcome, again.metrics.attempt), (Ok(2), 2));
    let tally = Tally::new();
    let lost = pool.apply(die_once, tally.ticket());
    assert!(lost.expect_err("it is not tried again").is_worker_lost());
}

fn late() {
    let pool = pool(1);
    let gate = Gate::new();
    let task = |(x, ticket): (u64, Option<String>)| {
        if let Some(ticket) = ticket {
            file_barrier::pass(&ticket);
        }
        x
    };
    let items = (0..6).map(|x| (x, (x == 2).then(|| gate.ticket())));
    let call = pool.call(task).chunksize(3);
    let all = call.timeout(Duration::from_millis(200)).try_map(items);
    for (x, result) in (0..).zip(all) {
        match result {
            Ok(value) => assert!(value == x && x != 2),
            Err(error) => assert!(error.is_timeout() && x == 2, "{x}: {error}"),
        }
    }
    assert_eq!(pool.stats().ended_for(ExitReason::Deadline), 1);
}

/// It stops, and its child lives on.
fn asked() {
    let pool = pool(1);
    let (gate, stopped) = (Gate::new(), Tally::new());
    gate.open();
    let task = |(ticket, stopped): (String, String)| {
        file_barrier::pass(&ticket);
        while !worker::is_cancelled() {
            std::thread::yield_now();
        }
        file_barrier::add(&stopped, "stopped");
    };
    let tickets = (gate.ticket(), stopped.ticket());
    let handle = pool.map_async(task, [tickets.clone(), tickets]);
    let child = gate.wait_for(1)[0];
    handle.cancel();
    assert!(handle.get().expect_err("cancelled").is_cancelled());
    assert_eq!(pool.apply(|()| std::process::id(), ()), Ok(child));
    assert_eq!(stopped.count(), 1, "the second one did not begin");
}

fn killed() {
    let pool = pool(1);
    let gate = Gate::new();
    let pass = |ticket: String| file_barrier::pass(&ticket);
    let handle = pool.apply_async(pass, gate.ticket());
    let child = gate.wait_for(1)[0];
    handle.kill();
    assert!(handle.get().expect_err("killed").is_cancelled());
    assert_ne!(pool.apply(|()| std::process::id(), ()), Ok(child));
}

fn waiting() {
    let pool = pool(1);
    let gate = Gate::new();
    let pass = |ticket: String| file_barrier::pass(&ticket);
    let runs = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    let (single, many) = (
        pool.apply_async(pass, gate.ticket()),
        pool.map_async(pass, vec![gate.ticket(); 10]),
    );
    single.cancel();
    many.cancel();
    assert!(single.get().expect_err("cancelled").is_cancelled());
    assert!(many.get().expect_err("cancelled").is_cancelled());
    gate.open();
    assert_eq!(runs.get(), Ok(()));
    assert_eq!(gate.arrivals().len(), 1);
}

fn terminated() {
    let pool = pool(2);
    let gate = Gate::new();
    let pass = |ticket: String| file_barrier::pass(&ticket);
    let handle = pool
        .call(pass)
        .chunksize(1)
        .map_async(vec![gate.ticket(); 10]);
    gate.wait_for(2);
    pool.terminate();
    assert!(handle.get().expect_err("terminated").is_cancelled());
    pool.join().expect("it was terminated");
    assert!(pool.stats().workers.is_empty());
}

const NUMBERS: usize = 100_000;

fn at((numbers, x): (Broadcast<[u64]>, usize)) -> u64 {
    numbers[x]
}

fn once() {
    let pool = pool(1);
    let numbers = pool.broadcast(vec![7_u64; NUMBERS]).expect("memory");
    let items = || (0..100).map(|x| (numbers.clone(), x));
    for _ in 0..2 {
        let all = pool.call(at).chunksize(1).map(items());
        assert_eq!(all, Ok(vec![7; 100]));
    }
    // The same content again, in other memory.
    let same = pool.broadcast(vec![7_u64; NUMBERS]).expect("memory");
    assert_eq!(pool.apply(at, (same, 5)), Ok(7));
    let sent = pool.stats().bytes_sent as usize;
    let value = 8 * NUMBERS;
    assert!((value..2 * value).contains(&sent), "{sent} bytes");
}

fn twice() {
    let pool = pool(1);
    let numbers = pool.broadcast(vec![7_u64; NUMBERS]).expect("memory");
    assert_eq!(pool.apply(at, (numbers.clone(), 1)), Ok(7));
    let died = pool.apply(strike_at, (1, Some(Fate::Kill)));
    assert!(died.expect_err("it is dead").is_worker_lost());
    assert_eq!(pool.apply(at, (numbers, 1)), Ok(7));
}

fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

fn dumped() {
    let pool = pool(1);
    let gate = Gate::new();
    let handle = pool.apply_async(pass, gate.ticket());
    let child = gate.wait_for(1)[0];
    let dump = pool.dump();
    let only = &dump.workers[0];
    assert_eq!(only.state, WorkerState::Running);
    assert_eq!(only.info.as_ref().map(|info| info.pid()), Some(child));
    let task = only.task.as_ref().expect("it runs one");
    assert!(task.function.ends_with("over_pipes::pass"), "{dump}");
    gate.open();
    assert_eq!(handle.get(), Ok(()));
}

fn counted() {
    let pool = pool(2);
    let items = (0..20).map(|x| (x, (x % 5 == 3).then_some(Fate::Panic)));
    let all = pool.try_map(strike_at, items);
    assert_eq!(all.iter().filter(|it| it.is_err()).count(), 4);
    let stats = pool.stats();
    assert_eq!(
        (stats.submitted, stats.succeeded, stats.failed),
        (20, 16, 4)
    );
    assert_eq!(stats.failed_as(TaskErrorKind::Panicked), 4);
    assert_eq!((stats.queued, stats.workers_lost), (0, 0));
    pool.close();
    assert!(
        pool.apply(strike_at, (1, None))
            .expect_err("closed")
            .is_closed()
    );
    pool.join().expect("it was closed");
    assert_eq!(pool.stats().failed_as(TaskErrorKind::Closed), 1);
}
