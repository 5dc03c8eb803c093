//! `tracing` events of workers in the parent's subscriber.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex};

use procpool::Pool;
use tracing::{debug, error, info, info_span, trace, warn};
use tracing_core::field::{Field, Visit};
use tracing_core::metadata::LevelFilter;
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};

use crate::backends::{Builder, Processes};
use crate::procfs::wait_until;
use crate::program::{Program, again, programs};
use crate::trial::Test;
use crate::watchdog;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        events_arrive_as_they_were,
        spans_come_with_their_events,
        events_before_a_crash_arrive,
        events_of_replacements_and_initializers_arrive,
        levels_that_nobody_wants_stay_there,
        huge_events_are_cut,
        records_of_log_say_where_they_were,
        a_flood_is_dropped_and_counted,
        without_forwarding_nothing_arrives,
        more_places_than_any_program_has,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: tells_of_many_places]
}

/// An event as a subscriber sees it.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    level: Level,
    target: String,
    file: Option<String>,
    line: Option<u32>,
    fields: BTreeMap<String, String>,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// A subscriber that remembers.
#[derive(Clone)]
struct Memory {
    seen: Arc<Mutex<Vec<Seen>>>,
    level: LevelFilter,
    /// It stands still until this is true.
    goes_on: Arc<(Mutex<bool>, Condvar)>,
}

impl Memory {
    fn new(level: LevelFilter) -> Self {
        Self {
            seen: Arc::default(),
            level,
            goes_on: Arc::new((Mutex::new(true), Condvar::new())),
        }
    }

    /// Builds a pool whose events come here.
    fn pool<B: Builder>(&self, builder: B) -> B::Pool {
        let dispatch = Dispatch::new(self.clone());
        dispatcher::with_default(&dispatch, || builder.forward_events().build())
    }

    fn stop(&self) {
        *self.goes_on.0.lock().unwrap() = false;
    }

