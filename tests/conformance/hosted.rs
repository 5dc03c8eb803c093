//! A pool whose chunks run in a pool of another machine, as somebody else would write it: from
//! public items alone.
//!
//! The other machine is this process, and its pool a [`SpawnPool`]. But nothing goes there or comes
//! back other than as bytes, and values that are broadcast as their content.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use procpool::executor::{
    BroadcastContent, CallId, Callbacks, Cancel, Chunk, Completion, EncodedChunk, Executor,
    ItemCounts, Outcome, Submitted,
};
use procpool::{Broadcast, JoinError, Pool, SpawnPool, Stats, TaskErrorKind, worker};
use procpool_conformance::failure_modes::{Fate, strike};
use procpool_conformance::{Subject, Test};
use procpool_testing::file_barrier::{self, Gate};

/// [`HostedPool`].
pub(crate) struct Hosted;

impl Subject for Hosted {
    type Pool = HostedPool;
    const NAME: &str = "hosted";
    const STREAM_BUFFERS: usize = 2;
    const PASSES_DESCRIPTORS: bool = false;
    const IS_TRACED: bool = false;

    fn pool(workers: usize) -> HostedPool {
        HostedPool::new(workers)
    }

    fn default_pool() -> HostedPool {
        HostedPool::new(2)
    }
}

/// Runs tasks in another pool.
pub(crate) struct HostedPool {
    executor: Arc<dyn Executor>,
}

impl HostedPool {
    fn new(workers: usize) -> Self {
        let host = SpawnPool::builder().processes(workers).build();
        Self {
            executor: Arc::new(Hosting {
                host: host.expect("a pool can be built"),
                jobs: Mutex::default(),
                callbacks: Callbacks::new(),
                counts: ItemCounts::default(),
            }),
        }
    }
}

impl Pool for HostedPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }
}

impl Drop for HostedPool {
    fn drop(&mut self) {
        self.terminate();
    }
}

struct Hosting {
    host: SpawnPool,
    jobs: Mutex<Vec<Job>>,
    callbacks: Callbacks,
    counts: ItemCounts,
}

/// A chunk that the host has, or has had.
struct Job {
    completion: Weak<Completion>,
    submitted: Arc<Submitted>,
}

impl Hosting {
    fn jobs(&self) -> MutexGuard<'_, Vec<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same content on the other machine.
fn carried(content: &BroadcastContent) -> BroadcastContent {
    BroadcastContent::new(content.bytes()).expect("there is memory")
}

/// The same outcome here, with what it needs.
fn brought(outcome: &Outcome, completion: &Completion) -> Outcome {
    let mut here = Outcome::from_bytes(&outcome.to_bytes()).expect("it is an outcome");
    let missing = completion.missing(&here);
    for content in outcome.contents() {
        if missing.contains(&content.id()) {
            assert!(here.provide(&carried(&content)));
        }
    }
    here
}

/// Takes the values that a task emits from there to here, as they are read here.
async fn carry(there: &Submitted, here: &Completion) {
    loop {
        poll_fn(|context| here.poll_room(context)).await;
        let Some(value) = poll_fn(|context| there.poll_value(context)).await else {
            return;
        };
        if !here.emit(brought(&value, here)) {
            // Nobody wants any more.
            return;
        }
    }
}

impl Executor for Hosting {
    fn submit(&self, mut chunk: Chunk) {
        chunk.count_in(&self.counts);
        let (chunk, completion) = chunk.into_parts();
        let mut there = EncodedChunk::from_bytes(&chunk.to_bytes()).expect("it is a chunk");
        let missing = there.missing();
        for content in chunk.contents() {
            if missing.contains(&content.id()) {
                assert!(there.provide(&carried(&content)));
            }
        }
        let completion = Arc::new(completion);
        let weak = Arc::downgrade(&completion);
        let deliver = move |index: usize, outcome: Outcome| {
            completion
                .complete(index, brought(&outcome, &completion))
                .expect("each item has one outcome");
        };
        let submitted = match there.options().emits {
            None => Arc::new(there.submit_to(self.host.executor(), deliver)),
            Some(_) => {
                let (sender, outcome) = mpsc::channel();
                let send = move |index: usize, outcome: Outcome| {
                    let _ = sender.send((index, outcome));
                };
                let submitted = Arc::new(there.stream_to(self.host.executor(), send));
                let (values, here) = (submitted.clone(), weak.upgrade().expect("it is here"));
                std::thread::spawn(move || {
                    smol::block_on(carry(&values, &here));
                    // Behind all values.
                    if let Ok((index, outcome)) = outcome.recv() {
                        deliver(index, outcome);
                    }
                });
                submitted
            }
        };
        let mut jobs = self.jobs();
        jobs.retain(|job| job.completion.strong_count() > 0);
        if let Some(completion) = weak.upgrade() {
            // Whoever has cancelled it a moment ago did not find it.
            if completion.is_abandoned() {
                submitted.cancel(Cancel::Cooperative);
            }
            jobs.push(Job {
                completion: weak,
                submitted,
            });
        }
    }

