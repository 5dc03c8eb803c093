//! loom: one thread that leads, or one that supervises, one worker, rings that are
//! smaller than the messages: the worker's sleep and the leader's, each with the look that must not
//! miss what the other has published. Both run what they run in a pool, from `apply` to `serve`.
//!
//! Caught when broken on purpose: any of the five fences left out (the worker's before it sleeps
//! and before it looks whether to ring, the parent's before it looks whether to wake, before the
//! leader sleeps, and before the supervisor may); the worker, or the leader, does not look again
//! before it sleeps; the leader looks before it asks to be rung; a worker that waits for space for
//! its results is not woken.
//!
//! Not caught, since it makes no difference but for speed: a bell that rings for space alone.
//! What the worker holds it gives back, and rings for, before it sleeps.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::task::Poll;

use super::explore;
use super::fake::{ModelPool, doorbell};
use crate::api::pool::Pool;
use crate::backend::config::PoolConfig;
use crate::backend::launcher::{LaunchSpec, Launcher, Outlets, Readiness, WorkerHandle};
use crate::backend::tie::Tie;
use crate::engine::shared::Shared;
use crate::engine::supervisor::Supervisor;
use crate::engine::token::Token;
use crate::engine::worker_process::Process;
use crate::error::launch_error::LaunchError;
use crate::process::exit_status::ExitStatus;
use crate::shm::region::Region;
use crate::sync::thread::{self, JoinHandle};
use crate::sys;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::worker::emitter::Emitter;
use crate::worker::ringer::Ringer;
use crate::worker::serve::serve_and_ring;

/// A worker that was reached from the beginning, and never dies.
struct Steadfast {
    region: Arc<Region>,
    doorbell: OwnedFd,
}

impl WorkerHandle for Steadfast {
    fn region(&self) -> Arc<Region> {
        self.region.clone()
    }

    fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    fn poll_ready(&mut self) -> Result<Readiness, LaunchError> {
        Ok(Readiness::Ready)
    }

    fn pid(&self) -> Option<u32> {
        Some(1)
    }

    fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn kill(&mut self) {}

    fn reap(&mut self) -> Poll<ExitStatus> {
        Poll::Ready(ExitStatus::Code(0))
    }
}

/// A pool with one worker and no supervisor.
fn pool_of_one(ring_bytes: usize) -> (Arc<Shared>, JoinHandle<i32>) {
    let mut config = PoolConfig::default();
    config.set_processes(1);
    config.workers.set_ring_capacity(ring_bytes);
    let config = config.check().expect("a config that makes sense");
    let shared = Arc::new(Shared::new(config, "model").expect("descriptors"));
    let mut core = shared.lock();
    let due = core.due_launches().remove(0);
    let (tie, end) = Tie::new().expect("descriptors");
    let (slot, spec) = (due.slot, due.spec(Outlets::default(), end));
    let region = Region::for_model(spec.region_bytes());
    spec.prepare(&region);
    let theirs = region.again();
    let (hear, doorbell) = doorbell();
    let bell = sys::take_what_was_left(spec.tie()).expect("a bell");
    let ringer = Ringer::new(Some(bell), doorbell);
    let worker = thread::Builder::new()
        .stack_size(1 << 19)
        .spawn(move || {
            // SAFETY: the region was prepared above for this thread, and the engine has its other
            // side.
            unsafe { serve_and_ring(theirs, ringer, None) }
        })
        .expect("a thread");
    let token = Token {
        slot,
        number: spec.number(),
    };
    let process = Process {
        handle: Box::new(Steadfast {
            region: Arc::new(region),
            doorbell: hear,
        }),
        tie,
        number: spec.number(),
        seed: spec.seed,
        info: None,
        failure: None,
        ask_again: None,
        is_watched: true,
        pipes: None,
    };
    shared.hear(&process, token).expect("a descriptor");
    core.launched(slot, process);
    assert!(core.advance(slot));
    drop(core);
    (shared, worker)
}

/// Launches nothing: its one worker is there.
struct Nobody;

impl Launcher for Nobody {
    fn backend(&self) -> &'static str {
        "model"
    }

    fn launch(&mut self, _: &LaunchSpec) -> Result<Box<dyn WorkerHandle>, LaunchError> {
        Err(LaunchError::new("there is a worker"))
    }
}

/// Without a leader the supervisor hears the bells. Here it is the thread that has
/// submitted the task.
#[test]
fn the_supervisor_hears_of_a_result() {
    crate::process::code::find_own_image().expect("code");
    explore(2, || {
        let (shared, worker) = pool_of_one(128);
        let mut supervisor = Supervisor::new(shared.clone(), Box::new(Nobody));
        let pool = ModelPool { executor: shared };
        let handle = pool.apply_async(|x: u8| x + 1, 4);
        let mut ready = Vec::new();
        while !handle.is_ready() {
            supervisor.sleep(&mut ready, None).expect("it is a poller");
        }
        assert_eq!(handle.get().expect("a value"), 5);
        pool.close();
        assert_eq!(worker.join().expect("no panic"), 0);
    });
}

fn with_pool(preemptions: usize, ring_bytes: usize, calls: fn(&ModelPool)) {
    // Once outside, since it reads files.
    crate::process::code::find_own_image().expect("code");
    explore(preemptions, move || {
        let (shared, worker) = pool_of_one(ring_bytes);
        let pool = ModelPool { executor: shared };
        calls(&pool);
        pool.close();
        assert_eq!(worker.join().expect("no panic"), 0);
    });
}

#[test]
fn a_task_and_its_result_pass() {
    with_pool(2, 128, |pool| {
        assert_eq!(pool.apply(|x: u8| x + 1, 4).expect("a value"), 5);
    });
}

/// The worker waits for the reader, and the reader for the worker.
#[test]
fn a_task_waits_for_the_reader_of_its_values() {
    with_pool(1, 128, |pool| {
        let emit = |count: u8, out: &Emitter<u8>| (0..count).all(|it| out.emit(it).is_ok());
        let mut values = pool.call(emit).buffer(1).stream(2);
        assert_eq!(values.next(), Some(Ok(0)));
        assert_eq!(values.next(), Some(Ok(1)));
        assert_eq!(values.result(), Ok(true));
    });
}

/// The leader waits for space, and the worker for bytes.
#[test]
fn an_argument_larger_than_the_ring_streams_through_it() {
    with_pool(1, 64, |pool| {
        let sum = pool.apply(|bytes: [u8; 32]| bytes.iter().sum::<u8>(), [7; 32]);
        assert_eq!(sum.expect("a value"), 224);
    });
}

/// The other way round.
#[test]
fn a_result_larger_than_the_ring_streams_through_it() {
    with_pool(1, 64, |pool| {
        let bytes = pool.apply(|byte: u8| ([byte; 32], [byte; 32]), 7);
        assert_eq!(bytes.expect("a value"), ([7; 32], [7; 32]));
    });
}
