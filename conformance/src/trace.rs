//! Traces: a file that says what every worker did.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use procpool::{Pool, Trace};
use tempfile::TempDir;
use tinyjson::{InnerAsRef, JsonValue};

use crate::backends::{Builder, Processes, Subject};
use crate::failure_modes::{Fate, strike};
use crate::file_barrier::{self, Gate};
use crate::procfs::{wait_until, workers};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn traced_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        every_item_is_traced,
        a_trace_has_a_beginning_and_an_end,
        each_trace_has_what_happens_while_it_is_on,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        items_lie_beside_each_other_in_each_worker,
        ends_and_replacements_are_traced,
        a_trace_and_metrics_go_together,
        a_pool_ends_before_its_trace,
        a_trace_is_readable_when_its_program_is_killed,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: killed_while_traced]
}

/// A file for a trace.
struct Paper {
    folder: TempDir,
}

impl Paper {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("trace.json")
    }

    fn trace(&self, pool: &impl Pool) -> Trace {
        pool.trace_to(self.path())
            .expect("a pool that can be traced")
    }

    /// The events of a trace that was finished.
    fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.path()).expect("the file is there");
        let array: Vec<JsonValue> = text
            .parse::<JsonValue>()
            .expect("JSON")
            .try_into()
            .expect("an array");
        array.into_iter().map(Event).collect()
    }

    /// Those of items.
    fn items(&self) -> Vec<Event> {
        let mut events = self.events();
        events.retain(|event| event.text("cat").as_deref() == Some("task"));
        events
    }
}

/// A line of a trace.
#[derive(Debug, PartialEq)]
struct Event(JsonValue);

impl Event {
    fn get<T: InnerAsRef + Clone>(value: &JsonValue, name: &str) -> Option<T> {
        let object: &HashMap<String, JsonValue> = value.get()?;
        object.get(name)?.get::<T>().cloned()
    }

    fn text(&self, name: &str) -> Option<String> {
        Self::get(&self.0, name)
    }

