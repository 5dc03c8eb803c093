//! Tasks that end badly, wherever in their way they do: the right error, at once, and nobody else
//! notices.

use std::collections::BTreeSet;

use procpool::{Pool, TaskError, TaskErrorKind};
use rustix::process::Signal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::backends::Processes;
use crate::failure_modes::{Fate, strike};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{signal, wait_for_death, wait_until, workers};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        an_argument_that_cannot_be_encoded,
        an_argument_that_cannot_be_decoded,
        a_function_that_fails,
        a_result_that_cannot_be_encoded,
        a_result_that_cannot_be_decoded,
        results_that_cannot_be_encoded_cost_no_worker,
        a_hundred_bad_among_a_hundred_good,
        one_death_in_a_chunk_of_a_hundred,
        several_deaths_in_one_chunk,
        a_death_with_every_kind_of_call,
        a_death_after_the_reply_costs_nothing,
        a_death_while_idle_costs_nothing,
        workers_that_kill_each_other,
        a_stack_overflow_is_a_death,
        a_worker_that_writes_rubbish_harms_itself_alone,
        what_a_dead_task_has_started_goes_with_it,
        a_caller_that_dies_takes_its_workers_along,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: dies_itself]
}

/// Where something happens on a task's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    EncodeArgument,
    DecodeArgument,
    Function,
    EncodeResult,
    DecodeResult,
}

/// What is to happen to a task, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Plan(Option<(Stage, Fate)>);

impl Plan {
    const GOOD: Self = Self(None);

    fn bad(stage: Stage, fate: Fate) -> Self {
        Self(Some((stage, fate)))
    }

    fn reach(self, stage: Stage) -> Result<(), &'static str> {
        match self.0 {
            Some((there, fate)) if there == stage => strike(fate),
            _ => Ok(()),
        }
    }
}

/// Fails in its way where it is encoded or decoded on the way to the worker.
struct Argument(Plan);

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0
            .reach(Stage::EncodeArgument)
            .map_err(ser::Error::custom)?;
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let plan = Plan::deserialize(deserializer)?;
        plan.reach(Stage::DecodeArgument)
            .map_err(de::Error::custom)?;
        Ok(Self(plan))
    }
}

/// The same on the way back.
#[derive(Debug)]
struct Outcome(Plan);

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0
            .reach(Stage::EncodeResult)
            .map_err(ser::Error::custom)?;
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let plan = Plan::deserialize(deserializer)?;
        plan.reach(Stage::DecodeResult).map_err(de::Error::custom)?;
        Ok(Self(plan))
    }
}

fn carry_out(argument: Argument) -> Outcome {
    argument
        .0
        .reach(Stage::Function)
        .expect("it was told not to return an error");
    Outcome(argument.0)
}

/// Puts a task of this failure mode alone, and among six good ones in one chunk, through a pool
/// whose other worker is in the middle of a task; says what the errors must be.
fn check<S: Processes>(stage: Stage, fates: &[Fate], kind: impl Fn(Fate) -> TaskErrorKind) {
    let pool = S::pool(2);
    let gate = Gate::new();
    let bystander = pool.apply_async(
        |ticket: String| {
            file_barrier::pass(&ticket);
            std::process::id()
        },
        gate.ticket(),
    );
    let pid = gate.wait_for(1)[0];
    for &fate in fates {
        let bad = Plan::bad(stage, fate);
        let assert_right = |error: TaskError, index: Option<usize>| {
            assert_eq!(error.kind(), kind(fate), "{fate:?}: {error}");
            assert_eq!(error.index(), index, "{fate:?}: {error}");
            assert_eq!(error.is_worker_lost(), Fate::DEADLY.contains(&fate));
            fate.assert_told(&error);
            let in_worker = !matches!(stage, Stage::EncodeArgument | Stage::DecodeResult);
            let worker = error.worker().map(|worker| worker.pid());
            assert_eq!(worker.is_some(), in_worker, "{fate:?}: {error}");
            assert_ne!(worker, Some(pid));
        };
        assert_right(pool.apply(carry_out, Argument(bad)).unwrap_err(), None);
        let plans = [
            Plan::GOOD,
            Plan::GOOD,
            Plan::GOOD,
            bad,
            Plan::GOOD,
            Plan::GOOD,
            Plan::GOOD,
        ];
        let call = pool.call(carry_out).chunksize(plans.len());
        let results = call.try_map(plans.map(Argument));
        assert_eq!(results.len(), plans.len());
        for (index, result) in results.into_iter().enumerate() {
            if index == 3 {
                assert_right(result.unwrap_err(), Some(3));
            } else {
                assert_eq!(result.unwrap().0, Plan::GOOD, "{fate:?}");
            }
        }
        assert!(pool.apply(carry_out, Argument(Plan::GOOD)).is_ok());
    }
    let deaths = fates.iter().filter(|fate| Fate::DEADLY.contains(fate));
    assert_eq!(pool.stats().workers_lost, 2 * deaths.count() as u64);
    assert!(!bystander.is_ready());
    gate.open();
    assert_eq!(bystander.get().unwrap(), pid);
}

