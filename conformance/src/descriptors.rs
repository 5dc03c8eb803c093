//! Open files, sockets and pipes in arguments and results.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use procpool::{Broadcast, Fd, Pool, TaskErrorKind};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Gate};
use crate::procfs::{wait_until, workers};
use crate::program::{Program, again, programs};
use crate::trial::Test;
use crate::watchdog;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    let mut tests = tests![S:
        another_format_refuses_one,
        a_broadcast_cannot_have_one,
        a_context_cannot_have_one,
        too_many_in_one_argument,
    ];
    if S::PASSES_DESCRIPTORS {
        tests.extend(tests![S:
            a_file_is_read_by_the_task,
            descriptors_may_be_anywhere_in_an_argument,
            a_pipe_ends_when_the_task_has,
            what_is_never_run_is_closed,
            a_result_may_have_some,
            a_result_that_nobody_reads_is_closed,
            one_goes_there_and_back,
            what_is_tried_again_has_its_descriptors,
        ]);
    } else {
        tests.extend(tests![S: one_goes_to_no_other_machine]);
    }
    tests
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_map_of_a_thousand_files,
        every_kind_of_call_takes_them,
        a_worker_serves_a_connection,
        a_descriptor_is_of_the_same_open_file,
        a_map_to_five_hundred_files,
        results_with_memory_and_descriptors,
        a_death_does_not_cost_the_result_before_it,
        a_lost_item_is_tried_again_with_its_descriptors,
        what_is_reclaimed_goes_elsewhere_with_its_descriptors,
        an_initializer_may_have_some,
        a_worker_without_rights_gets_all,
        a_worker_with_few_descriptors,
        a_worker_without_descriptors,
        a_parent_without_descriptors,
        many_on_their_way,
        a_task_that_closes_what_it_does_not_know,
        a_worker_passes_it_on_to_its_own_pool,
        what_was_sent_and_taken_back_is_closed,
        a_storm_of_deaths,
        nothing_is_left,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: without_rights, no_descriptors_here, congested, many_calls]
}

/// Nor does what is in a result.
fn one_goes_to_no_other_machine<S: Subject>() {
    let pool = S::pool(1);
    let there = pool.apply(read, file_of("there")).unwrap_err();
    let back = pool.apply(|text: String| file_of(&text), "back".to_owned());
    // Unless that machine is this very process, which may still have it.
    for error in [Some(there), back.err()].into_iter().flatten() {
        assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
        assert!(error.to_string().contains("another machine"), "{error}");
    }
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
}

/// A file with this text, read from its beginning.
fn file_of(text: &str) -> Fd {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = rustix::fs::memfd_create("descriptors", flags);
    let mut file = File::from(file.expect("memory"));
    file.write_all(text.as_bytes()).expect("space");
    rewind(&file);
    file.into()
}

fn rewind(file: impl AsFd) {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0)).expect("a file");
}

fn read(fd: Fd) -> String {
    let mut text = String::new();
    File::from(fd.into_owned())
        .read_to_string(&mut text)
        .expect("it can be read");
    text
}

/// Waits until all writers of a pipe are closed.
fn read_to_end(mut pipe: io::PipeReader) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).expect("text");
    text
}

fn a_file_is_read_by_the_task<S: Subject>() {
    let pool = S::pool(1);
    assert_eq!(pool.apply(read, file_of("hello")).unwrap(), "hello");
    let texts = pool.map(read, ["one", "two", "three"].map(file_of));
    assert_eq!(texts.unwrap(), ["one", "two", "three"]);
}

