//! What workers say: the lines that they print, with who has printed them; the last words of a
//! crash, in its error; and their `tracing` events, in this program's subscriber and in the span
//! that the call was made in.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example logs
//! [PoolWorker-1] converting page 2
//!  INFO job{id=7}: logs: done bytes=2000 worker="PoolWorker-1" pid=31554 task="logs::convert" spans="page{number=2}"
//!  INFO job{id=7}: logs: done bytes=3000 worker="PoolWorker-1" pid=31554 task="logs::convert" spans="page{number=3}"
//!  INFO job{id=7}: logs: done bytes=5000 worker="PoolWorker-1" pid=31554 task="logs::convert" spans="page{number=5}"
//! [PoolWorker-1] converting page 3
//! [PoolWorker-1] converting page 5
//! [PoolWorker-1] converting page 6
//! [PoolWorker-1] converting page 7
//!  INFO job{id=7}: logs: done bytes=6000 worker="PoolWorker-1" pid=31554 task="logs::convert" spans="page{number=6}"
//!  INFO job{id=7}: logs: done bytes=1000 worker="PoolWorker-2" pid=31557 task="logs::convert" spans="page{number=1}"
//!  WARN job{id=7}: logs: no fonts embedded fonts=0 worker="PoolWorker-2" pid=31557 task="logs::convert" spans="page{number=4}"
//!  INFO job{id=7}: logs: done bytes=4000 worker="PoolWorker-2" pid=31557 task="logs::convert" spans="page{number=4}"
//!  WARN job{id=7}: logs: no fonts embedded fonts=0 worker="PoolWorker-2" pid=31557 task="logs::convert" spans="page{number=8}"
//!  INFO job{id=7}: logs: done bytes=8000 worker="PoolWorker-2" pid=31557 task="logs::convert" spans="page{number=8}"
//! [PoolWorker-2] converting page 1
//! [PoolWorker-2] converting page 4
//! [PoolWorker-2] converting page 8
//!
//! page 1: 1000 bytes
//! page 2: 2000 bytes
//! page 3: 3000 bytes
//! page 4: 4000 bytes
//! page 5: 5000 bytes
//! page 6: 6000 bytes
//! page 7: the worker was killed by signal 6 (SIGABRT) while it ran the task, item 6, in PoolWorker-1 (pid 31554); the last that it wrote to standard error:
//!     libpages: page 7: xref table damaged
//!     libpages: assertion `count > 0' failed
//! page 8: 8000 bytes
//! 0 lines and 0 events were lost
//! ```

use std::error::Error;

use procpool::{Output, OutputLine, Pool, ProcessPool};
use tracing::{debug, info, info_span, warn};
use tracing_subscriber::filter::LevelFilter;

/// Stands for a library that talks on standard error, and aborts when it is surprised.
fn convert(page: u32) -> usize {
    let _page = info_span!("page", number = page).entered();
    debug!("this is not even sent: the subscriber wants INFO");
    println!("converting page {page}");
    if page == 7 {
        eprintln!("libpages: page 7: xref table damaged");
        eprintln!("libpages: assertion `count > 0' failed");
        std::process::abort();
    }
    if page.is_multiple_of(4) {
        warn!(fonts = 0, "no fonts embedded");
    }
    let bytes = 1000 * page as usize;
    info!(bytes, "done");
    bytes
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    tracing_subscriber::fmt()
        .without_time()
        .with_max_level(LevelFilter::INFO)
        .init();

    let pool = ProcessPool::builder()
        .processes(2)
        .stdout(Output::lines(|line: &OutputLine| {
            println!("[{}] {line}", line.worker().name());
        }))
        // Passed on where it is, `Output::tee()`; here it is quiet, and only kept for errors.
        .stderr(Output::lines(|_| {}))
        .forward_events()
        .build()?;

    let job = info_span!("job", id = 7);
    let results = job.in_scope(|| pool.try_map(convert, 1..=8));

    // After this, everything that was said has been told.
    pool.close();
    pool.join()?;
    println!();
    for (page, result) in (1..).zip(results) {
        match result {
            Ok(bytes) => println!("page {page}: {bytes} bytes"),
            Err(error) => println!("page {page}: {error}"),
        }
    }
    let stats = pool.stats();
    println!(
        "{} lines and {} events were lost",
        stats.lines_dropped, stats.events_dropped
    );
    Ok(())
}
