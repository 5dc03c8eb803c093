//! loom: who awaits a pool's end, and is woken by whatever may have been the last thing. A lost
//! wake-up is a deadlock, which loom tells.
//!
//! Caught when broken on purpose: a waker is added after the question; the mark that there are any
//! is not set, or lowered without the lock; the waker of another future is forgotten.

use std::sync::Arc;
use std::task::{Wake, Waker};

use super::explore;
use crate::sync::atomic::Ordering;
use crate::sync::{FutexWord, Mutex, thread};
use crate::sys;
use crate::task::end_watch::EndWatch;

/// What has to end, under one lock as in the engine, and who waits for that.
struct Ending {
    left: Mutex<u32>,
    watch: EndWatch,
}

impl Ending {
    fn of(left: u32) -> Arc<Self> {
        let watch = EndWatch::default();
        let left = Mutex::new(left);
        Arc::new(Self { left, watch })
    }

    /// Something ends, in a thread of its own.
    fn end_one(self: &Arc<Self>) -> thread::JoinHandle<()> {
        let ending = self.clone();
        let end_one = move || {
            *ending.left.lock().expect("no panic") -= 1;
            ending.watch.wake();
        };
        thread::Builder::new().spawn(end_one).expect("a thread")
    }

    fn is_over(&self) -> bool {
        *self.left.lock().expect("no panic") == 0
    }
}

/// The thread that polls a future, asleep until it is woken.
#[derive(Default)]
struct Poller {
    woken: FutexWord,
}

impl Wake for Poller {
    fn wake(self: Arc<Self>) {
        self.woken.store(1, Ordering::Release);
        sys::futex_wake(&self.woken);
    }
}

impl Poller {
    /// Polls until everything has ended.
    fn wait_for(self: &Arc<Self>, ending: &Ending) {
        let waker = Waker::from(self.clone());
        loop {
            self.woken.store(0, Ordering::Release);
            ending.watch.add(&waker);
            if ending.is_over() {
                ending.watch.remove(&waker);
                return;
            }
            while self.woken.load(Ordering::Acquire) == 0 {
                sys::futex_wait(&self.woken, 0);
            }
        }
    }
}

#[test]
fn the_last_end_wakes() {
    explore(2, || {
        let ending = Ending::of(2);
        let ends = [ending.end_one(), ending.end_one()];
        Arc::<Poller>::default().wait_for(&ending);
        for end in ends {
            end.join().expect("no panic");
        }
    });
}

/// Another future is polled and dropped meanwhile.
#[test]
fn who_goes_takes_nobody_along() {
    explore(2, || {
        let ending = Ending::of(1);
        let end = ending.end_one();
        let other = ending.clone();
        let goes = move || {
            let waker = Waker::from(Arc::<Poller>::default());
            other.watch.add(&waker);
            other.watch.add(&waker);
            other.watch.remove(&waker);
        };
        let goes = thread::Builder::new().spawn(goes).expect("a thread");
        Arc::<Poller>::default().wait_for(&ending);
        for thread in [end, goes] {
            thread.join().expect("no panic");
        }
    });
}
