//! Handles and streams in `async` functions, under executors that know nothing of pools.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use futures_core::{FusedStream, Stream};
use procpool::{Pool, TaskError, TaskErrorKind};

use crate::backends::{Processes, Subject};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::wait_until;
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_handle_is_a_future,
        many_handles_are_awaited_at_once,
        a_stream_gives_what_the_iterator_gives,
        the_end_of_a_stream_is_for_good,
        a_stream_says_how_long_it_is,
        a_stream_whose_input_panics,
        a_stream_lets_others_run,
        a_slow_input_does_not_keep_the_thread,
        a_stream_of_a_closed_pool_fails,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        who_polls_last_is_woken_and_nobody_else,
        spurious_polls_change_nothing,
        a_map_wakes_whoever_awaits_it_once,
        a_future_goes_from_thread_to_thread,
        threads_and_futures_wait_side_by_side,
        a_future_that_is_dropped_leaves_its_task_alone,
        a_handle_is_awaited_after_a_wait_that_was_too_short,
        a_killed_task_wakes_whoever_awaits_it,
        the_end_of_the_pool_wakes_everybody,
        dropping_a_stream_abandons_what_has_not_begun,
        a_stream_goes_on_where_the_iterator_was,
        who_polls_a_stream_last_is_woken,
        streams_and_maps_share_a_pool,
    ]
}

/// Wakes a thread, and counts how often.
pub(crate) struct Doorbell {
    rung: AtomicUsize,
    thread: Thread,
}

impl Doorbell {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            rung: AtomicUsize::new(0),
            thread: std::thread::current(),
        })
    }

    fn rung(&self) -> usize {
        self.rung.load(Ordering::SeqCst)
    }

    /// Sleeps until it has rung so often.
    pub(crate) fn wait_for(&self, times: usize) {
        while self.rung() < times {
            std::thread::park();
        }
    }
}

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Waits for a future as the simplest of executors.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let doorbell = Doorbell::new();
    let waker = Waker::from(doorbell.clone());
    let mut future = pin!(future);
    for times in 1.. {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            // Each poll is answered by one wake-up.
            Poll::Pending => doorbell.wait_for(times),
        }
    }
    unreachable!("no task is polled so often")
}

/// Polls once.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F, doorbell: &Arc<Doorbell>) -> Poll<F::Output> {
    let waker = Waker::from(doorbell.clone());
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

pub(crate) async fn next<T: Stream + Unpin>(stream: &mut T) -> Option<T::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

fn poll_next<T: Stream + Unpin>(stream: &mut T, doorbell: &Arc<Doorbell>) -> Poll<Option<T::Item>> {
    let waker = Waker::from(doorbell.clone());
    Pin::new(stream).poll_next(&mut Context::from_waker(&waker))
}

/// Polls until it is clear that there is nothing but to wait: a poll that had no time to hand out
/// all items asks for another one.
fn poll_until_it_waits<T: Stream + Unpin>(stream: &mut T, doorbell: &Arc<Doorbell>) {
    loop {
        let before = doorbell.rung();
        assert!(poll_next(stream, doorbell).is_pending());
        if doorbell.rung() == before {
            return;
        }
    }
}

async fn collect<T: Stream + Unpin>(mut stream: T) -> Vec<T::Item> {
    let mut items = Vec::new();
    while let Some(item) = next(&mut stream).await {
        items.push(item);
    }
    items
}

fn square(x: u64) -> u64 {
    x * x
}

fn wait_at(ticket: String) -> u32 {
    file_barrier::pass(&ticket);
    7
}

/// Both kinds of handles can be awaited, for values and for errors, by somebody who only sleeps
/// meanwhile.
fn a_handle_is_a_future<S: Subject>() {
    let pool = S::pool(2);
    let sum = block_on(async {
        let one = pool.apply_async(|x: u64| x + 1, 0).await?;
        let many = pool.map_async(|x: u64| x + 1, 0..4).await?;
        let bad = pool.apply_async(|()| -> u64 { panic!("as I must") }, ());
        assert!(bad.await.unwrap_err().is_panic());
        Ok::<_, TaskError>(one + many.iter().sum::<u64>())
    });
    assert_eq!(sum.unwrap(), 11);
}

