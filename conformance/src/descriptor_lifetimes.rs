//! Who has a descriptor how long: until its item has an outcome, however often that is tried again,
//! whoever dies, and whether or not anybody asks for it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use procpool::{Broadcast, Fd, Pool, TaskErrorKind};

use crate::backends::{Processes, Subject};
use crate::descriptors::{file_of, read, rewind};
use crate::file_barrier::{self, Gate};
use crate::procfs::{wait_until, workers};
use crate::program::{Program, again, programs};
use crate::trial::Test;
use crate::watchdog;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    if !S::PASSES_DESCRIPTORS {
        return Vec::new();
    }
    tests![S:
        a_pipe_ends_when_the_task_has,
        what_is_never_run_is_closed,
        a_result_that_nobody_reads_is_closed,
        what_is_tried_again_has_its_descriptors,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_death_does_not_cost_the_result_before_it,
        a_lost_item_is_tried_again_with_its_descriptors,
        what_is_reclaimed_goes_elsewhere_with_its_descriptors,
        what_was_sent_and_taken_back_is_closed,
        what_is_cancelled_in_the_queue_is_closed,
        a_storm_of_deaths,
        nothing_is_left,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: many_calls]
}

/// Waits until all writers of a pipe are closed.
fn read_to_end(mut pipe: io::PipeReader) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).expect("text");
    text
}

/// Neither the pool nor a worker keeps a copy.
fn a_pipe_ends_when_the_task_has<S: Subject>() {
    fn say((out, text): (Fd, String)) {
        let mut out = io::PipeWriter::from(out.into_owned());
        out.write_all(text.as_bytes()).expect("somebody reads");
    }
    let pool = S::pool(1);
    for at in 0..10 {
        let (hear, out) = io::pipe().expect("descriptors");
        let text = format!("call {at}");
        let task = pool.apply_async(say, (out.into(), text.clone()));
        assert_eq!(read_to_end(hear), text);
        task.get().unwrap();
    }
}

/// A task that was cancelled, or whose argument cannot be decoded.
fn what_is_never_run_is_closed<S: Subject>() {
    #[derive(serde::Serialize)]
    struct Bad(Fd);
    impl<'de> serde::Deserialize<'de> for Bad {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("bad"))
        }
    }
    let pool = S::pool(1);
    let (hear, out) = io::pipe().expect("descriptors");
    let error = pool.apply(|_: Bad| (), Bad(out.into())).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
    assert_eq!(read_to_end(hear), "");
    let (hear, out) = io::pipe().expect("descriptors");
    let error = pool
        .call(|_: Fd| ())
        .deadline(Duration::from_nanos(1))
        .apply(out.into())
        .unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(read_to_end(hear), "");
}

fn a_result_that_nobody_reads_is_closed<S: Subject>() {
    let pool = S::pool(1);
    let (hear, out) = io::pipe().expect("descriptors");
    let task = pool.apply_async(|fd: Fd| fd, Fd::from(out));
    task.wait();
    drop(task);
    assert_eq!(read_to_end(hear), "");
    // Nor is one of which the caller takes another type than was sent.
    let (hear, out) = io::pipe().expect("descriptors");
    let task = pool.apply_async(|fd: Fd| vec![fd], Fd::from(out));
    drop(task);
    assert_eq!(read_to_end(hear), "");
}

/// The file of a result waits in the socket, whatever becomes of the worker.
fn a_death_does_not_cost_the_result_before_it<S: Processes>() {
    let pool = S::quiet_pool(1);
    let make = |at: u32| {
        if at == 5 {
            std::process::abort();
        }
        (
            file_of(&format!("file {at}")),
            Broadcast::new(vec![at]).expect("memory"),
        )
    };
    let results = pool.call(make).chunksize(8).try_map(0..8);
    for (at, result) in (0..).zip(results) {
        if at == 5 {
            assert_eq!(result.unwrap_err().kind(), TaskErrorKind::WorkerLost);
        } else {
            let (file, shared) = result.unwrap();
            assert_eq!((read(file), &*shared), (format!("file {at}"), &[at][..]));
        }
    }
}

fn a_lost_item_is_tried_again_with_its_descriptors<S: Processes>() {
    /// Each call writes a line more; the first two die then.
    fn write_and_die(fd: Fd) -> u64 {
        let mut file = File::from(fd.into_owned());
        file.write_all(b"x").expect("space");
        let lines = file.metadata().expect("a file").len();
        if lines < 3 {
            std::process::abort();
        }
        lines
    }
    let pool = S::quiet_pool(1);
    let file = file_of("");
    let copy = file.try_clone().unwrap();
    let lines = pool.call(write_and_die).retries(2).apply(copy).unwrap();
    assert_eq!(lines, 3);
    rewind(&file);
    assert_eq!(read(file), "xxx");
}

/// What waits behind a long task, or behind one that kills its worker.
fn what_is_reclaimed_goes_elsewhere_with_its_descriptors<S: Processes>() {
    fn wait_and_read((gate, fd): (String, Fd)) -> String {
        if !gate.is_empty() {
            file_barrier::pass(&gate);
        }
        read(fd)
    }
    let pool = S::pool(2);
    let gate = Gate::new();
    let items = (0..40).map(|at| {
        let ticket = if at == 0 {
            gate.ticket()
        } else {
            String::new()
        };
        (ticket, file_of(&format!("file {at}")))
    });
    let all = pool
        .call(wait_and_read)
        .chunksize(20)
        .map_async(Vec::from_iter(items));
    gate.wait_for(1);
    // Everything but the first has been read by then.
    let others = pool.apply(|()| (), ());
    others.unwrap();
    gate.open();
    let expected = Vec::from_iter((0..40).map(|at| format!("file {at}")));
    assert_eq!(all.get().unwrap(), expected);
}

