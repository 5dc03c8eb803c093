//! A task that means harm: it costs itself and its worker, and nobody else anything.
//!
//! What a hostile worker can do without being found out: to answer for the tasks that were handed
//! to its own worker, and to keep them waiting. The tests that follow one therefore look at the
//! tasks of other workers, and at what comes after that worker is gone.
#![allow(unsafe_code)]

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use procpool::{Emitter, Pool, Stateless, StreamHandle, TaskErrorKind};

use crate::backends::Processes;
use crate::file_barrier::{self, Gate, Tally};
use crate::hostile_support::{
    Bells, CONSUMED, Memory, PROGRESS, REQUEST_HEAD, RESPONSE_HEAD, RESPONSE_TAIL, RINGS, Random,
};
use crate::procfs::{is_alive, wait_until, workers};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_region_full_of_rubbish,
        words_that_change_all_the_time,
        positions_that_cannot_be,
        a_doorbell_that_never_stops,
        rubbish_in_the_doorbell,
        all_descriptors_closed,
        a_record_without_end_is_killed_at_its_deadline,
        a_record_without_end_keeps_nobody_from_the_pool,
        a_record_without_end_keeps_nobody_waiting_longer_than_asked,
        an_answer_to_no_question_takes_no_memory,
        a_task_that_hides_that_it_has_begun_dies_once,
        a_task_that_says_it_is_always_another_meets_its_deadline,
        a_task_that_hides_that_it_has_begun_meets_its_deadline,
        a_task_that_hides_that_it_has_begun_can_be_killed,
        a_task_that_has_answered_meets_its_deadline,
        a_task_that_has_answered_can_be_killed,
        a_task_that_has_answered_costs_no_later_one_with_a_deadline,
        values_that_nobody_has_asked_for,
        values_beyond_what_may_be_unread,
        credit_that_the_worker_has_given_itself,
        a_task_that_has_emitted_and_hides_that_it_has_begun_dies_once,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: answers_without_a_question, endless_record_with_a_deadline]
}

fn square(x: u64) -> u64 {
    x * x
}

fn own_pid(_: ()) -> u32 {
    std::process::id()
}

/// Blocks until the worker is killed.
fn stay() -> ! {
    loop {
        thread::park();
    }
}

/// A pool of two, one of whose workers is in the middle of a task of its own.
struct Scene<S: Processes> {
    pool: S::Pool,
    gate: Gate,
    bystander: procpool::TaskHandle<u64>,
    /// The worker that is at the gate.
    busy: u32,
}

impl<S: Processes> Scene<S> {
    fn new() -> Self {
        let pool = S::pool(2);
        let gate = Gate::new();
        let task = |ticket: String| {
            file_barrier::pass(&ticket);
            77
        };
        let bystander = pool.apply_async(task, gate.ticket());
        let busy = gate.wait_for(1)[0];
        Self {
            pool,
            gate,
            bystander,
            busy,
        }
    }

    /// The worker that is not at the gate. It may be on its way, and the one before it may be dead
    /// without the pool's having heard of it.
    fn idle(&self) -> u32 {
        let mut found = None;
        wait_until(|| {
            found = workers(&self.pool)
                .into_iter()
                .find(|pid| *pid != self.busy && is_alive(*pid));
            found.is_some()
        });
        found.unwrap()
    }

    /// Gives the hostile worker something to do until it is killed.
    fn provoke(&self, rogue: u32) {
        wait_until(|| {
            let call = self.pool.call(own_pid).timeout(Duration::from_millis(200));
            // Whatever it says.
            let _ = call.apply(());
            !is_alive(rogue)
        });
    }

    /// The pool does what it should, with two workers, of which the busy one has noticed nothing.
    fn check(self) {
        let Self {
            pool,
            gate,
            bystander,
            busy,
        } = self;
        // Not to the last hostile worker, which may be dead without the pool's having heard of it:
        // what it has left in its region may say that it has begun whatever is handed to it.
        wait_until(|| {
            let here = workers(&pool);
            here.len() == 2 && here.iter().all(|pid| is_alive(*pid))
        });
        assert!(workers(&pool).contains(&busy), "the other worker");
        assert_eq!(
            pool.map(square, 0..100).unwrap(),
            Vec::from_iter((0..100).map(square))
        );
        gate.open();
        assert_eq!(bystander.get().unwrap(), 77);
        assert_eq!(
            pool.map(square, 0..100).unwrap(),
            Vec::from_iter((0..100).map(square))
        );
        pool.close();
        pool.join().unwrap();
    }
}

