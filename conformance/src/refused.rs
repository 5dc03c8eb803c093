//! What cannot work is refused, with an error that says what is wrong and leaves nothing behind.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use procpool::{Broadcast, BuildError, BuildErrorKind, Pool, TaskErrorKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize, Serializer};

use crate::backends::{Builder, Processes};
use crate::procfs;
use crate::program::{Program, again, programs};
use crate::restart_storm::become_limited;
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        options_that_make_no_sense,
        an_initializer_argument_that_cannot_be_encoded,
        an_initializer_argument_that_cannot_be_decoded,
        types_that_are_not_self_describing,
        a_call_after_a_refused_one_works,
        too_few_descriptors,
        as_many_descriptors_as_the_error_says,
        a_temporary_folder_that_cannot_be_used,
        a_limit_of_file_sizes,
        callbacks_without_a_thread,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S:
        sixteen_descriptors,
        enough_descriptors,
        odd_temporary_folder,
        small_files,
        tiny_files,
        no_more_threads,
    ]
}

fn square(x: u64) -> u64 {
    x * x
}

/// Says that an error is of this kind, and that its text has these words.
fn assert_says(error: &BuildError, kind: BuildErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

/// The error names the option.
fn options_that_make_no_sense<S: Processes>() {
    let builder = || S::builder().processes(1);
    let refused = [
        (S::builder().processes(0), "processes is 0"),
        (S::builder().processes(usize::MAX), "processes is"),
        (builder().max_tasks_per_child(0), "max_tasks_per_child is 0"),
        (builder().ring_capacity(0), "ring_capacity is 0"),
        (builder().max_result_bytes(0), "max_result_bytes is 0"),
        (builder().ring_capacity(usize::MAX), "ring_capacity is"),
        (
            builder().launch_timeout(Duration::ZERO),
            "launch_timeout is 0",
        ),
    ];
    for (builder, words) in refused {
        let error = builder.try_build().map(|_| ()).unwrap_err();
        assert_says(&error, BuildErrorKind::InvalidConfig, &[words]);
    }
    assert_eq!(builder().build().apply(square, 3).unwrap(), 9);
}

/// A type whose `Serialize` asks for what the format does not have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flat {
    name: String,
    #[serde(flatten)]
    rest: HashMap<String, u32>,
}

/// A type whose `Deserialize` asks what comes next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}

fn flat() -> Flat {
    Flat {
        name: "a".into(),
        rest: HashMap::from([("b".into(), 1)]),
    }
}

/// It cannot come to any worker, so there is no pool.
fn an_initializer_argument_that_cannot_be_encoded<S: Processes>() {
    #[derive(Deserialize)]
    struct Secret;
    impl Serialize for Secret {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("this is secret"))
        }
    }
    let builder = S::builder()
        .processes(1)
        .initializer(|_: Secret| (), Secret);
    let error = builder.try_build().map(|_| ()).unwrap_err();
    let words = ["initializer", "this is secret"];
    assert_says(&error, BuildErrorKind::InvalidConfig, &words);
}

/// It comes to the workers, none of which can begin.
fn an_initializer_argument_that_cannot_be_decoded<S: Processes>() {
    let builder = S::builder().processes(1).initializer(|_: Flat| (), flat());
    let error = builder.try_build().map(|_| ()).unwrap_err();
    let words = ["initializer", "argument", "flatten"];
    assert_says(&error, BuildErrorKind::Initializer, &words);
}

/// `flatten` and `untagged` are refused on the way there and on the way back, with the type's name
/// and the way round; all other items are not affected.
fn types_that_are_not_self_describing<S: Processes>() {
    let pool = S::pool(1);
    let errors = [
        pool.apply(|_: Flat| (), flat()).unwrap_err(),
        pool.apply(|()| flat(), ()).map(|_| ()).unwrap_err(),
        pool.apply(|_: Untagged| (), Untagged::Number(1))
            .unwrap_err(),
        pool.apply(|()| Untagged::Text("a".into()), ())
            .map(|_| ())
            .unwrap_err(),
        pool.map(|_: Untagged| (), [Untagged::Number(1)])
            .map(|_| ())
            .unwrap_err(),
        pool.map_async(|_: Flat| (), [flat()])
            .get()
            .map(|_| ())
            .unwrap_err(),
    ];
    for error in errors {
        let kinds = [TaskErrorKind::Encode, TaskErrorKind::Decode];
        assert!(kinds.contains(&error.kind()), "{error}");
        let text = error.to_string();
        assert!(text.contains("Flat") || text.contains("Untagged"), "{text}");
        assert!(
            text.contains("flatten") || text.contains("untagged"),
            "{text}"
        );
    }
    assert_eq!(pool.stats().workers_lost, 0);
}

/// A refused call costs nothing.
fn a_call_after_a_refused_one_works<S: Processes>() {
    let pool = S::pool(1);
    for _ in 0..100 {
        let error = pool.call(square).chunksize(0).map(0..10).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::Invalid);
        assert!(pool.apply(|_: Flat| (), flat()).is_err());
        assert_eq!(pool.apply(square, 3).unwrap(), 9);
    }
    assert_eq!(pool.stats().workers_started, 1);
}

fn descriptors() -> usize {
    procfs::descriptors(std::process::id()).len()
}

fn limit_descriptors(count: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(count);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("no more than is allowed");
}

