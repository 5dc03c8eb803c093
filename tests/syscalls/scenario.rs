//! A pool that does a little of everything.

use std::fmt::Display;
use std::io::IoSlice;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use procpool::{Broadcast, BuildError, Output, OutputLine, Pool, TaskError, TaskErrorKind};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::sandbox::{CALLS, refuse};

/// How long the pool may take to end once it is closed. It takes milliseconds.
const JOIN_LIMIT: Duration = Duration::from_secs(10);

/// Lines of the workers' error output that have arrived.
static LINES: AtomicUsize = AtomicUsize::new(0);

/// Runs it with a pool of this kind. Two more words are a call and the number of an error: that
/// call is refused. Says a line for each step: its name, a colon, and `right`, `error` with the
/// error's text, or `WRONG` and in what way. The exit code is a failure if anything was wrong.
///
/// With [`WORKERS`] before the two, only the workers are refused it, once they have begun.
pub(crate) fn run(backend: &str, refused: &[String]) -> ExitCode {
    // Of tasks that abort.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    if let [who, call, errno] = refused
        && who == WORKERS
    {
        return run_in_sandboxes(backend, call, errno);
    }
    if let [call, errno] = refused {
        let call = CALLS.iter().find(|known| known.name == *call);
        let errno = errno.parse().map(Errno::from_raw_os_error);
        let refused = call
            .zip(errno.ok())
            .map(|(call, errno)| refuse(*call, errno));
        if !matches!(refused, Some(Ok(()))) {
            println!("sandbox: WRONG {refused:?}");
            return ExitCode::FAILURE;
        }
    }
    let mut steps = Steps::default();
    steps.say("begin", "right");
    let open = descriptors();
    let hear = |_: &OutputLine| {
        LINES.fetch_add(1, Ordering::Relaxed);
    };
    match backend {
        "fork" => {
            let builder = procpool::ForkPool::builder().processes(2);
            steps.all(builder.stderr(Output::lines(hear)).build());
        }
        "spawn" => {
            let builder = procpool::SpawnPool::builder().processes(2);
            steps.all(builder.stderr(Output::lines(hear)).build());
        }
        other => steps.say("backend", &format!("WRONG there is no {other}")),
    }
    steps.leftovers(open.as_deref());
    steps.say("end", "right");
    steps.outcome
}

/// The word for a scenario in which an initializer puts up the sandbox, so that the workers have it
/// and nobody else.
pub(crate) const WORKERS: &str = "workers";

fn run_in_sandboxes(backend: &str, call: &str, errno: &str) -> ExitCode {
    fn put_up((call, errno): (String, i32)) {
        let call = CALLS.iter().find(|known| known.name == call);
        let call = call.expect("it is one of those");
        refuse(*call, Errno::from_raw_os_error(errno)).expect("a filter can be set");
    }
    let mut steps = Steps::default();
    let sandbox = (call.to_owned(), errno.parse().expect("a number"));
    let works = |pool: &dyn Fn() -> Result<Vec<u32>, TaskError>| match pool() {
        Ok(values) if values == [1, 2, 3, 4] => "right".to_owned(),
        Ok(values) => format!("WRONG {values:?}"),
        Err(error) => format!("error {error}"),
    };
    let step = |x: u32| x + 1;
    let said = if backend == "fork" {
        let builder = procpool::ForkPool::builder().processes(2);
        let pool = builder.initializer(put_up, sandbox).build();
        pool.map(|pool| works(&|| pool.call(step).chunksize(1).map(0..4)))
    } else {
        let builder = procpool::SpawnPool::builder().processes(2);
        let pool = builder.initializer(put_up, sandbox).build();
        pool.map(|pool| works(&|| pool.call(step).chunksize(1).map(0..4)))
    };
    steps.say(
        "map",
        &said.unwrap_or_else(|error| format!("WRONG {error}")),
    );
    steps.outcome
}

#[derive(Debug)]
struct Steps {
    outcome: ExitCode,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            outcome: ExitCode::SUCCESS,
        }
    }
}

impl Steps {
    fn say(&mut self, step: &str, what: &str) {
        if what.starts_with("WRONG") {
            self.outcome = ExitCode::FAILURE;
        }
        // Not by `write`, which may be what fails.
        let line = format!("{step}: {}\n", what.replace('\n', " "));
        let _ = rustix::io::writev(rustix::stdio::stdout(), &[IoSlice::new(line.as_bytes())]);
    }

    /// A step that brings a value, or an error whose text says something.
    fn value<T>(
        &mut self,
        step: &str,
        outcome: Result<T, impl Display>,
        is_right: impl FnOnce(&T) -> bool,
    ) {
        match outcome {
            Ok(value) if is_right(&value) => self.say(step, "right"),
            Ok(_) => self.say(step, "WRONG value"),
            Err(error) if error.to_string().trim().is_empty() => {
                self.say(step, "WRONG error without a text");
            }
            Err(error) => self.say(step, &format!("error {error}")),
        }
    }

    /// A step that ends with an error of this kind.
    fn failure<T>(&mut self, step: &str, outcome: Result<T, TaskError>, kind: TaskErrorKind) {
        match outcome {
            Ok(_) => self.say(step, "WRONG success"),
            Err(error) if error.kind() == kind => self.say(step, "right"),
            Err(error) => self.value(step, Err::<(), _>(error), |()| false),
        }
    }

