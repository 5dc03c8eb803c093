//! Pools under the executors that people use: tokio with one thread and with several, and smol.
//! What handles and streams promise is in the conformance suite; this is that the two go together.

#![allow(clippy::disallowed_methods, reason = "tests sleep")]

use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use procpool::{Pool, ProcessPool, TaskError};
use smol::future::zip;
use smol::stream::StreamExt;

procpool::init_before_main!(fork_server);

/// Runs what `scenario` makes for a pool of two workers to its end, under each runtime. One test at
/// a time, so that threads can be counted.
fn under_each<F>(scenario: impl Fn(Arc<ProcessPool>) -> F)
where
    F: Future<Output = Result<(), TaskError>> + Send + 'static,
{
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = ProcessPool::builder().processes(2).build();
    let pool = Arc::new(pool.expect("a pool"));

    let mut one_thread = tokio::runtime::Builder::new_current_thread();
    let tokio = one_thread.enable_time().build().expect("a runtime");
    tokio
        .block_on(scenario(pool.clone()))
        .expect("tokio, one thread");

    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let tokio = threads.worker_threads(2).enable_time().build();
    let tokio = tokio.expect("a runtime");
    // On a thread of the runtime's.
    let spawned = tokio.spawn(scenario(pool.clone()));
    tokio
        .block_on(spawned)
        .expect("it does not panic")
        .expect("tokio, several threads");

    smol::block_on(scenario(pool.clone())).expect("smol, this thread");
    smol::block_on(smol::spawn(scenario(pool))).expect("smol, its own thread");
}

fn square(x: u64) -> u64 {
    x * x
}

/// A file that tasks wait for.
fn door() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("open");
    let path = path.to_str().expect("the path is text").to_owned();
    (folder, path)
}

fn wait_for(door: String) {
    while !Path::new(&door).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn handles_are_awaited() {
    under_each(|pool| async move {
        assert_eq!(pool.apply_async(square, 12).await?, 144);
        assert_eq!(pool.map_async(square, 1..4).await?, [1, 4, 9]);
        let crashed = pool.apply_async(|()| std::process::abort(), ()).await;
        let crashed: Result<(), _> = crashed;
        assert_eq!(crashed.unwrap_err().signal(), Some(6));
        let call = pool.call(wait_for).timeout(Duration::from_millis(20));
        let hung = call.apply_async("/no such file".to_owned()).await;
        assert!(hung.unwrap_err().is_timeout());
        Ok(())
    });
}

/// What is awaited cannot end before something else has run on the same thread.
#[test]
fn the_thread_is_free_meanwhile() {
    under_each(|pool| async move {
        let (_folder, path) = door();
        let task = pool.apply_async(wait_for, path.clone());
        let opens = async { fs::write(&path, "").expect("it can be written") };
        zip(task, opens).await.0?;

        let (_folder, path) = door();
        let mut stream = pool.imap(wait_for, [path.clone()]).into_stream();
        let opens = async { fs::write(&path, "").expect("it can be written") };
        zip(stream.next(), opens).await.0.expect("one result")?;
        Ok(())
    });
}

#[test]
fn streams_have_what_other_streams_have() {
    under_each(|pool| async move {
        let squares = pool.imap(square, 0..).into_stream();
        let squares: Vec<u64> = squares.take(1000).try_collect().await?;
        assert!(squares.into_iter().eq((0..1000).map(square)));
        let sum = pool.imap_unordered(square, 0..1000).into_stream();
        let sum = sum.map(Result::unwrap).fold(0, |sum, x| sum + x).await;
        assert_eq!(sum, (0..1000).map(square).sum::<u64>());
        Ok(())
    });
}

/// A thousand tasks that are all under way, and no thread more than before.
#[test]
fn no_call_has_a_thread() {
    under_each(|pool| async move {
        let (_folder, path) = door();
        let before = threads_of_pools();
        assert!(!before.is_empty(), "a pool has a thread");
        let handles: Vec<_> = (0..1000)
            .map(|_| pool.apply_async(wait_for, path.clone()))
            .collect();
        // One that reads its own input.
        let mut stream = pool.imap_local(square, 0..100).into_stream();
        let all = async {
            for handle in handles {
                handle.await?;
            }
            stream.try_for_each(|result| result.map(|_| ())).await
        };
        let looks = async {
            // Those of the pool before may still be on their way out, and one of its feeders even
            // on its way in: a thread has its name when it runs.
            let others = || threads_of_pools().len() > before.len();
            let mut looks = 0;
            while others() && looks < 10_000 {
                std::thread::sleep(Duration::from_millis(1));
                looks += 1;
            }
            let now = threads_of_pools();
            assert!(now.len() <= before.len(), "{before:?}, and then {now:?}");
            fs::write(&path, "").expect("it can be written");
        };
        zip(all, looks).await.0
    });
}

/// The names of those threads of this process that are a pool's.
fn threads_of_pools() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").expect("a process has threads");
    let names = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")));
    names
        .filter_map(Result::ok)
        .filter(|name| name.starts_with("procpool"))
        .collect()
}