fn encode_or_lost(fate: Fate) -> TaskErrorKind {
    if Fate::DEADLY.contains(&fate) {
        TaskErrorKind::WorkerLost
    } else {
        TaskErrorKind::Encode
    }
}

fn decode_or_lost(fate: Fate) -> TaskErrorKind {
    if Fate::DEADLY.contains(&fate) {
        TaskErrorKind::WorkerLost
    } else {
        TaskErrorKind::Decode
    }
}

fn all_fates() -> Vec<Fate> {
    [&Fate::HARMLESS[..], &Fate::DEADLY].concat()
}

/// In the parent, where only errors and panics are survived.
fn an_argument_that_cannot_be_encoded<S: Processes>() {
    check::<S>(Stage::EncodeArgument, &Fate::HARMLESS, encode_or_lost);
}

/// In the worker, which is lost if it dies of it.
fn an_argument_that_cannot_be_decoded<S: Processes>() {
    check::<S>(Stage::DecodeArgument, &all_fates(), decode_or_lost);
}

/// What a function returns is a value, so it can only panic, or take its worker with it.
fn a_function_that_fails<S: Processes>() {
    let fates = [&[Fate::Panic][..], &Fate::DEADLY].concat();
    check::<S>(Stage::Function, &fates, |fate| match fate {
        Fate::Panic => TaskErrorKind::Panicked,
        _ => TaskErrorKind::WorkerLost,
    });
}

/// In the worker, after the function has done its work.
fn a_result_that_cannot_be_encoded<S: Processes>() {
    check::<S>(Stage::EncodeResult, &all_fates(), encode_or_lost);
}

/// In the parent again.
fn a_result_that_cannot_be_decoded<S: Processes>() {
    check::<S>(Stage::DecodeResult, &Fate::HARMLESS, decode_or_lost);
}

/// Twenty results that cannot be encoded, and none of the workers is replaced.
fn results_that_cannot_be_encoded_cost_no_worker<S: Processes>() {
    let pool = S::pool(2);
    let before: BTreeSet<u32> = workers(&pool).into_iter().collect();
    for fate in Fate::HARMLESS {
        let bad = Plan::bad(Stage::EncodeResult, fate);
        for _ in 0..10 {
            let error = pool.apply(carry_out, Argument(bad)).unwrap_err();
            assert_eq!(error.kind(), TaskErrorKind::Encode);
        }
        let results = pool.try_map(carry_out, [bad; 10].map(Argument));
        assert!(results.iter().all(Result::is_err));
    }
    assert_eq!(workers(&pool).into_iter().collect::<BTreeSet<_>>(), before);
    assert_eq!(pool.stats().workers_started, 2);
}

fn die_if_odd(x: u32) -> u32 {
    if x % 2 == 1 {
        strike(Fate::Exit(3)).expect("it has exited");
    }
    x
}

