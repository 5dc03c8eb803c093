//! The strangers' crates, as they would write them.

/// A crate: its name, which is also that of its folder and its program, and its files.
#[derive(Clone, Copy)]
pub(crate) struct Crate {
    pub(crate) name: &'static str,
    /// What its manifest says of the dependency besides its path.
    features: &'static str,
    /// What its manifest says besides the name and the dependency.
    extra: &'static str,
    pub(crate) files: &'static [(&'static str, &'static str)],
}

impl Crate {
    pub(crate) fn manifest(&self) -> String {
        let Self {
            name,
            features,
            extra,
            ..
        } = self;
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [dependencies]\nprocpool = {{ path = {here:?}{features} }}\n{extra}"
        )
    }

    /// The same by another name: what is built for one test, no other test builds anew meanwhile.
    pub(crate) const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    const fn program(name: &'static str, files: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            name,
            features: "",
            extra: "",
            files,
        }
    }
}

pub(crate) const TESTED: Crate = Crate {
    name: "tested",
    features: "",
    extra: "serde = { version = \"1\", features = [\"derive\"] }\n",
    files: &[
        (
            "src/lib.rs",
            r#"
#![forbid(unsafe_code)]
use procpool::{Pool, TaskError};
use serde::{Deserialize, Serialize};

#[cfg(test)]
procpool::init_before_main!(fork_server);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point { pub x: f64, pub y: f64 }

fn mirror(point: Point) -> Point {
    Point { x: point.y, y: point.x }
}

pub fn mirror_all(pool: &impl Pool, points: Vec<Point>) -> Result<Vec<Point>, TaskError> {
    pool.map(mirror, points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use procpool::{ForkPool, ProcessPool, SpawnPool};

    fn check(pool: impl Pool) {
        let points = (0..100).map(|n| Point { x: n.into(), y: 0.5 }).collect();
        let mirrored = mirror_all(&pool, points).unwrap();
        assert_eq!(mirrored[7], Point { x: 0.5, y: 7.0 });
        assert_ne!(pool.apply(|()| std::process::id(), ()).unwrap(), std::process::id());
    }

    #[test]
    fn forked() { check(ForkPool::builder().processes(2).build().unwrap()); }

    #[test]
    fn spawned() { check(SpawnPool::builder().processes(2).build().unwrap()); }

    #[test]
    fn default() { check(ProcessPool::new().unwrap()); }
}
"#,
        ),
        (
            "tests/integration.rs",
            r#"
use procpool::{ForkPool, Pool, SerialPool, SpawnPool};
use tested::{Point, mirror_all};

procpool::init_before_main!(fork_server);

fn check(pool: impl Pool) {
    let mirrored = mirror_all(&pool, vec![Point { x: 1.0, y: 2.0 }; 10]).unwrap();
    assert_eq!(mirrored, vec![Point { x: 2.0, y: 1.0 }; 10]);
    let error = pool.apply(|x: u32| 1 / x, 0).unwrap_err();
    assert!(error.is_panic());
}

#[test]
fn forked() { check(ForkPool::builder().processes(2).build().unwrap()); }

#[test]
fn spawned() { check(SpawnPool::builder().processes(2).build().unwrap()); }

#[test]
fn serial() { check(SerialPool::new()); }
"#,
        ),
    ],
};

pub(crate) const CAPTURES: Crate = Crate::program(
    "captures",
    &[(
        "src/main.rs",
        r#"
use procpool::{Pool, ProcessPool};

fn main() {
    procpool::init();
    let factor = 3;
    let pool = ProcessPool::new().unwrap();
    println!("{:?}", pool.map(move |x: u64| x * factor, 0..10));
}
"#,
    )],
);

/// Captures what has a destructor.
pub(crate) const OWNER: Crate = Crate::program(
    "owner",
    &[(
        "src/main.rs",
        r#"
use procpool::{Pool, ProcessPool};

fn main() {
    procpool::init();
    let prefix = String::from("no. ");
    let pool = ProcessPool::new().unwrap();
    println!("{:?}", pool.map(move |n: u64| format!("{prefix}{n}"), 0..10));
}
"#,
    )],
);

/// Captures a value without bytes of which there is only one.
pub(crate) const TOKEN: Crate = Crate::program(
    "token",
    &[(
        "src/main.rs",
        r#"
use procpool::{Pool, ProcessPool};

struct Token(());

fn main() {
    procpool::init();
    let token = Token(());
    let pool = ProcessPool::new().unwrap();
    println!("{:?}", pool.apply_async(move |n: u64| { let Token(()) = &token; n }, 3).get());
}
"#,
    )],
);

/// Captures a value without bytes that must stay on its thread.
pub(crate) const MARKER: Crate = Crate::program(
    "marker",
    &[(
        "src/main.rs",
        r#"
use std::marker::PhantomData;

use procpool::{Pool, ProcessPool, SerialPool};

#[derive(Clone, Copy)]
struct Marker(PhantomData<*const ()>);

impl Marker {
    fn id(self) -> u64 { 7 }
}

fn serial(marker: Marker) {
    let _ = SerialPool::new().map(move |n: u64| n + marker.id(), 0..3);
}

fn initializer(marker: Marker) {
    let _ = ProcessPool::builder().initializer(move |n: u64| assert_eq!(n, marker.id()), 7);
}

fn finalizer(marker: Marker) {
    let _ = ProcessPool::builder().finalizer(move || assert_eq!(7, marker.id()));
}

fn call(marker: Marker) {
    let _ = ProcessPool::new().unwrap().call(move |n: u64| n + marker.id()).measured().apply(3);
}

fn main() {
    let marker = Marker(PhantomData);
    serial(marker);
    initializer(marker);
    finalizer(marker);
    call(marker);
}
"#,
    )],
);

/// Arguments and results that serde does not carry, and an initializer's that means nothing.
pub(crate) const NOT_CARRIED: Crate = Crate::program(
    "not_carried",
    &[(
        "src/main.rs",
        r#"
use procpool::{Pool, SerialPool};

struct Point { x: u64 }

async fn later(x: u64) -> u64 { x }

fn read(path: String) -> std::io::Result<String> { std::fs::read_to_string(path) }

fn main() {
    let pool = SerialPool::new();
    let names = vec![String::from("a")];
    pool.map(|x: u64| Point { x }, 0..3).unwrap();
    pool.map(|name: &String| name.len(), names.iter()).unwrap();
    pool.call(later).apply(3).unwrap();
    pool.imap(read, names).count();
    let _ = procpool::ProcessPool::builder().initializer(|x: u64| x + 1, 7);
}
"#,
    )],
);

pub(crate) const POINTER: Crate = Crate::program(
    "pointer",
    &[(
        "src/main.rs",
        r#"
use procpool::{Pool, ProcessPool};

fn square(x: u64) -> u64 { x * x }

fn main() {
    procpool::init();
    let function: fn(u64) -> u64 = square;
    let pool = ProcessPool::new().unwrap();
    println!("{:?}", pool.apply(function, 3));
}
"#,
    )],
);

/// Built with `panic = "abort"`: nothing is caught.
pub(crate) const ABORTS: Crate = Crate::program(
    "aborts",
    &[(
        "src/main.rs",
        r#"
use procpool::{ForkPool, Pool, SpawnPool};

fn main() {
    procpool::init();
    assert!(cfg!(panic = "abort"));
    check("fork", ForkPool::builder().processes(1).build().unwrap());
    check("spawn", SpawnPool::builder().processes(1).build().unwrap());
}

fn check(name: &str, pool: impl Pool) {
    let call = pool.call(|x: u32| 1 / x).retries(3);
    let error = call.apply(0).unwrap_err();
    println!(
        "{name}: {:?}, {:?}, {}, {:?}",
        error.kind(),
        error.panic_message().unwrap(),
        error.panic_location().unwrap(),
        error.signal(),
    );
    assert_eq!(pool.apply(|x: u32| 1 / x, 1), Ok(1));
    assert_eq!(pool.stats().workers_lost, 1);
}
"#,
    )],
);

/// Optimised as a whole when it is linked.
pub(crate) const OPTIMISED: Crate = Crate::program(
    "optimised",
    &[(
        "src/main.rs",
        r#"
use procpool::{ForkPool, Pool, SpawnPool, TaskErrorKind};

fn main() {
    procpool::init();
    let fork = ForkPool::builder().processes(1).memory_limit(256 << 20);
    check("fork", fork.build().unwrap());
    let spawn = SpawnPool::builder().processes(1).memory_limit(256 << 20);
    check("spawn", spawn.build().unwrap());
}

fn check(name: &str, pool: impl Pool) {
    let error = pool.apply(|x: u32| 1 / x, 0).unwrap_err();
    println!(
        "{name}: {:?}, {:?}, {}, backtrace: {}",
        error.kind(),
        error.panic_message().unwrap(),
        error.panic_location().unwrap(),
        error.backtrace().is_some(),
    );
    let fill = |bytes: usize| vec![1_u8; bytes].iter().filter(|byte| **byte == 1).count();
    let error = pool.apply(fill, 1 << 30).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::OutOfMemory, "{error}");
    assert_eq!(pool.map(|x: u32| 6 / x, 1..4).unwrap(), [6, 3, 2]);
}
"#,
    )],
);

