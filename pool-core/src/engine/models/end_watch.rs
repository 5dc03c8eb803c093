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

    /// Something ends.
    fn end_one(&self) {
        *self.left.lock().expect("no panic") -= 1;
        self.watch.wake();
    }

    /// Does something in a thread of its own.
    fn spawn(self: &Arc<Self>, body: fn(&Self)) -> thread::JoinHandle<()> {
        let ending = self.clone();
        let thread = thread::Builder::new().spawn(move || body(&ending));
        thread.expect("a thread")
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
        sys::wake_sleeper(&self.woken, None);
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
                sys::sleep_while(&self.woken, 0, None);
            }
        }
    }
}

#[test]
fn the_last_end_wakes() {
    explore(2, || {
        let ending = Ending::of(2);
        let ends = [(); 2].map(|()| ending.spawn(Ending::end_one));
        Arc::<Poller>::default().wait_for(&ending);
        for end in ends {
            end.join().expect("no panic");
        }
    });
}

/// Another future is polled and dropped meanwhile, and woken in between.
#[test]
fn who_goes_takes_nobody_along() {
    explore(2, || {
        let ending = Ending::of(2);
        let end = ending.spawn(Ending::end_one);
        let goes = ending.spawn(|ending| {
            let waker = Waker::from(Arc::<Poller>::default());
            ending.watch.add(&waker);
            ending.end_one();
            ending.watch.remove(&waker);
        });
        Arc::<Poller>::default().wait_for(&ending);
        for thread in [end, goes] {
            thread.join().expect("no panic");
        }
    });
}