fn descriptors_may_be_anywhere_in_an_argument<S: Subject>() {
    type Argument = (String, Option<Fd>, Vec<(u8, Fd)>, Result<Fd, String>);
    fn join((before, one, all, last): Argument) -> String {
        let all: Vec<String> = all
            .into_iter()
            .map(|(at, fd)| format!("{at}{}", read(fd)))
            .collect();
        let (one, last) = (one.map(read), last.map(read));
        format!("{before} {one:?} {} {last:?}", all.join(" "))
    }
    let pool = S::pool(1);
    let argument = |at: usize| {
        let all = (0..3).map(|it| (it, file_of(&format!("-{at}-{it}"))));
        let last = file_of(&format!("last {at}"));
        (
            format!("before {at}"),
            Some(file_of("one")),
            all.collect(),
            Ok(last),
        )
    };
    let expected =
        |at| format!("before {at} Some(\"one\") 0-{at}-0 1-{at}-1 2-{at}-2 Ok(\"last {at}\")");
    let found = pool.map(join, (0..20).map(argument)).unwrap();
    assert_eq!(found, Vec::from_iter((0..20).map(expected)));
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

fn another_format_refuses_one<S: Subject>() {
    postcard::to_allocvec(&file_of("")).expect_err("it would be a number");
    postcard::from_bytes::<Fd>(&[0; 16]).expect_err("it would be anything");
    let pool = S::pool(1);
    let argument = procpool::Json(file_of(""));
    let error = pool.apply(|_: procpool::Json<Fd>| (), argument);
    let error = error.unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Encode, "{error}");
    let says_where = error.to_string().contains("only to a pool's workers");
    assert!(says_where, "{error}");
}

fn a_broadcast_cannot_have_one<S: Subject>() {
    let pool = S::pool(1);
    let error = pool.broadcast(&file_of("")).unwrap_err();
    assert!(
        error.to_string().contains("beside the broadcast"),
        "{error}"
    );
}

fn a_context_cannot_have_one<S: Subject>() {
    let pool = S::pool(1);
    let call = pool.call(|_: &Fd, x: u64| x).context(file_of(""));
    let error = call.apply(1).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Encode, "{error}");
    assert!(error.to_string().contains("in the argument"), "{error}");
}

fn too_many_in_one_argument<S: Subject>() {
    let many = |count: usize| Vec::from_iter((0..count).map(|_| file_of("")));
    let pool = S::pool(1);
    let error = pool.apply(|all: Vec<Fd>| all.len(), many(129)).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Encode, "{error}");
    assert!(error.to_string().contains("more than 128"), "{error}");
    if S::PASSES_DESCRIPTORS {
        let all = pool.map(|all: Vec<Fd>| all.len(), [many(128), many(128)]);
        assert_eq!(all.unwrap(), [128, 128]);
    }
}

fn a_map_of_a_thousand_files<S: Processes>() {
    let pool = S::pool(2);
    let texts = Vec::from_iter((0..1000).map(|it| format!("file {it}")));
    // One after the other is open: an input is read as the pool goes on.
    let files = texts.iter().map(|text| file_of(text));
    assert_eq!(pool.map(read, files).unwrap(), texts);
    // In chunks of many.
    let files = texts[..200].iter().map(|text| file_of(text));
    let found = pool.call(read).chunksize(50).map(files).unwrap();
    assert_eq!(found, texts[..200]);
    let none_is_left = |()| procpool_testing::procfs::descriptors(std::process::id()).len();
    let open = pool.run_on_each(none_is_left, ());
    for open in open {
        assert!(open.unwrap() < 40, "a worker keeps descriptors");
    }
}

fn every_kind_of_call_takes_them<S: Processes>() {
    let texts = Vec::from_iter((0..60).map(|it| format!("file {it}")));
    let files = || Vec::from_iter(texts.iter().map(|text| file_of(text)));
    let pool = S::pool(3);
    assert_eq!(pool.map_async(read, files()).get().unwrap(), texts);
    let imap: Result<Vec<String>, _> = pool.imap(read, files()).collect();
    assert_eq!(imap.unwrap(), texts);
    let unordered: Result<Vec<String>, _> = pool.imap_unordered(read, files()).collect();
    let mut unordered = unordered.unwrap();
    unordered.sort_by_key(|it| it[5..].parse::<u32>().unwrap());
    assert_eq!(unordered, texts);
    let handles = Vec::from_iter(files().into_iter().map(|it| pool.apply_async(read, it)));
    for (handle, text) in handles.into_iter().zip(&texts) {
        assert_eq!(handle.get().unwrap(), *text);
    }
    let file = file_of("");
    let lengths = pool.run_on_each(|fd: Fd| fd.as_fd().try_clone_to_owned().is_ok(), file);
    assert!(lengths.into_iter().all(|it| it.unwrap()));
}

