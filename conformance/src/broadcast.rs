//! Values that all workers share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Mutex, PoisonError};

use procpool::{Broadcast, Pool, TaskErrorKind};
use serde::{Deserialize, Serialize};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Gate};
use crate::procfs::{is_sealed_memory, signal, wait_until, workers};
use crate::program::{Program, again, programs};
use crate::trial::Test;
use crate::watchdog;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_handle_is_its_value,
        what_is_filled_in_place_is_shared,
        a_handle_may_be_anywhere_in_an_argument,
        nothing_at_all_can_be_shared,
        a_handle_that_was_given_away_comes_back,
        a_handle_inside_of_what_is_shared,
        a_handle_goes_nowhere_else,
        a_value_that_cannot_be_shared,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_worker_maps_it_once,
        a_value_is_decoded_once_in_each_worker,
        a_value_that_cannot_be_read_back_fails_the_task,
        idle_workers_let_go_of_what_is_freed,
        a_busy_worker_lets_go_when_it_is_through,
        a_worker_that_never_rests_lets_go_between_tasks,
        a_handle_on_its_way_keeps_the_memory,
        a_task_may_keep_a_handle,
        replacements_open_it_anew,
        an_initializer_may_have_one,
        two_pools_share_one,
        a_worker_passes_it_on_to_its_own_pool,
        a_parent_that_cannot_be_reached,
        a_gibibyte_is_there_once,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: unreachable_parent]
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Table {
    rows: Vec<(String, u32)>,
}

fn table() -> Table {
    let rows = (0..1000).map(|row| (format!("row {row}"), row));
    Table {
        rows: rows.collect(),
    }
}

/// Where something lies in this process's memory: the inode of the file, which is the same in
/// every process.
pub(crate) fn inode_of<T: ?Sized>(value: &T) -> u64 {
    let address = std::ptr::from_ref(value).addr();
    let mapping = mappings("self")
        .into_iter()
        .find(|it| it.0.contains(&address));
    mapping.expect("it is shared memory").1
}

/// The shared memory that a process has mapped: where, and the inode.
fn mappings(process: &str) -> Vec<(std::ops::Range<usize>, u64)> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let lines = maps.lines().filter(|line| is_sealed_memory(line));
    lines
        .map(|line| {
            let fields = Vec::from_iter(line.split_whitespace());
            let (start, end) = fields[0].split_once('-').expect("a range");
            let number = |text| usize::from_str_radix(text, 16).expect("an address");
            (
                number(start)..number(end),
                fields[4].parse().expect("an inode"),
            )
        })
        .collect()
}

/// How often a process has mapped the memory, and how many descriptors of it it has.
pub(crate) fn holdings(process: &str, inode: u64) -> (usize, usize) {
    let maps = mappings(process);
    let mapped = maps.iter().filter(|it| it.1 == inode).count();
    let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
    let open = descriptors.into_iter().flatten().filter(|entry| {
        use std::os::unix::fs::MetadataExt;
        let path = entry.as_ref().map(|entry| entry.path());
        // Files on disks may have the same number.
        let is_memory = |path: &std::path::PathBuf| {
            fs::read_link(path).is_ok_and(|name| is_sealed_memory(&name.to_string_lossy()))
        };
        path.is_ok_and(|path| {
            is_memory(&path) && fs::metadata(path).is_ok_and(|file| file.ino() == inode)
        })
    });
    (mapped, open.count())
}

/// Who has the memory, that this one should not have.
fn holders(pid: u32, inode: u64) -> String {
    let mut text = format!("process {pid} should have nothing of the memory {inode}");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let process = process.file_name().to_string_lossy().into_owned();
        let (mapped, open) = holdings(&process, inode);
        if (mapped, open) != (0, 0) && process.parse::<u32>().is_ok() {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            text += &format!(
                "\nprocess {process} ({}) has mapped it {mapped} times and has {open} descriptors",
                name.trim()
            );
        }
    }
    text
}

