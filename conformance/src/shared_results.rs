//! Results that stay in the shared memory in which a worker has made them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use procpool::{Broadcast, Pool, TaskErrorKind};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::backends::{Builder, Processes, Subject};
use crate::broadcast::{holdings, inode_of, wait_for_release};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{signal, wait_for_death, wait_until, workers};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        what_a_task_shares_comes_back,
        handles_may_be_anywhere_in_a_result,
        every_kind_of_call_brings_it,
        handles_inside_of_what_a_task_shares,
        what_came_with_the_argument_and_what_is_new,
        metrics_count_the_result_alone,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        the_parent_reads_the_workers_own_memory,
        it_is_freed_with_its_last_handle,
        it_outlives_its_worker,
        it_goes_on_to_other_pools,
        handles_inside_go_on_to_other_pools,
        results_that_nobody_reads_leave_nothing,
        what_follows_cannot_cost_it,
        what_a_task_has_kept_comes_back,
        the_same_is_opened_once,
        workers_that_are_killed_cost_only_what_they_ran,
        many_threads_ask_at_once,
        a_caller_that_does_not_come_stops_nobody_for_ever,
        too_many_in_one_result,
        a_parent_without_descriptors,
        a_worker_that_cannot_be_reached,
        a_parent_that_has_changed_its_root,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: few_descriptors, unreachable_worker, changes_its_root]
}

/// This many numbers, the first of which is `from`.
fn count_from((from, length): (u64, usize)) -> Broadcast<[u64]> {
    let shared = Broadcast::filled(length, |numbers| {
        for (x, number) in (from..).zip(numbers) {
            *number = x;
        }
    });
    shared.expect("there is memory")
}

/// Whether these are the numbers.
fn is_counted(numbers: &[u64], from: u64, length: usize) -> bool {
    numbers.len() == length && (from..).zip(numbers).all(|(x, number)| x == *number)
}

/// A task that was given nothing shares something.
fn mine(_: ()) -> Broadcast<str> {
    Broadcast::new("mine").expect("there is memory")
}

/// Bytes and numbers, of no length, short and long; text; and any other value.
fn what_a_task_shares_comes_back<S: Subject>() {
    let pool = S::pool(2);
    for length in [0, 1, 16 << 20] {
        let fill = |length| Broadcast::filled(length, |bytes: &mut [u8]| bytes.fill(7)).unwrap();
        let bytes = pool.apply(fill, length).unwrap();
        assert_eq!(bytes.len(), length);
        assert!(bytes.iter().all(|byte| *byte == 7));
        assert_eq!(bytes.shared_bytes(), length);
    }
    for length in [0, 1, 2 << 20] {
        let numbers = pool.apply(count_from, (5, length)).unwrap();
        assert!(is_counted(&numbers, 5, length));
    }
    let floats = |()| Broadcast::new(vec![0.5, f64::NAN]).unwrap();
    let floats = pool.apply(floats, ()).unwrap();
    assert!(floats[0] == 0.5 && floats[1].is_nan());
    assert_eq!(&*pool.apply(mine, ()).unwrap(), "mine");
    let map = |()| Broadcast::new(&BTreeMap::from([(1_u8, "one".to_owned())])).unwrap();
    let map = pool.apply(map, ()).unwrap();
    assert_eq!(map[&1], "one");
}

#[derive(Serialize, Deserialize)]
struct Report {
    name: String,
    rows: Option<Broadcast<[u64]>>,
    more: BTreeMap<u8, Vec<Broadcast<[u64]>>>,
    beside: Vec<u8>,
}

fn report(x: usize) -> Report {
    let share = |length| count_from((x as u64, length));
    Report {
        name: format!("report {x}"),
        rows: x.is_multiple_of(2).then(|| share(x)),
        more: [(7, vec![share(1), share(x + 1)])].into(),
        beside: vec![7; 1000 * x],
    }
}

fn check(report: &Report, x: usize) {
    let from = x as u64;
    assert_eq!(report.name, format!("report {x}"));
    assert_eq!(report.rows.is_some(), x.is_multiple_of(2));
    let rows = report.rows.as_ref();
    assert!(rows.is_none_or(|rows| is_counted(rows, from, x)));
    assert!(is_counted(&report.more[&7][0], from, 1));
    assert!(is_counted(&report.more[&7][1], from, x + 1));
    assert_eq!(report.beside, vec![7; 1000 * x]);
}

