//! Open files, sockets and pipes in arguments and results.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use procpool::{Broadcast, Fd, Pool, TaskErrorKind};

use crate::backends::{Builder, Processes, Subject};
use crate::program::{Program, again, programs};
use crate::trial::Test;

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
            a_result_may_have_some,
            one_goes_there_and_back,
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
        an_initializer_may_have_some,
        a_worker_without_rights_gets_all,
        a_task_that_closes_what_it_does_not_know,
        a_worker_passes_it_on_to_its_own_pool,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: without_rights]
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
pub(crate) fn file_of(text: &str) -> Fd {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = rustix::fs::memfd_create("descriptors", flags);
    let mut file = File::from(file.expect("memory"));
    file.write_all(text.as_bytes()).expect("space");
    rewind(&file);
    file.into()
}

pub(crate) fn rewind(file: impl AsFd) {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0)).expect("a file");
}

pub(crate) fn read(fd: Fd) -> String {
    let mut text = String::new();
    File::from(fd.into_owned())
        .read_to_string(&mut text)
        .expect("it can be read");
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
