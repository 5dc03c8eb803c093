//! A C library with global state, which takes its input for granted: wrong answers in threads,
//! right ones in processes, and what crashes it costs one task.
//!
//! The library (`library.c`) adds up the lines of bank statements in a variable of its own. Two
//! threads that use it at the same time add to the same total. In a pool each worker has a copy of
//! the library, loaded by the pool's initializer, and runs one task at a time. A line without an
//! amount makes it read through a pointer that points nowhere, which ends a program; in a pool it
//! ends a worker, and the error says so.
//!
//! The example compiles the library with the system's `cc` (which Rust needs too, to link) when it
//! runs, and loads it with `libloading`. A real one is linked as usual, by a build script.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example embed_c
//! 2 processes: 0 of 400 are wrong
//! 2 threads:   23 of 400 are wrong
//! with a bad statement, in 2 processes:
//!     statement 123: the worker was killed by signal 11 (SIGSEGV) while it ran the task, item 123, in PoolWorker-1 (pid 26148)
//!     399 of 400 have their total
//! ```
#![allow(unsafe_code)]

use std::error::Error;
use std::ffi::{CString, c_char, c_long};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libloading::Library;
use procpool::{Pool, SpawnPool};

/// The lines of one month.
type Statement = Vec<String>;

/// The functions of the library.
struct Bank {
    begin: unsafe extern "C" fn(),
    add: unsafe extern "C" fn(*const c_char),
    total: unsafe extern "C" fn() -> c_long,
    /// They live in it.
    _library: Library,
}

impl Bank {
    fn load(path: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: the library runs nothing when it is loaded, and its functions have these types.
        unsafe {
            let library = Library::new(path)?;
            Ok(Self {
                begin: *library.get(b"statement_begin")?,
                add: *library.get(b"statement_add")?,
                total: *library.get(b"statement_total")?,
                _library: library,
            })
        }
    }

    fn total(&self, statement: &Statement) -> i64 {
        // SAFETY: the lines end with a zero. (That is all that can be said for it: it is not made
        // for threads, and crashes on some lines. This is what the example is about.)
        unsafe {
            (self.begin)();
            for line in statement {
                let line = CString::new(line.as_str()).expect("a line has no zero inside");
                (self.add)(line.as_ptr());
            }
            (self.total)()
        }
    }
}

/// The library in this process, if it was loaded.
static BANK: OnceLock<Bank> = OnceLock::new();

/// What each worker does first.
fn load(path: PathBuf) {
    let bank = Bank::load(&path).expect("the library can be loaded");
    assert!(BANK.set(bank).is_ok(), "it is loaded once");
}

/// What each task does.
fn total(statement: Statement) -> i64 {
    let bank = BANK.get().expect("the initializer has loaded it");
    bank.total(&statement)
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let folder = tempfile::tempdir()?;
    let library = compile(folder.path())?;
    let statements = Vec::from_iter((0..400).map(statement));
    let right: Vec<i64> = statements.iter().map(sum).collect();

    let pool = SpawnPool::builder()
        .processes(2)
        .initializer(load, library.clone())
        .build()?;
    let totals = pool.map(total, statements.clone())?;
    println!(
        "2 processes: {} of {} are wrong",
        wrong(&totals, &right),
        right.len()
    );
    assert_eq!(totals, right);

    let totals = in_threads(&Bank::load(&library)?, &statements);
    println!(
        "2 threads:   {} of {} are wrong",
        wrong(&totals, &right),
        right.len()
    );

    // One that has a line without an amount.
    let mut bad = statements;
    bad[123].push("to be continued".to_owned());
    let outcomes = pool.try_map(total, bad);
    println!("with a bad statement, in 2 processes:");
    for (number, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(total) => assert_eq!(*total, right[number]),
            Err(error) => {
                println!("    statement {number}: {error}");
                assert_eq!((number, error.signal()), (123, Some(11)));
            }
        }
    }
    let totals = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    println!("    {totals} of {} have their total", outcomes.len());
    Ok(())
}

/// Compiles the library into this folder.
fn compile(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/embed_c/library.c");
    let library = folder.join("library.so");
    #[allow(
        clippy::disallowed_methods,
        reason = "a compiler, and no pool is there yet"
    )]
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .status()?;
    if !status.success() {
        return Err("the C compiler `cc` refuses the library".into());
    }
    Ok(library)
}

/// Some thousand lines, others for each number.
fn statement(number: i64) -> Statement {
    let amount = |line: i64| (number * 7919 + line * 104_729) % 2000 - 1000;
    (0..3000)
        .map(|line| format!("item {line}={}", amount(line)))
        .collect()
}

/// What the library should say.
fn sum(statement: &Statement) -> i64 {
    let amounts = statement.iter().filter_map(|line| line.split_once('='));
    amounts
        .map(|(_, amount)| amount.parse::<i64>().expect("an amount"))
        .sum()
}

/// Each of two threads has every other statement.
fn in_threads(bank: &Bank, statements: &[Statement]) -> Vec<i64> {
    let mut totals = vec![0; statements.len()];
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|first| {
            let own = statements.iter().enumerate().skip(first).step_by(2);
            scope.spawn(move || Vec::from_iter(own.map(|(at, one)| (at, bank.total(one)))))
        });
        for thread in threads {
            for (at, total) in thread.join().expect("it does not panic") {
                totals[at] = total;
            }
        }
    });
    totals
}

fn wrong(totals: &[i64], right: &[i64]) -> usize {
    totals
        .iter()
        .zip(right)
        .filter(|(total, right)| total != right)
        .count()
}