/// In a struct, an option, a list, a map; in a tuple; beside values of any length.
fn handles_may_be_anywhere_in_a_result<S: Subject>() {
    let pool = S::pool(2);
    for (x, report) in pool.map(report, 0..40).unwrap().iter().enumerate() {
        check(report, x);
    }
    let both = |x| (x, count_from((x, 10)), Some(vec![count_from((x, 20))]));
    let (x, first, second) = pool.apply(both, 3).unwrap();
    assert!(x == 3 && is_counted(&first, 3, 10));
    assert!(is_counted(&second.unwrap()[0], 3, 20));
    let failed = |x: u64| (x > 3).then(|| count_from((x, 1))).ok_or(x);
    assert_eq!(pool.apply(failed, 3).unwrap().unwrap_err(), 3);
    assert_eq!(pool.apply(failed, 4).unwrap().unwrap()[0], 4);
}

fn every_kind_of_call_brings_it<S: Subject>() {
    const ITEMS: usize = 30;
    let pool = S::pool(2);
    let jobs = || (0..ITEMS).map(|x| (x as u64, 100));
    let check = |results: Vec<Broadcast<[u64]>>| {
        assert_eq!(results.len(), ITEMS);
        for (from, numbers) in (0..).zip(&results) {
            assert!(is_counted(numbers, from, 100));
        }
    };
    check(pool.map(count_from, jobs()).unwrap());
    check(pool.call(count_from).chunksize(7).map(jobs()).unwrap());
    check(pool.map_async(count_from, jobs()).get().unwrap());
    let tried = pool.call(count_from).try_map(jobs());
    check(tried.into_iter().collect::<Result<_, _>>().unwrap());
    let lazily = pool.imap(count_from, jobs());
    check(lazily.collect::<Result<_, _>>().unwrap());
    let mut unordered = Vec::new();
    for numbers in pool.imap_unordered(count_from, jobs()) {
        unordered.push(numbers.unwrap());
    }
    unordered.sort_by_key(|numbers| numbers[0]);
    check(unordered);
    let handles = Vec::from_iter(jobs().map(|job| pool.apply_async(count_from, job)));
    check(handles.into_iter().map(|it| it.get().unwrap()).collect());
    // Read twice, it is the same memory.
    let mut handle = pool.apply_async(count_from, (3, 4));
    handle.wait();
    let mut read = || handle.get_timeout(std::time::Duration::ZERO);
    let [one, other] = [read(), read()].map(|it| it.unwrap().unwrap());
    assert!(is_counted(&one, 3, 4) && one.as_ptr() == other.as_ptr());
}

/// What a task shares may mean what a task shares.
fn nest(_: ()) -> Broadcast<Vec<Broadcast<str>>> {
    let words = ["first", "second"].map(|word| Broadcast::new(word).unwrap());
    Broadcast::new(&words.to_vec()).unwrap()
}

fn handles_inside_of_what_a_task_shares<S: Subject>() {
    let pool = S::pool(1);
    let all = pool.apply(nest, ()).unwrap();
    assert_eq!(
        all.iter().map(|it| &**it).collect::<String>(),
        "firstsecond"
    );
    let second = all[1].clone();
    drop(all);
    assert_eq!(&*second, "second");
}

fn what_came_with_the_argument_and_what_is_new<S: Subject>() {
    let pool = S::pool(1);
    let old = pool.broadcast("old").unwrap();
    let both = |old: Broadcast<str>| (Broadcast::new(format!("{} and new", &*old)).unwrap(), old);
    let (new, back) = pool.apply(both, old.clone()).unwrap();
    assert_eq!((&*new, &*back), ("old and new", "old"));
    assert_eq!(back.as_ptr(), old.as_ptr());
    let many = pool.map(both, vec![old; 20]).unwrap();
    assert!(
        many.iter()
            .all(|it| (&*it.0, &*it.1) == ("old and new", "old"))
    );
}

