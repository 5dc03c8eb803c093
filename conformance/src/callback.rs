//! `on_complete`: once, whatever happens, and whatever the callback does.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::{iter, thread};

use procpool::{Pool, TaskErrorKind};

use crate::backends::{Processes, Subject};
use crate::file_barrier::{self, Gate};
use crate::procfs::{self, wait_for_death};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_callback_runs_once_for_a_value_and_for_an_error,
        a_map_callback_runs_once_for_values_and_for_an_error,
        a_callback_of_a_call_that_was_refused_runs,
        a_callback_that_panics_harms_nothing,
        a_callback_is_freed_when_it_has_run,
        a_callback_can_own_the_pool_last,
        join_waits_for_callbacks,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_callback_waits_for_its_task,
        a_callback_waits_for_no_slow_input,
        a_callback_submits_more_work_and_waits_for_it,
        a_callback_that_blocks_holds_up_no_task,
        a_callback_drops_the_pool_under_running_tasks,
        a_callback_closes_the_pool,
        a_callback_terminates_the_pool,
        callbacks_of_a_terminated_pool_run,
    ]
}

fn half(x: u32) -> u32 {
    assert!(x.is_multiple_of(2), "{x} is odd");
    x / 2
}

/// The end of a channel that callbacks on another thread can use.
fn channel<T>() -> (impl Fn() -> Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    (move || sender.clone(), receiver)
}

/// Says that these were the last words: nobody is left to say more.
fn assert_silent<T: std::fmt::Debug>(sender: impl Fn() -> Sender<T>, receiver: &Receiver<T>) {
    drop(sender);
    let more: Vec<T> = receiver.iter().collect();
    assert!(more.is_empty(), "called again: {more:?}");
}

/// A callback runs exactly once, whether it was there before the task ended or came later, whether
/// the handle is read or dropped, and gets what the handle gets.
fn a_callback_runs_once_for_a_value_and_for_an_error<S: Subject>() {
    let pool = S::pool(2);
    for (argument, expected) in [(8, Some(4)), (7, None)] {
        let (sender, receiver) = channel();
        let handle = pool.apply_async(half, argument);
        let early = sender();
        handle.on_complete(move |result| early.send(result.clone().ok()).unwrap());
        handle.wait();
        let late = sender();
        handle.on_complete(move |result| late.send(result.clone().ok()).unwrap());
        assert_eq!(handle.get().ok(), expected);
        let unread = pool.apply_async(half, argument);
        let third = sender();
        unread.on_complete(move |result| third.send(result.clone().ok()).unwrap());
        drop(unread);
        for _ in 0..3 {
            assert_eq!(receiver.recv().unwrap(), expected);
        }
        assert_silent(sender, &receiver);
    }
}

/// Inputs that keep their `imap`s waiting keep those from hearing of what they have submitted. A
/// task that comes behind that must not wait for them.
fn a_callback_waits_for_no_slow_input<S: Processes>() {
    const INPUTS: usize = 3;
    let pool = S::pool(1);
    let double = |x: u64| 2 * x;
    for _ in 0..20 {
        // So that the worker is known to be quick, and gets many at a time.
        for x in 0..100 {
            assert_eq!(pool.apply(double, x).unwrap(), 2 * x);
        }
        let (entered, is_waiting) = mpsc::channel();
        let gate = Mutex::new(());
        let closed = gate.lock().unwrap();
        thread::scope(|scope| {
            let slow = |_| {
                scope.spawn(|| {
                    let last = iter::from_fn(|| {
                        entered.send(()).unwrap();
                        drop(gate.lock());
                        None
                    });
                    let items = (0..2).chain(last);
                    pool.call(double).chunksize(1).imap_local(items).count()
                })
            };
            let inputs = Vec::from_iter((0..INPUTS).map(slow));
            for _ in 0..INPUTS {
                is_waiting.recv().unwrap();
            }
            let (sender, receiver) = channel();
            let said = sender();
            let task = pool.apply_async(double, 21);
            task.on_complete(move |result| said.send(result.clone().ok()).unwrap());
            assert_eq!(receiver.recv().unwrap(), Some(42));
            drop(closed);
            for input in inputs {
                assert_eq!(input.join().unwrap(), 2);
            }
        });
    }
}