pub(crate) const FORGETS: Crate = Crate::program(
    "forgets",
    &[(
        "src/main.rs",
        r#"
fn main() {
    let error = procpool::SpawnPool::builder().processes(2).build().unwrap_err();
    println!("{:?}: {error}", error.kind());
}
"#,
    )],
);

pub(crate) const LATE: Crate = Crate::program(
    "late",
    &[(
        "src/main.rs",
        r#"
fn main() {
    let error = procpool::SpawnPool::builder().processes(2).build().unwrap_err();
    procpool::init();
    println!("{:?}: {error}", error.kind());
}
"#,
    )],
);

/// The program has an argument, its workers have none.
pub(crate) const CONDITION_BUILDS: Crate = Crate::program(
    "condition_builds",
    &[(
        "src/main.rs",
        r#"
fn main() {
    let is_worker = std::env::var_os("SEEN").is_some();
    // SAFETY: there is one thread. A worker has the program's arguments, and its environment.
    unsafe { std::env::set_var("SEEN", "yes") };
    if !is_worker {
        procpool::init();
    }
    // The workers come here too. What they print would be seen.
    let error = procpool::SpawnPool::builder().processes(2).build().unwrap_err();
    if !is_worker {
        println!("{:?}: {error}", error.kind());
    }
}
"#,
    )],
);

