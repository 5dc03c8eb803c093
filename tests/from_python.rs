//! Each line of docs/from-python.md, as it stands there, does what the page says.
#![allow(clippy::disallowed_methods, reason = "tests sleep")]
#![cfg(all(feature = "fork", feature = "spawn"))]

use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use procpool::{
    Broadcast, BuildErrorKind, Emitter, Fd, ForkPool, Pool, ProcessPool, SpawnPool, TaskError,
    TaskErrorKind, TaskHandle, worker,
};

procpool::init_before_main!(fork_server);

type Tested = Result<(), Box<dyn std::error::Error>>;

/// Long enough on any machine.
const LONG: Duration = Duration::from_secs(60);

fn f(x: u64) -> u64 {
    x + 1
}

fn g((x, y): (u64, u64)) -> u64 {
    x * y
}

fn count_by(k: &u64, from: u64, out: &Emitter<u64>) -> u64 {
    let all = (0..from).map(|x| k * x);
    all.take_while(|number| out.emit(*number).is_ok()).count() as u64
}

fn count_down(from: u64, out: &Emitter<u64>) -> u64 {
    let all = (1..=from).rev();
    all.take_while(|number| out.emit(*number).is_ok()).count() as u64
}

fn fail(_: u64) -> u64 {
    std::process::abort()
}

/// Waits until it is asked to stop.
fn stay(_: u64) -> u64 {
    while !worker::is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    7
}

#[test]
fn the_page_says_what_is_tested() {
    let squeezed = |text: &str| {
        let text: String = text.chars().filter(|it| !it.is_whitespace()).collect();
        text.replace(",)", ")")
    };
    let here = squeezed(include_str!("from_python.rs"));
    let page = include_str!("../docs/from-python.md");
    let mut lines = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let column = row.split(" | ").nth(1).expect("a row has three columns");
        for code in column.split('`').skip(1).step_by(2) {
            assert!(here.contains(&squeezed(code)), "untested: {code}");
            lines += 1;
        }
    }
    assert!(lines > 50, "only {lines} pieces of code were found");
}

#[test]
fn pools() -> Tested {
    fn begin((a, b): (u64, u64)) {
        assert_eq!((a, b), (1, 2), "the initializer's argument");
    }
    fn end() {}

    procpool::init();
    let pool = ProcessPool::new()?;
    let processors = std::thread::available_parallelism()?;
    assert_eq!(pool.processes(), processors.get());
    drop(pool);
    assert_eq!(ProcessPool::builder().processes(3).build()?.processes(), 3);
    let (a, b) = (1, 2);
    let pool = ProcessPool::builder()
        .processes(1)
        .initializer(begin, (a, b))
        .memory_limit(1 << 30)
        .max_tasks_per_child(2)
        .finalizer(end)
        .build()?;
    let n = 8;
    let bounded = ProcessPool::builder().max_queued(n).build()?;
    assert_eq!(bounded.apply(f, 1)?, 2);
    let name = |_: u64| worker::current().expect("in a worker").name();
    let names = pool.call(name).chunksize(1).map(0..4)?;
    assert_eq!(names[0], names[1]);
    assert_ne!(names[1], names[2]);
    // The fork server of this program was started before.
    let hook = || ();
    let hooked = ForkPool::builder().after_fork(hook).build();
    assert_eq!(hooked.unwrap_err().kind(), BuildErrorKind::InvalidConfig);
    assert_eq!(SpawnPool::new()?.apply(f, 1)?, 2);
    // This program again, since it is one.
    let (path, args) = (std::env::current_exe()?, ["an argument"]);
    let named = SpawnPool::builder().program(path).args(args).build()?;
    assert_eq!(
        named.apply(|()| std::env::args().nth(1), ())?.as_deref(),
        Some("an argument")
    );
    assert_eq!(ForkPool::new()?.apply(f, 1)?, 2);
    fn begin_counting() -> u64 {
        0
    }
    let h = |count: &mut u64, x: u64| {
        *count += x;
        *count
    };
    let x = 7;
    assert_eq!(pool.call(h).state(begin_counting).apply(x)?, 7);
    let load = |path: &String| path.len();
    let m = |model: &mut usize, x: usize| *model + x;
    let (path, items) = ("model".to_owned(), [1, 2]);
    assert_eq!(pool.call(m).state_from(load, path).map(items)?, [6, 7]);
    let scale = |k: &u64, x: u64| k * x;
    let (k, items) = (3, [1, 2]);
    assert_eq!(pool.call(scale).context(k).map(items)?, [3, 6]);
    let once = pool.call(h).state(begin_counting).on_worker(x).apply(x)?;
    assert!([7, 14].contains(&once));
    let pid = |()| std::process::id();
    assert_eq!(pool.run_on_each(pid, ()).len(), pool.processes());
    assert!(worker::current().is_none());
    let parse = |text: String| text.parse::<u32>().map_err(|error| error.to_string());
    let texts = ["1", "two"].map(str::to_owned);
    let numbers = pool.call(parse).count_errors().map(texts)?;
    assert!(numbers[0] == Ok(1) && numbers[1].is_err());
    Ok(())
}