/// The same for maps, which have one callback for all items.
fn a_map_callback_runs_once_for_values_and_for_an_error<S: Subject>() {
    let pool = S::pool(2);
    for (items, expected) in [(vec![2, 4, 6], Some(vec![1, 2, 3])), (vec![2, 3, 5], None)] {
        let (sender, receiver) = channel();
        let handle = pool.call(half).chunksize(1).map_async(items);
        let early = sender();
        handle.on_complete(move |results| early.send(results.clone()).unwrap());
        handle.wait();
        let late = sender();
        handle.on_complete(move |results| late.send(results.clone()).unwrap());
        drop(handle);
        for _ in 0..2 {
            let results = receiver.recv().unwrap();
            let index = results.as_ref().err().and_then(|error| error.index());
            assert_eq!(index, expected.is_none().then_some(1));
            assert_eq!(results.ok(), expected);
        }
        assert_silent(sender, &receiver);
    }
}

/// A call that never comes to a worker has an outcome all the same.
fn a_callback_of_a_call_that_was_refused_runs<S: Subject>() {
    let pool = S::pool(1);
    let (sender, receiver) = channel();
    let invalid = sender();
    pool.call(half)
        .chunksize(0)
        .map_async([2])
        .on_complete(move |results| invalid.send(results.clone().unwrap_err().kind()).unwrap());
    assert_eq!(receiver.recv().unwrap(), TaskErrorKind::Invalid);
    pool.close();
    let closed = sender();
    let handle = pool.apply_async(half, 2);
    handle.on_complete(move |result| closed.send(result.clone().unwrap_err().kind()).unwrap());
    assert_eq!(receiver.recv().unwrap(), TaskErrorKind::Closed);
    assert_silent(sender, &receiver);
}

/// The other callbacks run, also those of the same task; the pool goes on.
fn a_callback_that_panics_harms_nothing<S: Subject>() {
    let pool = S::pool(2);
    let (sender, receiver) = channel();
    for x in 0..10 {
        let handle = pool.apply_async(half, 2 * x);
        handle.on_complete(|_| resume_unwind(Box::new("this callback is broken")));
        let other = sender();
        handle.on_complete(move |result| other.send(result.clone().unwrap()).unwrap());
        assert_eq!(handle.get().unwrap(), x);
    }
    // Callbacks of different handles run in no order that is promised.
    let mut seen: Vec<_> = receiver.iter().take(10).collect();
    seen.sort_unstable();
    assert_eq!(seen, Vec::from_iter(0..10));
    pool.close();
    pool.join().unwrap();
}

/// What a callback holds is let go when it has run, although the handle and the pool live on.
fn a_callback_is_freed_when_it_has_run<S: Subject>() {
    let pool = S::pool(1);
    let held = Arc::new(());
    let handle = pool.apply_async(half, 2);
    let holder = held.clone();
    handle.on_complete(move |_| drop(holder.clone()));
    let map = pool.map_async(half, [2]);
    let holder = held.clone();
    map.on_complete(move |_| drop(holder.clone()));
    procfs::wait_until(|| Arc::strong_count(&held) == 1);
    assert_eq!(handle.get().unwrap(), 1);
    assert_eq!(map.get().unwrap(), [1]);
}

/// The last owner of a pool may be a callback of its own: the pool ends there.
fn a_callback_can_own_the_pool_last<S: Subject>() {
    let pool = Arc::new(S::pool(2));
    let pids = procfs::workers(&*pool);
    let (sender, receiver) = channel();
    let handle = pool.apply_async(half, 2);
    handle.wait();
    // On another thread than this one, which goes on and gives up its share.
    let (dropped, wait_for_drop) = mpsc::channel::<()>();
    let wait_for_drop = Mutex::new(wait_for_drop);
    let (owner, done) = (pool.clone(), sender());
    let is_serial = pids.is_empty();
    handle.on_complete(move |_| {
        if !is_serial {
            // Ends when the other owner is gone.
            let _ = wait_for_drop.lock().unwrap().recv();
            assert_eq!(Arc::strong_count(&owner), 1);
        }
        drop(owner);
        done.send(()).unwrap();
    });
    drop(pool);
    drop(dropped);
    receiver.recv().unwrap();
    wait_for_death(&pids);
    assert_eq!(handle.get().unwrap(), 1);
}

/// When `join` returns, all callbacks have run.
fn join_waits_for_callbacks<S: Subject>() {
    let pool = S::pool(2);
    let count = Arc::new(AtomicUsize::new(0));
    for x in 0..100 {
        let count = count.clone();
        let handle = pool.apply_async(half, x);
        handle.on_complete(move |_| {
            std::thread::yield_now();
            count.fetch_add(1, Ordering::Relaxed);
        });
    }
    pool.close();
    pool.join().unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 100);
}

/// A callback does not run before its task has ended.
fn a_callback_waits_for_its_task<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let (sender, receiver) = channel();
    let handle = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    let called = sender();
    handle.on_complete(move |result| called.send(result.is_ok()).unwrap());
    gate.wait_for(1);
    assert!(receiver.try_recv().is_err());
    gate.open();
    assert!(receiver.recv().unwrap());
    assert_silent(sender, &receiver);
}

