//! Spans of the parent's that calls are made in: their tasks' events belong to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use procpool::{Pool, TaskErrorKind};
use tracing::{Span, info, info_span};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Dispatch, Event, Subscriber, dispatcher};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::wait_until;
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        every_kind_of_call_has_its_span,
        it_is_printed_as_other_events_are,
        threads_have_their_own_spans,
        spans_of_items_that_are_run_again,
        spans_of_items_that_others_run,
        spans_are_closed_when_all_is_told,
        nothing_keeps_a_span_open,
        a_slow_subscriber_and_its_spans,
        threads_of_tasks_have_the_span_of_their_task,
        spans_of_other_subscribers,
        calls_and_items_are_spans,
        items_of_numbers_are_spans_too,
        items_that_fail_say_so_in_their_spans,
        spans_that_are_left_open_end_with_their_worker,
    ]
}

/// What a subscriber has seen: of events, their message behind the spans they are in; of spans,
/// that they were closed.
#[derive(Clone, Default)]
struct Journal {
    lines: Arc<Mutex<Vec<String>>>,
    stands: Arc<(Mutex<bool>, Condvar)>,
}

/// A span as it is written, such as `request{id=7}`.
struct Shown(String);

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let mut text = attributes.metadata().name().to_owned();
        for (name, value) in fields {
            write!(text, "{{{name}={value}}}").unwrap();
        }
        let span = context.span(id).unwrap();
        span.extensions_mut().insert(Shown(text));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        values.record(&mut Fields(&mut fields));
        let span = context.span(id).unwrap();
        let mut extensions = span.extensions_mut();
        let shown = extensions.get_mut::<Shown>().unwrap();
        for (name, value) in fields {
            write!(shown.0, "{{{name}={value}}}").unwrap();
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.stand_still();
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let mut line = String::new();
        for span in context.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            line.insert_str(0, &format!("{}: ", extensions.get::<Shown>().unwrap().0));
        }
        line += fields.get("message").map_or("", String::as_str);
        if let Some(spans) = fields.get("spans") {
            line += spans;
        }
        self.lines.lock().unwrap().push(line);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.stand_still();
        let span = context.span(&id).unwrap();
        let shown = &span.extensions().get::<Shown>().unwrap().0.clone();
        self.lines.lock().unwrap().push(format!("{shown} closed"));
    }
}

impl Journal {
    fn new() -> (Self, Dispatch) {
        let journal = Self::default();
        let dispatch = Dispatch::new(Registry::default().with(journal.clone()));
        (journal, dispatch)
    }

    /// As long as it is to stand.
    fn stand_still(&self) {
        let stands = self.stands.0.lock().unwrap();
        drop(self.stands.1.wait_while(stands, |stands| *stands).unwrap());
    }

    fn stand(&self, stands: bool) {
        *self.stands.0.lock().unwrap() = stands;
        self.stands.1.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn has(&self, line: &str) -> bool {
        self.lines().iter().any(|it| it == line)
    }

    /// The events that arrived, in any order.
    fn events(&self) -> Vec<String> {
        let mut events = self.lines();
        events.retain(|line| !line.ends_with(" closed"));
        events.sort();
        events
    }
}

fn end(pool: &impl Pool) {
    pool.close();
    pool.join().unwrap();
}

fn say(number: u32) {
    info!("number {number}");
}

/// Whatever thread reads the results: it is the span that the call was made in.
fn every_kind_of_call_has_its_span<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(2).forward_events().build();
    let outer = info_span!("outer");
    let span = |id: u32| info_span!(parent: &outer, "call", id);
    span(0).in_scope(|| pool.apply(say, 0)).unwrap();
    let handle = span(1).in_scope(|| pool.apply_async(say, 1));
    handle.get().unwrap();
    span(2).in_scope(|| pool.map(say, [2; 50])).unwrap();
    span(3).in_scope(|| pool.try_map(say, [3; 50]));
    let handle = span(4).in_scope(|| pool.map_async(say, [4; 50]));
    handle.get().unwrap();
    let imap = span(5).in_scope(|| pool.imap(say, vec![5; 50]));
    assert_eq!(span(100).in_scope(|| imap.count()), 50);
    let imap = span(6).in_scope(|| pool.imap_unordered(say, vec![6; 50]));
    assert_eq!(imap.count(), 50);
    let call = || pool.call(say).chunksize(7).measured();
    span(7).in_scope(|| call().map([7; 50]));
    span(8).in_scope(|| call().apply(8)).outcome.unwrap();
    pool.map(say, [9; 50]).unwrap();
    end(&pool);
    let mut expected = Vec::new();
    for (id, count) in (0..=8).zip([1, 1, 50, 50, 50, 50, 50, 50, 1]) {
        let line = format!("outer: call{{id={id}}}: number {id}");
        expected.extend(vec![line; count]);
    }
    expected.extend(vec!["number 9".to_owned(); 50]);
    expected.sort();
    assert_eq!(journal.events(), expected);
}