/// Not what the worker says of its memory.
fn metrics_count_the_result_alone<S: Subject>() {
    let pool = S::pool(1);
    let one = pool.call(count_from).measured().apply((1, 1 << 16));
    assert!(is_counted(&one.outcome.unwrap(), 1, 1 << 16));
    assert!((1..100).contains(&one.metrics.result_bytes));
    let calls = pool.call(count_from).measured();
    for (from, one) in (0..).zip(calls.map((0..10).map(|x| (x, 100)))) {
        assert!(is_counted(&one.outcome.unwrap(), from, 100));
        assert!((1..100).contains(&one.metrics.result_bytes));
    }
}

/// Where a task's numbers lie: the inode of the file.
fn with_inode((from, length): (u64, usize)) -> (Broadcast<[u64]>, u64, u32) {
    let shared = count_from((from, length));
    let inode = inode_of(&shared[0]);
    (shared, inode, std::process::id())
}

/// Nothing was copied: the parent has mapped the file that the worker has written.
fn the_parent_reads_the_workers_own_memory<S: Processes>() {
    const LENGTH: usize = 2 << 20;
    let pool = S::pool(1);
    let (shared, inode, _) = pool.apply(with_inode, (9, LENGTH)).unwrap();
    assert_eq!(inode_of(&shared[0]), inode);
    assert_eq!(inode_of(&shared[LENGTH - 1]), inode);
    assert!(is_counted(&shared, 9, LENGTH));
    assert_eq!(holdings("self", inode), (1, 1));
    // Sixteen mebibytes did not go through the ring.
    assert!(pool.stats().bytes_received < 4096);
}

/// The worker keeps nothing of it, and the parent nothing longer than a handle.
fn it_is_freed_with_its_last_handle<S: Processes>() {
    let pool = S::pool(1);
    let (shared, inode, pid) = pool.apply(with_inode, (9, 1000)).unwrap();
    wait_for_release(pid, inode);
    assert_eq!(holdings("self", inode), (1, 1));
    let other = shared.clone();
    drop(shared);
    assert!(is_counted(&other, 9, 1000));
    // A task that reads it maps it, and lets go as well.
    let sum = |numbers: Broadcast<[u64]>| numbers.iter().sum::<u64>();
    assert_eq!(
        pool.apply(sum, other.clone()).unwrap(),
        (9..1009).sum::<u64>()
    );
    assert_eq!(holdings(&pid.to_string(), inode), (1, 1));
    drop(other);
    assert_eq!(holdings("self", inode), (0, 0));
    wait_for_release(pid, inode);
    assert_eq!(workers(&pool), [pid]);
}

fn it_outlives_its_worker<S: Processes>() {
    let pool = S::pool(1);
    let mut all = Vec::new();
    for from in 0..5 {
        let (shared, inode, pid) = pool.apply(with_inode, (from, 5000)).unwrap();
        signal(pid, Signal::KILL);
        wait_for_death(&[pid]);
        assert!(is_counted(&shared, from, 5000));
        assert_eq!(inode_of(&shared[0]), inode);
        all.push(shared);
    }
    // The next worker reads what the ones before it have made.
    let sums = pool.map(|numbers: Broadcast<[u64]>| numbers[1], all.clone());
    assert_eq!(sums.unwrap(), [1, 2, 3, 4, 5]);
    drop(pool);
    assert!(
        (0..)
            .zip(&all)
            .all(|(from, numbers)| is_counted(numbers, from, 5000))
    );
}

/// As every broadcast, also to a pool inside of a worker, and back through that.
fn it_goes_on_to_other_pools<S: Processes>() {
    fn through<T: Processes>(shared: Broadcast<[u64]>) -> (Broadcast<[u64]>, Broadcast<[u64]>) {
        let pool = T::pool(1);
        let back = pool.apply(|shared: Broadcast<[u64]>| shared, shared);
        (back.unwrap(), pool.apply(count_from, (77, 700)).unwrap())
    }
    let (first, second) = (S::pool(1), S::pool(2));
    let (shared, inode, _) = first.apply(with_inode, (1, 1000)).unwrap();
    let look = |shared: Broadcast<[u64]>| (shared[999], inode_of(&shared[0]));
    assert_eq!(second.apply(look, shared.clone()).unwrap(), (1000, inode));
    drop(first);
    assert_eq!(
        second.map(look, vec![shared.clone(); 9]).unwrap(),
        [(1000, inode); 9]
    );
    let (back, inner) = second.apply(through::<S>, shared).unwrap();
    assert_eq!(inode_of(&back[0]), inode);
    assert!(is_counted(&back, 1, 1000) && is_counted(&inner, 77, 700));
    drop(back);
    wait_for_release(std::process::id(), inode);
}