/// Dropping a handle, here by a timeout of the runtime's, leaves the task alone.
#[test]
fn a_timeout_of_the_runtime_is_no_deadline() {
    fn note((door, note): (String, String)) {
        wait_for(door);
        fs::write(note, "").expect("it can be written");
    }
    under_each(|pool| async move {
        let (folder, path) = door();
        let noted = folder.path().join("noted");
        let noted = noted.to_str().expect("the path is text").to_owned();
        let task = pool.apply_async(note, (path.clone(), noted.clone()));
        let first = smol::future::or(async { Some(task.await) }, async {
            smol::future::yield_now().await;
            None
        });
        assert!(first.await.is_none());
        fs::write(&path, "").expect("it can be written");
        pool.apply_async(wait_for, noted).await
    });
}

/// Tasks of a runtime with several threads, each with a handle of its own.
#[test]
fn a_thousand_tasks_of_tokio() {
    under_each(|pool| async move {
        if tokio::runtime::Handle::try_current().is_err() {
            return Ok(());
        }
        let mut tasks = tokio::task::JoinSet::new();
        for x in 0..1000 {
            let pool = pool.clone();
            tasks.spawn(async move { pool.apply_async(square, x).await });
        }
        let mut sum = 0;
        for result in tasks.join_all().await {
            sum += result?;
        }
        assert_eq!(sum, (0..1000).map(square).sum::<u64>());
        Ok(())
    });
}

/// The code of `docs/tokio.md`.
mod page {
    use std::time::Duration;

    use procpool::{Pool, ProcessPool};
    use smol::stream::StreamExt;

    use super::square;

    #[allow(dead_code, reason = "this program has another one")]
    fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        procpool::init();
        let pool = ProcessPool::new()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(serve(pool))?;
        Ok(())
    }

    fn slow_square(x: u64) -> u64 {
        std::thread::sleep(Duration::from_micros(10));
        x * x
    }

    fn hang(_: ()) {
        loop {
            std::thread::park();
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    }

    fn wait_and_square(runtime: &mut tokio::runtime::Runtime, x: u64) -> u64 {
        runtime.block_on(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            x * x
        })
    }

    pub(crate) async fn serve(
        pool: ProcessPool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let square = pool.apply_async(square, 12).await?;
        let squares = pool.map_async(slow_square, 0..100).await?;
        assert_eq!(square, squares[12]);

        let blocking = pool.clone();
        let by_thread =
            tokio::task::spawn_blocking(move || blocking.map(slow_square, 0..100)).await??;
        assert_eq!(by_thread, squares);

        let limit = Duration::from_millis(50);
        let outcome = tokio::time::timeout(limit, pool.apply_async(hang, ()).kill_on_drop()).await;
        assert!(outcome.is_err());

        let mut sum = 0;
        let mut squares = pool.imap_unordered(slow_square, 0..100).into_stream();
        while let Some(square) = squares.next().await {
            sum += square?;
        }
        assert_eq!(sum, by_thread.iter().sum::<u64>());

        let squares_of_futures = pool
            .call(wait_and_square)
            .state(runtime)
            .map_async(0..4)
            .await?;
        assert_eq!(squares_of_futures, [0, 1, 4, 9]);

        pool.close();
        pool.join_async().await?;
        Ok(())
    }
}

#[test]
fn the_page_on_tokio_works() {
    let pool = ProcessPool::builder().processes(2).build();
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads.worker_threads(2).enable_all().build();
    let served = runtime
        .expect("a runtime")
        .block_on(page::serve(pool.expect("a pool")));
    served.expect("it works");
}

#[test]
fn the_page_on_tokio_says_what_is_tested() {
    let squeezed = |text: &str| text.chars().filter(|it| !it.is_whitespace()).collect();
    let here: String = squeezed(include_str!("runtimes.rs"));
    let page = include_str!("../../docs/tokio.md");
    let codes: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    assert_eq!(codes.len(), 8);
    for code in codes {
        let code = code.strip_prefix("rust").expect("it is Rust");
        let code: String = squeezed(code);
        assert!(here.contains(&code), "untested: {code}");
    }
}