/// Random bytes everywhere, the rings included, many times over.
fn a_region_full_of_rubbish<S: Processes>() {
    let scene = Scene::<S>::new();
    for seed in 0..40 {
        let rogue = scene.idle();
        let fill = |seed| {
            thread::spawn(move || {
                let (memory, mut random) = (Memory::find(), Random(seed));
                loop {
                    memory.fill(&mut random);
                }
            });
        };
        let _ = scene.pool.apply(fill, seed);
        scene.provoke(rogue);
    }
    scene.check();
}

/// Near and far values in all words, by a thread that goes on while other tasks run.
fn words_that_change_all_the_time<S: Processes>() {
    let scene = Scene::<S>::new();
    for seed in 0..40 {
        let rogue = scene.idle();
        let play = |seed| {
            thread::spawn(move || {
                let (memory, mut random) = (Memory::find(), Random(seed));
                loop {
                    memory.play(&mut random);
                }
            });
        };
        // It may as well have made itself sleep forever, which only a deadline ends.
        let limit = Duration::from_secs(1);
        let _ = scene.pool.call(play).timeout(limit).apply(seed);
        scene.provoke(rogue);
    }
    scene.check();
}

/// Each position of the worker's, set to what it cannot be: the parent sees that.
fn positions_that_cannot_be<S: Processes>() {
    let pool = S::pool(1);
    for word in [REQUEST_HEAD, RESPONSE_TAIL] {
        for value in [u64::MAX, 1 << 63, 1 << 40] {
            let lie = |(word, value): (u64, u64)| {
                thread::spawn(move || {
                    let (memory, bells) = (Memory::find(), Bells::find().expect("a bell"));
                    loop {
                        memory.set(word, value);
                        // So that somebody looks.
                        bells.ring();
                    }
                });
            };
            let rogue = pool.apply(own_pid, ()).unwrap();
            let _ = pool.apply(lie, (word, value));
            // More than goes into its ring at once: the parent asks for space, and sees it.
            wait_until(|| {
                let large = pool.call(|bytes: Vec<u8>| bytes.len()).retries(1);
                assert_eq!(large.apply(vec![0; 8 << 20]).unwrap(), 8 << 20);
                !is_alive(rogue)
            });
        }
    }
    assert_eq!(pool.map(square, 0..3).unwrap(), [0, 1, 4]);
}

/// Rings and rings, from several threads, while both workers work.
fn a_doorbell_that_never_stops<S: Processes>() {
    let scene = Scene::<S>::new();
    let flood = |_: ()| {
        for _ in 0..3 {
            let bells = Bells::find().expect("a bell");
            thread::spawn(move || {
                loop {
                    bells.ring();
                }
            });
        }
    };
    let rogue = scene.idle();
    scene.pool.apply(flood, ()).unwrap();
    for _ in 0..20 {
        let results = scene.pool.map(square, 0..1000).unwrap();
        assert_eq!(results, Vec::from_iter((0..1000).map(square)));
        let handle = scene.pool.apply_async(square, 9);
        assert_eq!(handle.get().unwrap(), 81);
    }
    assert!(is_alive(rogue), "it does its work");
    scene.check();
}

/// Bytes that are no rings.
fn rubbish_in_the_doorbell<S: Processes>() {
    let scene = Scene::<S>::new();
    for seed in 0..20 {
        let write = |seed| {
            let (bells, mut random) = (Bells::find().expect("a bell"), Random(seed));
            for _ in 0..1000 {
                let word = random.next().to_le_bytes();
                bells.add(&word[..random.next() as usize % 9]);
            }
            // The next ring finds it full.
            bells.silence();
            bells.add(&(u64::MAX - 1).to_ne_bytes());
            seed
        };
        assert_eq!(scene.pool.apply(write, seed).unwrap(), seed);
    }
    scene.check();
}

/// A worker that nobody can hear any more is of no use, even if it works.
fn all_descriptors_closed<S: Processes>() {
    let scene = Scene::<S>::new();
    for _ in 0..5 {
        let close = |_: ()| -> u32 {
            let numbers = fs::read_dir("/proc/self/fd").unwrap().flatten();
            let numbers: Vec<_> = numbers.map(|entry| entry.file_name()).collect();
            for number in numbers {
                let number = number.to_str().unwrap().parse().unwrap();
                if fs::exists(format!("/proc/self/fd/{number}")).unwrap() {
                    // SAFETY: its owner finds that it is gone, which is the point.
                    unsafe { rustix::io::close(number) };
                }
            }
            stay()
        };
        let error = scene.pool.apply(close, ()).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    }
    scene.check();
}

