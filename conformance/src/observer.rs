//! Observers: a program sees what happens in its pools.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use procpool::{ExitReason, Observe, Observer, Pool, PoolEvent, TaskErrorKind};

use crate::backends::{Processes, Subject};
use crate::failure_modes::{Fate, strike};
use crate::procfs::workers;
use crate::trial::Test;

pub(crate) fn traced_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        each_item_is_seen_with_what_it_took,
        each_observer_sees_what_it_asks_for,
        a_call_may_have_a_name,
        failures_are_seen_without_the_rest,
        calls_say_how_far_they_are,
        an_observer_that_waits_can_be_stopped,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        workers_are_seen_to_come_and_go,
        long_chunks_are_seen,
        losses_are_seen_with_their_worker,
        who_sees_a_call_can_cancel_it,
        who_sees_a_pool_can_resize_it,
        workers_say_what_time_they_took,
        an_observer_that_takes_nothing_costs_memory_for_so_much,
        a_call_waits_for_no_observer,
    ]
}

fn square(x: u64) -> u64 {
    x * x
}

/// What it has seen so far.
fn seen(observer: &mut Observer) -> Vec<PoolEvent> {
    std::iter::from_fn(|| observer.try_recv()).collect()
}

fn items(events: &[PoolEvent]) -> usize {
    let is_item = |it: &&PoolEvent| matches!(it, PoolEvent::ItemEnded { .. });
    events.iter().filter(is_item).count()
}

fn each_item_is_seen_with_what_it_took<S: Subject>() {
    let pool = S::pool(2);
    let mut observer = pool.observe(Observe::Items).expect("it can be observed");
    pool.map(square, 0..20).unwrap();
    assert!(pool.apply(|x: u64| assert_ne!(x, 3), 3).is_err());
    assert_eq!(pool.imap(square, 0..5).count(), 5);
    let mut ended = BTreeMap::<_, usize>::new();
    for event in seen(&mut observer) {
        let PoolEvent::ItemEnded {
            call,
            index,
            error,
            began,
            metrics,
            at,
            ..
        } = event
        else {
            continue;
        };
        let fails = call.ends_with("{{closure}}");
        assert!(fails || call.ends_with("observer::square"), "{call}");
        assert!(index < 20);
        let panicked = fails.then_some(TaskErrorKind::Panicked);
        assert_eq!(error.map(|error| error.kind()), panicked);
        assert_eq!((metrics.attempt, metrics.argument_bytes), (1, 8));
        let began = began.expect("it was begun");
        let run = metrics.run.expect("it was run");
        assert!(began + run <= at, "{began:?} {run:?} {at:?}");
        assert!(metrics.queued.is_some());
        *ended.entry(call).or_default() += 1;
    }
    assert_eq!(ended.into_values().sum::<usize>(), 26);
    assert_eq!(observer.dropped(), 0);
}

fn each_observer_sees_what_it_asks_for<S: Subject>() {
    let pool = S::pool(1);
    let observe = |detail| pool.observe(detail).expect("it can be observed");
    let (mut early, mut workers) = (observe(Observe::Items), observe(Observe::Workers));
    pool.map(square, 0..3).unwrap();
    let mut late = observe(Observe::Items);
    pool.map(square, 0..4).unwrap();
    assert_eq!(items(&seen(&mut early)), 7);
    drop(early);
    pool.map(square, 0..5).unwrap();
    assert_eq!(items(&seen(&mut late)), 9);
    assert_eq!(items(&seen(&mut workers)), 0);
    let time = Duration::from_millis(20);
    let mut start = Instant::now();
    // That a worker is up may be told late, where it is elsewhere.
    while let Some(event) = late.recv_timeout(time) {
        assert!(matches!(event, PoolEvent::WorkerUp { .. }), "{event:?}");
        start = Instant::now();
    }
    assert!(start.elapsed() >= time);
}

fn a_call_may_have_a_name<S: Subject>() {
    let pool = S::pool(2);
    let mut observer = pool.observe(Observe::Items).expect("it can be observed");
    let named = pool.call(square).name("thumbnail");
    assert_eq!(named.map(0..10).unwrap().len(), 10);
    assert_eq!(pool.call(square).name("other".to_owned()).apply(3), Ok(9));
    let mut names = BTreeMap::<_, usize>::new();
    for event in seen(&mut observer) {
        if let PoolEvent::ItemEnded { call, .. } = event {
            *names.entry(call.into_owned()).or_default() += 1;
        }
    }
    assert_eq!(
        names,
        [("thumbnail".to_owned(), 10), ("other".to_owned(), 1)].into()
    );
}