/// The handles inside name a worker that is gone.
fn handles_inside_go_on_to_other_pools<S: Processes>() {
    let first = S::pool(1);
    let all = first.apply(nest, ()).unwrap();
    drop(first);
    let join =
        |all: Broadcast<Vec<Broadcast<str>>>| -> String { all.iter().map(|it| &**it).collect() };
    let second = S::pool(2);
    let joined = second.map(join, vec![all.clone(); 10]);
    assert_eq!(joined.unwrap(), vec!["firstsecond".to_owned(); 10]);
    // From there to a worker that is one further away, and back.
    let third = second.apply(|all: Broadcast<Vec<Broadcast<str>>>| all[0].clone(), all);
    assert_eq!(&*third.unwrap(), "first");
}

/// Neither abandoned before they come nor after.
fn results_that_nobody_reads_leave_nothing<S: Processes>() {
    fn tell((tally, gate): (String, String)) -> Broadcast<[u64]> {
        let (shared, inode, _) = with_inode((0, 1000));
        file_barrier::add(&tally, inode);
        file_barrier::pass(&gate);
        shared
    }
    let pool = S::pool(2);
    let (tally, gate, open) = (Tally::new(), Gate::new(), Gate::new());
    open.open();
    let job = |gate: &Gate| (tally.ticket(), gate.ticket());
    let read = pool.apply_async(tell, job(&open));
    let arrived = pool.apply_async(tell, job(&open));
    arrived.wait();
    let running = pool.apply_async(tell, job(&gate));
    gate.wait_for(1);
    // It comes when nobody has asked for it any more.
    drop(running);
    let mut lazily = pool.imap(tell, vec![job(&open); 50]);
    assert!(lazily.next().is_some());
    drop(lazily);
    drop(arrived);
    gate.open();
    drop(pool.map_async(tell, (0..20).map(|_| job(&open))));
    drop(read.get().unwrap());
    let pids = workers(&pool);
    pool.close();
    pool.join().unwrap();
    wait_for_death(&pids);
    for line in tally.lines() {
        wait_for_release(std::process::id(), line.parse().unwrap());
    }
}

/// The item behind it takes the worker down; so does somebody else, right then.
fn what_follows_cannot_cost_it<S: Processes>() {
    fn share_or_die(x: u64) -> Broadcast<[u64]> {
        if x % 2 == 1 {
            std::process::abort();
        }
        count_from((x, 100))
    }
    let pool = S::pool(1);
    // In the same frame, and in the next one.
    for chunksize in [2, 1] {
        let call = pool.call(share_or_die).chunksize(chunksize);
        for (x, outcome) in (0..).zip(call.try_map(0..20)) {
            match outcome {
                Ok(shared) => assert!(x % 2 == 0 && is_counted(&shared, x, 100)),
                Err(error) => {
                    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
                    assert!(x % 2 == 1, "item {x} was lost with the next one");
                }
            }
        }
    }
}

/// The parent has long forgotten what it has sent; the task has not.
fn what_a_task_has_kept_comes_back<S: Processes>() {
    static KEPT: Mutex<Option<Broadcast<str>>> = Mutex::new(None);
    let pool = S::pool(1);
    let shared = pool.broadcast("kept").unwrap();
    let inode = inode_of(&*shared);
    let keep = |shared| *KEPT.lock().unwrap() = Some(shared);
    pool.apply(keep, shared).unwrap();
    wait_for_release(std::process::id(), inode);
    let give = |()| KEPT.lock().unwrap().clone().unwrap();
    for _ in 0..3 {
        let back = pool.apply(give, ()).unwrap();
        assert_eq!((&*back, inode_of(&*back)), ("kept", inode));
    }
    wait_for_release(std::process::id(), inode);
}

