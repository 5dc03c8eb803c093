//! What a worker cannot do in a sandbox, what it can, and what is said of it.

use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use nix::sys::signal::{SigSet, SigmaskHow};
use procpool::sandbox::Refusal;
use procpool::{Broadcast, Output, Pool, Sandbox, TaskErrorKind, worker};
use procpool_conformance::Test;
use rustix::process::Signal;

use crate::Confined;

pub(crate) fn tests<S: Confined>() -> Vec<Test> {
    vec![
        ("files_are_out_of_reach", files_are_out_of_reach::<S>),
        ("what_is_allowed_is_read_and_written", allowed::<S>),
        ("the_network_is_out_of_reach", network::<S>),
        ("no_program_and_no_process_is_started", processes::<S>),
        ("the_parent_and_siblings_are_out_of_reach", others::<S>),
        ("a_call_that_is_refused_costs_its_worker", killed::<S>),
        ("a_call_that_is_refused_can_fail", refused::<S>),
        ("calls_that_were_refused_are_told_of", told::<S>),
        ("a_worker_is_alone_in_its_namespaces", alone::<S>),
        ("memory_and_threads_are_limited", limited::<S>),
        ("what_it_says_is_escaped", escaped::<S>),
        ("shared_values_arrive", shared::<S>),
        ("threads_run_inside", threads::<S>),
        ("what_cannot_be_confined_is_no_pool", wrong::<S>),
        ("a_task_cannot_build_a_pool", nested::<S>),
    ]
}

fn strict<S: Confined>() -> S::Pool {
    S::within(Sandbox::strict()).expect("this kernel has all of it")
}

fn failing<S: Confined>() -> S::Pool {
    let sandbox = Sandbox::strict().on_refusal(Refusal::Fail);
    S::within(sandbox).expect("this kernel has all of it")
}

fn files_are_out_of_reach<S: Confined>() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&file, "secret").expect("there is room");
    let path = file.path().to_str().expect("it is text").to_owned();
    let parent = std::process::id();
    let of_parent = ["mem", "environ", "maps", "cmdline"];
    let of_parent = of_parent.map(|name| format!("/proc/{parent}/{name}"));
    let paths = [path, "/etc/passwd".into(), "/proc/self/environ".into()];
    let paths: Vec<String> = paths.into_iter().chain(of_parent).collect();
    assert!(paths.iter().all(|path| fs::File::open(path).is_ok()));
    let pool = strict::<S>();
    let open = |path: String| fs::File::open(path).map(drop).map_err(|it| it.to_string());
    for outcome in pool.map(open, paths).expect("no worker is lost") {
        outcome.expect_err("it is not to be opened");
    }
}

fn allowed<S: Confined>() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(path("in")).unwrap();
    fs::create_dir(path("out")).unwrap();
    fs::write(path("in/x"), "x").unwrap();
    let sandbox = Sandbox::strict()
        .allow_read(path("in"))
        .allow_write(path("out"));
    let pool = S::within(sandbox).expect("a pool");
    let copy = |(from, to): (String, String)| {
        let text = fs::read(from).map_err(|it| it.to_string())?;
        fs::write(to, text).map_err(|it| it.to_string())
    };
    let copied = pool.apply(copy, (path("in/x"), path("out/x")));
    assert_eq!(copied, Ok(Ok(())));
    assert_eq!(fs::read(path("out/x")).unwrap(), b"x");
    let back = pool.apply(copy, (path("out/x"), path("in/y"))).unwrap();
    back.expect_err("that is for reading");
}

fn network<S: Confined>() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it has one").port();
    let connect = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert_eq!(failing::<S>().apply(connect, port), Ok(false));
    let error = strict::<S>()
        .apply(connect, port)
        .expect_err("it is killed");
    assert_eq!(error.signal(), Some(Signal::SYS.as_raw()), "{error}");
    let open = S::within(Sandbox::strict().allow_network()).expect("a pool");
    assert_eq!(open.apply(connect, port), Ok(true));
}

fn processes<S: Confined>() {
    let start = |program: String| std::process::Command::new(program).status().is_ok();
    assert_eq!(failing::<S>().apply(start, "/bin/true".into()), Ok(false));
    let error = strict::<S>().apply(start, "/bin/true".into());
    let error = error.expect_err("it is killed");
    assert_eq!(error.signal(), Some(Signal::SYS.as_raw()), "{error}");
    // Although the C library blocks all signals for that.
    assert_eq!(error.refused_call(), Some("clone"));
}

