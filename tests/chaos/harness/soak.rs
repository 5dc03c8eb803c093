//! The soak: pools made and dropped, tasks run, and what the process holds looked at.
//!
//! The rule. The first fifth of the samples is for warming up: thread-local buffers, the
//! allocator's arenas, what the standard library sets up once. After that no count may be higher
//! than it ever was until then: descriptors, threads, shared mappings, processes. Private memory
//! and the allocator's mappings go up and down with what happens to be free; so the least of the
//! last third of the samples is compared with the least of the first third behind the warm-up, and
//! may be higher by as much as [`ALLOWANCE`] and [`ALLOWANCE_PER_TASK`] say. That is far less than
//! what one small leak per task, or one of a page per pool, comes to.

use std::time::Instant;

use procpool::Pool;

use super::backend::{Backend, Config};
use super::command::SoakOptions;
use super::holdings::Holdings;

/// So often is looked.
const SAMPLES: u64 = 25;

/// Growth that is no leak, in KiB: what the allocator may or may not have given back.
const ALLOWANCE: u64 = 512;

/// The same for each 100,000 tasks.
const ALLOWANCE_PER_TASK: u64 = 4;

/// The same of all mappings.
const MAPPINGS: usize = 32;

/// Of this many tasks one is an `apply`, and of this many an `apply_async`; the others are items of
/// maps.
const ITEMS: u64 = 1000;

/// Something that is counted.
type Count = fn(&Holdings) -> usize;

struct Sample {
    pools: u64,
    tasks: u64,
    holdings: Holdings,
}

/// Lives long. `false`: something has grown.
pub(crate) fn run<B: Backend>(options: &SoakOptions) -> bool {
    let begun = Instant::now();
    // While there is one thread.
    let backend = B::prepare(0, 0);
    let name = B::KIND.name();
    // Half of the tasks run in one pool that stays, the other half in those that come and go.
    let lasting = backend
        .build(&Config::plain(2))
        .1
        .expect("a pool can be built");
    let per_pool = options.tasks / options.pools.max(1);
    let every = (options.pools / SAMPLES).max(1);
    let mut samples: Vec<Sample> = Vec::new();
    let mut tasks = 0;
    println!("{name}: pools, tasks, and what the process holds");
    for number in 1..=options.pools {
        work(&lasting, per_pool / 2, number);
        tasks += per_pool;
        let (_, pool) = backend.build(&Config::plain(1 + number as usize % 3));
        let pool = pool.expect("a pool can be built");
        work(&pool, per_pool - per_pool / 2, number);
        end(pool, number);
        if number.is_multiple_of(every) {
            let holdings = settled(samples.last().map(|last| &last.holdings));
            println!("{number:>8} {tasks:>10}  {holdings}");
            samples.push(Sample {
                pools: number,
                tasks,
                holdings,
            });
        }
    }
    drop(lasting);
    let complaints = judge(&samples);
    for complaint in &complaints {
        eprintln!("LEAK: {complaint}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (pools, tasks) = samples
        .last()
        .map_or((0, 0), |last| (last.pools, last.tasks));
    println!(
        "{name}: {pools} pools and {tasks} tasks in {seconds:.1} s, {} leaks",
        complaints.len()
    );
    complaints.is_empty()
}

/// Runs this many tasks: a mixture.
fn work(pool: &impl Pool, tasks: u64, number: u64) {
    let square = |x: u64| x.wrapping_mul(x);
    let mut left = tasks;
    while left > 0 {
        let now = left.min(ITEMS);
        left -= now;
        let (singles, others) = (now / 5, now - now / 5);
        let handles: Vec<_> = (0..singles)
            .map(|x| pool.apply_async(square, x + number))
            .collect();
        let (mapped, lazy) = (others / 2, others - others / 2);
        let squares = pool.map(square, 0..mapped).expect("squares do not fail");
        assert!(
            squares.into_iter().eq((0..mapped).map(square)),
            "wrong squares"
        );
        let squares = if number.is_multiple_of(2) {
            pool.imap(square, 0..lazy)
                .map(|square| square.expect("squares do not fail"))
                .sum()
        } else {
            let lengths = pool.imap_unordered(|text: String| text.len() as u64, texts(lazy));
            lengths
                .map(|length| length.expect("lengths do not fail"))
                .sum::<u64>()
        };
        let expected = if number.is_multiple_of(2) {
            (0..lazy).map(square).sum::<u64>()
        } else {
            texts(lazy).map(|text| text.len() as u64).sum()
        };
        assert_eq!(squares, expected);
        for (x, handle) in (0..singles).zip(handles) {
            match x % 16 {
                // Not all handles are read.
                0 => drop(handle),
                1 => handle.on_complete(|_| {}),
                _ => assert_eq!(
                    handle.get().expect("squares do not fail"),
                    square(x + number)
                ),
            }
        }
    }
}

fn texts(count: u64) -> impl Iterator<Item = String> {
    (0..count).map(|x| "x".repeat(x as usize % 40))
}

/// Ends a pool in one of the ways that there are.
fn end(pool: impl Pool, number: u64) {
    match number % 3 {
        0 => {
            pool.close();
            pool.join().expect("it is closed");
        }
        1 => pool.terminate(),
        _ => {}
    }
}

/// What is held. The kernel may take a moment to end a thread that was joined.
fn settled(last: Option<&Holdings>) -> Holdings {
    for _ in 0..200 {
        let now = Holdings::now();
        if last.is_none_or(|last| now.is_within(last)) {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Holdings::now()
}

/// What has grown, by the rule of the module.
fn judge(samples: &[Sample]) -> Vec<String> {
    let (warm_up, rest) = samples.split_at(samples.len().div_ceil(5));
    let mut complaints = Vec::new();
    let counts: [(&str, Count); 4] = [
        ("descriptors", |holdings| holdings.descriptors),
        ("threads", |holdings| holdings.threads),
        ("shared mappings", |holdings| holdings.shared),
        ("processes", |holdings| holdings.processes),
    ];
    for (what, count) in counts {
        let most = |samples: &[Sample]| samples.iter().map(|it| count(&it.holdings)).max();
        if most(rest) > most(warm_up) {
            complaints.push(format!(
                "{what}: {:?} after {:?}",
                most(rest),
                most(warm_up)
            ));
        }
    }
    let third = rest.len() / 3;
    let (first, last) = (&rest[..third], &rest[rest.len() - third..]);
    if let (Some(begin), Some(end)) = (first.first(), last.last()) {
        let tasks = end.tasks - begin.tasks;
        let least = |samples: &[Sample]| samples.iter().map(|it| it.holdings.private).min();
        let (before, after) = (least(first).unwrap_or(0), least(last).unwrap_or(0));
        if after > before + ALLOWANCE + tasks / 100_000 * ALLOWANCE_PER_TASK {
            complaints.push(format!("memory: {before} KiB became {after} KiB"));
        }
        let least = |samples: &[Sample]| samples.iter().map(|it| it.holdings.mappings).min();
        let (before, after) = (least(first).unwrap_or(0), least(last).unwrap_or(0));
        if after > before + MAPPINGS {
            complaints.push(format!("mappings: {before} became {after}"));
        }
    }
    complaints
}