/// The classic: the parent accepts, and a worker answers.
fn a_worker_serves_a_connection<S: Processes>() {
    fn serve(connection: Fd) -> u32 {
        let mut connection = TcpStream::from(connection.into_owned());
        let mut name = [0; 5];
        connection.read_exact(&mut name).expect("five bytes");
        let answer = format!("hello, {}", String::from_utf8_lossy(&name));
        connection.write_all(answer.as_bytes()).expect("a client");
        std::process::id()
    }
    let pool = S::pool(2);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let client = std::thread::spawn(move || {
        let answers = (0..10).map(|it| {
            let mut connection = TcpStream::connect(address).expect("somebody listens");
            let name = format!("bob {it}");
            connection.write_all(name.as_bytes()).expect("a server");
            let mut answer = String::new();
            // Until all copies are closed.
            connection.read_to_string(&mut answer).expect("text");
            (answer, format!("hello, {name}"))
        });
        answers.collect::<Vec<_>>()
    });
    let accept = move |_| Fd::from(listener.accept().expect("a client").0);
    for served_by in pool.imap_unordered(serve, (0..10).map(accept)) {
        assert_ne!(served_by.unwrap(), std::process::id());
    }
    for (answer, expected) in client.join().expect("no panic") {
        assert_eq!(answer, expected);
    }
}

/// Not a file of the same name: the position is one for all.
fn a_descriptor_is_of_the_same_open_file<S: Processes>() {
    let pool = S::pool(1);
    let file = file_of("0123456789");
    let copy = file.try_clone().unwrap();
    let read_three = |fd: Fd| {
        let mut three = [0; 3];
        File::from(fd.into_owned()).read_exact(&mut three).unwrap();
        three
    };
    assert_eq!(pool.apply(read_three, copy).unwrap(), *b"012");
    assert_eq!(read(file), "3456789");
}

