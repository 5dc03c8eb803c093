//! Counts the words in all files under a folder: real input, in batches large enough to be worth
//! the trip to a worker and back.
//!
//! Look at the times. Both cores of this machine count, but one of them must also add up what comes
//! back, so it is not twice as fast as a plain loop; `SerialPool` shows what the batches and the
//! encoding alone cost. A folder of a few megabytes (the default: the sources in the current
//! folder) is done in milliseconds, and needs no pool. All counts are compared with those of the
//! loop.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example wordcount ~/.cargo/registry/src
//! 10890 files, 315.4 MB, batches: 138
//! a plain loop  1.458 s
//! ForkPool      0.962 s, 1.52 times as fast
//! SpawnPool     0.948 s, 1.54 times as fast
//! SerialPool    1.632 s, 0.89 times as fast
//! 8106 files; 2784 that are not UTF-8 were skipped
//! 25848091 words, 271742 distinct
//!   1279592 pub
//!   1202598 core
//!    919116 const
//!    845292 windows
//!    799408 u
//!    517873 mut
//!    427352 fn
//!    405501 c
//!    361389 unsafe
//!    321283 self
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::ffi::OsString;
use std::time::{Duration, Instant};
use std::{env, fs, mem};

use procpool::{Pool, SerialPool, TaskError};
use walkdir::{DirEntry, WalkDir};

/// How many bytes of files make a task. Many, since each task returns words that the others have
/// found as well; but not too many, so that no worker idles long at the end.
const BATCH_BYTES: usize = 2 << 20;

/// Paths of files. (Not `PathBuf`, of which serde refuses those that are not UTF-8.)
type Batch = Vec<OsString>;

#[derive(Debug, Default, PartialEq)]
struct Counts {
    words: HashMap<String, u64>,
    files: usize,
}

impl Counts {
    /// Counts the words of a file, if it is UTF-8.
    fn add_file(&mut self, path: &OsString) {
        let Ok(text) = fs::read_to_string(path) else {
            return;
        };
        self.files += 1;
        let words = text.split(|c: char| !c.is_alphabetic());
        for word in words.filter(|word| !word.is_empty()) {
            match self.words.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    self.words.insert(word.to_owned(), 1);
                }
            }
        }
    }
}

/// The task. It reads the files itself: only their paths go to the worker, and only counts come
/// back. They come as a list, which is quicker to receive than a map.
fn count(batch: Batch) -> (Vec<(String, u64)>, usize) {
    let mut counts = Counts::default();
    for path in &batch {
        counts.add_file(path);
    }
    (counts.words.into_iter().collect(), counts.files)
}

fn count_in<P: Pool>(pool: &P, batches: &[Batch]) -> Result<Counts, TaskError> {
    let mut counts = Counts::default();
    // Not `map`, which would keep the lists of all batches until the last one has come.
    for counted in pool.imap_unordered(count, batches.to_vec()) {
        let (words, files) = counted?;
        counts.files += files;
        for (word, count) in words {
            *counts.words.entry(word).or_default() += count;
        }
    }
    Ok(counts)
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    // Built first: it forks this program, which is small now and has no other threads.
    let fork_pool = procpool::ForkPool::new()?;
    let spawn_pool = procpool::SpawnPool::new()?;

    let batches = batches(env::args_os().nth(1))?;
    let begin = Instant::now();
    let mut expected = Counts::default();
    for path in batches.iter().flatten() {
        expected.add_file(path);
    }
    let sequential = begin.elapsed();
    println!("a plain loop  {:.3} s", sequential.as_secs_f64());

    compare("ForkPool", &fork_pool, &batches, &expected, sequential)?;
    compare("SpawnPool", &spawn_pool, &batches, &expected, sequential)?;
    let serial_pool = SerialPool::new();
    compare("SerialPool", &serial_pool, &batches, &expected, sequential)?;

    let Counts { words, files } = expected;
    let paths: usize = batches.iter().map(Vec::len).sum();
    println!(
        "{files} files; {} that are not UTF-8 were skipped",
        paths - files
    );
    println!(
        "{} words, {} distinct",
        words.values().sum::<u64>(),
        words.len()
    );
    let mut ranking = Vec::from_iter(words);
    ranking.sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    for (word, count) in ranking.iter().take(10) {
        println!("{count:9} {word}");
    }
    Ok(())
}

fn compare<P: Pool>(
    name: &str,
    pool: &P,
    batches: &[Batch],
    expected: &Counts,
    sequential: Duration,
) -> Result<(), TaskError> {
    let begin = Instant::now();
    let counts = count_in(pool, batches)?;
    let seconds = begin.elapsed().as_secs_f64();
    let ratio = sequential.as_secs_f64() / seconds;
    println!("{name:<12}  {seconds:.3} s, {ratio:.2} times as fast");
    assert!(counts == *expected, "{name} has counted something else");
    Ok(())
}

/// All files under a folder in batches; without one, the sources under the current folder.
fn batches(folder: Option<OsString>) -> Result<Vec<Batch>, walkdir::Error> {
    let walk = WalkDir::new(folder.as_deref().unwrap_or(".".as_ref()));
    let is_wanted = |entry: &DirEntry| folder.is_some() || is_source(entry);
    let mut batches = Vec::new();
    let mut batch = Batch::new();
    let (mut bytes, mut batch_bytes) = (0, 0);
    for entry in walk.into_iter().filter_entry(is_wanted) {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        // Read once now, so that the pass that happens to come first does not pay for the disk.
        batch_bytes += fs::read(entry.path()).map_or(0, |content| content.len());
        batch.push(entry.into_path().into_os_string());
        if batch_bytes >= BATCH_BYTES {
            batches.push(mem::take(&mut batch));
            bytes += mem::take(&mut batch_bytes);
        }
    }
    batches.push(batch);
    bytes += batch_bytes;

    let files: usize = batches.iter().map(Vec::len).sum();
    let megabytes = bytes as f64 / 1e6;
    println!(
        "{files} files, {megabytes:.1} MB, batches: {}",
        batches.len()
    );
    Ok(batches)
}

/// Neither hidden nor built.
fn is_source(entry: &DirEntry) -> bool {
    let name = entry.file_name().as_encoded_bytes();
    entry.depth() == 0 || !(name.starts_with(b".") || name == b"target")
}
