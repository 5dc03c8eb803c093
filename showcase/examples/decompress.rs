//! Decompresses files that somebody sent, with limits: each task may take three seconds and its
//! worker a gigabyte. A file that is broken, never ends, or fills the memory costs its own task.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example decompress
//! report.zst    506936 bytes become 1048576
//! broken.zst    Unknown frame descriptor
//! cut.zst       incomplete frame
//! bomb.zst      the task ran out of memory: the worker may have 1073741824 bytes ...
//! endless.zst   the task ran longer than its timeout of 3s and was killed, item 0, ...
//! ```

use std::error::Error;
use std::io::{self, Read};
use std::time::Duration;

use procpool::{FlattenErrors, Output, Pool, ProcessPool, RemoteError};

/// The task: all of it is in memory at once, as with many parsers.
fn decompress(file: Vec<u8>) -> Result<(usize, usize), RemoteError> {
    let text = zstd::decode_all(&file[..])?;
    Ok((file.len(), text.len()))
}

/// The task: a few bytes at a time, so that only the time can tell that it does not end.
fn count(file: Vec<u8>) -> Result<(usize, usize), RemoteError> {
    let mut decoder = zstd::Decoder::new(&file[..])?;
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        match decoder.read(&mut buffer)? {
            0 => return Ok((file.len(), bytes)),
            more => bytes += more,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let pool = ProcessPool::builder()
        .memory_limit(1 << 30)
        // What a task prints when it dies is part of its error as well.
        .stderr(Output::discard())
        .build()?;
    let files = files()?;
    let limit = Duration::from_secs(3);
    let bytes = |files: &[(&str, Vec<u8>)]| -> Vec<_> {
        files.iter().map(|(_, file)| file.clone()).collect()
    };
    let (small, large) = files.split_at(4);
    let mut outcomes = pool.call(decompress).timeout(limit).try_map(bytes(small));
    outcomes.extend(pool.call(count).timeout(limit).try_map(bytes(large)));
    for ((name, _), outcome) in files.iter().zip(outcomes) {
        match outcome.flatten_errors() {
            Ok((from, to)) => println!("{name:13} {from} bytes become {to}"),
            Err(error) => println!("{name:13} {error}"),
        }
    }
    Ok(())
}

/// What a service is sent.
fn files() -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let mut x = 1_u32;
    let report: Vec<u8> = std::iter::repeat_with(|| {
        x = x.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        b"0123456789abcdef"[(x >> 28) as usize] & b"0a1b2c3d"[(x >> 16) as usize % 8]
    })
    .take(1 << 20)
    .collect();
    let report = zstd::encode_all(&report[..], 3)?;
    let cut = report[..report.len() / 2].to_vec();
    // Frames that follow each other are one file: 64 MiB of zeros each, in some thousand bytes.
    let zeros = zstd::encode_all(&vec![0; 64 << 20][..], 3)?;
    Ok(vec![
        ("report.zst", report),
        ("broken.zst", b"no such thing".to_vec()),
        ("cut.zst", cut),
        ("bomb.zst", zeros.repeat(64)),
        ("endless.zst", zeros.repeat(10_000)),
    ])
}