/// A hundred tasks that take their worker with them cost none of the hundred others its value,
/// however they are sent.
fn a_hundred_bad_among_a_hundred_good<S: Processes>() {
    let pool = S::pool(3);
    for chunk in [None, Some(1), Some(50)] {
        let call = pool.call(die_if_odd);
        let results = match chunk {
            None => call.try_map(0..200),
            Some(items) => call.chunksize(items).try_map(0..200),
        };
        assert_eq!(results.len(), 200);
        for (x, result) in (0..).zip(results) {
            match result {
                Ok(y) => assert!(y == x && x % 2 == 0),
                Err(error) => {
                    assert_eq!((error.exit_code(), x % 2), (Some(3), 1), "{error}");
                    assert_eq!(error.index(), Some(x as usize));
                }
            }
        }
    }
    let handles: Vec<_> = (0..20).map(|x| pool.apply_async(die_if_odd, x)).collect();
    for (x, handle) in (0..).zip(handles) {
        assert_eq!(handle.get().ok(), (x % 2 == 0).then_some(x));
    }
}

/// Of a chunk of a hundred items one is lost: those before it keep their values, those after it get
/// theirs from another worker.
fn one_death_in_a_chunk_of_a_hundred<S: Processes>() {
    fn task((x, bad): (usize, usize)) -> (usize, u32) {
        if x == bad {
            std::process::abort();
        }
        (x, std::process::id())
    }
    let pool = S::pool(1);
    for bad in [0, 1, 37, 98, 99] {
        let items = (0..100).map(|x| (x, bad));
        let results = pool.call(task).chunksize(100).try_map(items);
        let mut pids = Vec::new();
        for (x, result) in results.into_iter().enumerate() {
            match result {
                Ok((y, pid)) => {
                    assert_eq!(y, x);
                    assert_ne!(x, bad);
                    pids.push(pid);
                }
                Err(error) => {
                    assert_eq!((error.index(), x), (Some(bad), bad));
                    assert_eq!(error.signal(), Some(Signal::ABORT.as_raw()));
                }
            }
        }
        assert_eq!(pids.len(), 99);
        let (before, after) = pids.split_at(bad);
        for part in [before, after] {
            let same = part.windows(2).all(|pair| pair[0] == pair[1]);
            assert!(same, "{bad}: {pids:?}; {}", pool.stats());
        }
    }
}

/// The rest of a chunk whose worker died may kill the next one as well.
fn several_deaths_in_one_chunk<S: Processes>() {
    let pool = S::pool(1);
    let handle = pool.call(die_if_odd).chunksize(10).map_async(0..10);
    assert_eq!(handle.get().unwrap_err().index(), Some(1));
    let results = pool.call(die_if_odd).chunksize(10).try_map(0..10);
    let good: Vec<u32> = results.into_iter().flatten().collect();
    assert_eq!(good, [0, 2, 4, 6, 8]);
    assert_eq!(pool.stats().workers_lost, 10);
}

/// The same error from every kind of call.
fn a_death_with_every_kind_of_call<S: Processes>() {
    let pool = S::pool(2);
    let single = [
        pool.apply(die_if_odd, 1).unwrap_err(),
        pool.apply_async(die_if_odd, 1).get().unwrap_err(),
    ];
    for error in single {
        assert!(error.is_worker_lost() && error.index().is_none(), "{error}");
    }
    let items = || [0, 2, 1, 4];
    let is_bad = |result: &Result<u32, TaskError>| result.is_err();
    let many = [
        pool.map(die_if_odd, items()).unwrap_err(),
        pool.try_map(die_if_odd, items()).remove(2).unwrap_err(),
        pool.map_async(die_if_odd, items()).get().unwrap_err(),
        pool.imap(die_if_odd, items()).nth(2).unwrap().unwrap_err(),
        pool.imap_unordered(die_if_odd, items())
            .find(is_bad)
            .unwrap()
            .unwrap_err(),
    ];
    for error in many {
        assert!(
            error.is_worker_lost() && error.index() == Some(2),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains('3') && text.contains("PoolWorker-"), "{text}");
    }
}