pub(crate) const CONDITION_ENDS: Crate = Crate::program(
    "condition_ends",
    &[(
        "src/main.rs",
        r#"
fn main() {
    let is_worker = std::env::var_os("SEEN").is_some();
    // SAFETY: there is one thread. A worker has the program's arguments, and its environment.
    unsafe { std::env::set_var("SEEN", "yes") };
    if is_worker {
        std::process::exit(7);
    }
    procpool::init();
    let error = procpool::SpawnPool::builder().processes(2).build().unwrap_err();
    println!("{:?}: {error}", error.kind());
}
"#,
    )],
);

pub(crate) const CONDITION_STAYS: Crate = Crate::program(
    "condition_stays",
    &[(
        "src/main.rs",
        r#"
fn main() {
    let is_worker = std::env::var_os("SEEN").is_some();
    // SAFETY: there is one thread. A worker has the program's arguments, and its environment.
    unsafe { std::env::set_var("SEEN", "yes") };
    if is_worker {
        loop { std::thread::park(); }
    }
    procpool::init();
    let builder = procpool::SpawnPool::builder().processes(2);
    let builder = builder.launch_timeout(std::time::Duration::from_millis(300));
    let error = builder.build().unwrap_err();
    println!("{:?}: {error}", error.kind());
}
"#,
    )],
);

