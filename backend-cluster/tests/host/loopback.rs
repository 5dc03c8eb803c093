//! A pool whose chunks go to a [`Host`] in this process, and nothing there or back but bytes.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use procpool_core::{
    BroadcastContent, CallId, Callbacks, Cancel, Chunk, Completion, EncodedChunk, Executor,
    JoinError, Outcome, OutcomeBatch, Pool, Stats, TaskError, TaskErrorKind, WorkerOptions,
};

use crate::host::{Captures, Host, Running};
use crate::message::{ClientId, from_bytes, to_bytes};

/// See the module.
pub(crate) struct Loopback(Arc<dyn Executor>);

impl Loopback {
    /// A client of the host, which has these options sent to it.
    pub(crate) fn new(host: &Arc<Host>, client: ClientId, options: &WorkerOptions) -> Self {
        Self::capturing(host, client, options, Captures::default())
    }

    pub(crate) fn capturing(
        host: &Arc<Host>,
        client: ClientId,
        options: &WorkerOptions,
        captures: Captures,
    ) -> Self {
        let bytes = options.to_bytes().expect("options that make sense");
        let mut there = WorkerOptions::from_bytes(&bytes).expect("options");
        for content in options.contents() {
            assert!(there.provide(&carried(&content)));
        }
        host.welcome(client, there, captures);
        Self(Arc::new(Client {
            host: Arc::downgrade(host),
            client,
            jobs: Mutex::default(),
            callbacks: Callbacks::new(),
        }))
    }
}

impl Pool for Loopback {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.0
    }
}

struct Client {
    /// A handle keeps this, and not the host.
    host: Weak<Host>,
    client: ClientId,
    jobs: Mutex<Vec<(Weak<Completion>, Arc<Running>)>>,
    callbacks: Callbacks,
}

impl Client {
    fn host(&self) -> Arc<Host> {
        self.host.upgrade().expect("the test has it")
    }
}

/// The same content on the other machine.
fn carried(content: &BroadcastContent) -> BroadcastContent {
    BroadcastContent::new(content.bytes()).expect("there is memory")
}

fn deliver(completion: &Completion, batch: &OutcomeBatch) {
    let mut here: OutcomeBatch = from_bytes(&to_bytes(batch)).expect("a batch");
    let missing = completion.missing_in(&here);
    for content in batch.contents() {
        if missing.contains(&content.id()) {
            assert!(here.provide(&carried(&content)));
        }
    }
    let delivered = completion.complete_batch(here);
    delivered.expect("each item has one outcome");
}

impl Executor for Client {
    fn submit(&self, chunk: Chunk) {
        let (chunk, completion) = chunk.into_parts();
        let mut there = EncodedChunk::from_bytes(&chunk.to_bytes()).expect("it is a chunk");
        for content in chunk.contents() {
            assert!(there.provide(&carried(&content)));
        }
        let completion = Arc::new(completion);
        let weak = Arc::downgrade(&completion);
        let begun = if there.options().emits.is_none() {
            let sink = move |batch| deliver(&completion, &batch);
            self.host().begin(self.client, there, sink).map(Arc::new)
        } else {
            let (sender, batches) = mpsc::channel();
            let sink = move |batch| drop(sender.send(batch));
            let begun = self.host().begin(self.client, there, sink).map(Arc::new);
            let running = begun.clone().ok();
            thread::spawn(move || {
                if let Some(running) = running {
                    block_on(carry(&running, &completion));
                }
                // Behind all values.
                for batch in batches {
                    deliver(&completion, &batch);
                }
            });
            begun
        };
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        // Otherwise all has ended, or the completion is dropped, which fails the items.
        if let (Ok(running), Some(_)) = (begun, weak.upgrade()) {
            jobs.push((weak, running));
        }
    }

    fn cancel(&self, call: CallId, how: Cancel) -> bool {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|(completion, _)| completion.strong_count() > 0);
        let is_of_call = |it: &Weak<Completion>| it.upgrade().is_some_and(|it| it.call() == call);
        let of_call = jobs.iter().filter(|(it, _)| is_of_call(it));
        let of_call: Vec<_> = of_call.map(|(_, running)| running.clone()).collect();
        drop(jobs);
        for running in &of_call {
            running.cancel(how);
        }
        !of_call.is_empty()
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        self.callbacks.run(job);
    }

    fn processes(&self) -> usize {
        2
    }

    fn close(&self) {}

    fn terminate(&self) {
        self.host().forget(self.client);
    }

    fn join(&self, _: Option<Instant>) -> Result<bool, JoinError> {
        Ok(true)
    }

    fn stats(&self) -> Stats {
        let stats = self.host().stats(self.client);
        from_bytes(&to_bytes(&stats)).expect("they travel")
    }

    fn dump(&self) -> procpool_core::Dump {
        let dump = self.host().dump(self.client);
        from_bytes(&to_bytes(&dump)).expect("it travels")
    }
}

/// Takes the values that a task emits from there to here, as they are read here.
async fn carry(there: &Running, here: &Completion) {
    loop {
        poll_fn(|context| here.poll_room(context)).await;
        let Some(value) = poll_fn(|context| there.poll_value(context)).await else {
            return;
        };
        let value = Outcome::from_bytes(&value.to_bytes()).expect("it is an outcome");
        if !here.emit(value) {
            return;
        }
    }
}

/// What `begin` says is wrong.
pub(crate) fn refusal(host: &Host, client: ClientId, chunk: EncodedChunk) -> TaskError {
    let begun = host.begin(client, chunk, |_| panic!("there is no outcome"));
    let error = begun.err().expect("there is no such client");
    assert_eq!(error.kind(), TaskErrorKind::Cancelled);
    error
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