/// A worker that keeps what it returns returns the same memory.
fn the_same_is_opened_once<S: Processes>() {
    static KEPT: Mutex<Option<Broadcast<[u64]>>> = Mutex::new(None);
    let pool = S::pool(1);
    let give = |x: u64| {
        let mut kept = KEPT.lock().unwrap();
        (x, kept.get_or_insert_with(|| count_from((5, 1000))).clone())
    };
    let all = pool.map(give, 0..100).unwrap();
    let inode = inode_of(&all[0].1[0]);
    assert!(all.iter().all(|(_, shared)| is_counted(shared, 5, 1000)));
    assert_eq!(holdings("self", inode), (1, 1));
    drop(all);
    wait_for_release(std::process::id(), inode);
    assert_eq!(holdings(&workers(&pool)[0].to_string(), inode), (1, 1));
    assert!(is_counted(&pool.apply(give, 1).unwrap().1, 5, 1000));
}

/// Whenever that is: before the parent has the memory, during that, or after.
fn workers_that_are_killed_cost_only_what_they_ran<S: Processes>() {
    let pool = S::pool(2);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let pids = workers(&pool);
                if let Some(pid) = pids.get(turn % 2) {
                    signal(*pid, Signal::KILL);
                }
                thread::yield_now();
                let before = pool.stats().succeeded;
                // They get something done in between.
                wait_until(|| stop.load(Ordering::Relaxed) || pool.stats().succeeded > before + 3);
            }
        });
        for round in 0..3 {
            let from = |x: u64| 1000 * round + x;
            let call = pool.call(count_from).chunksize(3).retries(1000);
            let all = call.map((0..100).map(|x| (from(x), 300)));
            for (x, shared) in (0..).zip(all.unwrap()) {
                assert!(is_counted(&shared, from(x), 300));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn many_threads_ask_at_once<S: Processes>() {
    let pool = S::pool(3);
    thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for turn in 0..30 {
                    let from = 1000 * thread + turn;
                    let one = pool.apply(count_from, (from, 2000)).unwrap();
                    assert!(is_counted(&one, from, 2000));
                    let all = pool.map(count_from, (0..5).map(|x| (from + x, 10)));
                    for (from, shared) in (from..).zip(all.unwrap()) {
                        assert!(is_counted(&shared, from, 10));
                    }
                    let later = pool.apply_async(count_from, (from, 3));
                    assert!(is_counted(&later.get().unwrap(), from, 3));
                }
            });
        }
    });
}

/// A worker waits until its result was taken; a thread that comes to the pool for something else
/// takes it.
fn a_caller_that_does_not_come_stops_nobody_for_ever<S: Processes>() {
    let pool = S::pool(1);
    let mut lazily = pool
        .call(count_from)
        .chunksize(1)
        .imap((0..20).map(|x| (x, 10)));
    let first = lazily.next().unwrap().unwrap();
    assert!(is_counted(&first, 0, 10));
    for x in 0..5 {
        assert_eq!(pool.apply(|x: u64| x + 1, x).unwrap(), x + 1);
        assert!(is_counted(&pool.apply(count_from, (x, 5)).unwrap(), x, 5));
    }
    let rest = lazily.map(|it| it.unwrap()[0]);
    assert_eq!(Vec::from_iter(rest), Vec::from_iter(1..20));
}

fn too_many_in_one_result<S: Processes>() {
    let pool = S::pool(1);
    let share = |count: u64| Vec::from_iter((0..count).map(|x| count_from((x, 1))));
    let all = pool.apply(share, 64).unwrap();
    assert!((0..).zip(&all).all(|(x, shared)| shared[0] == x));
    let error = pool.apply(share, 65).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Encode);
    assert!(
        error.to_string().contains("more than 64 broadcasts"),
        "{error}"
    );
    // Many handles of few are few, and what came with the argument is not counted.
    let repeat = |one: Broadcast<str>| (vec![one; 1000], vec![count_from((1, 2)); 1000]);
    let one = pool.broadcast("one").unwrap();
    let (ones, others) = pool.apply(repeat, one).unwrap();
    assert_eq!((ones.len(), others.len()), (1000, 1000));
    assert_eq!((&*ones[999], others[999][1]), ("one", 2));
}