fn sixteen_descriptors<S: Processes>() {
    let enough = getrlimit(Resource::Nofile).current.expect("there is one");
    limit_descriptors(16);
    let before = descriptors();
    for _ in 0..3 {
        let error = S::builder().processes(8).try_build().map(|_| ());
        let error = error.unwrap_err();
        let words = ["a dozen descriptors, six for each worker", "ulimit -n"];
        assert_says(&error, BuildErrorKind::Launch, &words);
        procfs::wait_until(|| descriptors() == before);
        procfs::wait_until(|| procfs::below(std::process::id()).is_empty());
    }
    limit_descriptors(enough);
    assert_eq!(S::pool(8).map(square, 0..4).unwrap(), [0, 1, 4, 9]);
}

/// With `ulimit -n 16` there is no pool of eight workers, and the error says what is short; with
/// more there is.
fn too_few_descriptors<S: Processes>() {
    assert_eq!(again::<S>("sixteen_descriptors").lines(), [""; 0]);
}

const WORKERS: &str = "ENOUGH_DESCRIPTORS_FOR";

fn enough_descriptors<S: Processes>() {
    let workers = std::env::var(WORKERS).expect("it was set");
    let workers: usize = workers.parse().expect("a number");
    limit_descriptors((descriptors() + 12 + 6 * workers) as u64);
    let pool = S::pool(workers);
    let numbers = || 0..4 * workers as u64;
    let squares: Vec<u64> = numbers().map(square).collect();
    assert_eq!(pool.map(square, numbers()).unwrap(), squares);
    assert_eq!(pool.stats().workers_started, workers as u64);
}

/// A dozen, and six for each worker.
fn as_many_descriptors_as_the_error_says<S: Processes>() {
    for workers in ["1", "3", "9"] {
        let program = again::<S>("enough_descriptors").env(WORKERS, workers);
        assert_eq!(program.lines(), [""; 0], "{workers} workers");
    }
}

fn odd_temporary_folder<S: Processes>() {
    match S::builder().processes(2).try_build() {
        // It has no use for one.
        Ok(pool) => assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]),
        Err(error) => assert_says(&error, BuildErrorKind::Launch, &["TMPDIR"]),
    }
}

/// Where `TMPDIR` does not exist, is no folder or cannot be written, there is a pool that does not
/// need it, or an error that names it.
fn a_temporary_folder_that_cannot_be_used<S: Processes>() {
    for folder in ["/nonexistent/folder", "/dev/null", "/proc", ""] {
        let program = again::<S>("odd_temporary_folder").env("TMPDIR", folder);
        assert_eq!(program.lines(), [""; 0], "TMPDIR={folder}");
    }
}

fn limit_files(bytes: u64) {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    setrlimit(Resource::Fsize, limit).expect("a lower limit is always allowed");
}

fn small_files<S: Processes>() {
    limit_files(4 << 20);
    let says = |error: &str| assert!(error.contains("ulimit -f"), "{error}");
    let pool = S::pool(2);
    let too_large = vec![1_u64; 1 << 20];
    says(&pool.broadcast(too_large).unwrap_err().to_string());
    let shared = pool.broadcast(vec![1_u64; 1 << 10]).expect("it is small");
    let in_worker = |words: usize| {
        let filled = Broadcast::filled(words, |words: &mut [u64]| words.fill(2));
        filled.map_err(|error| error.to_string())
    };
    says(&pool.apply(in_worker, 1 << 20).unwrap().unwrap_err());
    assert_eq!(pool.apply(in_worker, 1 << 10).unwrap().unwrap()[1023], 2);
    let last = |shared: Broadcast<[u64]>| shared[1023];
    assert_eq!(pool.apply(last, shared).unwrap(), 1);

    limit_files(64 << 10);
    let file = std::env::temp_dir().join("trace");
    let trace = pool.trace_to(&file).expect("there is a temporary folder");
    pool.call(square).chunksize(1).map(0..2_000).unwrap();
    trace.finish().expect_err("it is too long");
    fs::remove_file(file).expect("it is there");
    assert_eq!(pool.stats().workers_lost, 0);
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
}

fn tiny_files<S: Processes>() {
    limit_files(64 << 10);
    let error = S::builder().processes(2).try_build().map(|_| ());
    assert_says(&error.unwrap_err(), BuildErrorKind::Launch, &["ulimit -f"]);
}

/// The limit of file sizes counts for shared memory. A process that reaches it, in the program or
/// in a worker, gets an error, and nobody dies of SIGXFSZ.
fn a_limit_of_file_sizes<S: Processes>() {
    assert_eq!(again::<S>("small_files").lines(), [""; 0]);
    assert_eq!(again::<S>("tiny_files").lines(), [""; 0]);
}

/// Callbacks that use the pool, and want to wait for its end, after the last thread that the
/// program may have.
fn no_more_threads<S: Processes>() {
    become_limited();
    let pool = Arc::new(S::pool(1));
    let limit = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Nproc).maximum,
    };
    setrlimit(Resource::Nproc, limit).expect("it may be less");
    assert!(thread::Builder::new().spawn(|| ()).is_err(), "no limit");
    let (sender, said) = mpsc::channel();
    let task = pool.apply_async(square, 2);
    let callbacks = pool.clone();
    task.on_complete(move |value: &Result<u64, _>| {
        assert!(matches!(value, Ok(4)), "it is a square");
        assert_eq!(callbacks.apply(square, 3).unwrap(), 9);
        callbacks.close();
        let refused = callbacks.join().unwrap_err();
        // It may be the pool's last owner.
        drop(callbacks);
        sender.send(refused.to_string()).unwrap();
    });
    assert_eq!(task.get().unwrap(), 4);
    println!("{}", said.recv().unwrap());
    pool.join().unwrap();
}

/// They run, and nobody waits for them who should not.
fn callbacks_without_a_thread<S: Processes>() {
    let lines = again::<S>("no_more_threads").lines();
    assert!(lines[0].contains("another thread"), "{}", lines[0]);
}