/// Names the program for its workers.
pub(crate) const NAMES: Crate = Crate::program(
    "names",
    &[(
        "src/main.rs",
        r#"
use std::time::Duration;
use procpool::{Pool, SpawnPool};

fn main() {
    procpool::init();
    let this = std::env::current_exe().unwrap();
    let direct = SpawnPool::builder().processes(1).program(&this);
    check(direct.args(["an argument"]).build().unwrap(), &["an argument"], 0);
    let nicer = SpawnPool::builder().processes(1).program("nice").args(["-n", "3"]).args([&this]);
    check(nicer.build().unwrap(), &[], 3);

    let builder = SpawnPool::builder().processes(1).launch_timeout(Duration::from_secs(3));
    let error = builder.program("sleep").args(["600"]).build().unwrap_err();
    println!("{:?}: {error}", error.kind());
    let error = SpawnPool::builder().processes(1).program("true").build().unwrap_err();
    println!("{:?}: {error}", error.kind());
    let error = SpawnPool::builder().args(["a"]).build().unwrap_err();
    println!("{:?}: {error}", error.kind());
    let another = std::env::args_os().nth(1).unwrap();
    let error = SpawnPool::builder().processes(1).program(another).build().unwrap_err();
    println!("{:?}: {error}", error.kind());
}

fn check(pool: impl Pool, arguments: &[&str], nice: i64) {
    let told = pool.apply(|()| {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let nice: i64 = fields.split_whitespace().nth(16).unwrap().parse().unwrap();
        (std::env::args().skip(1).collect::<Vec<_>>(), nice)
    }, ()).unwrap();
    assert_eq!(told.0, arguments);
    assert_eq!(told.1, nice);
    assert_eq!(pool.map(|x: u64| x * x, 0..4).unwrap(), [0, 1, 4, 9]);
}
"#,
    )],
);

/// Loads the shared objects that its argument names, and uses their pools.
pub(crate) const HOST: Crate = Crate::program(
    "host",
    &[("src/main.rs", include_str!("extension/host.rs"))],
);

/// A library whose users know nothing of workers.
pub(crate) const LIBRARY: Crate = Crate::program(
    "library",
    &[(
        "src/lib.rs",
        r#"
#![forbid(unsafe_code)]
use procpool::{Pool, SpawnPool};

procpool::init_before_main!();

pub fn squares(numbers: Vec<u64>) -> Vec<u64> {
    let pool = SpawnPool::builder().processes(2).build().unwrap();
    let squares = pool.map(|x: u64| (x * x, std::process::id()), numbers).unwrap();
    assert!(squares.iter().all(|(_, worker)| *worker != std::process::id()));
    squares.into_iter().map(|(square, _)| square).collect()
}
"#,
    )],
);

/// One of its users.
pub(crate) const UNAWARE: Crate = Crate {
    name: "unaware",
    features: "",
    extra: "library = { path = \"../library\" }\n",
    files: &[(
        "src/main.rs",
        r#"
fn main() {
    println!("{:?}", library::squares(vec![1, 2, 3]));
}
"#,
    )],
};

/// A shared object with a copy of the crate of its own, as every Rust library has that is loaded.
pub(crate) const EXTENSION: Crate = Crate {
    name: "extension",
    features: "",
    extra: CDYLIB,
    files: &[("src/lib.rs", include_str!("extension/lib.rs"))],
};

/// The same, of which the loader makes a worker, and which starts a fork server when it is loaded.
pub(crate) const PLUGIN: Crate = Crate {
    name: "plugin",
    files: &[("src/lib.rs", INITIALIZED)],
    ..EXTENSION
};

/// Another one.
pub(crate) const OTHER_PLUGIN: Crate = Crate {
    name: "other_plugin",
    ..PLUGIN
};

const INITIALIZED: &str = concat!(
    include_str!("extension/lib.rs"),
    "\nprocpool::init_before_main!(fork_server);\n"
);

/// A Rust library that is a shared object, and has the crate for its users.
pub(crate) const DYLIB: Crate = Crate {
    name: "dylib",
    features: "",
    extra: "\n[lib]\ncrate-type = [\"dylib\"]\n",
    files: &[(
        "src/lib.rs",
        r#"
pub use procpool;

pub fn square(x: u64) -> u64 { x * x }
"#,
    )],
};