    fn number(&self, name: &str) -> f64 {
        Self::get(&self.0, name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    fn argument<T: InnerAsRef + Clone>(&self, name: &str) -> Option<T> {
        Self::get(&self.0["args"], name)
    }

    fn index(&self) -> usize {
        self.argument::<f64>("index").expect("an index") as usize
    }

    fn outcome(&self) -> String {
        self.argument("outcome").expect("an outcome")
    }

    fn pid(&self) -> u32 {
        self.number("pid") as u32
    }

    /// When an item began and when it ended, in microseconds.
    fn span(&self) -> (f64, f64) {
        let start = self.number("ts");
        (start, start + self.number("dur"))
    }
}

fn square(x: u64) -> u64 {
    x * x
}

/// Once, with its function, index and outcome, whatever kind of call it was in.
fn every_item_is_traced<S: Subject>() {
    let pool = S::pool(2);
    let paper = Paper::new();
    let trace = paper.trace(&pool);
    pool.map(square, 0..100).unwrap();
    let fails = |x: u64| assert_ne!(x, 3, "three");
    assert!(pool.map_async(fails, 0..5).get().unwrap_err().is_panic());
    pool.apply(square, 1).unwrap();
    assert_eq!(pool.imap(square, 0..10).count(), 10);
    trace.finish().unwrap();
    pool.map(square, 0..10).unwrap();
    let items = paper.items();
    assert_eq!(items.len(), 116);
    let called = |name: &str| {
        let is = |item: &&Event| item.text("name").is_some_and(|it| it.ends_with(name));
        items.iter().filter(is).collect::<Vec<_>>()
    };
    assert_eq!(called("trace::square").len(), 111);
    let failing = called("{{closure}}");
    let indices: BTreeSet<usize> = failing.iter().map(|item| item.index()).collect();
    assert_eq!(indices, BTreeSet::from_iter(0..5));
    for item in &items {
        let (start, end) = item.span();
        assert!(0.0 <= start && start <= end, "{item:?}");
        assert_eq!(item.argument("argument_bytes"), Some(8.0), "{item:?}");
        assert!(item.argument::<f64>("queued_us").is_some(), "{item:?}");
        let fails = item.index() == 3 && failing.contains(&item);
        let outcome = if fails { "Panicked" } else { "Succeeded" };
        assert_eq!(item.outcome(), outcome, "{item:?}");
    }
}

/// Also if nothing happens; and items that are not run are points in it.
fn a_trace_has_a_beginning_and_an_end<S: Subject>() {
    let pool = S::pool(1);
    let paper = Paper::new();
    paper.trace(&pool).finish().unwrap();
    assert!(paper.events().len() >= 2);
    let trace = paper.trace(&pool);
    pool.close();
    assert!(pool.apply(square, 1).unwrap_err().is_closed());
    drop(trace);
    let missing = paper
        .folder
        .path()
        .join("no such folder")
        .join("trace.json");
    assert_eq!(
        pool.trace_to(missing).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    paper.events();
}

/// There may be several.
fn each_trace_has_what_happens_while_it_is_on<S: Subject>() {
    let pool = S::pool(1);
    let (first, second) = (Paper::new(), Paper::new());
    let early = first.trace(&pool);
    pool.apply(square, 1).unwrap();
    let late = second.trace(&pool);
    pool.map(square, 2..4).unwrap();
    early.finish().unwrap();
    pool.map(square, 4..7).unwrap();
    late.finish().unwrap();
    assert_eq!((first.items().len(), second.items().len()), (3, 5));
}

/// A worker runs one item at a time: no two overlap, and each is in the worker that ran it.
fn items_lie_beside_each_other_in_each_worker<S: Processes>() {
    let pool = S::pool(2);
    let paper = Paper::new();
    let trace = paper.trace(&pool);
    let ran = pool.map(|_: u64| std::process::id(), 0..500).unwrap();
    trace.finish().unwrap();
    let items = paper.items();
    assert_eq!(items.len(), ran.len());
    for item in &items {
        assert_eq!(item.pid(), ran[item.index()], "{item:?}");
    }
    for pid in workers(&pool) {
        let mut spans: Vec<_> = items
            .iter()
            .filter(|item| item.pid() == pid)
            .map(Event::span)
            .collect();
        spans.sort_by(|a, b| a.0.total_cmp(&b.0));
        for pair in spans.windows(2) {
            // Three digits behind the point are kept.
            assert!(pair[0].1 <= pair[1].0 + 0.002, "{pair:?}");
        }
    }
}

fn ends_and_replacements_are_traced<S: Processes>() {
    let start = |(): ()| ();
    let builder = S::builder().processes(1).env("SETTINGS", "are no work");
    let pool = builder.initializer(start, ()).build();
    let paper = Paper::new();
    let trace = paper.trace(&pool);
    let crash = pool.apply(|(): ()| strike(Fate::Kill).is_ok(), ());
    assert!(crash.unwrap_err().is_worker_lost());
    let gate = Gate::new();
    let limit = Duration::from_millis(50);
    let late = pool
        .call(|ticket: String| file_barrier::pass(&ticket))
        .timeout(limit);
    assert!(late.apply(gate.ticket()).unwrap_err().is_timeout());
    pool.apply(square, 1).unwrap();
    trace.finish().unwrap();
    let events = paper.events();
    let is = |event: &Event, name: &str| event.text("name").as_deref() == Some(name);
    let names = |name: &str| events.iter().filter(|event| is(event, name)).count();
    assert_eq!(names("up"), 3);
    assert_eq!(names("initializer"), 2, "of workers that came after");
    assert_eq!((names("ended: Crashed"), names("ended: Deadline")), (1, 1));
    let items = paper.items();
    let ended = |outcome: &str| items.iter().find(|item| item.outcome() == outcome);
    assert!(ended("WorkerLost").is_some(), "{items:?}");
    let (start, end) = ended("TimedOut").expect("it is there").span();
    assert!(end - start >= 50_000.0, "{start} {end}");
}

/// Each has what it asked for.
fn a_trace_and_metrics_go_together<S: Processes>() {
    let pool = S::pool(1);
    let paper = Paper::new();
    let trace = paper.trace(&pool);
    let all = pool.call(square).measured().map(0..20);
    assert!(all.iter().all(|one| one.metrics.run.is_some()));
    assert_eq!(pool.map(square, 0..20).unwrap().len(), 20);
    trace.finish().unwrap();
    let one = pool.call(square).measured().apply(2);
    assert!(one.metrics.run.is_some());
    assert_eq!(paper.items().len(), 40);
}

fn a_pool_ends_before_its_trace<S: Processes>() {
    let paper = Paper::new();
    let pool = S::pool(1);
    let trace = paper.trace(&pool);
    pool.apply(square, 1).unwrap();
    let gate = Gate::new();
    let handle = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    drop(pool);
    assert!(handle.get().unwrap_err().is_cancelled());
    trace.finish().unwrap();
    let events = paper.events();
    assert!(
        events
            .iter()
            .any(|event| event.text("name").as_deref() == Some("ended: Terminated"))
    );
    assert_eq!(paper.items().len(), 2);
}

/// The array has no end then, but lines.
fn a_trace_is_readable_when_its_program_is_killed<S: Processes>() {
    let paper = Paper::new();
    let path = paper.path().to_str().expect("the path is text").to_owned();
    let mut program = again::<S>("killed_while_traced").env(PAPER, &path).start();
    let items = || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("\"cat\":\"task\""))
            .count()
    };
    wait_until(|| items() >= 10);
    program.kill();
    let text = fs::read_to_string(&path).unwrap();
    let whole = text.lines().skip(1).filter(|line| line.ends_with("},"));
    let mut count = 0;
    for line in whole {
        let event: Result<JsonValue, _> = line.trim_end_matches(',').parse();
        assert!(event.is_ok(), "{line}");
        count += 1;
    }
    assert!(count >= 10);
}

/// Names the file to trace to.
const PAPER: &str = "CONFORMANCE_PAPER";

fn killed_while_traced<S: Processes>() {
    let pool = S::pool(1);
    let path = std::env::var(PAPER).expect("the test has set it");
    let _trace = pool.trace_to(path).expect("a pool that can be traced");
    for x in 0.. {
        pool.apply(square, x % 1000).unwrap();
    }
}