    fn go_on(&self) {
        *self.goes_on.0.lock().unwrap() = true;
        self.goes_on.1.notify_all();
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn messages(&self) -> Vec<String> {
        let seen = self.seen();
        seen.iter()
            .map(|it| it.field("message").to_owned())
            .collect()
    }
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Subscriber for Memory {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let goes_on = self.goes_on.0.lock().unwrap();
        drop(
            self.goes_on
                .1
                .wait_while(goes_on, |goes_on| !*goes_on)
                .unwrap(),
        );
        let metadata = event.metadata();
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        self.seen.lock().unwrap().push(Seen {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            file: metadata.file().map(str::to_owned),
            line: metadata.line(),
            fields,
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn end(pool: &impl Pool) {
    pool.close();
    pool.join().unwrap();
}

/// The line of the event in it.
const LINE: u32 = line!() + 2;
fn report(number: i32) {
    warn!(target: "tests::report", number, half = 0.5, big = u64::MAX, odd = number % 2 == 1, name = "né", "number {number}");
}

/// Level, target, place, message and fields are those that the event had in the worker; who it was
/// and what it was running is added.
fn events_arrive_as_they_were<S: Processes>() {
    let memory = Memory::new(LevelFilter::TRACE);
    let pool = memory.pool(S::builder().processes(2));
    pool.map(report, -3..40).unwrap();
    let pids: Vec<String> = {
        let workers = pool.stats().workers;
        workers
            .iter()
            .map(|worker| worker.pid().to_string())
            .collect()
    };
    end(&pool);
    let mut seen = memory.seen();
    seen.sort_by_key(|it| it.field("number").parse::<i32>().unwrap());
    assert_eq!(seen.len(), 43);
    for (number, it) in (-3..40).zip(&seen) {
        assert_eq!(
            (it.level, it.target.as_str()),
            (Level::WARN, "tests::report")
        );
        assert_eq!(it.file.as_deref(), Some(file!()));
        assert_eq!(it.line, Some(LINE));
        assert_eq!(it.field("message"), format!("number {number}"));
        assert_eq!(it.field("number"), number.to_string());
        assert_eq!(it.field("half"), "0.5");
        assert_eq!(it.field("big"), u64::MAX.to_string());
        assert_eq!(it.field("odd"), (number % 2 == 1).to_string());
        assert_eq!(it.field("name"), "né");
        assert!(it.field("worker").starts_with("PoolWorker-"), "{it:?}");
        assert!(pids.contains(&it.field("pid").to_owned()), "{it:?}");
        assert!(it.field("task").ends_with("::report"), "{it:?}");
        assert_eq!((it.field("spans"), it.field("cut")), ("", ""));
    }
    assert_eq!(pool.stats().events_dropped, 0);
}

/// An event says which spans it was in, from the outermost on, with what they were given, also
/// later.
fn spans_come_with_their_events<S: Processes>() {
    let memory = Memory::new(LevelFilter::TRACE);
    let pool = memory.pool(S::builder().processes(1));
    let task = |()| {
        let outer = info_span!("outer", number = 7, late = tracing::field::Empty);
        let inner = outer.in_scope(|| info_span!("inner", text = "a b"));
        outer.record("late", "now");
        drop(outer);
        inner.in_scope(|| info!("in both"));
        info!("in none");
        let apart = info_span!(parent: None, "apart");
        info!(parent: &apart, "in one");
        let copy = inner.clone();
        drop(inner);
        let _entered = copy.entered();
        info!("in both again");
    };
    pool.apply(task, ()).unwrap();
    end(&pool);
    let both = "outer{number=7 late=\"now\"}:inner{text=\"a b\"}";
    let seen = memory.seen();
    let spans: Vec<_> = seen
        .iter()
        .map(|it| (it.field("message"), it.field("spans")))
        .collect();
    assert_eq!(
        spans,
        [
            ("in both", both),
            ("in none", ""),
            ("in one", "apart"),
            ("in both again", both)
        ]
    );
}

/// What a worker has said before it died is delivered.
fn events_before_a_crash_arrive<S: Processes>() {
    let memory = Memory::new(LevelFilter::TRACE);
    let pool = memory.pool(S::builder().processes(1));
    let task = |number: u32| {
        error!("about to crash: {number}");
        std::process::abort();
    };
    for number in 0..5 {
        let error = pool.apply(task, number).map(|(): ()| ()).unwrap_err();
        assert!(error.is_worker_lost());
    }
    end(&pool);
    let expected: Vec<_> = (0..5)
        .map(|number| format!("about to crash: {number}"))
        .collect();
    assert_eq!(memory.messages(), expected);
}

/// Each worker forwards its events, from its initializer on.
fn events_of_replacements_and_initializers_arrive<S: Processes>() {
    let memory = Memory::new(LevelFilter::TRACE);
    let builder = S::builder().processes(1).max_tasks_per_child(1);
    let pool = memory.pool(builder.initializer(|()| info!("hello"), ()));
    for _ in 0..4 {
        pool.apply(|()| info!("work"), ()).unwrap();
    }
    end(&pool);
    let seen = memory.seen();
    let of = |message: &str| -> Vec<String> {
        let of = seen.iter().filter(|it| it.field("message") == message);
        of.map(|it| it.field("worker").to_owned()).collect()
    };
    let workers: Vec<_> = (1..=4)
        .map(|number| format!("PoolWorker-{number}"))
        .collect();
    assert_eq!(of("work"), workers);
    // A successor's pipe is another one than its predecessor's, and there may be two of them.
    let mut hello = of("hello");
    hello.sort_unstable();
    assert_eq!(hello[..4], workers);
}

/// Where the parent has a subscriber for everything at the same time, everything may be sent; but
/// what the pool's own does not want it does not get.
fn levels_that_nobody_wants_stay_there<S: Processes>() {
    let memory = Memory::new(LevelFilter::INFO);
    let pool = memory.pool(S::builder().processes(1));
    let task = |()| {
        trace!("no");
        debug!("no");
        info!("yes");
        error!("yes");
    };
    pool.apply(task, ()).unwrap();
    end(&pool);
    assert_eq!(memory.messages(), ["yes", "yes"]);
}

/// An event that is larger than the pipe takes at once arrives without what is too much, and says
/// so.
fn huge_events_are_cut<S: Processes>() {
    let memory = Memory::new(LevelFilter::TRACE);
    let pool = memory.pool(S::builder().processes(1));
    let task = |()| {
        let text = "é".repeat(100_000);
        let _span = info_span!("span", text).entered();
        info!(a = text, b = text, c = text, d = text, e = text, "{text}");
    };
    pool.apply(task, ()).unwrap();
    end(&pool);
    let seen = memory.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].field("message"), "é".repeat(1024));
    assert_eq!(seen[0].field("cut"), "true");
    assert_eq!(pool.stats().events_dropped, 0);
}

/// The bridge from `log` makes events that say by fields where they were: they arrive as if they
/// were `tracing`'s own.
fn records_of_log_say_where_they_were<S: Processes>() {
    let memory = Memory::new(LevelFilter::TRACE);
    let pool = memory.pool(S::builder().processes(1));
    let task = |()| {
        info!(
            target: "log",
            { log.target = "library::part", log.module_path = "library", log.file = "part.rs", log.line = 12_u64 },
            "from log"
        );
    };
    pool.apply(task, ()).unwrap();
    end(&pool);
    let seen = &memory.seen()[0];
    assert_eq!(
        (seen.target.as_str(), seen.line),
        ("library::part", Some(12))
    );
    assert_eq!(seen.file.as_deref(), Some("part.rs"));
    assert!(
        !seen.fields.keys().any(|name| name.starts_with("log.")),
        "{seen:?}"
    );
}

/// A million events, while the subscriber stands still, keep no task, and each one is either
/// delivered in the end or counted.
fn a_flood_is_dropped_and_counted<S: Processes>() {
    const EVENTS: u64 = 1_000_000;
    watchdog::allow(4);
    let memory = Memory::new(LevelFilter::TRACE);
    let pool = memory.pool(S::builder().processes(2));
    memory.stop();
    let flood = |events: u64| {
        for number in 0..events {
            info!(number, "flood");
        }
    };
    pool.map(flood, [EVENTS / 4; 4]).unwrap();
    assert!(memory.seen().is_empty(), "the subscriber stands still");
    memory.go_on();
    end(&pool);
    let seen = memory.seen();
    let told = seen
        .iter()
        .filter(|it| it.field("message") == "flood")
        .count() as u64;
    let notices: Vec<_> = seen
        .iter()
        .filter(|it| it.target == "procpool::worker")
        .collect();
    let dropped: u64 = notices
        .iter()
        .map(|it| it.field("dropped").parse::<u64>().unwrap())
        .sum();
    assert!(told > 0 && dropped > 0, "{told} {dropped}");
    assert_eq!(told + dropped, EVENTS);
    assert_eq!(pool.stats().events_dropped, dropped);
    assert!(notices.iter().all(|it| it.level == Level::WARN));
    assert!(notices[0].field("worker").starts_with("PoolWorker-"));
}

/// Forwarding is asked for.
fn without_forwarding_nothing_arrives<S: Processes>() {
    let memory = Memory::new(LevelFilter::TRACE);
    let dispatch = Dispatch::new(memory.clone());
    let pool = dispatcher::with_default(&dispatch, || S::builder().processes(1).build());
    pool.apply(|()| info!("to nobody"), ()).unwrap();
    end(&pool);
    wait_until(|| pool.stats().workers.is_empty());
    assert_eq!(memory.messages(), [""; 0]);
}

fn tells_of_many_places<S: Processes>() {
    let memory = Memory::new(LevelFilter::TRACE);
    let pool = memory.pool(S::builder().processes(1));
    let task = |place: u64| {
        // A record of `log` names its place at run time.
        info!(target: "log", { log.target = "library", log.line = place }, "from log");
    };
    for first in (0..5000).step_by(100) {
        pool.map(task, first..first + 100).unwrap();
        // Or there would be too many at once.
        wait_until(|| memory.seen.lock().unwrap().len() as u64 == first + 100);
    }
    end(&pool);
    let seen = memory.seen();
    assert_eq!(seen.len(), 5000);
    let (ours, theirs): (Vec<_>, Vec<_>) =
        seen.iter().partition(|it| it.target == "procpool::worker");
    assert!(
        ours.len() >= 5000 - 2048 && !theirs.is_empty(),
        "{}",
        ours.len()
    );
    assert!(ours.iter().all(|it| {
        it.field("message")
            .starts_with("from log worker=\"PoolWorker-1\"")
    }));
    assert!(ours.iter().all(|it| it.field("target") == "library"));
}

/// A worker whose events have ever new callsites gets no memory for all of them; its events arrive
/// in another form.
fn more_places_than_any_program_has<S: Processes>() {
    // Not here, for the other tests' places are of the same process.
    assert_eq!(again::<S>("tells_of_many_places").lines(), [""; 0]);
}
