//! What becomes of what workers print.

use std::fs;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use procpool::{Output, OutputLine, OutputStream, Pool, worker};

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Gate};
use crate::procfs::wait_until;
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        lines_arrive_in_order_with_the_name_of_their_worker,
        lines_of_replacements_have_their_names,
        what_programs_of_tasks_print_is_captured,
        long_lines_come_in_pieces,
        what_is_no_text_arrives,
        a_line_without_an_end_arrives_when_its_worker_dies,
        a_lost_task_has_the_last_lines,
        a_killed_task_has_the_last_lines,
        a_worker_that_fails_to_begin_says_why,
        output_that_nobody_captures_has_no_last_lines,
        a_slow_handler_costs_lines_and_no_task,
        a_handler_that_panics_is_survived,
        a_handler_may_use_the_pool,
        a_flood_keeps_nobody_from_anything,
        a_program_that_outlives_its_worker_keeps_nobody,
        nothing_is_printed_that_is_discarded,
        output_is_passed_on,
        captured_pools_leave_nothing,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: prints_to_nowhere, prints_by_way_of_the_pool, builds_pools_that_capture]
}

/// The lines that a handler was given.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<OutputLine>>>);

impl Heard {
    fn output(&self) -> Output {
        let heard = self.clone();
        Output::lines(move |line| heard.0.lock().unwrap().push(line.clone()))
    }

    fn lines(&self) -> Vec<OutputLine> {
        self.0.lock().unwrap().clone()
    }

    fn texts(&self) -> Vec<String> {
        let lines = self.lines();
        lines.iter().map(ToString::to_string).collect()
    }
}

fn end(pool: &impl Pool) {
    pool.close();
    pool.join().unwrap();
}

fn abort(_: ()) {
    std::process::abort();
}

fn say(text: String) {
    println!("{text}");
}

/// Whatever workers print arrives in the parent by lines, each stream's in order, with who has
/// written it; after `join`, all of it.
fn lines_arrive_in_order_with_the_name_of_their_worker<S: Processes>() {
    let (out, err) = (Heard::default(), Heard::default());
    let builder = S::builder().processes(2);
    let pool = builder.stdout(out.output()).stderr(err.output()).build();
    static RUN: AtomicUsize = AtomicUsize::new(0);
    let task = |_: u32| {
        // What a worker runs before what is not the order of the items.
        let run = RUN.fetch_add(1, Ordering::SeqCst);
        println!("out {run}");
        eprintln!("err {run}");
        print!("and\r\n\n");
        worker::current().unwrap().pid()
    };
    let pids = pool.map(task, 0..100).unwrap();
    end(&pool);
    for (heard, stream, name, others) in [
        (&out, OutputStream::Stdout, "out", 200),
        (&err, OutputStream::Stderr, "err", 0),
    ] {
        let lines = heard.lines();
        assert_eq!(lines.len(), 100 + others);
        let mut last = [None; 2];
        for line in &lines {
            assert_eq!((line.stream(), line.dropped()), (stream, 0));
            let text = line.text();
            let Some(number) = text.strip_prefix(name) else {
                assert!(["and", ""].contains(&&*text), "{text:?}");
                continue;
            };
            let number: usize = number.trim().parse().unwrap();
            let by = line.worker();
            assert!(pids.contains(&by.pid()));
            assert_eq!(by.name(), format!("PoolWorker-{}", by.number()));
            let last = &mut last[by.number() as usize - 1];
            assert_eq!(number, last.map_or(0, |last| last + 1));
            *last = Some(number);
        }
    }
    assert_eq!(pool.stats().lines_dropped, 0);
}