/// A worker that dies between two tasks has taken nothing with it: the result that it sent is
/// there, and the next task goes to another.
fn a_death_after_the_reply_costs_nothing<S: Processes>() {
    let pool = S::pool(1);
    for _ in 0..5 {
        let gate = Gate::new();
        let task = |ticket: String| {
            std::thread::spawn(move || {
                file_barrier::pass(&ticket);
                std::process::abort();
            });
            std::process::id()
        };
        let pid = pool.apply(task, gate.ticket()).unwrap();
        gate.open();
        wait_for_death(&[pid]);
        let next = pool.apply(|()| std::process::id(), ()).unwrap();
        assert_ne!(next, pid);
    }
    assert_eq!(pool.stats().failed, 0);
    assert_eq!(pool.stats().workers_lost, 5);
}

/// Idle workers that somebody kills, one or all of them, are replaced, and no task hears of it.
fn a_death_while_idle_costs_nothing<S: Processes>() {
    let pool = S::pool(2);
    assert_eq!(pool.map(|x: u64| x, 0..4).unwrap(), [0, 1, 2, 3]);
    for count in [1, 2] {
        let victims = workers(&pool)[..count].to_vec();
        for pid in &victims {
            signal(*pid, Signal::KILL);
        }
        // Without waiting: tasks may come while the pool learns of it.
        let results = pool.map(|x: u64| x, 0..100);
        assert_eq!(results.unwrap().len(), 100);
        wait_until(|| {
            let now = workers(&pool);
            now.len() == 2 && !now.iter().any(|pid| victims.contains(pid))
        });
    }
    let stats = pool.stats();
    assert_eq!(
        (stats.failed, stats.workers_lost, stats.workers_started),
        (0, 3, 5)
    );
}

/// Workers that shoot at each other while they run tasks: each task ends, with its value or as
/// lost, and the pool goes on.
fn workers_that_kill_each_other<S: Processes>() {
    fn shoot((gate, target): (String, u32)) -> u32 {
        file_barrier::pass(&gate);
        signal(target, Signal::KILL);
        target
    }
    for shooters in [1, 2, 5, 13] {
        let pool = S::pool(shooters + 1);
        let pids = workers(&pool);
        let gate = Gate::new();
        let shots = pids.iter().cycle().skip(1).zip(&pids).map(|row| *row.0);
        let handles: Vec<_> = shots
            .take(shooters)
            .map(|target| pool.apply_async(shoot, (gate.ticket(), target)))
            .collect();
        gate.wait_for(shooters);
        gate.open();
        for handle in handles {
            if let Err(error) = handle.get() {
                assert_eq!(error.signal(), Some(Signal::KILL.as_raw()), "{error}");
            }
        }
        wait_until(|| pool.stats().workers_lost > 0);
        assert_eq!(pool.map(|x: u64| x, 0..4).unwrap(), [0, 1, 2, 3]);
    }
}

/// A function that calls itself without end.
fn a_stack_overflow_is_a_death<S: Processes>() {
    #[allow(unconditional_recursion, reason = "that is the point")]
    fn deeper(x: u64) -> u64 {
        std::hint::black_box(deeper(std::hint::black_box(x) + 1) + 1)
    }
    let pool = S::quiet_pool(1);
    let error = pool.apply(deeper, 1).unwrap_err();
    assert!(error.is_worker_lost(), "{error}");
    // The Rust runtime aborts; where it does not see it, the kernel does.
    let signals = [Signal::ABORT, Signal::SEGV].map(|signal| Some(signal.as_raw()));
    assert!(signals.contains(&error.signal()), "{error}");
    assert_eq!(pool.apply(|x: u64| x, 5).unwrap(), 5);
}

