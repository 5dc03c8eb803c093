//! A filter: reads lines from standard input, does something slow with each, and writes the results
//! in order, each as soon as it is there. The input may be endless, or come from a person.
//!
//! ```text
//! $ seq 1000000007 1000000012 | cargo run --release --example filter
//! 1000000007: prime
//! 1000000008: 2 × 500000004
//! 1000000009: prime
//! 1000000010: 2 × 500000005
//! 1000000011: 3 × 333333337
//! 1000000012: 2 × 500000006
//! $ yes 1000000007 | cargo run --release --example filter | head -1
//! 1000000007: prime
//! ```

use std::io::{self, BufRead, Write};

use procpool::{Pool, ProcessPool, RemoteError};

/// The task. What is no number is an error of that line, and the filter goes on.
fn describe(line: String) -> Result<String, RemoteError> {
    let number: u64 = line.trim().parse()?;
    let smallest = (2..)
        .take_while(|x| x * x <= number)
        .find(|x| number.is_multiple_of(*x));
    Ok(match smallest {
        Some(factor) => format!("{number}: {factor} × {}", number / factor),
        None => format!("{number}: prime"),
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    procpool::init();
    let pool = ProcessPool::new()?;
    // `lines()` of a locked standard input cannot go to another thread; this can.
    let lines = io::BufReader::new(io::stdin())
        .lines()
        .map_while(Result::ok);
    let mut output = io::stdout().lock();
    for description in pool.imap(describe, lines) {
        let written = match description? {
            Ok(text) => writeln!(output, "{text}"),
            Err(error) => writeln!(output, "error: {error}"),
        };
        match written.and_then(|()| output.flush()) {
            // The reader has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
    }
    Ok(())
}