/// A thousand futures with one waker.
fn many_handles_are_awaited_at_once<S: Subject>() {
    let pool = S::pool(2);
    let mut handles: Vec<_> = (0..1000)
        .map(|x| Some(pool.apply_async(square, x)))
        .collect();
    let mut sum = 0;
    block_on(poll_fn(|context| {
        for place in &mut handles {
            if let Some(handle) = place
                && let Poll::Ready(result) = Pin::new(handle).poll(context)
            {
                sum += result.unwrap();
                *place = None;
            }
        }
        if handles.iter().any(Option::is_some) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }));
    assert_eq!(sum, (0..1000).map(square).sum::<u64>());
}

/// All results, in order or in any, with each item's own error.
fn a_stream_gives_what_the_iterator_gives<S: Subject>() {
    fn picky(x: u64) -> u64 {
        assert_ne!(x, 77, "not this one");
        x
    }
    let pool = S::pool(3);
    for chunk in [1, 20, 5000] {
        let ordered = pool.call(picky).chunksize(chunk).imap(0..2000);
        let results = block_on(collect(ordered.into_stream()));
        assert_eq!(results.len(), 2000);
        for (x, result) in (0..).zip(results) {
            match result {
                Ok(value) => assert_eq!(value, x),
                Err(error) => assert!(x == 77 && error.is_panic() && error.index() == Some(77)),
            }
        }
        let unordered = pool.call(square).chunksize(chunk).imap_unordered(0..2000);
        let results = block_on(collect(unordered.into_stream()));
        let mut values: Vec<u64> = results.into_iter().map(Result::unwrap).collect();
        values.sort_unstable();
        assert_eq!(values, Vec::from_iter((0..2000).map(square)));
        let measured = pool.call(square).measured().chunksize(chunk);
        let results = block_on(collect(measured.imap_local(0..50).into_stream()));
        let values = results.into_iter().map(|it| it.outcome.unwrap());
        assert!(values.eq((0..50).map(square)));
    }
}

/// After the last result there is none, however often one asks.
fn the_end_of_a_stream_is_for_good<S: Subject>() {
    let pool = S::pool(2);
    let mut stream = pool.imap(square, 0..3).into_stream();
    assert!(!stream.is_terminated());
    for x in 0..3 {
        let result = block_on(next(&mut stream));
        assert_eq!(result.unwrap().unwrap(), square(x));
    }
    for _ in 0..3 {
        assert!(block_on(next(&mut stream)).is_none());
        assert!(stream.is_terminated());
    }
}

/// Iterators and streams know how many results are to come, if the input knows.
fn a_stream_says_how_long_it_is<S: Subject>() {
    let pool = S::pool(2);
    let mut results = pool.imap(square, 0..300);
    for left in (1..=300).rev() {
        assert_eq!(results.size_hint(), (left, Some(left)));
        results.next();
    }
    assert_eq!(results.size_hint(), (0, Some(0)));
    let mut stream = pool.imap_unordered(square, 0..300).into_stream();
    for left in (1..=300).rev() {
        assert_eq!(stream.size_hint(), (left, Some(left)));
        block_on(next(&mut stream));
    }
    assert_eq!(stream.size_hint(), (0, Some(0)));
    assert_eq!(
        pool.imap(square, (0..9).filter(|x| x % 2 == 0)).size_hint(),
        (0, Some(9))
    );
}