fn few_descriptors<S: Processes>() {
    let pool = S::pool(1);
    assert!(is_counted(&pool.apply(count_from, (1, 10)).unwrap(), 1, 10));
    let limit = getrlimit(Resource::Nofile);
    let few = |current| Rlimit {
        current: Some(current),
        maximum: limit.maximum,
    };
    // The numbers below that are all taken.
    let taken = std::fs::File::open("/dev/null").unwrap();
    let taken = std::os::fd::AsRawFd::as_raw_fd(&taken);
    setrlimit(Resource::Nofile, few(taken as u64)).unwrap();
    for _ in 0..3 {
        let error = pool.apply(count_from, (2, 10)).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
        for words in [
            "Too many open files",
            "ulimit -n",
            "return the value itself",
        ] {
            assert!(error.to_string().contains(words), "no {words:?} in {error}");
        }
        // It is that result alone which is lost.
        assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
        let both = pool
            .call(|x: u64| (x > 0).then(|| count_from((x, 1))))
            .chunksize(2);
        let both = both.try_map([0, 1, 0]);
        assert_eq!(
            Vec::from_iter(both.iter().map(Result::is_ok)),
            [true, false, true]
        );
    }
    setrlimit(Resource::Nofile, few(limit.current.unwrap_or(1024))).unwrap();
    assert!(is_counted(&pool.apply(count_from, (3, 10)).unwrap(), 3, 10));
    assert_eq!(pool.stats().workers_started, 1);
}

/// The task whose result it is fails and says what to do, and nothing else is the worse for it.
fn a_parent_without_descriptors<S: Processes>() {
    assert_eq!(again::<S>("few_descriptors").lines(), [""; 0]);
}

fn unreachable_worker<S: Processes>() {
    use rustix::process::{DumpableBehavior, Uid, geteuid, set_dumpable_behavior};
    use rustix::thread::set_thread_res_uid;

    let pool = S::builder()
        .processes(1)
        .initializer(
            |()| set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap(),
            (),
        )
        .build();
    // To root nothing is out of reach. It is this thread that looks for what it waits for.
    let (root, nobody) = (Uid::ROOT, Uid::from_raw(65_534));
    let is_root = geteuid().is_root();
    if is_root {
        set_thread_res_uid(root, nobody, root).unwrap();
    }
    for _ in 0..2 {
        // The worker hands it over.
        assert_eq!(&*pool.apply(mine, ()).unwrap(), "mine");
    }
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    assert_eq!(pool.stats().workers_started, 1);
    if is_root {
        // Or it could not end its workers either.
        set_thread_res_uid(root, root, root).unwrap();
    }
}

fn a_worker_that_cannot_be_reached<S: Processes>() {
    assert_eq!(again::<S>("unreachable_worker").lines(), [""; 0]);
}

/// As a daemon does once it has what it needs. Its `/proc` is gone then, and with it the workers'
/// folders there.
fn changes_its_root<S: Processes>() {
    let pool = S::pool(1);
    let number = |_: u64| procpool::worker::current().map(|worker| worker.number());
    let worker = pool.apply(number, 0).unwrap();
    let root = std::env::temp_dir();
    if nix::unistd::chroot(&root).is_err() {
        return println!("refused");
    }
    std::env::set_current_dir("/").unwrap();
    // The worker sends it.
    let numbers = pool.apply(count_from, (5, 1000)).unwrap();
    assert!(is_counted(&numbers, 5, 1000));
    // It is not to blame.
    assert_eq!(pool.apply(number, 1).unwrap(), worker);
    assert_eq!(pool.dump().workers.len(), 1);
    assert_eq!(pool.stats().workers.len(), 1);
    println!("answered");
}

fn a_parent_that_has_changed_its_root<S: Processes>() {
    let mut program = again::<S>("changes_its_root").start();
    let line = program.line();
    assert!(line == "answered" || line == "refused", "{line}");
    assert!(program.status().success());
}