/// A worker that takes another one's place prints in its own name.
fn lines_of_replacements_have_their_names<S: Processes>() {
    let heard = Heard::default();
    let builder = S::builder().processes(1).max_tasks_per_child(1);
    let pool = builder.stdout(heard.output()).build();
    for number in 0..5 {
        pool.apply(say, format!("{number}")).unwrap();
        pool.apply(abort, ()).unwrap_err();
    }
    end(&pool);
    let lines = heard.lines();
    assert_eq!(heard.texts(), ["0", "1", "2", "3", "4"]);
    for pair in lines.windows(2) {
        let [one, other] = [pair[0].worker(), pair[1].worker()];
        assert!(one.number() < other.number() && one.pid() != other.pid());
        assert!(one.generation() < other.generation());
    }
}

/// What a task's children write is its worker's.
fn what_programs_of_tasks_print_is_captured<S: Processes>() {
    let heard = Heard::default();
    let builder = S::builder().processes(1);
    let pool = builder
        .stdout(heard.output())
        .stderr(heard.output())
        .build();
    let task = |()| {
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", "echo one; echo two >&2"])
            .status();
        status.unwrap().success()
    };
    assert!(pool.apply(task, ()).unwrap());
    end(&pool);
    let mut texts = heard.texts();
    texts.sort();
    assert_eq!(texts, ["one", "two"]);
}

/// A line of a megabyte arrives in pieces, in full.
fn long_lines_come_in_pieces<S: Processes>() {
    let heard = Heard::default();
    let pool = S::builder().processes(1).stdout(heard.output()).build();
    pool.apply(say, "é".repeat(1 << 19)).unwrap();
    pool.apply(say, "short".to_owned()).unwrap();
    end(&pool);
    let lines = heard.lines();
    let (last, pieces) = lines.split_last().unwrap();
    assert_eq!(last.text(), "short");
    let joined: Vec<&[u8]> = pieces.iter().map(OutputLine::bytes).collect();
    assert_eq!(joined.concat(), "é".repeat(1 << 19).as_bytes());
    let (end, cut) = pieces.split_last().unwrap();
    assert!(!end.is_cut() && cut.iter().all(OutputLine::is_cut));
    assert!(
        pieces
            .iter()
            .all(|it| it.bytes().len() <= OutputLine::MAX_BYTES)
    );
}

fn write(bytes: Vec<u8>) {
    let mut stdout = io::stdout();
    stdout.write_all(&bytes).unwrap();
    stdout.flush().unwrap();
}

/// Bytes arrive as they are, and as text as far as they are one.
fn what_is_no_text_arrives<S: Processes>() {
    let heard = Heard::default();
    let pool = S::builder().processes(1).stdout(heard.output()).build();
    pool.apply(write, b"\xff\0ok\n\xf0\x9f".to_vec()).unwrap();
    end(&pool);
    let lines = heard.lines();
    assert_eq!(lines[0].bytes(), b"\xff\0ok");
    assert_eq!(lines[0].text(), "\u{fffd}\0ok");
    assert_eq!(lines[1].bytes(), b"\xf0\x9f");
    assert_eq!(lines.len(), 2);
}

/// What was written before a crash is not lost, an unfinished line included.
fn a_line_without_an_end_arrives_when_its_worker_dies<S: Processes>() {
    let heard = Heard::default();
    let pool = S::builder().processes(1).stdout(heard.output()).build();
    let task = |()| -> () {
        write(b"whole\nhal".to_vec());
        write(b"f".to_vec());
        std::process::abort();
    };
    pool.apply(task, ()).unwrap_err();
    end(&pool);
    assert_eq!(heard.texts(), ["whole", "half"]);
}

fn crash(lines: u32) {
    for line in 0..lines {
        eprintln!("line {line}");
    }
    eprint!("oh no");
    std::process::abort();
}