/// The results of the items before the panic come first; then the poll panics, then it is over.
fn a_stream_whose_input_panics<S: Subject>() {
    let pool = S::pool(2);
    let input = (0..10).inspect(|&item| {
        if item == 6 {
            resume_unwind(Box::new("no more of this"));
        }
    });
    let mut stream = pool.imap(square, input).into_stream();
    for x in 0..6 {
        assert_eq!(block_on(next(&mut stream)).unwrap().unwrap(), square(x));
    }
    let panic = catch_unwind(AssertUnwindSafe(|| block_on(next(&mut stream)).is_some()));
    let panic = panic.expect_err("the input has panicked");
    assert_eq!(panic.downcast_ref(), Some(&"no more of this"));
    assert!(block_on(next(&mut stream)).is_none());
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

/// However fast results come, a task that consumes them gives way now and then.
fn a_stream_lets_others_run<S: Subject>() {
    let pool = S::pool(2);
    let mut stream = pool
        .call(square)
        .chunksize(2000)
        .imap(0..2000)
        .into_stream();
    let doorbell = Doorbell::new();
    let mut in_a_row = 0;
    let mut results = 0;
    loop {
        let before = doorbell.rung();
        match poll_next(&mut stream, &doorbell) {
            Poll::Ready(None) => break,
            Poll::Ready(Some(result)) => {
                assert_eq!(result.unwrap(), square(results));
                results += 1;
                in_a_row += 1;
                assert!(in_a_row <= 128);
            }
            Poll::Pending => {
                in_a_row = 0;
                doorbell.wait_for(before + 1);
            }
        }
    }
    assert_eq!(results, 2000);
}

/// A poll takes one item from an input in its own thread that is slower than the thread may be
/// kept.
fn a_slow_input_does_not_keep_the_thread<S: Subject>() {
    let pool = S::pool(2);
    let taken = Cell::new(0);
    let input = (0..20).inspect(|_| {
        taken.set(taken.get() + 1);
        std::thread::sleep(Duration::from_millis(1));
    });
    let call = pool.call(square).chunksize(10);
    let mut stream = call.imap_local(input).into_stream();
    let results = block_on(poll_fn(|context| {
        let mut results = 0;
        loop {
            let before = taken.get();
            let polled = Pin::new(&mut stream).poll_next(context);
            assert!(taken.get() <= before + 1, "more than one item in a poll");
            match polled {
                Poll::Ready(Some(_)) => results += 1,
                Poll::Ready(None) => return Poll::Ready(results),
                // The simplest of all executors polls again and again.
                Poll::Pending => std::thread::yield_now(),
            }
        }
    }));
    assert_eq!(results, 20);
}

/// Each item of it has the same error; it ends with the input.
fn a_stream_of_a_closed_pool_fails<S: Subject>() {
    let pool = S::pool(1);
    pool.close();
    let results = block_on(collect(pool.imap(square, 0..5).into_stream()));
    let kinds = results
        .iter()
        .map(|result| result.as_ref().unwrap_err().kind());
    assert_eq!(Vec::from_iter(kinds), [TaskErrorKind::Closed; 5]);
}

/// A future that is polled with another waker forgets the one before.
fn who_polls_last_is_woken_and_nobody_else<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let mut task = pool.apply_async(wait_at, gate.ticket());
    let mut map = pool.map_async(wait_at, [gate.ticket()]);
    let [first, last] = [Doorbell::new(), Doorbell::new()];
    for doorbell in [&first, &last] {
        assert!(poll(&mut task, doorbell).is_pending());
        assert!(poll(&mut map, doorbell).is_pending());
    }
    assert_eq!(Arc::strong_count(&first), 1, "it is not even kept");
    gate.open();
    last.wait_for(2);
    assert_eq!(poll(&mut task, &last), Poll::Ready(Ok(7)));
    assert_eq!(poll(&mut map, &last), Poll::Ready(Ok(vec![7])));
    assert_eq!((first.rung(), last.rung()), (0, 2));
    // Nor is this, when all is over and the ringer has let go.
    wait_until(|| Arc::strong_count(&last) == 1);
}

/// However often a future is polled in vain, with however many wakers, it wakes once.
fn spurious_polls_change_nothing<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let mut task = pool.apply_async(wait_at, gate.ticket());
    let doorbells = [Doorbell::new(), Doorbell::new(), Doorbell::new()];
    for doorbell in doorbells.iter().cycle().take(3000) {
        assert!(poll(&mut task, doorbell).is_pending());
    }
    gate.open();
    doorbells[2].wait_for(1);
    for _ in 0..3 {
        // It is no error to ask again.
        assert_eq!(poll(&mut task, &doorbells[0]), Poll::Ready(Ok(7)));
    }
    assert_eq!(doorbells.map(|doorbell| doorbell.rung()), [0, 0, 1]);
}

/// Not for every chunk.
fn a_map_wakes_whoever_awaits_it_once<S: Processes>() {
    let pool = S::pool(2);
    let gate = Gate::new();
    let tickets = vec![gate.ticket(); 200];
    let mut map = pool.call(wait_at).chunksize(1).map_async(tickets);
    let doorbell = Doorbell::new();
    assert!(poll(&mut map, &doorbell).is_pending());
    gate.open();
    doorbell.wait_for(1);
    assert_eq!(poll(&mut map, &doorbell), Poll::Ready(Ok(vec![7; 200])));
    assert_eq!(doorbell.rung(), 1);
}

