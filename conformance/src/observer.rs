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
        an_observer_that_waits_can_be_stopped,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        workers_are_seen_to_come_and_go,
        long_chunks_are_seen,
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
    let start = Instant::now();
    assert_eq!(late.recv_timeout(Duration::from_millis(20)), None);
    assert!(start.elapsed() >= Duration::from_millis(20));
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
        (items, observer.stats().is_some())
    });
    pool.map(square, 0..10).unwrap();
    drop(pool);
    stop.stop();
    assert_eq!(thread.join().expect("it ends"), (10, false));
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