/// Each once: what was tried again and has succeeded then is none.
fn failures_are_seen_without_the_rest<S: Subject>() {
    let fails = |(x, bad): (u64, u64)| assert_ne!(x, bad);
    let pool = S::pool(2);
    let chunks = Observe::Chunks {
        shortest: Duration::MAX,
    };
    let mut observer = pool.observe(chunks).expect("it can be observed");
    let mut late = pool.observe(Observe::Items).expect("it can be observed");
    let with = |bad: u64| (0..20).map(move |x| (x, bad));
    pool.call(fails).name("many").try_map(with(7));
    let again = pool.call(fails).name("again").retries(2);
    assert!(again.retry_if(|_| true).apply((3, 3)).is_err());
    assert!(pool.call(fails).name("one").apply((3, 3)).is_err());
    let failed = |observer: &mut Observer| {
        let mut failed = Vec::new();
        for event in seen(observer) {
            if let PoolEvent::ItemEnded {
                call, index, error, ..
            } = event
            {
                let kind = error.map(|error| error.kind());
                failed.extend(kind.map(|kind| (call.into_owned(), index, kind)));
            }
        }
        failed.sort();
        failed
    };
    let panicked = |call: &str, index| (call.to_owned(), index, TaskErrorKind::Panicked);
    let all = [
        panicked("again", 0),
        panicked("many", 7),
        panicked("one", 0),
    ];
    assert_eq!(failed(&mut observer), all);
    // Who sees each item sees these as well, once.
    assert_eq!(failed(&mut late), all);
}

fn calls_say_how_far_they_are<S: Subject>() {
    let pool = S::pool(1);
    let weak = pool.downgrade();
    let fails = |x: u64| assert_ne!(x, 0);
    // Not all of it has ended before somebody looks.
    let mut one = pool.call(fails).name("one").buffer(2).imap(0..10);
    let endless = std::iter::repeat(1);
    let mut other = pool.call(square).imap_unordered(endless);
    assert!(one.next().is_some_and(|it| it.is_err()));
    assert!(other.next().is_some_and(|it| it == Ok(1)));
    let calls = weak.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    let call = &calls[0];
    assert_eq!((&*call.name, call.total, call.failed), ("one", Some(10), 1));
    assert!((1..=call.submitted).contains(&call.ended), "{call:?}");
    assert!(calls[1].name.ends_with("square"), "{calls:?}");
    assert_eq!((calls[1].total, calls[1].failed), (None, 0));
    assert!(calls[0].number != calls[1].number);
    assert_eq!(one.count(), 9);
    // Who reads its input may be at that.
    drop(other);
    while !weak.calls().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let handle = pool.map_async(square, 0..10);
    handle.wait();
    assert_eq!(weak.calls(), []);
    assert!(!weak.cancel(calls[0].number));
    drop(handle);
    // Of an input that did not say how many there are, that is known when it has ended.
    let odd = pool.imap_unordered(square, (0..10).filter(|x| x % 2 == 1));
    let lines = odd.collect::<Vec<_>>();
    assert_eq!((lines.len(), weak.calls()), (5, Vec::new()));
    assert!(!weak.is_gone());
}

/// Also one of a pool that is no more.
fn an_observer_that_waits_can_be_stopped<S: Subject>() {
    let pool = S::pool(1);
    let mut observer = pool.observe(Observe::Items).expect("it can be observed");
    let stop = observer.stop_handle();
    let thread = std::thread::spawn(move || {
        let mut items = 0;
        while !observer.has_stopped() {
            let event = observer.recv_timeout(Duration::MAX);
            items += usize::from(matches!(event, Some(PoolEvent::ItemEnded { .. })));
        }
        items
    });
    pool.map(square, 0..10).unwrap();
    drop(pool);
    stop.stop();
    assert_eq!(thread.join().expect("it ends"), 10);
}

/// First, those who are up.
fn workers_are_seen_to_come_and_go<S: Processes>() {
    let pool = S::pool(2);
    let mut observer = pool.observe(Observe::Workers).expect("it can be observed");
    let mut next = || {
        let event = observer.recv_timeout(Duration::from_secs(60));
        event.expect("something happens")
    };
    let up = |event: &PoolEvent| match event {
        PoolEvent::WorkerUp {
            worker, position, ..
        } => (*position, worker.pid()),
        other => panic!("{other:?}"),
    };
    let mut first = [next(), next()].map(|event| up(&event));
    first.sort_unstable();
    assert_eq!(first.map(|(position, _)| position), [0, 1]);
    let mut pids = first.map(|(_, pid)| pid);
    pids.sort_unstable();
    assert_eq!(workers(&pool), pids);
    let crash = pool.apply(|(): ()| strike(Fate::Kill).is_ok(), ());
    assert!(crash.unwrap_err().is_worker_lost());
    let PoolEvent::WorkerEnded {
        worker, reason, at, ..
    } = next()
    else {
        panic!("it has ended");
    };
    assert_eq!(reason, ExitReason::Crashed);
    let (position, _) = *(first.iter())
        .find(|(_, pid)| *pid == worker.pid())
        .expect("it was up");
    let event = next();
    assert_eq!(up(&event).0, position);
    assert!(matches!(event, PoolEvent::WorkerUp { at: later, .. } if later >= at));
    let mut late = pool.observe(Observe::Workers).expect("it can be observed");
    assert_eq!(seen(&mut late).len(), 2);
    pool.terminate();
    pool.join().unwrap();
    let ends = [next(), next()];
    assert!(
        ends.iter()
            .all(|it| matches!(it, PoolEvent::WorkerEnded { .. }))
    );
}