    fn all(&mut self, pool: Result<impl Pool + Send, BuildError>) {
        match pool {
            // On a thread of its own, with which what a thread keeps for itself goes as well.
            Ok(pool) => {
                let pool = Mutex::new(Some(pool));
                let steps = Mutex::new(&mut *self);
                let all = || {
                    let pool = pool.lock().expect("nobody panics with it").take();
                    let mut steps = steps.lock().expect("nobody panics with it");
                    pool.into_iter().for_each(|pool| steps.with(pool));
                };
                let ended = std::thread::scope(|scope| {
                    // The fault may hit this thread, too.
                    let mut tries = (0..3).map(|_| Builder::new().spawn_scoped(scope, all));
                    tries.find_map(Result::ok).map(|thread| thread.join())
                });
                match ended {
                    Some(Ok(())) => {}
                    Some(Err(_)) => self.say("scenario", "WRONG panic"),
                    None => self.say("scenario", "error there is no thread"),
                }
            }
            Err(error) => self.value("build", Err::<(), _>(error), |()| false),
        }
    }

    fn with(&mut self, pool: impl Pool) {
        self.value("apply", pool.apply(|x: u64| x + 1, 1), |x| *x == 2);
        let doubled = pool.map(|x: u64| x * 2, 0..2_000);
        self.value("map", doubled, |all| {
            all.iter().copied().eq((0..4_000).step_by(2))
        });
        let died = pool.apply(|()| abort(), ());
        self.failure("death", died, TaskErrorKind::WorkerLost);
        let doubled = pool.map(|x: u64| x * 2, 0..100);
        self.value("after death", doubled, |all| {
            all.iter().copied().eq((0..200).step_by(2))
        });
        let late = pool.call(hang).timeout(Duration::from_millis(50)).apply(());
        self.failure("deadline", late, TaskErrorKind::TimedOut);
        self.shared(&pool);
        let bulk = pool.apply(|bytes: usize| vec![7_u8; bytes], 3 << 20);
        self.value("bulk", bulk, |all| {
            all.len() == 3 << 20 && all.iter().all(|byte| *byte == 7)
        });
        let killed = pool.apply_async(hang, ());
        let begun = Instant::now();
        while pool.stats().running == 0 && begun.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
        killed.kill();
        self.failure("kill", killed.get(), TaskErrorKind::Cancelled);
        let handles: Vec<_> = (0..50).map(|x| pool.apply_async(|x: u64| x, x)).collect();
        let all: Result<Vec<u64>, _> = handles.into_iter().map(|handle| handle.get()).collect();
        self.value("asynchronous", all, |all| all.iter().copied().eq(0..50));
        let dump = pool.dump().to_string();
        self.value("dump", Ok::<_, TaskError>(dump), |text| !text.is_empty());
        pool.close();
        match pool.join_timeout(JOIN_LIMIT) {
            Ok(true) => self.say("join", "right"),
            outcome => self.say("join", &format!("WRONG {outcome:?}")),
        }
        drop(pool);
        let heard = LINES.load(Ordering::Relaxed) > 0;
        self.say(
            "output",
            if heard {
                "right"
            } else {
                "error nothing was heard"
            },
        );
    }

    fn shared(&mut self, pool: &impl Pool) {
        match pool.broadcast(vec![1.5_f64; 10_000]) {
            Ok(numbers) => {
                let indices = (0..20).map(|index| (numbers.clone(), index));
                let got = pool.map(|(all, at): (Broadcast<[f64]>, usize)| all[at], indices);
                self.value("broadcast", got, |all| *all == [1.5; 20]);
            }
            Err(error) => self.value("broadcast", Err::<(), _>(error), |()| false),
        }
        let made = pool.apply(
            |numbers: usize| {
                let filled = Broadcast::filled(numbers, |numbers: &mut [u64]| numbers.fill(3));
                filled.map_err(|error| error.to_string())
            },
            50_000,
        );
        match made {
            Ok(made) => self.value("shared result", made, |all| {
                all.len() == 50_000 && all.iter().all(|number| *number == 3)
            }),
            Err(error) => self.value("shared result", Err::<(), _>(error), |()| false),
        }
    }

    /// What is left when the pool is gone. The fork server ends with the last pool.
    fn leftovers(&mut self, before: Option<&[String]>) {
        // What could not be read is no thread.
        let threads = || {
            let folder = std::fs::read_dir("/proc/self/task");
            folder.map(|tasks| tasks.flatten().count())
        };
        let limit = Instant::now() + JOIN_LIMIT;
        // The kernel tears threads down after they were joined.
        while threads().is_ok_and(|count| count > 1) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
        match threads() {
            // None: the folder could not be read to its end.
            Ok(0 | 1) | Err(_) => self.say("threads", "right"),
            Ok(count) => self.say("threads", &format!("WRONG {count}")),
        }
        match (before, descriptors()) {
            (Some(before), Some(after)) if before.len() != after.len() => {
                self.say("descriptors", &format!("WRONG {before:?} became {after:?}"));
            }
            _ => self.say("descriptors", "right"),
        }
    }
}

/// Dies, and says something before.
fn abort() {
    eprintln!("last words");
    std::process::abort();
}

/// Waits for nothing.
fn hang(_: ()) {
    loop {
        std::thread::park();
    }
}

/// What the open descriptors of this process stand for. `None`: it cannot be seen.
fn descriptors() -> Option<Vec<String>> {
    let entries = Path::new("/proc/self/fd").read_dir().ok()?;
    let names: Result<Vec<_>, _> = entries
        .map(|entry| entry.and_then(|entry| entry.path().read_link()))
        .collect();
    let mut names: Vec<_> = names
        .ok()?
        .iter()
        .map(|name| name.display().to_string())
        // That of the folder itself; and what the standard library keeps, where its maps find no
        // other random numbers.
        .filter(|name| !name.starts_with("/proc/") && name != "/dev/urandom")
        .collect();
    names.sort();
    // At least the standard ones are open.
    (!names.is_empty()).then_some(names)
}