/// A callback may use its own pool like everybody, and even wait for it.
fn a_callback_submits_more_work_and_waits_for_it<S: Processes>() {
    let pool = Arc::new(S::pool(1));
    let (sender, receiver) = channel();
    let (inner, done) = (pool.clone(), sender());
    let handle = pool.apply_async(half, 16);
    handle.on_complete(move |result| {
        let x = result.clone().unwrap();
        let x = inner.apply(half, x).unwrap();
        let x = inner.apply_async(half, x).get().unwrap();
        let xs = inner.map(half, vec![x; 100]).unwrap();
        drop(inner);
        done.send(xs).unwrap();
    });
    assert_eq!(receiver.recv().unwrap(), [1; 100]);
    assert_eq!(handle.get().unwrap(), 8);
}

/// While one callback blocks, tasks run and their handles are completed.
fn a_callback_that_blocks_holds_up_no_task<S: Processes>() {
    let pool = S::pool(1);
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let handle = pool.apply_async(half, 2);
    handle.on_complete(move |_| released.lock().unwrap().recv().unwrap());
    handle.wait();
    for x in 0..20 {
        assert_eq!(pool.apply(half, 2 * x).unwrap(), x);
        assert_eq!(pool.apply_async(half, 2 * x).get().unwrap(), x);
    }
    pool.close();
    assert!(
        !pool
            .join_timeout(std::time::Duration::from_millis(5))
            .unwrap()
    );
    release.send(()).unwrap();
    pool.join().unwrap();
}

/// Dropping the pool in a callback ends the tasks that still run, as dropping it anywhere does.
fn a_callback_drops_the_pool_under_running_tasks<S: Processes>() {
    let pool = S::pool(2);
    let pids = procfs::workers(&pool);
    let gate = Gate::new();
    let pass = |ticket: String| file_barrier::pass(&ticket);
    let running = pool.apply_async(pass, gate.ticket());
    let queued = pool
        .call(pass)
        .chunksize(1)
        .map_async(vec![gate.ticket(); 50]);
    gate.wait_for(2);
    let owner = Mutex::new(Some(pool));
    running.on_complete(move |result| {
        assert!(result.as_ref().unwrap_err().is_cancelled());
        drop(owner.lock().unwrap().take());
    });
    running.kill();
    wait_for_death(&pids);
    assert!(running.get().unwrap_err().is_cancelled());
    assert!(queued.get().unwrap_err().is_cancelled());
}

/// `close` from a callback: what is there is finished. `join` from there would wait for itself, and
/// says so.
fn a_callback_closes_the_pool<S: Processes>() {
    let pool = Arc::new(S::pool(2));
    let (sender, receiver) = channel();
    let handle = pool.apply_async(half, 2);
    let rest = pool.map_async(half, vec![2; 1000]);
    let (inner, done) = (Arc::downgrade(&pool), sender());
    handle.on_complete(move |_| {
        let pool = inner.upgrade().unwrap();
        pool.close();
        done.send((pool.join().is_err(), pool.apply(half, 2)))
            .unwrap();
    });
    let (is_refused, late) = receiver.recv().unwrap();
    assert!(is_refused);
    assert!(late.unwrap_err().is_closed());
    assert_eq!(rest.get().unwrap(), [1; 1000]);
    pool.join().unwrap();
}

/// `terminate` from a callback: what is there is cancelled.
fn a_callback_terminates_the_pool<S: Processes>() {
    let pool = Arc::new(S::pool(1));
    let gate = Gate::new();
    let handle = pool.apply_async(half, 2);
    let rest = pool.map_async(
        |ticket: String| file_barrier::pass(&ticket),
        vec![gate.ticket(); 10],
    );
    gate.wait_for(1);
    let inner = Arc::downgrade(&pool);
    handle.on_complete(move |_| inner.upgrade().unwrap().terminate());
    assert!(rest.get().unwrap_err().is_cancelled());
    pool.join().unwrap();
}

/// A task that ends because its pool does has ended: its callback runs, before `join` returns.
fn callbacks_of_a_terminated_pool_run<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let (sender, receiver) = channel();
    let pass = |ticket: String| file_barrier::pass(&ticket);
    for _ in 0..20 {
        let called = sender();
        let handle = pool.apply_async(pass, gate.ticket());
        handle.on_complete(move |result| called.send(result.clone().unwrap_err().kind()).unwrap());
    }
    gate.wait_for(1);
    pool.terminate();
    pool.join().unwrap();
    drop(sender);
    let kinds: Vec<TaskErrorKind> = receiver.iter().collect();
    assert_eq!(kinds, [TaskErrorKind::Cancelled; 20]);
}