fn others<S: Confined>() {
    let pool = failing::<S>();
    let reach = |pids: Vec<u32>| {
        let can_be_signalled = |pid: &u32| {
            let pid = rustix::process::Pid::from_raw(*pid as i32).expect("a process");
            rustix::process::test_kill_process(pid).is_ok()
        };
        let reached: Vec<u32> = pids.into_iter().filter(can_be_signalled).collect();
        (worker::current().expect("it is a worker").pid(), reached)
    };
    let workers = pool.stats().workers;
    let workers = workers.iter().map(|it| it.info.pid());
    let pids: Vec<u32> = workers.chain([std::process::id()]).collect();
    assert_eq!(pids.len(), 3);
    for outcome in pool.map(reach, vec![pids; 20]).expect("no worker is lost") {
        let (own, reached) = outcome;
        assert_eq!(reached, [own]);
    }
}

fn killed<S: Confined>() {
    let pool = strict::<S>();
    let is_alive = |x: u64| x + 1;
    assert_eq!(pool.apply(is_alive, 1), Ok(2));
    let error = pool.apply(
        |()| {
            let _ = std::net::UdpSocket::bind("127.0.0.1:0");
        },
        (),
    );
    let error = error.expect_err("it is killed");
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost);
    assert_eq!(error.signal(), Some(Signal::SYS.as_raw()), "{error}");
    assert_eq!(error.refused_call(), Some("socket"));
    assert!(
        error.to_string().contains("system call `socket`"),
        "{error}"
    );
    // And its replacement is as confined.
    for _ in 0..10 {
        assert_eq!(pool.apply(is_alive, 1), Ok(2));
    }
    let read = |()| fs::read("/etc/passwd").is_ok();
    assert_eq!(pool.map(read, [(); 20]), Ok(vec![false; 20]));
}

fn refused<S: Confined>() {
    let pool = failing::<S>();
    fn bind((): ()) -> Option<i32> {
        let bound = std::net::UdpSocket::bind("127.0.0.1:0");
        bound.err().and_then(|it| it.raw_os_error())
    }
    let denied = rustix::io::Errno::PERM.raw_os_error();
    assert_eq!(pool.apply(bind, ()), Ok(Some(denied)));
    // Threads have no other stack for the handler, and no other sandbox.
    let in_thread = |()| std::thread::spawn(|| bind(())).join().unwrap();
    assert_eq!(pool.apply(in_thread, ()), Ok(Some(denied)));
    // Nor is it to be had with signals blocked, of which that one stays open.
    let blocked = |()| {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let is_denied = bind(());
        before.expect("it can").thread_set_mask().expect("it can");
        is_denied
    };
    assert_eq!(pool.apply(blocked, ()), Ok(Some(denied)));
}

/// Each system call that was refused is told of, by its name, with the worker that made it.
fn told<S: Confined>() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sandbox = Sandbox::strict().on_refusal(Refusal::Fail);
    let builder = S::plain().processes(2).sandbox(sandbox);
    let to = told.clone();
    let builder = builder.on_refused_call(move |worker, call| {
        to.lock().unwrap().push((worker.pid(), call.to_owned()));
    });
    let pool = builder.build().expect("this kernel has all of it");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace.json");
    let trace = pool.trace_to(&path).expect("a file");
    let want = |()| {
        for _ in 0..100 {
            assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err());
        }
        assert!(rustix::process::getpgid(None).is_err());
        assert!(std::process::Command::new("/bin/true").status().is_err());
        std::process::id()
    };
    let pid = pool.apply(want, ()).expect("the worker lives");
    pool.close();
    pool.join().expect("its workers have ended");
    drop(trace);
    let mut told = told.lock().unwrap().clone();
    told.sort();
    assert_eq!(
        told,
        ["clone", "getpgid", "socket"].map(|it| (pid, it.to_owned()))
    );
    let traced = fs::read_to_string(path).expect("it is there");
    assert_eq!(traced.matches("refused: socket").count(), 1, "{traced}");
}

