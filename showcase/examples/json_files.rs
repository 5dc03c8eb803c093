//! Reads thousands of JSON files, some of which are broken, too large, or take forever: with a bar,
//! an error for each file that has one, and a limit of time and of memory for each.
//!
//! Without an argument it makes the files itself, in a temporary folder.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example json_files
//! 2000 files: 1996 read, 1995987 in all
//! 0013.json: EOF while parsing a value at line 1 column 10
//! 0500.json: the task ran longer than its timeout of 500ms and was killed, item 500, ...
//! 1000.json: the task ran out of memory: the worker may have 268435456 bytes ...
//! 1500.json: missing field `count` at line 1 column 2
//! ```

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procpool::{FlattenErrors, Pool, ProcessPool, RemoteError, progress};
use serde::Deserialize;

#[derive(Deserialize)]
struct Record {
    count: u64,
    /// What a hostile file asks for.
    #[serde(default)]
    bomb: usize,
    #[serde(default)]
    stalls: bool,
}

/// The task. `?` takes any error: it travels with its message and its causes.
fn count(path: PathBuf) -> Result<u64, RemoteError> {
    let record: Record = serde_json::from_str(&fs::read_to_string(path)?)?;
    let filled = vec![1_u8; record.bomb];
    if record.stalls {
        loop {
            std::thread::park();
        }
    }
    Ok(record.count + filled.iter().filter(|byte| **byte == 0).count() as u64)
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let made = tempfile::tempdir()?;
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let made_here = folder.is_none();
    let folder = folder.map_or_else(|| make_files(made.path()), Ok)?;
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();

    // What a task prints when it dies would tear the bar.
    let builder = ProcessPool::builder().memory_limit(256 << 20);
    let pool = builder.stderr(procpool::Output::discard()).build()?;
    let results = pool
        .call(count)
        .timeout(Duration::from_millis(500))
        .count_errors()
        .progress(progress::bar())
        .try_map(paths.iter().cloned());

    // The function's error or that of the task: one for each file.
    let results = Vec::from_iter(results.into_iter().map(FlattenErrors::flatten_errors));
    let total: u64 = results.iter().flatten().sum();
    let read = results.iter().flatten().count();
    println!("{} files: {read} read, {total} in all", results.len());
    if made_here {
        assert_eq!(
            (read, results.len()),
            (1996, 2000),
            "each error costs one file"
        );
    }
    for (path, result) in paths.iter().zip(&results) {
        if let Err(error) = result {
            let name = path.file_name().unwrap_or_default().display();
            let text = error.to_string();
            println!("{name}: {}", text.lines().next().unwrap_or_default());
        }
    }
    Ok(())
}

fn make_files(folder: &Path) -> std::io::Result<PathBuf> {
    for number in 0..2000_u64 {
        let text = match number {
            13 => "{\"count\": ".to_owned(),
            500 => format!("{{\"count\": {number}, \"stalls\": true}}"),
            1000 => format!("{{\"count\": {number}, \"bomb\": {}}}", 1_u64 << 32),
            1500 => "{}".to_owned(),
            _ => format!("{{\"count\": {number}}}"),
        };
        fs::write(folder.join(format!("{number:04}.json")), text)?;
    }
    Ok(folder.to_owned())
}