/// Begins to answer, and never ends: whenever the parent looks there is something new.
/// `step`: the most bytes that are added at a time.
fn answer_endlessly(step: u64) -> u32 {
    let (memory, bells) = (Memory::find(), Bells::find().expect("a bell"));
    let capacity = memory.ring();
    let mut tail = memory.get(RESPONSE_TAIL);
    // A value, with a head of twelve bytes that says: as long as may be without an option.
    let length = 4_u64 << 30;
    let head = [&(u32::MAX << 2).to_le_bytes()[..], &length.to_le_bytes()].concat();
    memory.write(RINGS + capacity + tail % capacity, &head);
    tail += head.len() as u64;
    let [published, taken] = [RESPONSE_TAIL, RESPONSE_HEAD].map(|word| {
        let word = (memory.start + word) as *const AtomicU64;
        // SAFETY: it is a word of this worker's region, which is never unmapped.
        unsafe { &*word }
    });
    published.store(tail, Ordering::Release);
    for turn in 0_u64.. {
        let space = capacity - (tail - taken.load(Ordering::Relaxed));
        tail += space.min(step);
        published.store(tail, Ordering::Release);
        if turn % 1024 == 0 {
            bells.ring();
        }
    }
    unreachable!("it never ends")
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kibibytes
        .expect("the kernel counts")
        .trim()
        .parse::<u64>()
        .expect("a number")
        << 10
}

fn endless_record_with_a_deadline<S: Processes>() {
    let pool = S::pool(2);
    let call = pool.call(answer_endlessly);
    let error = call
        .timeout(Duration::from_millis(100))
        .apply(64)
        .unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::TimedOut, "{error}");
    assert_eq!(pool.map(square, 0..3).unwrap(), [0, 1, 4]);
    // No more can arrive in that time on any machine; it has announced far more.
    assert!(peak() < 2 << 30, "{} bytes", peak());
}

/// Its deadline ends it. What has arrived until then is all the memory that it has cost.
fn a_record_without_end_is_killed_at_its_deadline<S: Processes>() {
    assert_eq!(
        again::<S>("endless_record_with_a_deadline").lines(),
        [""; 0]
    );
}

/// There is always something new in a ring, at each look.
fn a_record_without_end_keeps_nobody_from_the_pool<S: Processes>() {
    let scene = Scene::<S>::new();
    let handle = scene.pool.apply_async(answer_endlessly, 1);
    let rogue = scene.idle();
    let cpu = || fs::read_to_string(format!("/proc/{rogue}/stat")).unwrap_or_default();
    // It is at it, and the supervisor, if anybody, looks into the ring.
    let before = cpu();
    wait_until(|| cpu() != before);
    for _ in 0..1000 {
        assert_eq!(scene.pool.stats().workers.len(), 2);
    }
    handle.kill();
    assert!(handle.get().unwrap_err().is_cancelled());
    wait_until(|| !is_alive(rogue));
    scene.check();
}

/// Nor does that keep a wait with a limit from its end.
fn a_record_without_end_keeps_nobody_waiting_longer_than_asked<S: Processes>() {
    let scene = Scene::<S>::new();
    let mut handle = scene.pool.apply_async(answer_endlessly, 1);
    assert!(handle.get_timeout(Duration::from_millis(50)).is_none());
    handle.kill();
    assert!(handle.get().unwrap_err().is_cancelled());
    scene.check();
}

fn answers_without_a_question<S: Processes>() {
    let pool = S::pool(1);
    // The value of this task, and then one more without end where the frame's time should come.
    let answer = |_: ()| -> u32 {
        let (memory, bells) = (Memory::find(), Bells::find().expect("a bell"));
        let capacity = memory.ring();
        let mut tail = memory.get(RESPONSE_TAIL);
        let value = [&(4_u32 << 2).to_le_bytes()[..], &ANSWER.to_le_bytes()].concat();
        let head = [&(u32::MAX << 2).to_le_bytes()[..], &[0xff; 8]].concat();
        let both = [value, head].concat();
        memory.write(RINGS + capacity + tail % capacity, &both);
        tail += both.len() as u64;
        memory.set(RESPONSE_TAIL, tail);
        let begun = Instant::now();
        // Long enough for gigabytes. A parent that falls for it is spared the worst.
        while begun.elapsed() < Duration::from_secs(2) {
            tail = memory.get(RESPONSE_HEAD) + capacity;
            memory.set(RESPONSE_TAIL, tail);
            bells.ring();
        }
        stay()
    };
    let _ = pool.apply(answer, ());
    assert_eq!(pool.map(square, 0..3).unwrap(), [0, 1, 4]);
    assert!(peak() < 256 << 20, "{} bytes", peak());
}