#[test]
fn calls() -> Tested {
    let pool = ProcessPool::builder().processes(2).build()?;
    let (x, y, d) = (3, 4, LONG);
    let items = || 0..500_u64;
    let expected: Vec<u64> = items().map(f).collect();
    assert_eq!(pool.apply(f, x)?, 4);
    let n = 1;
    assert_eq!(pool.call(f).priority(n).apply(x)?, 4);
    let is_busy = |error: &TaskError| error.panic_message() == Some("busy");
    assert_eq!(pool.call(f).retries(3).retry_if(is_busy).apply(x)?, 4);
    assert_eq!(pool.apply(g, (x, y))?, 12);
    let pairs = || items().map(|x| (x, 2));
    let products: Vec<u64> = pairs().map(g).collect();
    {
        let pairs = pairs();
        assert_eq!(pool.map(g, pairs)?, products);
    }
    {
        let pairs = pairs();
        assert_eq!(pool.map_async(g, pairs).get()?, products);
    }
    let items = items();
    {
        let items = items.clone();
        assert_eq!(pool.map(f, items)?, expected);
    }
    {
        let items = items.clone();
        let outcomes = pool.try_map(f, items);
        assert!(
            outcomes
                .into_iter()
                .map(Result::unwrap)
                .eq(expected.clone())
        );
    }
    {
        let items = items.clone();
        assert_eq!(pool.call(f).chunksize(100).map(items)?, expected);
    }
    {
        let items = items.clone();
        assert_eq!(pool.map_async(f, items).get()?, expected);
    }
    {
        let items = items.clone();
        assert!(pool.imap(f, items).map(Result::unwrap).eq(expected.clone()));
    }
    let mut values = pool.call(count_down).stream(3);
    assert!(values.by_ref().map(Result::unwrap).eq([3, 2, 1]));
    assert_eq!(values.result()?, 3);
    let k = 3;
    let mut values = pool.call(count_by).context(k).stream(3);
    assert_eq!(values.by_ref().collect::<Result<Vec<_>, _>>()?, [0, 3, 6]);
    assert_eq!(values.result()?, 3);
    let values = pool.call(count_down).buffer(8).stream(3);
    assert_eq!(values.result()?, 3);
    {
        let items = items.clone();
        let mut results: Vec<u64> = pool.imap_unordered(f, items).collect::<Result<_, _>>()?;
        results.sort_unstable();
        assert_eq!(results, expected);
    }
    {
        let items = items.clone();
        let results = pool.call(f).timeout(d).imap(items);
        assert!(results.map(Result::unwrap).eq(expected.clone()));
    }
    {
        let items = items.clone();
        let results = pool.call(f).deadline(d).imap(items);
        assert!(results.map(Result::unwrap).eq(expected.clone()));
    }
    {
        let [nine, one] = [9, 1].map(Duration::from_secs);
        assert_eq!(pool.call(f).timeout(nine).grace(one).apply(x)?, f(x));
    }
    {
        let items = items.clone();
        let results = pool.call(f).chunksize(100).imap(items);
        assert!(results.map(Result::unwrap).eq(expected.clone()));
    }
    {
        let results = pool.call(f).buffer(8).imap(items);
        assert!(results.map(Result::unwrap).eq(expected));
    }
    let (xs, ys) = (1..4, 4..7);
    let products = pool.imap(g, xs.zip(ys));
    assert!(products.map(Result::unwrap).eq([4, 10, 18]));
    Ok(())
}

