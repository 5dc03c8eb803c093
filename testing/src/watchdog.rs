//! What ends a test that hangs: the stacks of everything that takes part, and the end of the
//! whole program.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::procfs;
use crate::stacks;

/// How long a test may take. None of them takes more than a few seconds on a machine that has
/// nothing else to do.
const LIMIT: Duration = Duration::from_secs(30);

/// The tests that run now, by the thread that they run on.
static RUNNING: Mutex<Option<HashMap<ThreadId, Running>>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

struct Running {
    name: String,
    begun: Instant,
    limit: Duration,
    /// Says what it waits for in vain.
    explain: Option<Explain>,
}

type Explain = Arc<dyn Fn() -> String + Send + Sync>;

fn running() -> MutexGuard<'static, Option<HashMap<ThreadId, Running>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test is watched while this lives.
pub struct Watched(ThreadId);

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(tests) = &mut *running() {
            tests.remove(&self.0);
        }
    }
}

/// Watches the test that runs on this thread.
pub fn watch(name: String) -> Watched {
    let thread = std::thread::current().id();
    let test = Running {
        name,
        begun: Instant::now(),
        limit: LIMIT,
        explain: None,
    };
    running().get_or_insert_default().insert(thread, test);
    CHANGED.notify_all();
    Watched(thread)
}

/// Says that the test on this thread moves so much that it may take this many times the usual
/// limit.
pub fn allow(times: u32) {
    if let Some(tests) = &mut *running()
        && let Some(test) = tests.get_mut(&std::thread::current().id())
    {
        test.limit = LIMIT * times;
    }
}

/// Says what the test on this thread waits for, should it be in vain, until this is dropped.
#[must_use]
pub fn explain(explain: impl Fn() -> String + Send + Sync + 'static) -> Explained {
    set_explanation(Some(Arc::new(explain)));
    Explained
}

/// See [`explain`].
pub struct Explained;

impl Drop for Explained {
    fn drop(&mut self) {
        set_explanation(None);
    }
}

fn set_explanation(explain: Option<Explain>) {
    if let Some(tests) = &mut *running()
        && let Some(test) = tests.get_mut(&std::thread::current().id())
    {
        test.explain = explain;
    }
}

/// Starts the thread that watches.
pub fn start() {
    std::thread::spawn(|| {
        let mut tests = running();
        loop {
            let now = Instant::now();
            let ends = |test: &Running| test.begun + test.limit;
            let next = tests.iter().flatten().map(|(_, test)| test);
            let next = next.min_by_key(|test| ends(test));
            match next {
                Some(test) if ends(test) <= now => {
                    let (name, explain) = (test.name.clone(), test.explain.clone());
                    drop(tests);
                    bark(&name, explain);
                }
                Some(test) => {
                    let wait = ends(test) - now;
                    let woken = CHANGED.wait_timeout(tests, wait);
                    tests = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    tests = CHANGED.wait(tests).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    });
}

/// Says what hangs where, and ends the program, its workers, and the programs that it runs.
fn bark(name: &str, explain: Option<Explain>) -> ! {
    let own = std::process::id();
    let mut processes = procfs::below(own);
    processes.insert(0, own);
    eprintln!("\n{name} hangs. These processes take part: {processes:?}");
    if let Some(explain) = explain {
        eprintln!("{}", explain());
    }
    stacks::print(&processes);
    eprintln!("{name} hangs; the stacks stand above");
    for pid in &processes[1..] {
        procfs::signal(*pid, Signal::KILL);
    }
    std::process::abort()
}