/// The usual subscriber prints the span in front of an event; what the worker adds comes
/// behind.
fn it_is_printed_as_other_events_are<S: Processes>() {
    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Text {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let text = Text::default();
    let to = text.clone();
    let subscriber = tracing_subscriber::fmt().without_time().with_ansi(false);
    let dispatch = Dispatch::new(subscriber.with_writer(move || to.clone()).finish());
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(1).forward_events().build();
    let task = |()| {
        let _span = info_span!("page", number = 3).entered();
        info!(target: "site", bytes = 12, "done");
    };
    info_span!("request", id = 7)
        .in_scope(|| pool.apply(task, ()))
        .unwrap();
    let pid = pool.stats().workers[0].pid();
    end(&pool);
    let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
    let expected =
        format!(" INFO request{{id=7}}: site: done bytes=12 worker=\"PoolWorker-1\" pid={pid} ");
    assert!(text.starts_with(&expected), "{text}");
    assert!(
        text.ends_with(" spans=\"page{number=3}\"\n") && text.lines().count() == 1,
        "{text}"
    );
}

/// Events of calls that were made at the same time belong to the span of their own call.
fn threads_have_their_own_spans<S: Processes>() {
    const ROUNDS: u32 = 20;
    let (journal, dispatch) = Journal::new();
    let pool = dispatcher::with_default(&dispatch, || {
        S::builder().processes(2).forward_events().build()
    });
    thread::scope(|scope| {
        for number in 0..4 {
            let (pool, dispatch) = (&pool, &dispatch);
            scope.spawn(move || {
                let _default = dispatcher::set_default(dispatch);
                let mut handles = Vec::new();
                for _ in 0..ROUNDS {
                    let _span = info_span!("thread", number).entered();
                    pool.apply(say, number).unwrap();
                    handles.push(pool.apply_async(say, number));
                    pool.map(say, [number; 5]).unwrap();
                    Span::none().in_scope(|| drop(pool.apply_async(|_: u32| (), 0)));
                }
                for handle in handles {
                    handle.get().unwrap();
                }
            });
        }
    });
    end(&pool);
    let expected: Vec<String> = (0..4)
        .map(|number| format!("thread{{number={number}}}: number {number}"))
        .flat_map(|line| vec![line; 7 * ROUNDS as usize])
        .collect();
    assert_eq!(journal.events(), expected);
}

/// An item that is run again after its worker's death is in the same span again.
fn spans_of_items_that_are_run_again<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(2).forward_events().build();
    let tally = Tally::new();
    let task = |(tally, number): (String, u32)| {
        info!("number {number}");
        if number == 3 {
            file_barrier::add(&tally, "");
            if std::fs::read_to_string(&tally).unwrap().lines().count() <= 2 {
                std::process::abort();
            }
        }
    };
    let items = (0..8).map(|number| (tally.ticket(), number));
    let call = pool.call(task).retries(2).chunksize(4);
    let span = info_span!("call", id = 1);
    span.in_scope(|| call.map(items)).unwrap();
    // Nor does one that is lost in the end go without.
    let crash = |()| {
        info!("crashes");
        std::process::abort()
    };
    let lost = info_span!("call", id = 2).in_scope(|| pool.call(crash).retries(1).apply(()));
    assert_eq!(
        lost.map(|(): ()| ()).unwrap_err().kind(),
        TaskErrorKind::WorkerLost
    );
    end(&pool);
    let mut numbers: Vec<u32> = (0..8).chain([3, 3]).collect();
    numbers.sort_unstable();
    let mut expected: Vec<_> = numbers
        .iter()
        .map(|number| format!("call{{id=1}}: number {number}"))
        .collect();
    expected.extend(["call{id=2}: crashes"; 2].map(str::to_owned));
    assert_eq!(journal.events(), expected);
}

