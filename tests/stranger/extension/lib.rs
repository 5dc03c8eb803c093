//! A shared object, as Python and other programs load it. Each function is one step of a test, and
//! answers with a number: 0, or what it is asked for; `FAILED` if it panics.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use procpool::{AnyPool, ForkPool, ForkServer, Pool, SerialPool, SpawnPool, TaskErrorKind, worker};

const FAILED: u64 = u64::MAX;

static POOL: Mutex<Option<AnyPool>> = Mutex::new(None);

fn pool() -> MutexGuard<'static, Option<AnyPool>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pool itself, so that several threads can use it at a time.
fn shared() -> AnyPool {
    pool().clone().expect("the pool is open")
}

fn step(run: impl FnOnce() -> u64) -> u64 {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(FAILED)
}

static START: Mutex<u64> = Mutex::new(0);

fn set_start(start: u64) {
    *START.lock().unwrap() = start;
}

fn leave() {
    println!(
        "worker {} leaves",
        worker::current().map_or(u32::MAX, |it| it.number())
    );
}

fn square(x: u64) -> u64 {
    *START.lock().unwrap() + x * x
}

/// `s`erial, `f`ork or `s`pawn, by a number: 0, 1, 2.
#[unsafe(no_mangle)]
pub extern "C" fn open_pool(backend: u64) -> u64 {
    step(|| {
        let built = match backend {
            0 => Ok(SerialPool::new().into()),
            1 => ForkPool::builder()
                .processes(2)
                .initializer(set_start, 7)
                .finalizer(leave)
                .build()
                .map(AnyPool::from),
            _ => {
                let mut builder = SpawnPool::builder()
                    .processes(2)
                    .initializer(set_start, 7)
                    .finalizer(leave)
                    .launch_timeout(Duration::from_millis(limit()));
                // A program and its arguments, each in a line.
                if let Ok(program) = env::var("PROGRAM") {
                    let mut words = program.lines();
                    builder = builder.program(words.next().unwrap()).args(words);
                }
                builder.build().map(AnyPool::from)
            }
        };
        match built {
            Ok(built) => {
                *pool() = Some(built);
                0
            }
            Err(error) => {
                println!("refused: {:?}: {error}", error.kind());
                1
            }
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn close_pool() -> u64 {
    step(|| {
        let pool = pool().take().expect("the pool is open");
        pool.close();
        pool.join().expect("it ends");
        0
    })
}

/// The sum of so many squares, each with what the initializer has set.
#[unsafe(no_mangle)]
pub extern "C" fn squares(count: u64) -> u64 {
    step(|| {
        let pool = shared();
        let own = std::process::id();
        let mapped = pool.map(|x: u64| (square(x), std::process::id()), 0..count);
        let mapped = mapped.expect("it works");
        if !matches!(pool, AnyPool::Serial(_)) {
            assert!(mapped.iter().all(|(_, worker)| *worker != own));
        }
        mapped.into_iter().map(|(square, _)| square).sum()
    })
}

/// One of so many items takes its worker down: how many are lost.
#[unsafe(no_mangle)]
pub extern "C" fn crash(count: u64) -> u64 {
    step(|| {
        let run = |x: u64| {
            if x == 3 {
                std::process::abort();
            }
            x
        };
        let outcomes = shared().try_map(run, 0..count);
        let mut lost = 0;
        for (item, outcome) in (0..count).zip(outcomes) {
            match outcome {
                Ok(value) => assert_eq!(value, item),
                Err(error) => {
                    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
                    lost += 1;
                }
            }
        }
        lost
    })
}

/// A panic says where it was, and by whom the function was called.
#[unsafe(no_mangle)]
pub extern "C" fn panics() -> u64 {
    #[inline(never)]
    fn divide(x: u64) -> u64 {
        10 / x
    }
    step(|| {
        let error = shared().apply(divide, 0).expect_err("a panic");
        assert!(error.is_panic(), "{error}");
        let place = error.panic_location().expect("a place");
        assert!(place.contains("lib.rs"), "{place}");
        if let Some(backtrace) = error.backtrace() {
            assert!(backtrace.contains("divide"), "{backtrace}");
        }
        0
    })
}

/// Prints the numbers of the workers' processes, and keeps them busy from then on.
#[unsafe(no_mangle)]
pub extern "C" fn keep_busy() -> u64 {
    step(|| {
        let pool = shared();
        let workers = pool.dump().workers;
        let pids: Vec<u32> = workers
            .iter()
            .filter_map(|it| Some(it.info.as_ref()?.pid()))
            .collect();
        let sleep = |()| std::thread::sleep(Duration::from_secs(600));
        std::mem::forget(pool.map_async(sleep, [(), ()]));
        println!("workers {pids:?}");
        0
    })
}

fn limit() -> u64 {
    env::var("LIMIT_MS").map_or(60_000, |text| text.parse().unwrap())
}

/// What the function that makes a Python module would call.
#[unsafe(no_mangle)]
pub extern "C" fn init_extension() -> u64 {
    procpool::init();
    0
}

/// What a worker is: whether its tasks can start threads, and what they and the programs that they
/// start have for an environment.
#[unsafe(no_mangle)]
pub extern "C" fn describe_worker() -> u64 {
    step(|| {
        let describe = |()| {
            let thread = std::thread::spawn(|| {
                thread_local!(static NOISY: Noisy = const { Noisy });
                NOISY.with(|_| std::thread::current().name().is_none())
            });
            assert!(thread.join().unwrap());
            let told = |name| env::var(name).unwrap_or_default();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let caught = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .unwrap();
            let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
            let catches_interrupts = caught & 1 << (2 - 1) != 0;
            (
                told("LD_PRELOAD"),
                told("PROCPOOL_WORKER"),
                catches_interrupts,
            )
        };
        println!("worker: {:?}", shared().apply(describe, ()).unwrap());
        0
    })
}

/// A task has a pool of its own.
#[unsafe(no_mangle)]
pub extern "C" fn nests() -> u64 {
    step(|| {
        let nested = |count: u64| {
            let pool = SpawnPool::builder().processes(1).build().expect("a pool");
            pool.map(|x: u64| x + 1, 0..count)
                .expect("it works")
                .into_iter()
                .sum::<u64>()
        };
        assert_eq!(shared().apply(nested, 4), Ok(10));
        0
    })
}

/// A dump says where in the object a worker is.
#[unsafe(no_mangle)]
pub extern "C" fn dumps() -> u64 {
    #[inline(never)]
    fn dwell(seconds: u64) {
        std::thread::sleep(Duration::from_secs(seconds));
    }
    step(|| {
        let pool = shared();
        let handle = pool.apply_async(dwell, 600);
        let is_there =
            |stack: &Option<String>| stack.as_ref().is_some_and(|it| it.contains("dwell"));
        while !pool
            .dump()
            .workers
            .iter()
            .any(|worker| is_there(&worker.stack))
        {
            assert!(!handle.is_ready(), "it has ended: {:?}", handle.get());
        }
        handle.kill();
        0
    })
}

fn abort(_: ()) {
    std::process::abort()
}

/// Waits until the pool has ended by itself, and says why.
#[unsafe(no_mangle)]
pub extern "C" fn wait_for_the_end() -> u64 {
    step(|| {
        loop {
            // Each needs a new worker.
            let _ = shared().apply(abort, ());
            if let Err(error) = shared().apply(square, 1) {
                println!("ended: {:?}: {error}", error.kind());
                return 0;
            }
        }
    })
}

struct Noisy;

impl Drop for Noisy {
    fn drop(&mut self) {}
}

/// Starts a fork server for all later pools.
#[unsafe(no_mangle)]
pub extern "C" fn start_server() -> u64 {
    step(|| match ForkServer::start() {
        Ok(server) => {
            let _ = server.set_global();
            0
        }
        Err(error) => {
            println!("refused: {error}");
            1
        }
    })
}