/// Waits until a process has nothing of the memory left. Should that be in vain, the watchdog says
/// who has it.
///
/// In the parent, what may come after the last handle was dropped is bounded by what a thread of
/// the pool's does without waiting: it delivers an outcome (`Shared::deliver`), and lets go of the
/// chunk with it, or it is in the middle of finding the memory by its name. Nothing keeps memory
/// there: what handles in an argument mean belongs to the chunk, whose outcomes take it along
/// (`ChunkExt::into_memory`), and `kept` is set only for what a worker has opened in its parent.
///
/// In a worker, it is bounded by the next look at `advice.freed`: before it sleeps and after each
/// frame. The parent's supervisor raises that and wakes the worker.
pub(crate) fn wait_for_release(pid: u32, inode: u64) {
    let _told = watchdog::explain(move || holders(pid, inode));
    wait_until(|| holdings(&pid.to_string(), inode) == (0, 0));
}

/// Bytes and numbers of all kinds, text, and any other value.
fn a_handle_is_its_value<S: Subject>() {
    let pool = S::pool(2);
    let bytes = Vec::from_iter((0..100_000).map(|x| x as u8));
    let shared = pool.broadcast(&bytes[..]).unwrap();
    assert_eq!(&*shared, &bytes[..]);
    let sum = |bytes: Broadcast<[u8]>| bytes.iter().map(|x| u64::from(*x)).sum::<u64>();
    let expected = bytes.iter().map(|x| u64::from(*x)).sum::<u64>();
    assert_eq!(pool.apply(sum, shared.clone()).unwrap(), expected);
    assert_eq!(shared.shared_bytes(), bytes.len());

    let numbers = Vec::from_iter((0..10_001).map(f64::from));
    let shared = pool.broadcast(numbers.clone()).unwrap();
    let back = pool.apply(|numbers: Broadcast<[f64]>| numbers.to_vec(), shared);
    assert_eq!(back.unwrap(), numbers);
    let shared = pool
        .broadcast(vec![u128::MAX, 1].into_boxed_slice())
        .unwrap();
    let back = pool.apply(|numbers: Broadcast<[u128]>| numbers.to_vec(), shared);
    assert_eq!(back.unwrap(), vec![u128::MAX, 1]);
    let points = vec![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let shared = pool.broadcast(points.clone()).unwrap();
    let back = pool.apply(|points: Broadcast<[[f32; 3]]>| points.to_vec(), shared);
    assert_eq!(back.unwrap(), points);

    let shared = pool.broadcast("grüße".to_owned()).unwrap();
    let back = pool.apply(|text: Broadcast<str>| text.to_string(), shared);
    assert_eq!(back.unwrap(), "grüße".to_owned());

    let shared = pool.broadcast(&table()).unwrap();
    assert_eq!(*shared, table());
    let back = pool.apply(|table: Broadcast<Table>| Table::clone(&table), shared);
    assert_eq!(back.unwrap(), table());
}

/// No more than the numbers that were written, also if that is none at all or far too much.
fn what_is_filled_in_place_is_shared<S: Subject>() {
    let pool = S::pool(1);
    let count = |numbers: &mut [u32]| {
        for (x, number) in (1..).zip(numbers) {
            *number = x;
        }
    };
    for length in [0, 1, 5000] {
        let shared = Broadcast::filled(length, count).unwrap();
        let back = pool.apply(|shared: Broadcast<[u32]>| shared.to_vec(), shared);
        assert_eq!(back.unwrap(), Vec::from_iter(1..=length as u32));
    }
    for length in [usize::MAX, usize::MAX / 4, 1 << 59] {
        let error = Broadcast::filled(length, count).unwrap_err();
        assert!(error.is_refused_by_system(), "{error}");
    }
    // Without a word to the user.
    let give_up = |_: &mut [u8]| std::panic::resume_unwind(Box::new("in vain"));
    let panic = std::panic::catch_unwind(|| Broadcast::filled(5, give_up));
    assert!(panic.is_err());
}

/// In a struct, an option, a list, a map; of every kind of call.
fn a_handle_may_be_anywhere_in_an_argument<S: Subject>() {
    #[derive(Serialize, Deserialize)]
    struct Job {
        name: String,
        words: Option<Broadcast<str>>,
        tables: BTreeMap<u8, Vec<Broadcast<[u16]>>>,
        wanted: usize,
    }
    fn look(job: Job) -> (String, Option<String>, u16) {
        let found = job.tables[&7][1][job.wanted];
        (job.name, job.words.map(|words| words.to_uppercase()), found)
    }
    let pool = S::pool(2);
    let words = pool.broadcast("words").unwrap();
    let first = pool.broadcast(vec![0_u16; 10]).unwrap();
    let second = pool.broadcast(Vec::from_iter(0..1000_u16)).unwrap();
    let job = |wanted: usize| Job {
        name: format!("job {wanted}"),
        words: wanted.is_multiple_of(2).then(|| words.clone()),
        tables: [(7, vec![first.clone(), second.clone()])].into(),
        wanted,
    };
    let expected = |wanted: usize| {
        let words = wanted.is_multiple_of(2).then(|| "WORDS".to_owned());
        (format!("job {wanted}"), words, wanted as u16)
    };
    let all = Vec::from_iter((0..500).map(expected));
    let jobs = || (0..500).map(job);
    assert_eq!(pool.apply(look, job(3)).unwrap(), expected(3));
    assert_eq!(pool.apply_async(look, job(4)).get().unwrap(), expected(4));
    assert_eq!(pool.map(look, jobs()).unwrap(), all);
    assert_eq!(pool.map_async(look, jobs()).get().unwrap(), all);
    let lazily = pool.imap_local(look, jobs()).collect::<Result<Vec<_>, _>>();
    assert_eq!(lazily.unwrap(), all);
    let tried = pool.call(look).chunksize(7).try_map(jobs());
    assert_eq!(tried.into_iter().collect::<Result<Vec<_>, _>>(), Ok(all));
}

fn nothing_at_all_can_be_shared<S: Subject>() {
    let pool = S::pool(1);
    let bytes = pool.broadcast(Vec::<u64>::new()).unwrap();
    let text = pool.broadcast("").unwrap();
    let unit = pool.broadcast(&()).unwrap();
    assert_eq!(bytes.shared_bytes(), 0);
    type Nothings = (Broadcast<[u64]>, Broadcast<str>, Broadcast<()>);
    let empty = |(bytes, text, unit): Nothings| (bytes.len(), text.len(), *unit);
    assert_eq!(pool.apply(empty, (bytes, text, unit)).unwrap(), (0, 0, ()));
}

/// The caller keeps no handle: the one in the result still means the memory, however late it is
/// read.
fn a_handle_that_was_given_away_comes_back<S: Subject>() {
    let pool = S::pool(2);
    let share = |text: &str| pool.broadcast(text).unwrap();
    let echo = |handle: Broadcast<str>| handle;
    assert_eq!(&*pool.apply(echo, share("one")).unwrap(), "one");
    let later = pool.apply_async(echo, share("two"));
    let mut twice = pool.apply_async(echo, share("three"));
    pool.apply(|()| (), ()).unwrap();
    assert_eq!(&*later.get().unwrap(), "two");
    twice.wait();
    for _ in 0..2 {
        let read = twice.get_timeout(std::time::Duration::ZERO);
        assert_eq!(&*read.unwrap().unwrap(), "three");
    }
    let many = (0..100).map(|x| share(&x.to_string()));
    for (x, handle) in pool.map(echo, many).unwrap().into_iter().enumerate() {
        assert_eq!(*handle, *x.to_string());
    }
    let many = (0..100).map(|x| share(&x.to_string()));
    for (x, handle) in pool.map_async(echo, many).get().unwrap().iter().enumerate() {
        assert_eq!(**handle, *x.to_string());
    }
}

/// What is shared may mean what is shared.
fn a_handle_inside_of_what_is_shared<S: Subject>() {
    let pool = S::pool(1);
    let words = ["first", "second"].map(|word| pool.broadcast(word).unwrap());
    let all = pool.broadcast(&words.to_vec()).unwrap();
    drop(words);
    let join = |all: Broadcast<Vec<Broadcast<str>>>| all.iter().map(|it| it.len()).sum::<usize>();
    assert_eq!(pool.apply(join, all.clone()).unwrap(), 11);
    assert_eq!(&*all[1], "second");
}

/// In a file it would mean nothing to who reads that.
fn a_handle_goes_nowhere_else<S: Subject>() {
    let pool = S::pool(1);
    let handle = pool.broadcast("secret").unwrap();
    postcard::to_allocvec(&handle).unwrap_err();
    // Also in a worker, with a handle that came by the pool, and after that.
    let elsewhere = |handle: Broadcast<str>| postcard::to_allocvec(&handle).is_ok();
    assert!(!pool.apply(elsewhere, handle).unwrap());
    // Nor what the worker has made itself.
    let elsewhere = |()| postcard::to_allocvec(&Broadcast::new("mine").unwrap()).is_ok();
    assert!(!pool.apply(elsewhere, ()).unwrap());
    let forged = postcard::from_bytes::<Broadcast<str>>(&[1; 100]);
    forged.unwrap_err();
}

fn a_value_that_cannot_be_shared<S: Subject>() {
    #[derive(Deserialize)]
    struct Stubborn;
    impl Serialize for Stubborn {
        fn serialize<Z: serde::Serializer>(&self, _: Z) -> Result<Z::Ok, Z::Error> {
            Err(serde::ser::Error::custom("I will not"))
        }
    }
    let error = S::pool(1).broadcast(&Stubborn).unwrap_err();
    assert!(!error.is_refused_by_system());
    assert!(error.to_string().contains("I will not"), "{error}");
}

/// Ten thousand items with the same handle: each worker maps and opens the memory once, and keeps
/// the mapping, for what the first item has read is there for the others.
fn a_worker_maps_it_once<S: Processes>() {
    const NUMBERS: usize = 100_000;
    /// How many bytes of the memory this process has read, by this mapping of it.
    fn resident(address: usize) -> usize {
        let maps = fs::read_to_string("/proc/self/smaps").expect("the kernel tells");
        let from = maps.find(&format!("{address:x}-")).expect("it is mapped");
        let line = maps[from..].lines().find(|line| line.starts_with("Rss:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        1024 * number
            .and_then(|it| it.parse::<usize>().ok())
            .expect("a number")
    }
    fn look(table: Broadcast<[u64]>) -> (u32, usize, (usize, usize)) {
        let before = resident(table.as_ptr().addr());
        let holdings = holdings("self", inode_of(&table[0]));
        assert_eq!(table.iter().sum::<u64>(), 7 * NUMBERS as u64);
        (std::process::id(), before, holdings)
    }
    let pool = S::pool(2);
    let table = pool.broadcast(vec![7_u64; NUMBERS]).unwrap();
    let items = || vec![table.clone(); 100];
    let mut seen = pool.call(look).chunksize(1).map(items()).unwrap();
    let one = pool.call(|table: Broadcast<[u64]>| table[NUMBERS - 1]);
    let many = one.chunksize(3).map(vec![table.clone(); 10_000]);
    assert_eq!(many.unwrap(), vec![7; 10_000]);
    seen.extend(pool.call(look).chunksize(1).map(items()).unwrap());
    assert!(seen.iter().all(|it| it.2 == (1, 1)), "{seen:?}");
    let pids = BTreeSet::from_iter(seen.iter().map(|it| it.0));
    let first = seen.iter().filter(|it| it.1 < 8 * NUMBERS);
    assert!(first.count() <= pids.len(), "{seen:?}");
}

/// A value that must be decoded is decoded once in each worker.
fn a_value_is_decoded_once_in_each_worker<S: Processes>() {
    static DECODED: Mutex<u32> = Mutex::new(0);
    #[derive(Serialize)]
    struct Counted(String);
    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            *DECODED.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            String::deserialize(deserializer).map(Counted)
        }
    }
    let pool = S::pool(2);
    let shared = pool.broadcast(&Counted("once".into())).unwrap();
    let look = |shared: Broadcast<Counted>| {
        assert_eq!(shared.0, "once");
        *DECODED.lock().unwrap_or_else(PoisonError::into_inner)
    };
    let counts = pool.call(look).chunksize(1).map(vec![shared; 200]).unwrap();
    assert!(counts.iter().all(|count| *count == 1), "{counts:?}");
}

/// An error or a panic while the value is decoded is the task's, each time.
fn a_value_that_cannot_be_read_back_fails_the_task<S: Processes>() {
    #[derive(Serialize)]
    struct OneWay(bool);
    impl<'de> Deserialize<'de> for OneWay {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            assert!(!bool::deserialize(deserializer)?, "it panics instead");
            Err(serde::de::Error::custom("there is no way back"))
        }
    }
    let pool = S::pool(1);
    for (panics, words) in [(false, "no way back"), (true, "panics instead")] {
        let shared = pool.broadcast(&OneWay(panics)).unwrap();
        for _ in 0..3 {
            let error = pool.apply(|_: Broadcast<OneWay>| (), shared.clone());
            let error = error.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
}

/// The last handle goes, and nobody has the memory any more: not the parent, and not the workers,
/// which have nothing else to do.
fn idle_workers_let_go_of_what_is_freed<S: Processes>() {
    let pool = S::pool(3);
    let gone = pool.broadcast(vec![1_u8; 1 << 20]).unwrap();
    let kept = pool.broadcast(vec![2_u8; 1 << 20]).unwrap();
    let (gone_inode, kept_inode) = (inode_of(&gone[0]), inode_of(&kept[0]));
    let gate = Gate::new();
    let wait = |(a, b, gate): (Broadcast<[u8]>, Broadcast<[u8]>, String)| {
        file_barrier::pass(&gate);
        a[0] + b[0]
    };
    // In every worker at the same time.
    let all = vec![(gone.clone(), kept.clone(), gate.ticket()); 3];
    let handle = pool.call(wait).chunksize(1).map_async(all);
    gate.wait_for(3);
    gate.open();
    assert_eq!(handle.get().unwrap(), vec![3; 3]);
    let pids = workers(&pool);
    assert_eq!(pids.len(), 3);
    for pid in &pids {
        assert_eq!(holdings(&pid.to_string(), gone_inode), (1, 1));
    }
    drop(gone);
    assert_eq!(holdings("self", gone_inode), (0, 0));
    for pid in &pids {
        wait_for_release(*pid, gone_inode);
        assert_eq!(holdings(&pid.to_string(), kept_inode), (1, 1));
    }
    assert_eq!(workers(&pool), pids);
    assert_eq!(
        pool.apply(|kept: Broadcast<[u8]>| kept[5], kept).unwrap(),
        2
    );
}

/// A worker that is busy while memory is freed lets go of it before its next task.
fn a_busy_worker_lets_go_when_it_is_through<S: Processes>() {
    let pool = S::pool(1);
    let shared = pool.broadcast(vec![1_u8; 4096]).unwrap();
    let inode = inode_of(&shared[0]);
    assert_eq!(
        pool.apply(|shared: Broadcast<[u8]>| shared[0], shared.clone())
            .unwrap(),
        1
    );
    let gate = Gate::new();
    let busy = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
    let pid = gate.wait_for(1)[0];
    drop(shared);
    assert_eq!(holdings(&pid.to_string(), inode), (1, 1));
    gate.open();
    busy.get().unwrap();
    wait_for_release(pid, inode);
    assert_eq!(workers(&pool), [pid]);
}

/// It looks for what was freed before it sleeps; but there may always be a task waiting in its
/// ring.
fn a_worker_that_never_rests_lets_go_between_tasks<S: Processes>() {
    let pool = S::pool(1);
    let shared = pool.broadcast(vec![1_u8; 4096]).unwrap();
    let inode = inode_of(&shared[0]);
    let first = |shared: Broadcast<[u8]>| shared[0];
    assert_eq!(pool.apply(first, shared.clone()).unwrap(), 1);
    let next = || {
        let gate = Gate::new();
        let handle = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
        (gate, handle)
    };
    let (mut running, mut waiting) = (next(), next());
    let pid = running.0.wait_for(1)[0];
    drop(shared);
    while holdings(&pid.to_string(), inode) != (0, 0) {
        // It is handed to the worker when the first one is done, and so before the second one
        // is.
        let behind = next();
        running.0.open();
        running.1.get().unwrap();
        waiting.0.wait_for(1);
        (running, waiting) = (waiting, behind);
    }
    for (gate, handle) in [running, waiting] {
        gate.open();
        handle.get().unwrap();
    }
    assert_eq!(workers(&pool), [pid]);
}

/// Neither the queue nor a task that runs has a handle of the caller's to live by.
fn a_handle_on_its_way_keeps_the_memory<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let busy = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
    gate.wait_for(1);
    let shared = pool.broadcast(vec![5_u32; 1000]).unwrap();
    let inode = inode_of(&shared[0]);
    let sum = |(shared, x): (Broadcast<[u32]>, u32)| shared.iter().sum::<u32>() + x;
    let queued = pool.map_async(sum, (0..100).map(|x| (shared.clone(), x)));
    drop(shared);
    assert_eq!(holdings("self", inode), (1, 1));
    gate.open();
    busy.get().unwrap();
    assert_eq!(queued.get().unwrap(), Vec::from_iter(5000..5100));
    wait_for_release(std::process::id(), inode);
    wait_for_release(workers(&pool)[0], inode);

    // Cancelled in the queue, it is gone as well.
    let gate = Gate::new();
    let busy = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
    gate.wait_for(1);
    let shared = pool.broadcast(vec![5_u32; 1000]).unwrap();
    let inode = inode_of(&shared[0]);
    let queued = pool.apply_async(sum, (shared, 0));
    queued.cancel();
    assert_eq!(queued.get().unwrap_err().kind(), TaskErrorKind::Cancelled);
    gate.open();
    busy.get().unwrap();
    wait_for_release(std::process::id(), inode);
}

/// What a task puts away stays readable when the parent has long forgotten it, and goes with it.
fn a_task_may_keep_a_handle<S: Processes>() {
    static KEPT: Mutex<Option<Broadcast<str>>> = Mutex::new(None);
    let pool = S::pool(1);
    let shared = pool.broadcast("kept").unwrap();
    let inode = inode_of(&*shared);
    let keep = |shared: Broadcast<str>| *KEPT.lock().unwrap() = Some(shared);
    pool.apply(keep, shared).unwrap();
    wait_for_release(std::process::id(), inode);
    let read = |()| KEPT.lock().unwrap().as_deref().map(str::to_owned);
    assert_eq!(pool.apply(read, ()).unwrap(), Some("kept".to_owned()));
    let pid = workers(&pool)[0];
    assert_eq!(holdings(&pid.to_string(), inode), (1, 1));
    pool.apply(|()| drop(KEPT.lock().unwrap().take()), ())
        .unwrap();
    wait_for_release(pid, inode);
}

/// After recycling, and after a crash with the memory mapped.
fn replacements_open_it_anew<S: Processes>() {
    let pool = S::builder().processes(2).max_tasks_per_child(3).build();
    let shared = pool.broadcast(vec![9_u8; 10_000]).unwrap();
    let look = |shared: Broadcast<[u8]>| (std::process::id(), shared[9_999]);
    let seen = pool.call(look).chunksize(1).map(vec![shared; 60]).unwrap();
    assert!(seen.iter().all(|it| it.1 == 9));
    assert!(BTreeSet::from_iter(seen.iter().map(|it| it.0)).len() >= 20);

    let pool = S::pool(1);
    let shared = pool.broadcast(vec![9_u8; 10_000]).unwrap();
    for _ in 0..3 {
        let gate = Gate::new();
        let wait = |(shared, gate): (Broadcast<[u8]>, String)| {
            file_barrier::pass(&gate);
            shared[1]
        };
        let call = pool.call(wait).retries(1);
        let handle = call.apply_async((shared.clone(), gate.ticket()));
        signal(gate.wait_for(1)[0], rustix::process::Signal::KILL);
        gate.open();
        assert_eq!(handle.get().unwrap(), 9);
    }
}

/// The pool keeps the memory for workers that are yet to come.
fn an_initializer_may_have_one<S: Processes>() {
    static TABLE: Mutex<Option<Broadcast<[u32]>>> = Mutex::new(None);
    let shared = Broadcast::new(Vec::from_iter(0..5000_u32)).unwrap();
    let inode = inode_of(&shared[0]);
    let pool = S::builder()
        .processes(2)
        .max_tasks_per_child(2)
        .initializer(|table| *TABLE.lock().unwrap() = Some(table), shared)
        .build();
    let look = |at: usize| TABLE.lock().unwrap().as_ref().map(|table| table[at]);
    let found = pool.call(look).chunksize(1).map((0..50).map(|x| 100 * x));
    let expected = Vec::from_iter((0..50).map(|x| Some(100 * x)));
    assert_eq!(found.unwrap(), expected);
    assert_eq!(holdings("self", inode), (1, 1));
    drop(pool);
    wait_for_release(std::process::id(), inode);
}

fn two_pools_share_one<S: Processes>() {
    let (first, second) = (S::pool(1), S::pool(1));
    let shared = first.broadcast("both").unwrap();
    let inode = inode_of(&*shared);
    let look = |shared: Broadcast<str>| shared.to_string();
    assert_eq!(first.apply(look, shared.clone()).unwrap(), "both");
    drop(first);
    assert_eq!(second.apply(look, shared).unwrap(), "both");
    wait_for_release(workers(&second)[0], inode);
}

/// A task that has a pool itself passes the handle on.
fn a_worker_passes_it_on_to_its_own_pool<S: Processes>() {
    fn inner((shared, x): (Broadcast<[u64]>, usize)) -> (u64, u32) {
        (shared[x], std::process::id())
    }
    fn outer<S: Processes>(shared: Broadcast<[u64]>) -> (Vec<(u64, u32)>, u32) {
        let pool = S::pool(1);
        let results = pool.map(inner, (0..5).map(|x| (shared.clone(), x)));
        (results.unwrap(), std::process::id())
    }
    let pool = S::pool(1);
    let shared = pool.broadcast(vec![1_u64, 2, 3, 4, 5]).unwrap();
    let inode = inode_of(&shared[0]);
    for _ in 0..2 {
        let (results, pid) = pool.apply(outer::<S>, shared.clone()).unwrap();
        let (numbers, pids): (Vec<u64>, Vec<u32>) = results.into_iter().unzip();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert!(!pids.contains(&pid));
    }
    drop(shared);
    wait_for_release(workers(&pool)[0], inode);
}

fn unreachable_parent<S: Processes>() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    use rustix::thread::set_thread_uid;

    let pool = S::pool(1);
    let shared = pool.broadcast("out of reach").unwrap();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
    // To root nothing is out of reach.
    let give_up_rights = |()| {
        if rustix::process::geteuid().is_root() {
            set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
        }
    };
    pool.apply(give_up_rights, ()).unwrap();
    let cannot_look = |parent: u32| fs::read_dir(format!("/proc/{parent}/fd")).is_err();
    assert!(pool.apply(cannot_look, std::process::id()).unwrap());
    for _ in 0..2 {
        let read = pool.apply(|shared: Broadcast<str>| shared.len(), shared.clone());
        assert_eq!(read.unwrap(), "out of reach".len());
    }
    // What is freed is let go of as well, though the worker cannot look.
    let (worker, inode) = (workers(&pool)[0], inode_of(&*shared));
    drop(shared);
    wait_for_release(worker, inode);
    let next = pool.broadcast("another").unwrap();
    let read = pool.apply(|shared: Broadcast<str>| shared.to_string(), next);
    assert_eq!(read.unwrap(), "another");
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    assert_eq!(pool.stats().workers_started, 1);
}

