//! Executors that lose chunks: nobody waits for ever, and each item has one outcome.

use std::sync::{Arc, mpsc};
#[cfg(feature = "fork")]
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use procpool::executor::{CallId, Cancel, Chunk, Executor, Outcome};
use procpool::{JoinError, Pool, SerialPool, Stats, TaskError, TaskErrorKind};
use procpool_conformance::Test;

pub(crate) fn tests() -> Vec<Test> {
    let tests: Vec<Test> = vec![
        ("what_is_dropped_fails", dropped),
        ("half_of_a_chunk_is_dropped", half_dropped),
        ("a_thread_panics_with_its_chunk", panicked),
        ("a_chunk_from_elsewhere_is_dropped", from_elsewhere),
    ];
    #[cfg(feature = "fork")]
    let tests = [tests, vec![("a_copy_of_a_chunk_is_dropped", copied)]].concat();
    tests
}

/// Does this with each chunk, and nothing else.
struct Careless(fn(Chunk));

impl Executor for Careless {
    fn submit(&self, chunk: Chunk) {
        (self.0)(chunk);
    }

    fn cancel(&self, _call: CallId, _how: Cancel) -> bool {
        false
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn processes(&self) -> usize {
        2
    }

    fn close(&self) {}

    fn terminate(&self) {}

    fn join(&self, _deadline: Option<Instant>) -> Result<bool, JoinError> {
        Ok(true)
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

struct CarelessPool(Arc<dyn Executor>);

impl CarelessPool {
    fn new(submit: fn(Chunk)) -> Self {
        Self(Arc::new(Careless(submit)))
    }
}

impl Pool for CarelessPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.0
    }
}

fn half(x: u32) -> u32 {
    x / 2
}

fn assert_lost(error: &TaskError, index: Option<usize>) {
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert_eq!(error.index(), index, "{error}");
    assert!(error.to_string().contains("dropped"), "{error}");
}

/// Whatever the call is, and however its outcome is waited for.
fn dropped() {
    let pool = CarelessPool::new(drop);
    assert_lost(&pool.apply(half, 2).expect_err("it is dropped"), None);
    let handle = pool.apply_async(half, 2);
    let (sender, receiver) = mpsc::channel();
    handle.on_complete(move |outcome| {
        let _ = sender.send(outcome.clone());
    });
    assert_lost(&handle.get().expect_err("it is dropped"), None);
    let outcomes: Vec<_> = receiver.iter().collect();
    assert_eq!(outcomes.len(), 1);
    assert_lost(&pool.map(half, 0..50).expect_err("all are"), Some(0));
    let call = || pool.call(half).chunksize(7);
    let all = call().try_map(0..50);
    let measured = call().measured().map_async(0..50).get();
    let mut unordered: Vec<_> = call().imap_unordered(0..50).collect();
    unordered.sort_by_key(|it| it.as_ref().map_or_else(TaskError::index, |_| None));
    let measured = measured.into_iter().map(|it| it.outcome).collect();
    let ordered = call().imap(0..50).collect();
    for outcomes in [all, measured, ordered, unordered] {
        assert_eq!(outcomes.len(), 50);
        for (index, outcome) in outcomes.into_iter().enumerate() {
            assert_lost(&outcome.expect_err("it is dropped"), Some(index));
        }
    }
}

/// The others keep their values.
fn half_dropped() {
    let pool = CarelessPool::new(|chunk| {
        let (first, second) = chunk.split_at(3);
        drop(first);
        second.run_here();
    });
    let call = pool.call(half).chunksize(10).measured();
    for (index, item) in call.map_async(0..30).get().into_iter().enumerate() {
        match item.outcome {
            Ok(value) => assert!(index % 10 >= 3 && value == index as u32 / 2),
            Err(error) => {
                assert!(index % 10 < 3);
                assert_lost(&error, Some(index));
            }
        }
    }
}

/// A panic of an executor's thread is its own; the items end with the thread.
fn panicked() {
    let pool = CarelessPool::new(|chunk| {
        std::thread::spawn(move || {
            let _chunk = chunk;
            std::panic::resume_unwind(Box::new("an executor has bugs too"));
        });
    });
    assert_lost(&pool.apply(half, 2).expect_err("its thread is gone"), None);
}

/// Those of another pool, which asks this one to run them.
fn from_elsewhere() {
    let pool = CarelessPool::new(|chunk| {
        let careless = CarelessPool::new(drop);
        let (chunk, completion) = chunk.into_parts();
        let deliver = move |index: usize, outcome: Outcome| {
            completion
                .complete(index, outcome)
                .expect("each item has one outcome");
        };
        chunk.submit_to(careless.executor(), deliver);
    });
    let all = pool.call(half).chunksize(2).try_map(0..5);
    assert_eq!(all.len(), 5);
    for (index, outcome) in all.into_iter().enumerate() {
        assert_lost(&outcome.expect_err("it is dropped"), Some(index));
    }
    // The suite would not notice a pool that runs nothing at all.
    assert_eq!(SerialPool::new().apply(half, 2), Ok(1));
}

/// Chunks that nobody has answered, and a task can reach in a copy of its program.
#[cfg(feature = "fork")]
static KEPT: Mutex<Vec<Chunk>> = Mutex::new(Vec::new());

#[cfg(feature = "fork")]
fn take_kept() -> Vec<Chunk> {
    std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(feature = "fork")]
pub(crate) fn programs() -> Vec<procpool_conformance::program::Program> {
    use procpool_conformance::program::name;
    vec![(name::<crate::Fork>("with_kept_chunks"), with_kept_chunks)]
}

#[cfg(feature = "fork")]
fn with_kept_chunks() {
    use procpool::ForkPool;
    use procpool_testing::file_barrier::{Tally, add};

    let careless = CarelessPool::new(|chunk| {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(chunk);
    });
    let tally = Tally::new();
    let (whole, parts) = (
        careless.apply_async(half, 2),
        careless.map_async(half, 0..2),
    );
    let ticket = tally.ticket();
    whole.on_complete(move |_| add(&ticket, std::process::id()));
    let ticket = tally.ticket();
    parts.on_complete(move |_| add(&ticket, std::process::id()));
    // Its workers are copies of this process.
    let pool = ForkPool::builder().processes(1).build().expect("a pool");
    let drop_copies = |()| {
        let kept = take_kept();
        let count = kept.len();
        for chunk in kept {
            if chunk.count() == 1 {
                drop(chunk);
            } else {
                drop(chunk.into_parts());
            }
        }
        count
    };
    assert!(pool.apply(drop_copies, ()).expect("a value") >= 2);
    assert_eq!(tally.numbers(), [0; 0], "a copy has called back");
    drop(take_kept());
    assert_eq!(tally.numbers(), [std::process::id(); 2]);
    assert_lost(&whole.get().expect_err("it was dropped"), None);
    assert_lost(&parts.get().expect_err("it was dropped"), Some(0));
}

/// In a fork of the program nobody waits for its parent's calls: nothing is said there.
#[cfg(feature = "fork")]
fn copied() {
    let program = procpool_conformance::program::again::<crate::Fork>("with_kept_chunks");
    assert_eq!(program.lines(), [""; 0]);
}