/// It is polled once on each of several threads, the last of which is woken.
fn a_future_goes_from_thread_to_thread<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let mut task = pool.apply_async(wait_at, gate.ticket());
    for _ in 0..3 {
        task = std::thread::spawn(move || {
            assert!(poll(&mut task, &Doorbell::new()).is_pending());
            task
        })
        .join()
        .unwrap();
    }
    let last = std::thread::spawn(move || block_on(task));
    gate.wait_for(1);
    gate.open();
    assert_eq!(last.join().unwrap().unwrap(), 7);
}

/// Threads that wait lead the pool, and bring in what futures wait for; when they leave,
/// the futures are still woken.
fn threads_and_futures_wait_side_by_side<S: Processes>() {
    let pool = &S::pool(2);
    let gates = &[Gate::new(), Gate::new()];
    std::thread::scope(|scope| {
        let [early, late] = gates.each_ref().map(|gate| {
            let ticket = gate.ticket();
            let awaited = scope.spawn(move || block_on(pool.apply_async(wait_at, ticket)));
            gate.wait_for(1);
            awaited
        });
        // Waits as the leader, behind the others.
        let waits = scope.spawn(|| pool.apply(square, 5));
        gates[0].open();
        assert_eq!(waits.join().unwrap().unwrap(), 25);
        assert_eq!(early.join().unwrap().unwrap(), 7);
        gates[1].open();
        assert_eq!(late.join().unwrap().unwrap(), 7);
    });
}

/// Nobody is woken for it, its waker is let go at once, and the task runs to its end.
fn a_future_that_is_dropped_leaves_its_task_alone<S: Processes>() {
    fn note((tally, ticket): (String, String)) {
        file_barrier::pass(&ticket);
        file_barrier::add(&tally, "through");
    }
    let pool = S::pool(1);
    let gate = Gate::new();
    let tally = Tally::new();
    let doorbell = Doorbell::new();
    let mut task = pool.apply_async(note, (tally.ticket(), gate.ticket()));
    let mut map = pool.map_async(note, [(tally.ticket(), gate.ticket())]);
    assert!(poll(&mut task, &doorbell).is_pending());
    assert!(poll(&mut map, &doorbell).is_pending());
    gate.wait_for(1);
    drop((task, map));
    assert_eq!(Arc::strong_count(&doorbell), 1);
    gate.open();
    pool.close();
    pool.join().unwrap();
    assert_eq!(tally.count(), 2);
    assert_eq!(doorbell.rung(), 0);
}

/// A handle may be waited for first, and awaited then.
fn a_handle_is_awaited_after_a_wait_that_was_too_short<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let mut task = pool.apply_async(wait_at, gate.ticket());
    gate.wait_for(1);
    assert!(task.get_timeout(Duration::from_millis(1)).is_none());
    assert!(!task.wait_timeout(Duration::from_millis(1)));
    let doorbell = Doorbell::new();
    assert!(poll(&mut task, &doorbell).is_pending());
    gate.open();
    doorbell.wait_for(1);
    assert_eq!(block_on(&mut task).unwrap(), 7);
    assert_eq!(task.get().unwrap(), 7, "it can be read again");
}

/// `kill` from another place, and a deadline.
fn a_killed_task_wakes_whoever_awaits_it<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let mut task = pool.apply_async(wait_at, gate.ticket());
    let doorbell = Doorbell::new();
    assert!(poll(&mut task, &doorbell).is_pending());
    gate.wait_for(1);
    task.kill();
    doorbell.wait_for(1);
    assert!(block_on(task).unwrap_err().is_cancelled());
    let call = pool.call(wait_at).timeout(Duration::from_millis(10));
    assert!(
        block_on(call.apply_async(gate.ticket()))
            .unwrap_err()
            .is_timeout()
    );
}

/// Handles and streams that are awaited when the pool is terminated or dropped.
fn the_end_of_the_pool_wakes_everybody<S: Processes>() {
    for drops in [false, true] {
        let pool = S::pool(1);
        let gate = Gate::new();
        let mut task = pool.apply_async(wait_at, gate.ticket());
        let mut map = pool.map_async(wait_at, [gate.ticket()]);
        let mut stream = pool.imap(wait_at, [gate.ticket()]).into_stream();
        let doorbells = [Doorbell::new(), Doorbell::new(), Doorbell::new()];
        assert!(poll(&mut task, &doorbells[0]).is_pending());
        assert!(poll(&mut map, &doorbells[1]).is_pending());
        poll_until_it_waits(&mut stream, &doorbells[2]);
        let before = doorbells.each_ref().map(|doorbell| doorbell.rung());
        gate.wait_for(1);
        wait_until(|| pool.stats().submitted == 3);
        if drops {
            drop(pool);
        } else {
            pool.terminate();
        }
        for (doorbell, before) in doorbells.iter().zip(before) {
            doorbell.wait_for(before + 1);
        }
        assert!(block_on(task).unwrap_err().is_cancelled());
        assert!(block_on(map).unwrap_err().is_cancelled());
        let last = block_on(next(&mut stream)).unwrap();
        assert!(last.unwrap_err().is_cancelled());
        assert!(block_on(next(&mut stream)).is_none());
    }
}

