//! Parses pictures from strangers in a sandbox. Some of the files attack the parser.
//!
//! Two workers have three limits. The sandbox refuses what parsing does not need. The memory limit
//! ends what unpacks to more than there is. The timeout ends what never ends. Each file has a
//! process of its own, so an attacker cannot decide what the parser says of the next file.
//!
//! At the end, the same parser runs without a sandbox, and one attack succeeds.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example untrusted
//! file          what it tries                    what becomes of it
//! good.png      nothing                          120 x 80 pixels, average colour [59, 39, 99]
//! cut.png       ends early                       unexpected end of file
//! bomb.png      2.5 gigapixels                   the task ran out of memory: ...
//! endless.png   never ends                       the task ran longer than its timeout of 2s ...
//! secret.png    reads a secret file              Permission denied (os error 13)
//! connect.png   connects to a port               ... its sandbox refuses ... `socket`
//! print.png     clears your terminal             the task panicked: \u{1b}[2J ...
//! ...
//!
//! 19 files in 21 workers, of which 6 were lost; nothing got out
//! without a sandbox, secret.png gets this: the password of the database
//! ```

mod files;
mod parser;

use std::error::Error;
use std::time::Duration;

use procpool::{
    CallError, FlattenErrors, Output, Pool, ProcessPool, ProcessPoolBuilder, RemoteError, Sandbox,
};

use crate::files::{Expected, File, Treasure};
use crate::parser::{Picture, parse};

const MEMORY: u64 = 128 << 20;
const TIMEOUT: Duration = Duration::from_secs(2);

type Outcome = Result<Picture, CallError<RemoteError>>;

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let folder = tempfile::tempdir()?;
    let treasure = Treasure::new(folder.path())?;
    let files = files::all(&treasure)?;

    let pool = limited().sandbox(Sandbox::strict()).build()?;
    println!("{:13} {:32} what becomes of it", "file", "what it tries");
    // The last file kills this program if nothing holds it. So it comes after all others.
    let (others, last) = files.split_at(files.len() - 1);
    parse_all(&pool, others)?;
    parse_all(&pool, last)?;
    treasure.assert_untouched();

    // The pool works on.
    let good = || {
        let is_good = |file: &&File| matches!(file.expected, Expected::Picture);
        files.iter().filter(is_good).map(|it| it.content.clone())
    };
    let again = pool.map(parse, good()).flatten_errors()?;
    assert_eq!(again, good().map(parse).collect::<Result<Vec<_>, _>>()?);
    let stats = pool.stats();
    println!(
        "\n{} files in {} workers, of which {} were lost; nothing got out",
        stats.submitted, stats.workers_started, stats.workers_lost
    );

    // The sandbox is what holds them: the same pool without one.
    let pool = limited().build()?;
    let picture = pool.apply(parse, treasure.thief()?).flatten_errors()?;
    let loot = picture.loot.unwrap_or_default();
    println!("without a sandbox, secret.png gets this: {loot}");
    assert!(treasure.is_secret(&loot));
    Ok(())
}

/// What every pool for untrusted files should have besides a sandbox.
fn limited() -> ProcessPoolBuilder {
    ProcessPool::builder()
        .processes(2)
        .memory_limit(MEMORY)
        // A worker that was taken over may lie about the files after that.
        .max_tasks_per_child(1)
        // Secrets are often in the environment.
        .env_clear()
        // What a worker prints could be meant for the terminal.
        .stdout(Output::discard())
        .stderr(Output::discard())
}

/// Prints what becomes of each file.
///
/// # Errors
/// When it is not what it must be.
fn parse_all(pool: &ProcessPool, files: &[File]) -> Result<(), String> {
    let call = pool.call(parse).timeout(TIMEOUT).chunksize(1);
    let contents: Vec<_> = files.iter().map(|file| file.content.clone()).collect();
    for (file, outcome) in files.iter().zip(call.imap(contents)) {
        let outcome = outcome.flatten_errors();
        let text = match &outcome {
            Ok(picture) => picture.to_string(),
            Err(error) => error.to_string(),
        };
        println!("{:13} {:32} {text}", file.name, file.attempt);
        if !is_expected(file, &outcome, &text) {
            return Err(format!("{} must not end like this", file.name));
        }
    }
    Ok(())
}

fn is_expected(file: &File, outcome: &Outcome, text: &str) -> bool {
    // No text of a worker can command the terminal.
    if text.contains(char::is_control) {
        return false;
    }
    match (&file.expected, outcome) {
        (Expected::Picture, Ok(picture)) => {
            let here = parse(file.content.clone());
            here.is_ok_and(|here| here == *picture)
        }
        (Expected::Fails(words), Err(CallError::Returned(_))) => text.contains(words),
        (Expected::Ends(kind, words), Err(CallError::Task(error))) => {
            error.kind() == *kind && text.contains(words)
        }
        _ => false,
    }
}