    fn cancel(&self, call: CallId, how: Cancel) -> bool {
        let (of_call, others) = self.jobs().drain(..).partition(|job: &Job| {
            let completion = job.completion.upgrade();
            completion.is_some_and(|completion| completion.call() == call)
        });
        let of_call: Vec<Job> = of_call;
        self.jobs().extend::<Vec<Job>>(others);
        for job in &of_call {
            job.submitted.cancel(how);
        }
        // The host says what becomes of each.
        !of_call.is_empty()
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        self.callbacks.run(job);
    }

    fn processes(&self) -> usize {
        self.host.processes()
    }

    fn close(&self) {
        self.host.close();
    }

    fn terminate(&self) {
        self.host.terminate();
    }

    fn join(&self, deadline: Option<Instant>) -> Result<bool, JoinError> {
        if self.callbacks.is_current_thread() {
            return Err(JoinError::from_inside());
        }
        for job in &*self.jobs() {
            if let Some(completion) = job.completion.upgrade() {
                completion.keep_unread();
            }
        }
        let has_ended = self.host.executor().join(deadline)?;
        Ok(has_ended && self.callbacks.wait_until_idle(deadline))
    }

    fn stats(&self) -> Stats {
        // To the host, each attempt is an item.
        let host = self.host.stats();
        let mut stats = self.counts.stats(host.queued);
        stats.workers = host.workers;
        stats
    }
}

/// What the host sees to, and what must come through.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("a_worker_that_dies_costs_one_item", dying),
        ("a_deadline_is_the_hosts", late),
        ("a_cancelled_task_is_asked_or_killed", cancelled),
        ("what_workers_share_comes_through", shared),
    ]
}

fn strike_at((x, fate): (u64, Option<Fate>)) -> u64 {
    if let Some(fate) = fate {
        let _ = strike(fate);
    }
    x
}

fn dying() {
    let pool = HostedPool::new(2);
    let items = (0..30).map(|x| (x, (x == 13).then_some(Fate::Kill)));
    let all = pool.call(strike_at).chunksize(10).try_map(items);
    for (x, result) in (0..).zip(all) {
        match result {
            Ok(value) => assert!(value == x && x != 13),
            Err(error) => {
                assert!(
                    error.is_worker_lost() && error.index() == Some(13),
                    "{error}"
                );
                assert!(error.worker().is_some(), "{error}");
                Fate::Kill.assert_told(&error);
            }
        }
    }
}

fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

fn late() {
    let pool = HostedPool::new(1);
    let gate = Gate::new();
    let call = pool.call(pass).timeout(Duration::from_millis(50));
    let late = call.measured().apply(gate.ticket());
    assert!(late.outcome.expect_err("it waits").is_timeout());
    assert_eq!(late.metrics.attempt, 1);
}

fn cancelled() {
    let pool = HostedPool::new(1);
    let heed = |ticket: String| {
        file_barrier::add(&ticket, std::process::id());
        while !worker::is_cancelled() {
            std::thread::yield_now();
        }
    };
    let who = || pool.apply(|()| std::process::id(), ());
    let (gate, first) = (Gate::new(), who().expect("a worker"));
    let handle = pool.map_async(heed, [gate.ticket()]);
    gate.wait_for(1);
    handle.cancel();
    assert!(handle.get().expect_err("cancelled").is_cancelled());
    assert_eq!(who(), Ok(first));
    let gate = Gate::new();
    let handle = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    handle.kill();
    let error = handle.get().expect_err("killed");
    assert_eq!(error.kind(), TaskErrorKind::Cancelled);
    assert_ne!(who(), Ok(first));
}

/// From the caller to two workers, what each makes of it back, and that to the next one.
fn shared() {
    let pool = HostedPool::new(2);
    let given = pool.broadcast(Vec::from_iter(0..1000_u64)).expect("memory");
    let double = |(given, x): (Broadcast<[u64]>, usize)| {
        let doubled: Vec<u64> = given.iter().map(|it| 2 * it).collect();
        let made = Broadcast::new(doubled).expect("memory");
        (given, made, x)
    };
    let items = (0..20).map(|x| (given.clone(), x));
    let all = pool.call(double).chunksize(3).map(items).expect("values");
    for (x, (back, made, at)) in all.iter().enumerate() {
        assert_eq!(x, *at);
        assert!(std::ptr::eq(&raw const **back, &raw const *given));
        assert_eq!((made[7], made.len()), (14, 1000));
    }
    let sum = |(made, x): (Broadcast<[u64]>, usize)| made[x];
    let again = all.into_iter().map(|(_, made, x)| (made, x));
    let expected: Vec<u64> = (0..20).map(|x| 2 * x).collect();
    assert_eq!(pool.map(sum, again), Ok(expected));
}
