//! The end of a pool as a future.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use procpool::{Emitter, Output, Pool, TaskHandle};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Gate, Tally};
use crate::futures::{Doorbell, block_on, poll};
use crate::procfs::{wait_for_death, wait_until, workers};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        an_open_pool_has_no_end_to_await,
        a_closed_pool_is_awaited,
        a_terminated_pool_is_awaited,
        an_end_is_awaited_more_than_once,
        the_end_comes_after_streams,
        a_future_that_is_dropped_is_forgotten,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        the_end_comes_after_tasks_and_workers,
        the_end_comes_after_callbacks,
        the_end_comes_after_the_last_delivery,
        the_end_comes_after_what_was_printed,
        the_end_comes_after_what_is_tried_again,
        one_of_two_futures_is_dropped,
        an_end_goes_from_thread_to_thread,
        the_drop_of_the_pool_is_an_end,
        a_callback_cannot_await_its_own_end,
        many_ends_are_awaited_while_they_come,
    ]
}

fn square(x: u64) -> u64 {
    x * x
}

fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

/// Whoever ends last has to wake who awaits the end. In some rounds the supervisor does so, too,
/// since it is about to end.
const ROUNDS: usize = 5;

/// Passes a gate, and emits nothing.
fn pass_in_stream(ticket: String, _: &Emitter<u64>) {
    file_barrier::pass(&ticket);
}

/// A closed pool whose one task is at a gate.
fn closed_at_a_gate<S: Subject>() -> (S::Pool, Gate, TaskHandle<()>) {
    let pool = S::pool(1);
    let gate = Gate::new();
    let task = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    pool.close();
    (pool, gate, task)
}

/// Lets the end come while it is awaited, and goes by the wake-ups alone.
fn await_after(pool: &impl Pool, let_it_come: impl FnOnce()) {
    let doorbell = Doorbell::new();
    let mut end = pool.join_async();
    assert!(poll(&mut end, &doorbell).is_pending());
    let_it_come();
    for times in 1.. {
        doorbell.wait_for(times);
        if let Poll::Ready(outcome) = poll(&mut end, &doorbell) {
            return outcome.unwrap();
        }
    }
}