/// What is taken back from a worker and given to another one, in part or as a whole, keeps its
/// span, and what the worker has keeps it, too.
fn spans_of_items_that_others_run<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(2).forward_events().build();
    let gate = Gate::new();
    let task = |(ticket, id, number): (String, u32, u32)| {
        if number % 10 == 5 {
            file_barrier::pass(&ticket);
        }
        info!("call {id} number {number} in {}", std::process::id());
    };
    let ticket = gate.ticket();
    let map = |id: u32, numbers: std::ops::Range<u32>| {
        let items = numbers.map(|number| (ticket.clone(), id, number));
        let call = pool.call(task).chunksize(10);
        info_span!("call", id).in_scope(|| call.map_async(Vec::from_iter(items)))
    };
    // One worker is stuck in the midst of its chunk, with others behind it.
    let stuck = map(1, 0..10);
    gate.wait_for(1);
    let others: Vec<_> = (2..20).map(|id| map(id, 0..5)).collect();
    for other in others {
        other.get().unwrap();
    }
    wait_until(|| journal.events().len() >= 9 + 18 * 5);
    gate.open();
    stuck.get().unwrap();
    end(&pool);
    let events = journal.events();
    assert_eq!(events.len(), 10 + 18 * 5);
    let mut pids = BTreeSet::new();
    for event in &events {
        let (span, rest) = event.split_once(": call ").unwrap();
        let (id, rest) = rest.split_once(' ').unwrap();
        assert_eq!(span, format!("call{{id={id}}}"), "{event}");
        if id == "1" {
            pids.insert(rest.rsplit_once(' ').unwrap().1.to_owned());
        }
    }
    assert_eq!(pids.len(), 2, "its chunk was taken apart");
}

/// Each span is closed once, behind all of its events; at the latest when the pool is joined.
fn spans_are_closed_when_all_is_told<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(2).forward_events().build();
    for id in 0..100 {
        let parent = info_span!("parent", id);
        let _span = info_span!(parent: &parent, "call", id).entered();
        drop(parent);
        if id % 2 == 0 {
            drop(pool.apply_async(say, id));
        } else {
            pool.call(say).chunksize(1).map([id; 3]).unwrap();
        }
    }
    end(&pool);
    let lines = journal.lines();
    let places = |line: &str| -> Vec<usize> {
        let lines = lines.iter().enumerate();
        lines
            .filter(|it| it.1 == line)
            .map(|(place, _)| place)
            .collect()
    };
    for id in 0..100 {
        let events = places(&format!("parent{{id={id}}}: call{{id={id}}}: number {id}"));
        let closed = places(&format!("call{{id={id}}} closed"));
        let parent = places(&format!("parent{{id={id}}} closed"));
        assert_eq!((closed.len(), parent.len()), (1, 1), "{id}: {lines:?}");
        assert_eq!(events.len(), if id % 2 == 0 { 1 } else { 3 }, "{id}");
        assert!(events.last() < closed.last() && closed < parent, "{id}");
    }
}

/// A span is closed when its call is over, however that ends, while the pool goes on and has
/// nothing to do.
fn nothing_keeps_a_span_open<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(2).forward_events().build();
    let closed = |id: u32| wait_until(|| journal.has(&format!("call{{id={id}}} closed")));
    let span = |id: u32| info_span!("call", id).entered();
    let in_span = |id: u32, call: &dyn Fn()| {
        let _span = span(id);
        call();
    };

    // Results that nobody has read, or that are no results.
    let handle = span(1).in_scope(|| pool.map_async(say, [1; 100]));
    closed(1);
    handle.get().unwrap();
    in_span(2, &|| {
        let panic = |(): ()| -> () { panic!("on purpose") };
        assert!(pool.apply(panic, ()).unwrap_err().is_panic());
    });
    in_span(3, &|| {
        let crash = |()| std::process::abort();
        assert!(pool.apply(crash, ()).map(|(): ()| ()).is_err());
    });
    in_span(4, &|| {
        let call = pool.call(say).chunksize(0);
        assert_eq!(call.apply(4).unwrap_err().kind(), TaskErrorKind::Invalid);
    });
    (2..=4).for_each(closed);

    // An iterator that is done, and one that is given up.
    let mut imap = span(5).in_scope(|| pool.imap(say, vec![5; 100]));
    assert_eq!(imap.by_ref().count(), 100);
    closed(5);
    drop(imap);
    let mut imap = span(6).in_scope(|| pool.imap(say, 0..u32::MAX));
    imap.next().unwrap().unwrap();
    drop(imap);
    closed(6);

    // What is cancelled, in the queue or behind another one.
    let gate = Gate::new();
    let stuck = [(); 2]
        .map(|()| pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket()));
    gate.wait_for(2);
    let handles: Vec<_> = {
        let _span = span(7);
        (0..20).map(|_| pool.apply_async(say, 7)).collect()
    };
    for handle in handles {
        handle.cancel();
        assert!(handle.get().unwrap_err().is_cancelled());
    }
    gate.open();
    for handle in stuck {
        handle.get().unwrap();
    }
    // A cancelled task may stay in the queue until the next one comes.
    pool.apply(|()| (), ()).unwrap();
    closed(7);

    // What is refused.
    pool.close();
    in_span(8, &|| {
        let refused = pool.apply(say, 8).unwrap_err();
        assert_eq!(refused.kind(), TaskErrorKind::Closed);
    });
    closed(8);
    pool.join().unwrap();
    assert!(!journal.has("call{id=8}: number 8"));
    // Nobody is left who could do it elsewhere.
    let imap = span(9).in_scope(|| pool.imap(say, 0..9));
    drop(pool);
    assert!(!journal.has("call{id=9} closed"));
    drop(imap);
    assert!(journal.has("call{id=9} closed"));
}