/// A worker that fills the memory which it shares with the parent with anything at all is lost; the
/// parent reads none of it, and the other worker goes on.
fn a_worker_that_writes_rubbish_harms_itself_alone<S: Processes>() {
    /// Fills all shared mappings of this process, by the kernel's hand.
    fn scribble(seed: u64) -> usize {
        use std::os::unix::fs::FileExt;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let memory = std::fs::File::options().write(true).open("/proc/self/mem");
        let memory = memory.unwrap();
        let mut written = 0;
        for line in maps.lines().filter(|line| line.contains("rw-s")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
            let mut state = seed;
            let rubbish = std::iter::repeat_with(|| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 56) as u8
            });
            let rubbish: Vec<u8> = rubbish.take((to - from) as usize).collect();
            memory.write_all_at(&rubbish, from).unwrap();
            written += rubbish.len();
        }
        written
    }
    let pool = S::pool(2);
    let gate = Gate::new();
    let bystander = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    for seed in 0..20 {
        let pid = pool.apply(|()| std::process::id(), ()).unwrap();
        // It dies of it there and then, or goes on. What it says afterwards may be anything.
        if seed % 2 == 0 {
            let task = |seed| {
                scribble(seed);
                strike(Fate::Exit(3)).is_ok()
            };
            let _ = pool.apply(task, seed);
        } else if let Ok(written) = pool.apply(scribble, seed) {
            assert!(
                written > 4096,
                "it has nothing to scribble on: this tests nothing"
            );
        }
        signal(pid, Signal::KILL);
        wait_until(|| !workers(&pool).contains(&pid));
        let results = pool.map(|x: u64| x * x, 0..10).unwrap();
        assert_eq!(results, Vec::from_iter((0..10).map(|x| x * x)));
    }
    gate.open();
    bystander.get().unwrap();
    assert_eq!(pool.stats().workers_lost, 20);
}

/// A child process that a task has started goes when the task's worker is lost.
fn what_a_dead_task_has_started_goes_with_it<S: Processes>() {
    fn start((tally, fate): (String, Fate)) {
        let child = std::process::Command::new("sleep").arg("1000").spawn();
        file_barrier::add(&tally, child.expect("there is sleep").id());
        strike(fate).expect("it has died");
    }
    let pool = S::pool(1);
    for fate in Fate::DEADLY {
        let tally = Tally::new();
        assert!(pool.apply(start, (tally.ticket(), fate)).is_err());
        let children = tally.numbers();
        assert_eq!(children.len(), 1);
        wait_for_death(&children);
    }
}

/// Says in what way to die: the stage and the number of the failure mode.
const WAY: &str = "CONFORMANCE_DEATH";

fn dies_itself<S: Processes>() {
    let way = std::env::var(WAY).expect("a way to die");
    let (stage, fate) = way.split_once(' ').expect("two words");
    let fate = Fate::DEADLY[fate.parse::<usize>().expect("a number")];
    let stage = match stage {
        "encode" => Stage::EncodeArgument,
        _ => Stage::DecodeResult,
    };
    let pool = S::pool(2);
    let _ = pool.apply(carry_out, Argument(Plan::bad(stage, fate)));
    unreachable!("it has died");
}

/// Arguments are encoded and results decoded in the caller. A death there is the program's own, so
/// there is no error to deliver and nobody to deliver it; but it leaves nobody behind.
fn a_caller_that_dies_takes_its_workers_along<S: Processes>() {
    use std::os::unix::process::ExitStatusExt;
    for stage in ["encode", "decode"] {
        for (number, fate) in Fate::DEADLY.into_iter().enumerate() {
            let program = again::<S>("dies_itself").env(WAY, format!("{stage} {number}"));
            let mut program = program.start();
            let status = program.status();
            let expected = match fate {
                Fate::Exit(code) => (Some(code), None),
                Fate::Abort => (None, Some(Signal::ABORT.as_raw())),
                Fate::Segv => (None, Some(Signal::SEGV.as_raw())),
                _ => (None, Some(Signal::KILL.as_raw())),
            };
            assert_eq!(
                (status.code(), status.signal()),
                expected,
                "{stage} {fate:?}"
            );
            wait_until(|| program.processes().is_empty());
            assert_eq!(program.files(), [] as [std::path::PathBuf; 0]);
        }
    }
}