/// What has begun runs to its end; nothing else of it does, also if it was polled and waits.
fn dropping_a_stream_abandons_what_has_not_begun<S: Processes>() {
    fn note((tally, ticket): (String, String)) {
        file_barrier::add(&tally, "run");
        file_barrier::pass(&ticket);
    }
    for ordered in [true, false] {
        let pool = S::pool(1);
        let tally = Tally::new();
        let gate = Gate::new();
        let doorbell = Doorbell::new();
        let item = (tally.ticket(), gate.ticket());
        let items = std::iter::repeat(item);
        let call = pool.call(note).chunksize(1);
        let mut stream = if ordered {
            call.imap(items).into_stream()
        } else {
            call.imap_unordered(items).into_stream()
        };
        poll_until_it_waits(&mut stream, &doorbell);
        gate.wait_for(1);
        // A thread of the call's own reads the input.
        wait_until(|| pool.stats().submitted > 1);
        drop(stream);
        gate.open();
        pool.close();
        pool.join().unwrap();
        assert_eq!(tally.count(), 1);
    }
}

/// Items that an iterator has handed out are heard of without anybody who drives the pool.
fn a_stream_goes_on_where_the_iterator_was<S: Processes>() {
    fn wait_or_not(ticket: Option<String>) -> bool {
        ticket.is_some_and(|ticket| wait_at(ticket) == 7)
    }
    let pool = S::pool(1);
    let gate = Gate::new();
    let items = [None, Some(gate.ticket()), Some(gate.ticket())];
    let mut results = pool.call(wait_or_not).chunksize(1).imap(items);
    assert!(!results.next().unwrap().unwrap());
    gate.wait_for(1);
    wait_until(|| pool.stats().submitted == 3);
    let mut stream = results.into_stream();
    let doorbell = Doorbell::new();
    poll_until_it_waits(&mut stream, &doorbell);
    let before = doorbell.rung();
    gate.open();
    doorbell.wait_for(before + 1);
    let rest = block_on(collect(stream));
    assert_eq!(
        rest.into_iter().map(Result::unwrap).collect::<Vec<_>>(),
        [true; 2]
    );
}

/// As with handles.
fn who_polls_a_stream_last_is_woken<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let mut stream = pool.imap(wait_at, [gate.ticket()]).into_stream();
    let doorbells = [Doorbell::new(), Doorbell::new()];
    for doorbell in doorbells.iter().cycle().take(10) {
        poll_until_it_waits(&mut stream, doorbell);
    }
    assert_eq!(Arc::strong_count(&doorbells[0]), 1);
    let before = doorbells.each_ref().map(|doorbell| doorbell.rung());
    gate.open();
    doorbells[1].wait_for(before[1] + 1);
    assert_eq!(
        poll_next(&mut stream, &doorbells[1]),
        Poll::Ready(Some(Ok(7)))
    );
    assert_eq!(
        doorbells.map(|doorbell| doorbell.rung()),
        [before[0], before[1] + 1]
    );
}

/// Streams on some threads, maps and single tasks on others: all get what is theirs.
fn streams_and_maps_share_a_pool<S: Processes>() {
    let pool = &S::pool(2);
    std::thread::scope(|scope| {
        for round in 0..3 {
            scope.spawn(move || {
                let stream = pool.imap(square, 0..5000 + round).into_stream();
                let results = block_on(collect(stream));
                let values = results.into_iter().map(Result::unwrap);
                assert!(values.eq((0..5000 + round).map(square)));
            });
            scope.spawn(move || {
                let values = pool.map(square, 0..5000 + round).unwrap();
                assert!(values.into_iter().eq((0..5000 + round).map(square)));
            });
            scope.spawn(move || {
                for x in 0..200 {
                    let value = block_on(pool.apply_async(square, x));
                    assert_eq!(value.unwrap(), square(x));
                }
            });
        }
    });
    wait_until(|| pool.stats().running == 0);
}