/// One of its users, whose functions are in another object than the crate.
pub(crate) const USES_DYLIB: Crate = Crate {
    name: "uses_dylib",
    features: "",
    extra: "dylib = { path = \"../dylib\" }\n",
    files: &[(
        "src/main.rs",
        r#"
use dylib::procpool::{self, AnyPool, ForkPool, ForkServer, Pool, SerialPool, SpawnPool};
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Mutex;

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// Loads the third object, and answers its function.
fn load(path: &str) -> extern "C" fn(&AnyPool) {
    let path = CString::new(path).unwrap();
    unsafe {
        let library = dlopen(path.as_ptr(), 2);
        assert!(!library.is_null(), "it cannot be loaded");
        std::mem::transmute(dlsym(library, c"late".as_ptr()))
    }
}

fn load_late(path: String) { load(&path); }

static START: Mutex<u64> = Mutex::new(0);

fn square(x: u64) -> u64 { *START.lock().unwrap() + x * x }
fn start(x: u64) { *START.lock().unwrap() = x; }
fn end() { println!("a worker leaves"); }

fn check(name: &str, pool: impl Pool, start: u64) {
    assert_eq!(pool.map(dylib::square, 0..4).unwrap(), [0, 1, 4, 9]);
    assert_eq!(pool.map(square, 0..3).unwrap(), [start, start + 1, start + 4]);
    assert_eq!(pool.apply(|x: u64| x + 1, 3), Ok(4));
    println!("{name}: it works");
    pool.close();
    pool.join().unwrap();
}

fn main() {
    procpool::init();
    ForkServer::start().unwrap().set_global().unwrap();
    check("serial", SerialPool::new(), 0);
    let builder = ForkPool::builder().processes(2).initializer(start, 7).finalizer(end);
    check("fork", builder.build().unwrap(), 7);
    let builder = SpawnPool::builder().processes(2).initializer(start, 7).finalizer(end);
    check("spawn", builder.env("A", "B").build().unwrap(), 7);

    let path = std::env::args().nth(1).unwrap();
    let forked = ForkPool::builder().processes(1).build().unwrap();
    let late = load(&path);
    let spawned = SpawnPool::builder().processes(1).initializer(load_late, path).build().unwrap();
    late(&SerialPool::new().into());
    late(&forked.clone().into());
    assert_eq!(forked.map(square, 0..3).unwrap(), [0, 1, 4]);
    assert_eq!(forked.stats().workers_lost, 0);
    late(&spawned.into());
}
"#,
    )],
};

/// Another user, which is loaded when the others run.
pub(crate) const LATE_DYLIB: Crate = Crate {
    name: "late_dylib",
    features: "",
    extra: "dylib = { path = \"../dylib\" }\n\n[lib]\ncrate-type = [\"dylib\"]\n",
    files: &[(
        "src/lib.rs",
        r#"
use dylib::procpool::{AnyPool, Pool};

#[unsafe(no_mangle)]
pub extern "C" fn late(pool: &AnyPool) {
    for outcome in pool.try_map(|x: u64| x * 2, [1, 2]) {
        match outcome {
            Ok(doubled) => println!("late: {doubled}"),
            Err(error) => println!("late: {:?}: {error}", error.kind()),
        }
    }
}
"#,
    )],
};

/// The one of docs/libraries.md, whose code is to be written.
pub(crate) const MINE: Crate = Crate {
    name: "mine",
    files: &[],
    ..EXTENSION
};

const CDYLIB: &str = "\n[lib]\ncrate-type = [\"cdylib\"]\n";

const FORK_ALONE: &str = ", default-features = false, features = [\"fork\"]";
const SPAWN_ALONE: &str = ", default-features = false, features = [\"spawn\"]";

/// Has one backend, and says so by the pool's own name.
pub(crate) const FORKS: Crate = Crate {
    name: "forks",
    features: FORK_ALONE,
    extra: "",
    files: &[(
        "src/main.rs",
        r#"
use procpool::{ForkPool, Pool};

fn main() {
    let pool = ForkPool::builder().processes(1).build().unwrap();
    println!("forks: {:?}", pool.apply(|x: u32| x * x, 3));
}
"#,
    )],
};

/// Has one backend, and calls it by the name of all.
pub(crate) const FORKS_UNNAMED: Crate = Crate {
    name: "forks_unnamed",
    features: FORK_ALONE,
    extra: "",
    files: &[(
        "src/main.rs",
        "use procpool::ProcessPool;\n\nfn main() {}\n",
    )],
};

/// Has the other backend, and calls it by the name of all.
pub(crate) const SPAWNS: Crate = Crate {
    name: "spawns",
    features: SPAWN_ALONE,
    extra: "",
    files: &[(
        "src/main.rs",
        r#"
use procpool::{Pool, ProcessPool, SpawnPool};

fn main() {
    procpool::init();
    // Only one type fits both names.
    let pool: ProcessPool = SpawnPool::builder().processes(1).build().unwrap();
    println!("spawns: {:?}", pool.apply(|x: u32| x * x, 3));
}
"#,
    )],
};