/// A subscriber that stands still keeps no task, though spans are to be closed; when it goes on,
/// all are.
fn a_slow_subscriber_and_its_spans<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(2).forward_events().build();
    journal.stand(true);
    for id in 0..50 {
        let _span = info_span!("call", id).entered();
        let flood = |()| (0..2000).for_each(|number| info!("flood {number}"));
        pool.apply(flood, ()).unwrap();
    }
    assert!(pool.stats().events_dropped > 0);
    assert_eq!(journal.lines(), [""; 0]);
    journal.stand(false);
    end(&pool);
    for id in 0..50 {
        assert!(journal.has(&format!("call{{id={id}}} closed")), "{id}");
    }
    let lines = journal.lines();
    assert!(lines.iter().any(|it| it == "call{id=0}: flood 0"));
}

/// A thread that a task starts is in the span if it is in one of the task's, as long as the task
/// runs; its later events, when its task is done, belong to no span, though other tasks run.
fn threads_of_tasks_have_the_span_of_their_task<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(1).forward_events().build();
    let gate = Gate::new();
    let task = |ticket: String| {
        let span = info_span!("task");
        let inside = span.clone();
        let thread = thread::spawn(move || inside.in_scope(|| info!("beside ")));
        thread.join().unwrap();
        thread::spawn(|| info!("from nowhere")).join().unwrap();
        thread::spawn(move || {
            file_barrier::pass(&ticket);
            span.in_scope(|| info!("behind "));
        });
    };
    let ticket = gate.ticket();
    info_span!("call", id = 1)
        .in_scope(|| pool.apply(task, ticket))
        .unwrap();
    gate.wait_for(1);
    wait_until(|| journal.has("call{id=1} closed"));
    gate.open();
    let wait = |()| wait_for_thread();
    info_span!("call", id = 2)
        .in_scope(|| pool.apply(wait, ()))
        .unwrap();
    end(&pool);
    assert_eq!(
        journal.events(),
        [
            "behind \"task\"",
            "call{id=1}: beside \"task\"",
            "from nowhere"
        ]
    );
}

/// Waits until this thread is the only one of its process that runs tasks' code.
fn wait_for_thread() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    wait_until(|| threads() == 1);
}

/// A pool's events go to its own subscriber; the spans of others mean nothing to that. A pool that
/// has none uses those of its callers.
fn spans_of_other_subscribers<S: Processes>() {
    let (ours, dispatch) = Journal::new();
    let pool = dispatcher::with_default(&dispatch, || {
        S::builder().processes(1).forward_events().build()
    });
    let (theirs, other) = Journal::new();
    dispatcher::with_default(&other, || {
        let _span = info_span!("theirs").entered();
        pool.apply(say, 1).unwrap();
        let call = || pool.apply(say, 2).unwrap();
        dispatcher::with_default(&dispatch, || info_span!("ours").in_scope(call));
    });
    end(&pool);
    assert_eq!(ours.events(), ["number 1", "ours: number 2"]);
    assert_eq!(theirs.lines(), ["theirs closed"]);

    let pool = S::builder().processes(1).forward_events().build();
    for (id, dispatch) in [&dispatch, &other].into_iter().enumerate() {
        let call = || info_span!("call", id).in_scope(|| pool.apply(say, 3));
        dispatcher::with_default(dispatch, call).unwrap();
    }
    pool.apply(say, 4).unwrap();
    end(&pool);
    assert_eq!(ours.events()[0], "call{id=0}: number 3");
    assert_eq!(theirs.events(), ["call{id=1}: number 3"]);
}