/// An answer where none is due is refused at its head, and not when its last byte has arrived.
fn an_answer_to_no_question_takes_no_memory<S: Processes>() {
    assert_eq!(again::<S>("answers_without_a_question").lines(), [""; 0]);
}

/// It takes its worker down, and says that it was another one: it is not run again and again.
fn a_task_that_hides_that_it_has_begun_dies_once<S: Processes>() {
    let scene = Scene::<S>::new();
    let hide = |_: ()| -> u32 {
        let memory = Memory::find();
        for word in PROGRESS {
            memory.set(word, 0);
        }
        std::process::abort()
    };
    let error = scene.pool.apply(hide, ()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    scene.check();
}

/// Says that nothing has begun, all the time.
fn hide(ticket: String) -> u32 {
    let memory = Memory::find();
    let begun = memory.begun_of_first();
    memory.set(begun, 0);
    file_barrier::add(&ticket, "hidden");
    loop {
        memory.set(begun, 0);
    }
}

/// A deadline holds for what a worker denies that it runs.
fn a_task_that_hides_that_it_has_begun_meets_its_deadline<S: Processes>() {
    let (pool, tally) = (S::pool(1), Tally::new());
    let call = pool.call(hide).timeout(Duration::from_millis(100));
    let error = call.apply(tally.ticket()).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    // The first time it may have been the worker that was stopped.
    assert_eq!(tally.count(), 2);
    assert_eq!(pool.map(square, 0..3).unwrap(), [0, 1, 4]);
}

/// So does the order to kill it.
fn a_task_that_hides_that_it_has_begun_can_be_killed<S: Processes>() {
    let (pool, tally) = (S::pool(1), Tally::new());
    let rogue = pool.stats().workers[0].pid();
    let handle = pool.apply_async(hide, tally.ticket());
    wait_until(|| tally.count() > 0);
    handle.kill();
    assert!(handle.get().is_err());
    wait_until(|| !is_alive(rogue));
    assert_eq!(pool.map(square, 0..3).unwrap(), [0, 1, 4]);
}

/// What it answers.
const ANSWER: u32 = 0x0707_0707;

/// Answers, without the time that ends its frame, and goes on.
fn answer_and_stay(_: ()) -> u32 {
    put(&[&(4_u32 << 2).to_le_bytes()[..], &ANSWER.to_le_bytes()].concat());
    stay()
}

/// The same with that time.
fn answer_it_all_and_stay(_: ()) -> u32 {
    let value = [&(4_u32 << 2).to_le_bytes()[..], &ANSWER.to_le_bytes()].concat();
    let time = [&(8_u32 << 2 | 2).to_le_bytes()[..], &[0; 8]].concat();
    put(&[value, time].concat());
    stay()
}

/// Publishes records that it has made itself.
fn put(records: &[u8]) {
    let (memory, bells) = (Memory::find(), Bells::find().expect("a bell"));
    let capacity = memory.ring();
    let tail = memory.get(RESPONSE_TAIL);
    memory.write(RINGS + capacity + tail % capacity, records);
    memory.set(RESPONSE_TAIL, tail + records.len() as u64);
    bells.ring();
}

/// A deadline holds for what a worker says that it has done.
fn a_task_that_has_answered_meets_its_deadline<S: Processes>() {
    let pool = S::pool(1);
    let rogue = pool.stats().workers[0].pid();
    let call = pool.call(answer_and_stay);
    // It has answered, so its answer may count, or not.
    let _ = call.timeout(Duration::from_millis(100)).apply(());
    wait_until(|| !is_alive(rogue));
    assert_eq!(pool.map(square, 0..3).unwrap(), [0, 1, 4]);
}

/// So does the order to kill it.
fn a_task_that_has_answered_can_be_killed<S: Processes>() {
    let pool = S::pool(1);
    let rogue = pool.stats().workers[0].pid();
    let mut handle = pool.apply_async(answer_and_stay, ());
    assert!(handle.get_timeout(Duration::from_millis(50)).is_none());
    handle.kill();
    let _ = handle.get();
    wait_until(|| !is_alive(rogue));
    assert_eq!(pool.map(square, 0..3).unwrap(), [0, 1, 4]);
}

/// What is handed to its worker next does not begin there. A deadline is what tells that from a
/// worker that is slow.
fn a_task_that_has_answered_costs_no_later_one_with_a_deadline<S: Processes>() {
    let pool = S::pool(1);
    let rogue = pool.stats().workers[0].pid();
    // The answer counts.
    assert_eq!(pool.apply(answer_it_all_and_stay, ()).unwrap(), ANSWER);
    let later = pool.call(square).timeout(Duration::from_millis(100));
    let later = later.map_async(0..3);
    assert_eq!(later.get().unwrap(), [0, 1, 4]);
    assert!(!is_alive(rogue));
}

/// A value of eight bytes that a task emits.
fn emitted(number: u64) -> Vec<u8> {
    let length = 8 | 1_u64 << 62;
    let head = [&(u32::MAX << 2).to_le_bytes()[..], &length.to_le_bytes()].concat();
    [head, number.to_le_bytes().to_vec()].concat()
}

/// They are refused, for nobody would take them.
fn values_that_nobody_has_asked_for<S: Processes>() {
    let scene = Scene::<S>::new();
    let emit = |_: ()| -> u32 {
        put(&emitted(7));
        stay()
    };
    let error = scene.pool.apply(emit, ()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert!(error.to_string().contains("rubbish"), "{error}");
    scene.check();
}

/// What has come stays, as far as it may; then the worker is killed.
fn check_overrun<S: Processes>(emit: impl Fn(String, &Emitter<u64>) + Stateless) {
    let scene = Scene::<S>::new();
    let gate = Gate::new();
    let mut values = scene.pool.call(emit).buffer(5).stream(gate.ticket());
    let rogue = gate.wait_for(1)[0];
    gate.open();
    // Nobody reads while it emits.
    wait_until(|| !is_alive(rogue));
    for number in 0..5 {
        assert_eq!(values.next(), Some(Ok(number)));
    }
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert!(error.to_string().contains("rubbish"), "{error}");
    assert!(values.next().is_none());
    scene.check();
}

fn values_beyond_what_may_be_unread<S: Processes>() {
    check_overrun::<S>(|gate: String, _: &Emitter<u64>| {
        file_barrier::pass(&gate);
        put(&(0..100).flat_map(emitted).collect::<Vec<_>>());
        stay()
    });
}

fn credit_that_the_worker_has_given_itself<S: Processes>() {
    check_overrun::<S>(|gate: String, out: &Emitter<u64>| {
        file_barrier::pass(&gate);
        let memory = Memory::find();
        let item = memory.get(memory.begun_of_first());
        for number in 0.. {
            memory.set(CONSUMED, item << 32 | number);
            out.emit(number).unwrap();
        }
    });
}

/// Its caller has a value, and must not have it a second time.
fn a_task_that_has_emitted_and_hides_that_it_has_begun_dies_once<S: Processes>() {
    let scene = Scene::<S>::new();
    let hide = |_: (), out: &Emitter<u64>| {
        out.emit(7).unwrap();
        let memory = Memory::find();
        for word in PROGRESS {
            memory.set(word, 0);
        }
        std::process::abort()
    };
    let mut values: StreamHandle<u64, ()> = scene.pool.call(hide).retries(3).stream(());
    assert_eq!(values.next(), Some(Ok(7)));
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert!(values.next().is_none());
    scene.check();
}

/// One of many in a chunk, which says that it is the next one, and the next one.
fn a_task_that_says_it_is_always_another_meets_its_deadline<S: Processes>() {
    let pool = S::pool(1);
    let advance = |_: u32| -> u32 {
        let memory = Memory::find();
        let word = memory.begun_of_first();
        for begun in (1..100).cycle() {
            memory.set(word, begun);
        }
        0
    };
    let call = pool.call(advance).chunksize(100);
    let call = call.timeout(Duration::from_millis(100));
    let handle = call.map_async(0..100);
    wait_until(|| pool.stats().workers_lost > 0);
    handle.kill();
    assert!(handle.get().is_err());
    assert_eq!(pool.map(square, 0..3).unwrap(), [0, 1, 4]);
}