/// The error of a task whose worker died has the last lines that it wrote to standard error,
/// however that is captured, and shows them.
fn a_lost_task_has_the_last_lines<S: Processes>() {
    let heard = Heard::default();
    let pool = S::builder().processes(2).stderr(heard.output()).build();
    for _ in 0..20 {
        let error = pool.apply(crash, 2).unwrap_err();
        assert!(error.is_worker_lost());
        assert_eq!(error.stderr(), Some("line 0\nline 1\noh no"));
        let shown = error.to_string();
        assert!(shown.contains("\n    line 1\n    oh no"), "{shown}");
        assert!(format!("{error:?}").contains("oh no"));
    }
    let error = pool.apply(crash, 100_000).unwrap_err();
    let last = error.stderr().expect("it wrote something");
    assert!(
        last.starts_with("line 99981\n") && last.ends_with("line 99999\noh no"),
        "{last}"
    );
    let silent = pool.apply(abort, ()).unwrap_err();
    assert_eq!(silent.stderr(), None);
    // A panic is no death, and says itself what it has to say.
    let panic = pool.apply(|()| panic!("not today"), ()).map(|(): ()| ());
    assert_eq!(panic.unwrap_err().stderr(), None);
}

/// So does that of one whose worker was killed: at the deadline, or by somebody.
fn a_killed_task_has_the_last_lines<S: Processes>() {
    let pool = S::builder()
        .processes(1)
        .stderr(Output::lines(|_| {}))
        .build();
    let task = |ticket: String| {
        eprintln!("busy");
        file_barrier::pass(&ticket);
    };
    let gate = Gate::new();
    let timed = pool
        .call(task)
        .timeout(std::time::Duration::from_millis(200));
    let error = timed.apply(gate.ticket()).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(error.stderr(), Some("busy"));
    let gate = Gate::new();
    let mut handle = pool.apply_async(task, gate.ticket());
    let pids = gate.wait_for(1);
    assert!(handle.get_timeout(std::time::Duration::ZERO).is_none());
    crate::procfs::signal(pids[0], rustix::process::Signal::KILL);
    let error = handle.get().unwrap_err();
    assert_eq!((error.signal(), error.stderr()), (Some(9), Some("busy")));
}

/// An initializer that takes its worker down has last words, too.
fn a_worker_that_fails_to_begin_says_why<S: Processes>() {
    let builder = S::builder().processes(1).stderr(Output::lines(|_| {}));
    let start = |()| -> () {
        eprintln!("no licence");
        std::process::abort();
    };
    let built = builder.initializer(start, ()).try_build();
    let error = built.map(|_| "a pool").unwrap_err();
    assert_eq!(error.kind(), procpool::BuildErrorKind::Initializer);
    assert!(error.to_string().contains("no licence"), "{error}");
}

/// Without capturing there is nothing to know.
fn output_that_nobody_captures_has_no_last_lines<S: Processes>() {
    let pool = S::builder().processes(1).stderr(Output::discard()).build();
    assert_eq!(pool.apply(crash, 1).unwrap_err().stderr(), None);
}

/// A place that handlers wait at.
#[derive(Default)]
struct Barrier {
    is_open: Mutex<bool>,
    changed: Condvar,
}