/// The names of the spans that a line is about, without their fields.
fn names(line: &str) -> Vec<&str> {
    let spans = line.split(": ").filter(|span| span.contains('{'));
    spans.filter_map(|span| span.split('{').next()).collect()
}

fn work(number: u32) {
    let _inner = info_span!("inner", number).entered();
    info!("number {number}");
}

/// From the caller through the worker.
fn calls_and_items_are_spans<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(2).forward_spans().build();
    let outer = info_span!("outer", id = 1);
    let call = || pool.call(work).name("works");
    outer.in_scope(|| call().chunksize(3).map(0..10)).unwrap();
    drop(outer);
    end(&pool);
    let events = journal.events();
    assert_eq!(events.len(), 10, "{events:#?}");
    for event in &events {
        assert_eq!(names(event), ["outer", "call", "item", "inner"], "{event}");
        let is_of_call = event.contains("{otel.kind=\"producer\"}{otel.name=\"works\"}");
        let is_of_item = event.contains("{otel.kind=\"consumer\"}");
        assert!(
            is_of_call && is_of_item && event.contains("::work\"}"),
            "{event}"
        );
    }
    // Each says which item it is.
    for number in 0..10 {
        let fields = [
            format!("{{number={number}}}"),
            format!("{{procpool.item.index={number}}}"),
        ];
        let is_of = |it: &&String| fields.iter().all(|field| it.contains(field));
        assert_eq!(events.iter().filter(is_of).count(), 1, "{events:#?}");
    }
    let lines = journal.lines();
    let closed = |name: &str| {
        let is_it = |it: &&String| it.ends_with(" closed") && names(it) == [name];
        lines.iter().filter(is_it).count()
    };
    let all = ["outer", "call", "item", "inner"].map(closed);
    assert_eq!(all, [1, 1, 10, 10], "{lines:#?}");
}

/// Which are run many at once otherwise.
fn items_of_numbers_are_spans_too<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(1).forward_spans().build();
    let squares = pool.map(|x: u64| x * x, 0..50).unwrap();
    assert_eq!(squares.len(), 50);
    end(&pool);
    let lines = journal.lines();
    let items = lines.iter().filter(|line| names(line) == ["item"]).count();
    assert_eq!(items, 50, "{lines:#?}");
}

fn items_that_fail_say_so_in_their_spans<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(1).forward_spans().build();
    let outcomes = pool
        .call(|x: u32| assert_ne!(x, 2))
        .chunksize(5)
        .try_map(0..5);
    assert_eq!(outcomes.iter().filter(|it| it.is_err()).count(), 1);
    end(&pool);
    let lines = journal.lines();
    let is_item = |it: &&String| names(it) == ["item"];
    let has_failed = |it: &&String| it.contains("{otel.status_code=\"ERROR\"}");
    let failed: Vec<&String> = lines.iter().filter(is_item).filter(has_failed).collect();
    assert_eq!(failed.len(), 1, "{lines:#?}");
    assert!(failed[0].contains("{error.type=\"panic\"}"), "{failed:?}");
    assert_eq!(lines.iter().filter(is_item).count(), 5, "{lines:#?}");
}

fn spans_that_are_left_open_end_with_their_worker<S: Processes>() {
    let (journal, dispatch) = Journal::new();
    let _default = dispatcher::set_default(&dispatch);
    let pool = S::builder().processes(1).forward_spans().build();
    let crash = |(): ()| -> u64 {
        let _inner = info_span!("inner").entered();
        std::process::abort()
    };
    assert!(pool.apply(crash, ()).is_err());
    wait_until(|| {
        let lines = journal.lines();
        let is_item = |it: &&String| names(it) == ["item"] && it.contains("WorkerLost");
        let inner = lines.iter().filter(|it| it.starts_with("inner"));
        lines.iter().filter(is_item).count() == 1 && inner.count() == 1
    });
    end(&pool);
}