fn an_open_pool_has_no_end_to_await<S: Subject>() {
    let pool = S::pool(1);
    let error = block_on(pool.join_async()).unwrap_err();
    assert_eq!(error.to_string(), pool.join().unwrap_err().to_string());
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

fn a_closed_pool_is_awaited<S: Subject>() {
    let pool = S::pool(2);
    let squares = pool.map_async(square, 0..100);
    pool.close();
    block_on(pool.join_async()).unwrap();
    assert!(squares.is_ready());
    assert_eq!(squares.get().unwrap(), Vec::from_iter((0..100).map(square)));
    pool.join().unwrap();
}

fn a_terminated_pool_is_awaited<S: Subject>() {
    let pool = S::pool(2);
    let squares = pool.map_async(square, 0..100);
    pool.terminate();
    block_on(pool.join_async()).unwrap();
    assert!(squares.is_ready());
}

fn an_end_is_awaited_more_than_once<S: Subject>() {
    let pool = S::pool(2);
    let squares = pool.map_async(square, 0..100);
    let [mut first, mut second] = [(); 2].map(|()| pool.join_async());
    pool.close();
    let mut outcomes = [None, None];
    block_on(poll_fn(|context| {
        for (future, outcome) in [&mut first, &mut second].into_iter().zip(&mut outcomes) {
            if outcome.is_none()
                && let Poll::Ready(end) = Pin::new(future).poll(context)
            {
                *outcome = Some(end);
            }
        }
        match outcomes.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }));
    assert!(
        outcomes
            .into_iter()
            .all(|it| it.is_some_and(|it| it.is_ok()))
    );
    block_on(pool.join_async()).unwrap();
    squares.get().unwrap();
}

/// In a `SerialPool`, it is the only task that is not over before it is closed.
fn the_end_comes_after_streams<S: Subject>() {
    if S::CARRIES_VALUES {
        let pool = S::pool(1);
        let gate = Gate::new();
        let task = pool.call(pass_in_stream).stream(gate.ticket());
        gate.wait_for(1);
        pool.close();
        await_after(&pool, || gate.open());
        task.result().unwrap();
    }
}

fn the_end_comes_after_tasks_and_workers<S: Processes>() {
    let (pool, gate, task) = closed_at_a_gate::<S>();
    let pids = workers(&pool);
    let mut end = pool.join_async();
    let doorbell = Doorbell::new();
    for _ in 0..3 {
        assert!(poll(&mut end, &doorbell).is_pending());
    }
    await_after(&pool, || gate.open());
    block_on(end).unwrap();
    assert!(task.is_ready());
    wait_for_death(&pids);
}

fn the_end_comes_after_callbacks<S: Processes>() {
    for _ in 0..ROUNDS {
        let pool = S::pool(1);
        let gate = Gate::new();
        let ticket = gate.ticket();
        let called = Arc::new(AtomicU32::new(0));
        let calls = called.clone();
        let task = pool.apply_async(square, 3);
        task.on_complete(move |_| {
            file_barrier::pass(&ticket);
            calls.fetch_add(1, Ordering::SeqCst);
        });
        gate.wait_for(1);
        pool.close();
        wait_until(|| pool.stats().workers_ended.len() == 1);
        await_after(&pool, || gate.open());
        assert_eq!(called.load(Ordering::SeqCst), 1);
    }
}

/// A thread hands out the last outcome when everything else has ended.
fn the_end_comes_after_the_last_delivery<S: Processes>() {
    let pool = S::pool(1);
    let [begun, asked] = [Gate::new(), Gate::new()];
    let ticket = asked.ticket();
    let fail = |ticket: String| -> u64 {
        file_barrier::pass(&ticket);
        panic!("never")
    };
    let call = pool.call(fail).retries(1).retry_if(move |_| {
        file_barrier::pass(&ticket);
        false
    });
    let task = call.apply_async(begun.ticket());
    begun.open();
    asked.wait_for(1);
    pool.close();
    await_after(&pool, || asked.open());
    assert!(task.get().unwrap_err().is_panic());
}

fn the_end_comes_after_what_was_printed<S: Processes>() {
    for _ in 0..ROUNDS {
        let gate = Gate::new();
        let ticket = gate.ticket();
        let heard = Arc::new(AtomicU32::new(0));
        let lines = heard.clone();
        let output = Output::lines(move |_| {
            file_barrier::pass(&ticket);
            lines.fetch_add(1, Ordering::SeqCst);
        });
        let pool = S::builder().processes(1).stdout(output).build();
        pool.apply(|()| println!("a line"), ()).unwrap();
        gate.wait_for(1);
        pool.close();
        wait_until(|| pool.stats().workers_ended.len() == 1);
        await_after(&pool, || gate.open());
        assert_eq!(heard.load(Ordering::SeqCst), 1);
    }
}

fn the_end_comes_after_what_is_tried_again<S: Processes>() {
    let fail_once = |ticket: String| {
        file_barrier::add(&ticket, 1);
        assert!(file_barrier::lines(&ticket) > 1, "not yet");
    };
    let pool = S::pool(1);
    let tally = Tally::new();
    let call = pool.call(fail_once).retries(1).retry_if(|_| true);
    let call = call.backoff(Duration::from_millis(100));
    let task = call.apply_async(tally.ticket());
    pool.close();
    block_on(pool.join_async()).unwrap();
    assert!(task.is_ready());
    task.get().unwrap();
}

fn a_future_that_is_dropped_is_forgotten<S: Subject>() {
    if S::CARRIES_VALUES {
        let pool = S::pool(1);
        let gate = Gate::new();
        let task = pool.call(pass_in_stream).stream(gate.ticket());
        gate.wait_for(1);
        pool.close();
        let doorbell = Doorbell::new();
        for _ in 0..20 {
            let mut end = pool.join_async();
            assert!(poll(&mut end, &doorbell).is_pending());
            assert!(poll(&mut end, &doorbell).is_pending());
        }
        assert_eq!(Arc::strong_count(&doorbell), 1, "no waker is kept");
        gate.open();
        pool.join().unwrap();
        task.result().unwrap();
    }
}

/// Both were polled with the same waker.
fn one_of_two_futures_is_dropped<S: Processes>() {
    let (pool, gate, task) = closed_at_a_gate::<S>();
    let mut dropped = Some(pool.join_async());
    let mut end = pool.join_async();
    block_on(poll_fn(|context| {
        let outcome = Pin::new(&mut end).poll(context);
        if let Some(mut dropped) = dropped.take() {
            assert!(Pin::new(&mut dropped).poll(context).is_pending());
            gate.open();
        }
        outcome
    }))
    .unwrap();
    assert!(task.is_ready());
}

fn an_end_goes_from_thread_to_thread<S: Processes>() {
    let (pool, gate, task) = closed_at_a_gate::<S>();
    let mut end = pool.join_async();
    let doorbell = Doorbell::new();
    assert!(poll(&mut end, &doorbell).is_pending());
    thread::scope(|scope| {
        let other = scope.spawn(move || block_on(end));
        gate.open();
        other.join().expect("no panic").unwrap();
    });
    assert_eq!(Arc::strong_count(&doorbell), 1, "no waker is kept");
    task.get().unwrap();
}

fn the_drop_of_the_pool_is_an_end<S: Processes>() {
    let (pool, _gate, task) = closed_at_a_gate::<S>();
    let mut end = pool.join_async();
    assert!(poll(&mut end, &Doorbell::new()).is_pending());
    drop(pool);
    block_on(end).unwrap();
    assert!(task.get().unwrap_err().is_cancelled());
}

fn a_callback_cannot_await_its_own_end<S: Processes>() {
    let pool = Arc::new(S::pool(1));
    let of_callback = pool.clone();
    let found = Arc::new(AtomicU32::new(0));
    let finds = found.clone();
    let task = pool.apply_async(square, 3);
    task.on_complete(move |_| {
        of_callback.close();
        let end = block_on(of_callback.join_async());
        finds.store(1 + u32::from(end.is_err()), Ordering::SeqCst);
    });
    task.get().unwrap();
    while found.load(Ordering::SeqCst) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(found.load(Ordering::SeqCst), 2);
    pool.join().unwrap();
}

/// Whatever is the last thing that happens, who awaits it hears of it.
fn many_ends_are_awaited_while_they_come<S: Processes>() {
    for round in 0..30 {
        let pool = S::pool(1);
        let task = pool.apply_async(square, round);
        task.on_complete(|_| {});
        thread::scope(|scope| {
            scope.spawn(|| {
                if round % 3 == 0 {
                    pool.terminate();
                } else {
                    pool.close();
                }
            });
            let end = || while block_on(pool.join_async()).is_err() {};
            scope.spawn(end);
            end();
        });
        assert!(task.is_ready());
    }
}
