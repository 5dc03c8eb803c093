//! A search that shows what it finds while it goes on: each task walks through a folder and emits
//! the lines that it finds, one by one, and in the end says how much it has read.
//!
//! No task is further ahead of the reader than its buffer. When enough was found, the handles are
//! dropped, and the tasks learn of that. A worker that crashes would cost the rest of its folder;
//! what it has found before is there.
//!
//! ```text
//! $ cargo run --release --example search membarrier pool-core backend-fork
//! pool-core/src/sys/linux/barrier.rs:1: //! Barriers for all threads of other processes, by `membarrier`.
//! ...
//! pool-core: 298 files, 3122 KiB
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

use procpool::{Disconnected, Emitter, Pool, SpawnPool};
use serde::{Deserialize, Serialize};

/// As many are shown.
const ENOUGH: usize = 20;

/// A line that has the text.
#[derive(Serialize, Deserialize)]
struct Found {
    file: PathBuf,
    number: usize,
    line: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line: String = self.line.trim().chars().take(100).collect();
        write!(f, "{}:{}: {line}", self.file.display(), self.number)
    }
}

/// What was read.
#[derive(Default, Serialize, Deserialize)]
struct Read {
    files: usize,
    bytes: usize,
}

/// Emits what is found, for as long as somebody wants it.
fn search((folder, text): (PathBuf, String), out: &Emitter<Found>) -> Read {
    let mut read = Read::default();
    // That nobody wants more is no error: it has read what it has read.
    let _ = walk(&folder, &text, out, &mut read);
    read
}

fn walk(
    folder: &Path,
    text: &str,
    out: &Emitter<Found>,
    read: &mut Read,
) -> Result<(), Disconnected> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        if path.is_dir() && !path.is_symlink() {
            if path.file_name().is_some_and(|name| name != "target") {
                walk(&path, text, out, read)?;
            }
        } else if path.extension().is_some_and(|it| it == "rs" || it == "md")
            && let Ok(content) = fs::read_to_string(&path)
        {
            read.files += 1;
            read.bytes += content.len();
            for (number, line) in (1..).zip(content.lines()) {
                if line.contains(text) {
                    out.emit(Found {
                        file: path.clone(),
                        number,
                        line: line.to_owned(),
                    })?;
                }
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let mut arguments = env::args().skip(1);
    let text = arguments.next().unwrap_or_else(|| "fn main".to_owned());
    let mut folders: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    if folders.is_empty() {
        folders.extend(["examples", "showcase", "src"].map(PathBuf::from));
    }
    let pool = SpawnPool::new()?;
    // All of them search at once, each as far ahead as the buffer allows.
    let searches: Vec<_> = folders
        .into_iter()
        .map(|folder| {
            let call = pool.call(search).buffer(8);
            (folder.clone(), call.stream((folder, text.clone())))
        })
        .collect();
    let mut shown = 0;
    for (folder, mut found) in searches {
        let left = ENOUGH - shown;
        for line in found.by_ref().take(left) {
            println!("{}", line?);
            shown += 1;
        }
        if shown == ENOUGH {
            println!("and more");
            // The handles are dropped, and the tasks end.
            return Ok(());
        }
        let Read { files, bytes } = found.result()?;
        println!("{}: {files} files, {} KiB", folder.display(), bytes >> 10);
    }
    Ok(())
}