/// In namespaces of its own, a worker does all that others do.
fn alone<S: Confined>() {
    let sandbox = Sandbox::strict().user_namespace();
    let pool = S::within(sandbox.on_refusal(Refusal::Fail)).expect("users may have namespaces");
    let words = pool
        .broadcast(&vec![7_u64; 100_000])
        .expect("there is room");
    let sum = |words: Broadcast<Vec<u64>>| words.iter().sum::<u64>();
    assert_eq!(pool.map(sum, vec![words; 20]), Ok(vec![700_000; 20]));
    let ends = pool.apply(|()| -> u64 { std::process::abort() }, ());
    assert!(ends.expect_err("it has aborted").is_worker_lost());
    // Who it is does not change, but for others.
    let user = |()| rustix::process::getuid().as_raw();
    assert_eq!(pool.apply(user, ()), Ok(user(())));
    // It has no right there either, in which it could do what it likes.
    let sandbox = Sandbox::strict().user_namespace().allow_read("/proc");
    let rights = |()| {
        let status = fs::read_to_string("/proc/self/status").expect("it may read it");
        let rights = status.lines().filter(|it| it.starts_with("Cap"));
        let held =
            rights.filter(|it| !it.starts_with("CapBnd") && !it.ends_with("\t0000000000000000"));
        held.map(str::to_owned).collect::<Vec<_>>()
    };
    let pool = S::within(sandbox).expect("users may have namespaces");
    assert_eq!(pool.apply(rights, ()), Ok(Vec::new()));
    // The network is another one, and so is the wall in front of it.
    let sandbox = Sandbox::strict().user_namespace();
    let sandbox = sandbox.allow_syscalls(["socket", "connect", "bind", "getsockname"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it has one").port();
    let connect = |port: u16| {
        let address = ([127, 0, 0, 1], port).into();
        std::net::UdpSocket::bind("127.0.0.1:0")
            .is_ok_and(|it| it.connect::<std::net::SocketAddr>(address).is_ok())
    };
    assert!(connect(port));
    let pool = S::within(sandbox).expect("users may have namespaces");
    assert_eq!(pool.apply(connect, port), Ok(false));
}

/// What a worker takes up is limited by what limits it elsewhere.
fn limited<S: Confined>() {
    let builder = S::plain().processes(2).sandbox(Sandbox::strict());
    let pool = builder
        .memory_limit(128 << 20)
        // Who has no memory says so, which looks like a test that has failed.
        .stderr(Output::discard())
        .build()
        .expect("it is enough");
    let fill = |bytes: usize| vec![1_u8; bytes].len();
    let error = pool.apply(fill, 1 << 30).expect_err("there is no room");
    assert_eq!(error.kind(), TaskErrorKind::OutOfMemory, "{error}");
    let share = |()| fs::File::create_new("/dev/shm/procpool-test").is_ok();
    assert_eq!(pool.apply(share, ()), Ok(false));
    // Each thread has a stack.
    let multiply = |most: usize| {
        let threads = (0..most).map_while(|_| {
            let thread = std::thread::Builder::new().stack_size(4 << 20);
            thread.spawn(std::thread::park).ok()
        });
        let threads: Vec<_> = threads.collect();
        threads.iter().for_each(|it| it.thread().unpark());
        threads.len()
    };
    let had = pool.apply(multiply, 1000).expect("the worker lives");
    assert!((1..33).contains(&had), "{had}");
    assert_eq!(pool.apply(fill, 1 << 20), Ok(1 << 20));
}

/// What a worker says of itself does not reach a terminal as it is.
fn escaped<S: Confined>() {
    let pool = strict::<S>();
    let say = |()| -> u64 { panic!("\x1b]0;mine\x07 and \x1b[2J") };
    let error = pool.apply(say, ()).expect_err("it panics");
    let shown = error.to_string();
    assert!(
        !shown.contains(['\x1b', '\x07']) && shown.contains("mine"),
        "{shown}"
    );
}

fn shared<S: Confined>() {
    let pool = strict::<S>();
    let words: Vec<u64> = (0..100_000).collect();
    let shared = pool.broadcast(&words).expect("there is room");
    let sum =
        |(shared, from): (Broadcast<Vec<u64>>, usize)| shared[from..from + 10].iter().sum::<u64>();
    let items = (0..100).map(|it| (shared.clone(), it * 100));
    let sums = pool.map(sum, items).expect("no worker is lost");
    assert_eq!(sums[3], (300..310).sum::<u64>());
    let large = |size: usize| vec![7_u8; size];
    assert_eq!(pool.apply(large, 1 << 24).map(|it| it.len()), Ok(1 << 24));
}

fn threads<S: Confined>() {
    let pool = strict::<S>();
    let sum = |most: u64| {
        std::thread::scope(|scope| {
            let parts = (0..4).map(|part| scope.spawn(move || (0..most).map(|it| it ^ part).sum()));
            let parts: Vec<_> = parts.collect();
            parts
                .into_iter()
                .map(|it: std::thread::ScopedJoinHandle<u64>| it.join().unwrap())
                .sum::<u64>()
        })
    };
    assert_eq!(pool.apply(sum, 1000), Ok(sum(1000)));
    // What a thread does is confined like what starts it.
    let read = |()| {
        let thread = std::thread::spawn(|| fs::read("/etc/passwd").is_ok());
        thread.join().unwrap()
    };
    assert_eq!(pool.apply(read, ()), Ok(false));
}

fn wrong<S: Confined>() {
    let nowhere = Sandbox::strict().allow_read("/no/such/folder");
    let unknown = Sandbox::strict().allow_syscalls(["no_such_call"]);
    for (sandbox, word) in [(nowhere, "/no/such/folder"), (unknown, "no_such_call")] {
        let error = S::within(sandbox).expect_err("it makes no sense");
        assert!(error.to_string().contains(word), "{error}");
    }
}

fn nested<S: Confined>() {
    let build = |()| match S::within(Sandbox::strict()) {
        Ok(_) => "it is built".to_owned(),
        Err(error) => error.to_string(),
    };
    let said = strict::<S>().apply(build, ()).expect("the worker lives");
    assert!(said.contains("in a sandbox"), "{said}");
}