/// And no short ones.
fn long_chunks_are_seen<S: Processes>() {
    // One, which nobody takes items from.
    let pool = S::pool(1);
    let shortest = Duration::from_millis(20);
    let chunks = Observe::Chunks { shortest };
    let mut observer = pool.observe(chunks).expect("it can be observed");
    let rest = |ms: u64| std::thread::sleep(Duration::from_millis(ms));
    pool.map(square, 0..10_000).unwrap();
    let rests = pool.call(rest).name("rest").chunksize(3);
    rests.map([10; 6]).unwrap();
    let mut all: Vec<_> = seen(&mut observer)
        .into_iter()
        .filter_map(|event| match event {
            PoolEvent::ChunkEnded {
                worker,
                call,
                first,
                items,
                took,
                at,
            } => {
                assert!(took >= shortest && took <= at, "{took:?} {at:?}");
                assert!(workers(&pool).contains(&worker.pid()));
                Some((call.into_owned(), first, items))
            }
            _ => None,
        })
        .collect();
    all.sort();
    // A chunk of squares is as long if the worker had to wait for a processor.
    all.retain(|(call, ..)| !call.ends_with("square"));
    let rest = |first| ("rest".to_owned(), first, 3);
    assert_eq!(all, [rest(0), rest(3)]);
}

/// Of each item that was lost.
fn losses_are_seen_with_their_worker<S: Processes>() {
    let pool = S::pool(1);
    let chunks = Observe::Chunks {
        shortest: Duration::MAX,
    };
    let mut observer = pool.observe(chunks).expect("it can be observed");
    let pid = workers(&pool)[0];
    let crash = pool.call(|(): ()| strike(Fate::Kill).is_ok()).name("crash");
    assert!(crash.apply(()).is_err());
    let mut lost = Vec::new();
    for event in seen(&mut observer) {
        if let PoolEvent::ItemEnded { call, error, .. } = event {
            let error = error.expect("it has failed");
            let worker = error.worker().map(|worker| worker.pid());
            lost.push((call.into_owned(), error.signal(), worker));
        }
    }
    assert_eq!(lost, [("crash".to_owned(), Some(9), Some(pid))]);
}

/// As its handle could.
fn who_sees_a_call_can_cancel_it<S: Processes>() {
    let pool = S::pool(1);
    let weak = pool.downgrade();
    let waits = |_: u64| {
        while !procpool::worker::is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let handle = pool.call(waits).name("waits").map_async(0..10);
    let calls = weak.calls();
    let numbers: Vec<u64> = calls.iter().map(|call| call.number).collect();
    assert_eq!(numbers.len(), 1, "{calls:?}");
    assert!(weak.cancel(numbers[0]));
    let error = handle.get().unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert!(!weak.cancel(numbers[0]));
    assert_eq!(pool.apply(square, 3), Ok(9));
}

fn who_sees_a_pool_can_resize_it<S: Processes>() {
    let pool = S::pool(1);
    let weak = pool.downgrade();
    weak.resize(2).unwrap();
    assert_eq!((pool.processes(), weak.processes()), (2, 2));
    assert!(weak.resize(0).is_err());
    pool.terminate();
    pool.join().unwrap();
    drop(pool);
    assert!(weak.is_gone() && weak.resize(1).is_err() && weak.stats().is_none());
}

fn workers_say_what_time_they_took<S: Processes>() {
    let pool = S::pool(1);
    let burn = |ms: u64| {
        let start = Instant::now();
        let mut x = 1_u64;
        while start.elapsed() < Duration::from_millis(ms) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
    };
    let cpu = || pool.stats().workers[0].cpu.expect("the system says so");
    let before = cpu();
    let mut took = Duration::ZERO;
    // The processor may be another's.
    while took < Duration::from_millis(50) {
        pool.apply(burn, 20).unwrap();
        took = cpu() - before;
    }
}

/// And it is said how many events it has not seen.
fn an_observer_that_takes_nothing_costs_memory_for_so_much<S: Processes>() {
    const MOST: u64 = 1 << 16;
    let pool = S::pool(2);
    let mut observer = pool.observe(Observe::Items).expect("it can be observed");
    pool.map(square, 0..MOST + 1000).unwrap();
    let seen = seen(&mut observer).len() as u64;
    assert_eq!(seen, MOST);
    // Those of the two workers are in it.
    assert_eq!(observer.dropped(), 1000 + 2);
}

/// Neither does one that has gone.
fn a_call_waits_for_no_observer<S: Processes>() {
    let pool = S::pool(2);
    for detail in [Observe::Workers, Observe::Items] {
        let observer = pool.observe(detail).expect("it can be observed");
        let handle = pool.map_async(square, 0..1000);
        drop(observer);
        let squares: Vec<u64> = handle.get().unwrap();
        assert_eq!(squares.len(), 1000);
    }
    assert!(pool.trace_to(std::env::temp_dir()).is_err());
}