/// The memory is handed over also to a worker that may not look into the parent's `/proc`.
fn a_parent_that_cannot_be_reached<S: Processes>() {
    assert_eq!(again::<S>("unreachable_parent").lines(), [""; 0]);
}

/// The memory of the workers themselves does not grow by it, however much of it they read.
fn a_gibibyte_is_there_once<S: Processes>() {
    const GIBIBYTE: usize = 1 << 30;
    static ALONE: Mutex<()> = Mutex::new(());
    /// What this process has for itself, in bytes.
    fn private() -> usize {
        let sums = fs::read_to_string("/proc/self/smaps_rollup").expect("the kernel tells");
        let kibibytes = |name: &str| -> usize {
            let line = sums.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            number.and_then(|it| it.parse().ok()).expect("a number")
        };
        1024 * (kibibytes("Private_Dirty:") + kibibytes("Private_Clean:"))
    }
    /// Of a number of each page.
    fn sum(numbers: &[u64]) -> u64 {
        numbers.iter().step_by(512).sum()
    }
    fn read(shared: Broadcast<[u64]>) -> (u64, usize) {
        (sum(&shared), private())
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    watchdog::allow(4);
    let pool = S::pool(2);
    let before = pool.apply(|()| private(), ()).unwrap();
    let numbers = Vec::from_iter(0..(GIBIBYTE / 8) as u64);
    let expected = sum(&numbers);
    let shared = pool.broadcast(numbers).unwrap();
    // The parent has read it as well, so that no page is of one process alone.
    assert_eq!(sum(&shared), expected);
    for (sum, after) in pool.call(read).chunksize(1).map(vec![shared; 4]).unwrap() {
        assert_eq!(sum, expected);
        assert!(after < before + (16 << 20), "{before} bytes became {after}");
    }
}