impl Barrier {
    fn wait(&self) {
        let is_open = self.is_open.lock().unwrap();
        drop(self.changed.wait_while(is_open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// Tasks go on while a handler does not: what does not fit into the queue is lost, and each lost
/// line is counted.
fn a_slow_handler_costs_lines_and_no_task<S: Processes>() {
    const LINES: u64 = 200_000;
    let barrier = Arc::new(Barrier::default());
    let seen = Heard::default();
    let output = {
        let (barrier, seen) = (barrier.clone(), seen.clone());
        Output::lines(move |line| {
            barrier.wait();
            seen.0.lock().unwrap().push(line.clone());
        })
    };
    let pool = S::builder().processes(1).stdout(output).build();
    let flood = |lines: u64| {
        let mut stdout = io::stdout().lock();
        for line in 0..lines {
            writeln!(stdout, "line {line}").unwrap();
        }
    };
    // It ends although not a single line was delivered.
    pool.apply(flood, LINES).unwrap();
    wait_until(|| pool.stats().lines_dropped > 0);
    barrier.open();
    let last = || seen.texts().last().cloned();
    wait_until(|| {
        // As soon as there is room, lines arrive again, and say how many did not.
        pool.apply(say, "the last".to_owned()).unwrap();
        last().as_deref() == Some("the last")
    });
    end(&pool);
    let lines = seen.lines();
    let lost: u64 = lines.iter().map(OutputLine::dropped).sum();
    let flooded = lines
        .iter()
        .filter(|line| line.text().starts_with("line"))
        .count() as u64;
    assert!(lost > 0 && flooded > 0);
    let others = lines.len() as u64 - flooded;
    let lost_others = lost + flooded - LINES;
    assert!(lost_others + others > 0);
    assert_eq!(pool.stats().lines_dropped, lost);
    assert_eq!(lines[0].text(), "line 0");
}

/// A handler's panic is nobody's.
fn a_handler_that_panics_is_survived<S: Processes>() {
    let count = Arc::new(AtomicUsize::new(0));
    let output = {
        let count = count.clone();
        Output::lines(move |line| {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("I do not like {line}");
        })
    };
    let pool = S::builder().processes(1).stdout(output).build();
    pool.map(say, ["a".to_owned(), "b".to_owned()]).unwrap();
    end(&pool);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// A handler may submit work and wait for it, but not join.
fn a_handler_may_use_the_pool<S: Processes>() {
    let (sender, pools) = std::sync::mpsc::channel::<Arc<S::Pool>>();
    let (answer, answers) = std::sync::mpsc::channel();
    let pools = Mutex::new(pools);
    let output = Output::lines(move |line| {
        let pool = pools.lock().unwrap().recv().unwrap();
        let doubled = pool.apply(|x: u32| 2 * x, line.text().parse().unwrap());
        pool.close();
        answer
            .send((doubled.unwrap(), pool.join().is_err()))
            .unwrap();
        // Perhaps the last one: the pool ends in its own thread.
        drop(pool);
    });
    let pool = Arc::new(S::builder().processes(1).stdout(output).build());
    pool.apply(say, "21".to_owned()).unwrap();
    sender.send(pool).unwrap();
    assert_eq!(answers.recv().unwrap(), (42, true));
}

/// A task that prints without an end keeps neither other tasks from running nor the pool from
/// ending, and one that dies of it is reported.
fn a_flood_keeps_nobody_from_anything<S: Processes>() {
    let is_flooding = Arc::new(AtomicUsize::new(0));
    let hear = {
        let is_flooding = is_flooding.clone();
        Output::lines(move |_| {
            is_flooding.fetch_add(1, Ordering::SeqCst);
        })
    };
    let builder = S::builder().processes(2);
    let pool = builder.stdout(Output::lines(|_| {})).stderr(hear).build();
    let flood = |()| -> () {
        loop {
            println!("more and more and more");
            eprintln!("less");
        }
    };
    let flooding: procpool::TaskHandle<()> = pool.apply_async(flood, ());
    wait_until(|| is_flooding.load(Ordering::SeqCst) > 0);
    for x in 0..100 {
        assert_eq!(pool.apply(|x: u32| x + 1, x).unwrap(), x + 1);
    }
    assert!(pool.apply(abort, ()).unwrap_err().is_worker_lost());
    flooding.kill();
    let error = flooding.get().unwrap_err();
    assert!(error.is_cancelled());
    assert!(
        error.stderr().is_some_and(|last| last.contains("less")),
        "{error}"
    );
    let _flooding: procpool::TaskHandle<()> = pool.apply_async(flood, ());
    pool.terminate();
    pool.join().unwrap();
}

/// Something that a task has started, that has left its worker's process group and lives on, holds
/// the pipe's other end: neither the error nor the pool waits for it.
fn a_program_that_outlives_its_worker_keeps_nobody<S: Processes>() {
    let heard = Heard::default();
    let builder = S::builder().processes(1);
    let pool = builder
        .stdout(heard.output())
        .stderr(heard.output())
        .build();
    let task = |ticket: String| -> () {
        eprintln!("last words");
        let script = "echo $$ > \"$0\"; while true; do sleep 0.01; echo here >&2 || exit; done";
        let mut command = std::process::Command::new("setsid");
        command.args(["/bin/sh", "-c", script, &ticket]);
        command.spawn().expect("there is a shell");
        wait_until(|| fs::read_to_string(&ticket).is_ok_and(|pid| pid.ends_with('\n')));
        std::process::abort();
    };
    let tally = file_barrier::Tally::new();
    let error = pool.apply(task, tally.ticket()).unwrap_err();
    assert!(error.stderr().unwrap().starts_with("last words"), "{error}");
    end(&pool);
    // Its next line is an error, for there is nobody to read it.
    let pid = tally.lines()[0].parse().expect("a process identifier");
    wait_until(|| !crate::procfs::is_alive(pid));
}

fn print_both() {
    println!("to stdout");
    eprintln!("to stderr");
}

fn prints_to_nowhere<S: Processes>() {
    let builder = S::builder().processes(1);
    let pool = builder
        .stdout(Output::discard())
        .stderr(Output::discard())
        .build();
    pool.apply(|()| print_both(), ()).unwrap();
    end(&pool);
}

/// Discarded output appears nowhere.
fn nothing_is_printed_that_is_discarded<S: Processes>() {
    assert_eq!(again::<S>("prints_to_nowhere").lines(), [""; 0]);
}

fn prints_by_way_of_the_pool<S: Processes>() {
    let builder = S::builder().processes(1);
    let pool = builder.stdout(Output::tee()).stderr(Output::tee()).build();
    // More than the queue and the pipes have room for.
    pool.apply(|()| print!("{}", "0123456789abcde\n".repeat(1 << 19)), ())
        .unwrap();
    let error = pool
        .apply(
            |()| -> () {
                print!("no end");
                io::stdout().flush().unwrap();
                eprintln!("help");
                std::process::abort()
            },
            (),
        )
        .unwrap_err();
    assert_eq!(error.stderr(), Some("help"));
    end(&pool);
}

/// What is passed on is passed on in full, byte by byte, however slowly it is read, and the last
/// lines are kept of it.
fn output_is_passed_on<S: Processes>() {
    let mut program = again::<S>("prints_by_way_of_the_pool").start();
    for _ in 0..1 << 19 {
        assert_eq!(program.line(), "0123456789abcde");
    }
    assert_eq!(program.line(), "no end");
    assert!(program.status().success());
}

fn builds_pools_that_capture<S: Processes>() {
    let holdings = || {
        let entries = |path: &str| fs::read_dir(path).expect("there is a /proc").count();
        (entries("/proc/self/fd"), entries("/proc/self/task"))
    };
    let one = |number: usize| {
        let builder = S::builder().processes(2).stdout(Output::lines(|_| {}));
        let pool = builder.stderr(Output::tee()).build();
        match number % 3 {
            0 => {
                pool.map(|_: u32| println!("said"), 0..10).unwrap();
                end(&pool);
            }
            1 => drop(pool.apply(abort, ()).unwrap_err()),
            _ => drop(pool.map_async(|_: u32| println!("said"), 0..100)),
        }
    };
    (0..6).for_each(one);
    let before = holdings();
    (0..100).for_each(one);
    // The kernel may take a moment to end a thread that was joined.
    wait_until(|| {
        let after = holdings();
        after.0 <= before.0 && after.1 <= before.1
    });
}

/// Descriptors and threads are as many after a hundred pools as before.
fn captured_pools_leave_nothing<S: Processes>() {
    assert_eq!(again::<S>("builds_pools_that_capture").lines(), [""; 0]);
}