#[test]
fn handles() -> Tested {
    let pool = ProcessPool::builder().processes(2).build()?;
    let (x, d) = (1, LONG);
    let (sender, reports) = mpsc::channel();
    let report = move |result: &Result<u64, TaskError>| {
        let _ = sender.send(result.clone().unwrap_or_default());
    };
    {
        let report = report.clone();
        pool.apply_async(f, x).on_complete(report);
    }
    let handle = pool.apply_async(f, x);
    handle.on_complete(report);
    assert_eq!((reports.recv()?, reports.recv()?), (2, 2));
    handle.wait();
    assert!(handle.wait_timeout(d) && handle.is_ready());
    assert_eq!(handle.is_successful(), Some(true));
    assert_eq!(handle.get()?, 2);
    let mut handle = pool.apply_async(f, x);
    assert_eq!(handle.get_timeout(d).expect("it ends")?, 2);
    let handle = pool.apply_async(f, x);
    let text = async { handle.await.map(|two| two.to_string()) };
    assert_eq!(smol::block_on(text)?, "2");

    let handle = pool.apply_async(stay, x);
    assert!(handle.is_successful().is_none());
    handle.cancel();
    // It had begun and stopped early, or had not begun.
    assert!(
        handle
            .get()
            .map_or_else(|error| error.is_cancelled(), |seven| seven == 7)
    );
    let handle = pool.apply_async(stay, x);
    drop(handle.kill_on_drop());
    let handle = pool.apply_async(stay, x);
    handle.kill();
    let error = handle.get().unwrap_err();
    assert!(error.is_cancelled());
    let error = pool.apply(fail, x).unwrap_err();
    assert!(error.is_worker_lost());
    assert_eq!(pool.apply(f, x)?, 2);
    let handles: Vec<_> = (0..10).map(|x| pool.apply_async(f, x)).collect();
    handles.iter().for_each(TaskHandle::wait);
    assert!(handles.iter().all(TaskHandle::is_ready));
    Ok(())
}

#[test]
fn large_data() -> Tested {
    use std::collections::HashMap;

    type Shared = (Broadcast<[f64]>, Broadcast<HashMap<String, usize>>);
    fn look((table, names): Shared) -> (f64, usize) {
        (table[0], names["one"])
    }
    let pool = ProcessPool::new()?;
    let numbers = vec![0.5; 100_000];
    let names = HashMap::from([("one".to_owned(), 1)]);
    let (table, names) = (pool.broadcast(numbers)?, pool.broadcast(&names)?);
    assert_eq!(pool.apply(look, (table, names))?, (0.5, 1));
    fn column(rows: usize) -> Broadcast<[f64]> {
        Broadcast::new(vec![0.5; rows]).expect("there is memory")
    }
    let table = pool.apply(column, 1000)?;
    assert_eq!((table.len(), table[0]), (1000, 0.5));
    Ok(())
}

#[test]
fn files_and_connections() -> Tested {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::OnceLock;

    static LISTENER: OnceLock<TcpListener> = OnceLock::new();
    fn length(file: Fd) -> u64 {
        File::from(file.into_owned())
            .metadata()
            .map_or(0, |it| it.len())
    }
    fn serve(stream: Fd) -> bool {
        TcpStream::from(stream.into_owned())
            .write_all(b"hello")
            .is_ok()
    }
    fn create(_: ()) -> Fd {
        std::io::pipe().expect("descriptors").0.into()
    }
    fn listen(listener: Fd) {
        LISTENER.get_or_init(|| listener.into_owned().into());
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, accepting) = (listener.local_addr()?, listener.try_clone()?);
    let pool = ProcessPool::builder()
        .initializer(listen, Fd::from(listener))
        .build()?;
    let mut client = TcpStream::connect(address)?;
    let (stream, _) = accepting.accept()?;
    let served = pool.apply_async(serve, Fd::from(stream));
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    assert_eq!(answer, "hello");
    assert!(served.get()?);
    let file = File::open(std::env::current_exe()?)?;
    assert!(pool.apply(length, Fd::from(file))? > 0);
    let fd = pool.apply(create, ())?;
    assert_eq!(File::from(fd.into_owned()).read(&mut [0])?, 0);
    let port = |()| LISTENER.get().and_then(|it| it.local_addr().ok());
    assert_eq!(pool.apply(port, ())?, Some(address));
    Ok(())
}

#[test]
fn ends() -> Tested {
    let d = LONG;
    let pool = ProcessPool::builder().processes(2).build()?;
    assert!(pool.join().is_err(), "it is open");
    let handles: Vec<_> = (0..20).map(|x| pool.apply_async(stay, x)).collect();
    handles.iter().for_each(TaskHandle::cancel);
    pool.close();
    assert_eq!(pool.apply(f, 1).unwrap_err().kind(), TaskErrorKind::Closed);
    pool.join()?;
    assert!(pool.join_timeout(d)?);
    let mut end = std::pin::pin!(async {
        pool.join_async().await?;
        Tested::Ok(())
    });
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(
        end.as_mut().poll(&mut context),
        Poll::Ready(Ok(()))
    ));

    let pool = ProcessPool::builder().processes(2).build()?;
    let handle = pool.apply_async(stay, 1);
    pool.terminate();
    assert!(handle.get().unwrap_err().is_cancelled());
    Ok(())
}