/// A caller that judges the task's own errors, and one that loses workers.
fn what_is_tried_again_has_its_descriptors<S: Subject>() {
    fn write_once_more(fd: Fd) -> Result<u64, u64> {
        let mut file = File::from(fd.into_owned());
        file.write_all(b"x").expect("space");
        let length = file.metadata().expect("a file").len();
        if length < 3 { Err(length) } else { Ok(length) }
    }
    let pool = S::pool(1);
    let files = [file_of(""), file_of(""), file_of("")];
    let copies = Vec::from_iter(files.iter().map(|it| it.try_clone().expect("descriptors")));
    let call = pool.call(write_once_more).retries(5);
    let call = call.retry_errors(|length: &u64| *length < 3).chunksize(3);
    assert_eq!(call.map(copies).unwrap(), [Ok(3), Ok(3), Ok(3)]);
    for file in files {
        rewind(&file);
        assert_eq!(read(file), "xxx");
    }
}

/// The worker has it already, behind what it runs.
fn what_was_sent_and_taken_back_is_closed<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let busy = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
    gate.wait_for(1);
    let (hear, out) = io::pipe().expect("descriptors");
    let cancelled = Vec::from_iter((0..10).map(|_| {
        let copy = Fd::from(out.try_clone().expect("descriptors"));
        pool.apply_async(|_: Fd| (), copy)
    }));
    let behind = pool.apply_async(read, file_of("behind"));
    drop(out);
    cancelled.iter().for_each(procpool::TaskHandle::cancel);
    gate.open();
    busy.get().unwrap();
    assert_eq!(behind.get().unwrap(), "behind");
    // Also if nobody asks for the outcomes.
    assert_eq!(read_to_end(hear), "");
    for task in cancelled {
        task.get()
            .map_or_else(|error| assert!(error.is_cancelled(), "{error}"), |()| ());
    }
}

/// No worker has anything to do with it, and none has to be free for that. The second one of many
/// goes as well, although the queue was looked through just before.
fn what_is_cancelled_in_the_queue_is_closed<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let busy = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
    gate.wait_for(1);
    let others = Vec::from_iter((0..1000).map(|x: u64| pool.apply_async(|x: u64| x, x)));
    let [first, second] = [(); 2].map(|()| {
        let (hear, out) = io::pipe().expect("descriptors");
        (hear, pool.apply_async(|_: Fd| (), Fd::from(out)))
    });
    for (_, task) in [&first, &second] {
        task.cancel();
    }
    for (hear, task) in [first, second] {
        assert_eq!(read_to_end(hear), "");
        assert!(task.get().unwrap_err().is_cancelled());
    }
    assert!(!busy.is_ready());
    gate.open();
    for (x, other) in (0..).zip(others) {
        assert_eq!(other.get().unwrap(), x);
    }
}

/// Every third item takes its worker along, twice.
fn a_storm_of_deaths<S: Processes>() {
    fn work((at, fd): (u32, Fd)) -> (u32, Fd, Broadcast<[u32]>) {
        let mut file = File::from(fd.into_owned());
        file.write_all(b"x").expect("space");
        let tries = file.metadata().expect("a file").len();
        if at % 3 == 0 && tries < 3 {
            std::process::abort();
        }
        (
            at,
            file.into(),
            Broadcast::new(vec![at; 3]).expect("memory"),
        )
    }
    watchdog::allow(3);
    let pool = S::quiet_pool(3);
    for chunksize in [1, 7, 30] {
        let files = (0..60).map(|at| (at, file_of("")));
        let call = pool.call(work).retries(2).chunksize(chunksize);
        let found = call.map(Vec::from_iter(files)).unwrap();
        for (at, (same, fd, shared)) in (0..).zip(found) {
            assert_eq!((at, &*shared), (same, &[at; 3][..]));
            rewind(&fd);
            assert_eq!(read(fd), if at % 3 == 0 { "xxx" } else { "x" });
        }
    }
}

fn many_calls<S: Processes>() {
    fn open(pid: u32) -> usize {
        procpool_testing::procfs::descriptors(pid).len()
    }
    let pool = S::quiet_pool(2);
    let calls = || {
        let both = |(fd, ends): (Fd, bool)| {
            if ends {
                std::process::abort();
            }
            let text = read(fd);
            (file_of(&text), Broadcast::new(text).expect("memory"))
        };
        for at in 0..100 {
            let ends = at % 50 == 49;
            let (file, text) = match pool.apply(both, (file_of("text"), ends)) {
                Ok(result) => result,
                Err(error) => {
                    assert!(ends && error.is_worker_lost(), "{error}");
                    continue;
                }
            };
            assert_eq!((read(file), &*text), ("text".to_owned(), "text"));
        }
        drop(pool.map_async(both, (0..20).map(|_| (file_of("text"), false))));
        let handle = pool.apply_async(both, (file_of("text"), false));
        handle.cancel();
        drop(pool.apply_async(|fd: Fd| fd, file_of("unread")));
        let some = pool.imap(read, (0..50).map(|_| file_of("some")));
        assert_eq!(some.take(5).filter(Result::is_ok).count(), 5);
        pool.map(|x: u64| x, 0..100).unwrap();
    };
    calls();
    // What the first calls have opened stays: epolls, the events of threads.
    let here = open(std::process::id());
    for _ in 0..3 {
        calls();
    }
    // What nobody reads is closed by another thread.
    wait_until(|| open(std::process::id()) <= here + 2);
    for worker in workers(&pool) {
        wait_until(|| open(worker) < 25);
    }
}

/// Neither with the parent nor with workers.
fn nothing_is_left<S: Processes>() {
    assert_eq!(again::<S>("many_calls").lines(), [""; 0]);
}