fn a_result_may_have_some<S: Subject>() {
    fn make(count: usize) -> Vec<(usize, Fd)> {
        let all = (0..count).map(|at| (at, file_of(&format!("{at} of {count}"))));
        all.collect()
    }
    let pool = S::pool(1);
    for (count, files) in pool.map(make, 0..10).unwrap().into_iter().enumerate() {
        let texts = files.into_iter().map(|(at, fd)| (at, read(fd)));
        let expected = (0..count).map(|at| (at, format!("{at} of {count}")));
        assert_eq!(Vec::from_iter(texts), Vec::from_iter(expected));
    }
    let file = pool
        .apply_async(|()| Some(file_of("one")), ())
        .get()
        .unwrap();
    assert_eq!(file.map(read).as_deref(), Some("one"));
    let many = pool.apply(make, 129).unwrap_err();
    assert_eq!(many.kind(), TaskErrorKind::Encode, "{many}");
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

fn one_goes_there_and_back<S: Subject>() {
    fn write_one((fd, text): (Fd, String)) -> Fd {
        let mut file = File::from(fd.into_owned());
        file.write_all(text.as_bytes()).expect("space");
        file.into()
    }
    let pool = S::pool(2);
    let mut file = file_of("");
    for at in 0..10 {
        file = pool.apply(write_one, (file, at.to_string())).unwrap();
    }
    rewind(&file);
    assert_eq!(read(file), "0123456789");
}

/// More than fit into a socket, and more than a worker may have at a time.
fn a_map_to_five_hundred_files<S: Processes>() {
    let pool = S::pool(2);
    let make = |at: u32| file_of(&format!("file {at}"));
    let files = pool.call(make).chunksize(100).map(0..500).unwrap();
    for (at, file) in files.into_iter().enumerate() {
        assert_eq!(read(file), format!("file {at}"));
    }
    assert_eq!(pool.stats().workers_started, 2);
}

fn results_with_memory_and_descriptors<S: Processes>() {
    type Mixed = (Fd, Broadcast<str>, Vec<(Broadcast<[u64]>, Fd)>);
    fn make(at: u64) -> Mixed {
        let shared = Broadcast::new(format!("shared {at}")).expect("memory");
        let numbers = |it: u64| Broadcast::new(vec![at, it]).expect("memory");
        let all = (0..at % 4).map(|it| (numbers(it), file_of(&format!("{at}.{it}"))));
        (file_of(&format!("file {at}")), shared, all.collect())
    }
    let pool = S::pool(2);
    let all = pool.map(make, 0..40).unwrap();
    for (at, (file, shared, inner)) in (0..).zip(all) {
        assert_eq!(
            (read(file), &*shared),
            (format!("file {at}"), &*format!("shared {at}"))
        );
        assert_eq!(inner.len() as u64, at % 4);
        for (it, (numbers, file)) in (0..).zip(inner) {
            assert_eq!(
                (&*numbers, read(file)),
                (&[at, it][..], format!("{at}.{it}"))
            );
        }
    }
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

/// Each worker has copies, and so have those that come later.
fn an_initializer_may_have_some<S: Processes>() {
    static LISTENER: std::sync::Mutex<Option<TcpListener>> = std::sync::Mutex::new(None);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let pool = S::builder()
        .processes(2)
        .max_tasks_per_child(1)
        .initializer(
            |fd: Fd| *LISTENER.lock().unwrap() = Some(TcpListener::from(fd.into_owned())),
            Fd::from(listener),
        )
        .build();
    let port = |()| {
        let listener = LISTENER.lock().unwrap();
        listener
            .as_ref()
            .map(|it| it.local_addr().expect("bound").port())
    };
    for _ in 0..5 {
        assert_eq!(pool.apply(port, ()).unwrap(), Some(address.port()));
    }
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

/// Neither the parent can be looked at, nor has the worker the parent's user.
fn without_rights<S: Processes>() {
    use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
    use rustix::thread::set_thread_uid;

    let pool = S::pool(1);
    set_dumpable_behavior(DumpableBehavior::NotDumpable).expect("Linux");
    let give_up_rights = |()| {
        if geteuid().is_root() {
            set_thread_uid(rustix::process::Uid::from_raw(65_534)).expect("root may");
        }
    };
    pool.apply(give_up_rights, ()).unwrap();
    let cannot_look = |parent: u32| std::fs::read_dir(format!("/proc/{parent}/fd")).is_err();
    assert!(pool.apply(cannot_look, std::process::id()).unwrap());
    let shared = pool.broadcast("shared").unwrap();
    let nested = pool.broadcast(&vec![shared.clone()]).unwrap();
    let all = |(fd, shared, nested): (Fd, Broadcast<str>, Broadcast<Vec<Broadcast<str>>>)| {
        let text = format!("{} {} {}", read(fd), &*shared, &*nested[0]);
        (file_of(&text), Broadcast::new(text).expect("memory"))
    };
    for at in 0..5 {
        let argument = (
            file_of(&format!("file {at}")),
            shared.clone(),
            nested.clone(),
        );
        let (file, text) = pool.apply(all, argument).unwrap();
        let expected = format!("file {at} shared shared");
        assert_eq!((read(file), &*text), (expected.clone(), &*expected));
    }
    assert_eq!(pool.stats().workers_started, 1);
}

/// Descriptors and memory need no `/proc`.
fn a_worker_without_rights_gets_all<S: Processes>() {
    assert_eq!(again::<S>("without_rights").lines(), [""; 0]);
}

/// The number that the next descriptor has.
fn next_number() -> u64 {
    let next = io::pipe().expect("descriptors").0;
    u64::from(next.as_raw_fd().cast_unsigned())
}

fn limit_descriptors(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(count);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("it is less");
}

/// There are many more files than the worker may have.
fn a_worker_with_few_descriptors<S: Processes>() {
    let pool = S::pool(1);
    pool.apply(limit_descriptors, 40).unwrap();
    let texts = Vec::from_iter((0..300).map(|it| format!("file {it}")));
    let files = Vec::from_iter(texts.iter().map(|text| file_of(text)));
    assert_eq!(pool.call(read).chunksize(100).map(files).unwrap(), texts);
}

/// It says so, and nothing else is the worse for it.
fn a_worker_without_descriptors<S: Processes>() {
    let pool = S::pool(1);
    // The numbers below the next one are all taken.
    pool.apply(|()| limit_descriptors(next_number()), ())
        .unwrap();
    let many = Vec::from_iter((0..100).map(|_| file_of("")));
    let error = pool.apply(|all: Vec<Fd>| all.len(), many).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    pool.apply(limit_descriptors, 500).unwrap();
    assert_eq!(pool.apply(read, file_of("again")).unwrap(), "again");
    assert_eq!(pool.stats().workers_started, 1);
}

fn no_descriptors_here<S: Processes>() {
    let pool = S::pool(1);
    let make = |count: usize| Vec::from_iter((0..count).map(|_| file_of("made")));
    assert_eq!(pool.apply(make, 3).unwrap().len(), 3);
    limit_descriptors(next_number());
    for _ in 0..3 {
        let error = pool.apply(make, 100).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
        assert!(error.to_string().contains("ulimit -n"), "{error}");
        assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    }
    limit_descriptors(500);
    assert_eq!(pool.apply(make, 3).unwrap().len(), 3);
    assert_eq!(pool.stats().workers_started, 1);
}

/// The result is lost, and says so; the worker is not.
fn a_parent_without_descriptors<S: Processes>() {
    assert_eq!(again::<S>("no_descriptors_here").lines(), [""; 0]);
}

/// A user without privileges may have as many descriptors on their way as `ulimit -n` says. Others
/// of the user's may have them all.
fn congested<S: Processes>() {
    use nix::unistd::{Uid, setresuid};
    let is_root = Uid::effective().is_root();
    let switch_to = |user: u32| {
        if is_root {
            // To root there are no limits.
            let user = Uid::from_raw(user);
            setresuid(user, user, Uid::from_raw(0)).expect("root may, and who was root");
        }
    };
    let pool = S::pool(1);
    switch_to(54_321);
    limit_descriptors(300);
    let file = file_of("well");
    let (other, _unread) = UnixStream::pair().expect("descriptors");
    for _ in 0..2 {
        send_copies(other.as_fd(), file.as_fd(), 253);
    }
    let task = pool.apply_async(read, file.try_clone().expect("descriptors"));
    let tasks = Vec::from_iter((0..20).map(|x| pool.apply_async(|x: u64| x + 1, x)));
    // It cannot have come, however often it is tried.
    assert!(!task.wait_timeout(Duration::from_millis(50)));
    drop((other, _unread));
    assert_eq!(task.get().unwrap(), "well");
    for (x, task) in (0..).zip(tasks) {
        assert_eq!(task.get().unwrap(), x + 1);
    }
    rewind(&file);
    assert_eq!(pool.apply(read, file).unwrap(), "well");
    assert_eq!(pool.stats().workers_started, 1);
    switch_to(0);
}

/// Sends a descriptor, so many times in one message.
fn send_copies(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, count: usize) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = vec![file; count];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let parts = [io::IoSlice::new(b"x")];
    sendmsg(socket, &parts, &mut ancillary, SendFlags::empty()).expect("there is room");
}

fn many_on_their_way<S: Processes>() {
    watchdog::allow(2);
    assert_eq!(again::<S>("congested").lines(), [""; 0]);
    // More packets than fit into a socket wait behind a task.
    let pool = S::pool(1);
    let gate = Gate::new();
    let busy = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
    gate.wait_for(1);
    let file = file_of("");
    let length = |fd: Fd| {
        File::from(fd.into_owned())
            .metadata()
            .expect("a file")
            .len()
    };
    let tasks = (0..600).map(|_| pool.apply_async(length, file.try_clone().expect("descriptors")));
    let tasks = Vec::from_iter(tasks);
    gate.open();
    busy.get().unwrap();
    for task in tasks {
        assert_eq!(task.get().unwrap(), 0);
    }
    assert_eq!(pool.stats().workers_started, 1);
}

/// Its worker ends, and what is passed next goes to another one.
fn a_task_that_closes_what_it_does_not_know<S: Processes>() {
    let pool = S::quiet_pool(1);
    let close_all = |()| {
        for number in procpool_testing::procfs::descriptors(std::process::id()).keys() {
            if *number > 2 {
                // It may be one that was open for the list alone.
                let _ = nix::unistd::close(number.cast_signed());
            }
        }
    };
    for _ in 0..3 {
        pool.apply(close_all, ()).unwrap();
        let text = pool.call(read).retries(1).apply(file_of("text"));
        match text {
            Ok(text) => assert_eq!(text, "text"),
            // It came to the worker that can receive nothing any more.
            Err(error) => assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}"),
        }
    }
}

fn a_worker_passes_it_on_to_its_own_pool<S: Processes>() {
    fn outer<S: Processes>(fd: Fd) -> (Fd, String) {
        let pool = S::pool(1);
        let copy = fd.try_clone().expect("descriptors");
        let text = pool.apply(read, copy).unwrap();
        let made = pool.apply(|text: String| file_of(&text), text.clone());
        (made.unwrap(), text)
    }
    let pool = S::pool(1);
    for at in 0..3 {
        let text = format!("file {at}");
        let (made, heard) = pool.apply(outer::<S>, file_of(&text)).unwrap();
        assert_eq!((read(made), heard), (text.clone(), text));
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
