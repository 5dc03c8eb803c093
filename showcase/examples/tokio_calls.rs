//! Two hundred calls at a time under tokio: some take too long, some take their worker with them,
//! and one is dropped by its caller. `docs/tokio.md` explains each line.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example tokio_calls
//! 192 have their answer, 4 ran too long, 4 lost their worker
//! the caller went away: its task was killed, and its worker runs another
//! ```

use std::error::Error;
use std::time::Duration;

use procpool::{Pool, ProcessPool, TaskErrorKind};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// The task: something that blocks, in a library that cannot be trusted.
fn render(page: u64) -> String {
    match page % 50 {
        13 => std::process::abort(),
        37 => loop {
            std::thread::park();
        },
        _ => format!("page {page}"),
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Before there is a runtime, so no `#[tokio::main]`.
    procpool::init();
    let pool = ProcessPool::new()?;
    Runtime::new()?.block_on(serve(pool))
}

async fn serve(pool: ProcessPool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut calls = Vec::new();
    for page in 0..200 {
        let call = pool
            .call(render)
            .timeout(Duration::from_millis(200))
            .apply_async(page);
        calls.push(tokio::spawn(async move { (page, call.await) }));
    }
    let (mut answers, mut late, mut lost) = (0, 0, 0);
    for call in calls {
        match call.await? {
            (page, Ok(text)) => {
                assert_eq!(text, format!("page {page}"));
                answers += 1;
            }
            (_, Err(error)) if error.kind() == TaskErrorKind::TimedOut => late += 1,
            (_, Err(error)) if error.kind() == TaskErrorKind::WorkerLost => lost += 1,
            (_, Err(error)) => return Err(error.into()),
        }
    }
    println!("{answers} have their answer, {late} ran too long, {lost} lost their worker");

    let endless = pool.call(render).apply_async(37).kill_on_drop();
    let gone = timeout(Duration::from_millis(50), endless).await;
    assert!(gone.is_err() && pool.apply_async(render, 1).await? == "page 1");
    println!("the caller went away: its task was killed, and its worker runs another");

    // The workers end meanwhile, and the drop has nothing left to wait for.
    pool.close();
    pool.join_async().await?;
    Ok(())
}
