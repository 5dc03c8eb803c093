//! All contenders of a run.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use procpool::ForkServer;

use crate::contender::{self, Contender, Remote, Role};
use crate::floor::{Bound, Copy, ForkExec, OtherSide, PingPong, Starts, Way};
use crate::spin::Pace;

/// Python's pools, by the names under which the script knows them.
pub const PYTHON: &[&str] = &[
    "mp.Pool fork",
    "mp.Pool spawn",
    "ProcessPoolExecutor",
    "loky",
    "mpire",
    "pebble",
    "Ray",
    "Dask",
    "mpi4py",
];

/// The processes that must be forked while the program has one thread.
pub struct Early {
    other_side: OtherSide,
    server: ForkServer,
}

impl Early {
    /// Forks them.
    ///
    /// # Errors
    /// When there are several threads, or the system refuses a process.
    pub fn start() -> Result<Self> {
        Ok(Self {
            other_side: OtherSide::start()?,
            server: ForkServer::start()?,
        })
    }

    /// The floors.
    #[must_use]
    pub fn floors(&self, pace: Pace, workers: usize) -> Vec<Box<dyn Contender>> {
        let mut floors: Vec<Box<dyn Contender>> = vec![
            Box::new(PingPong::new(Way::Spinning, &self.other_side)),
            Box::new(PingPong::new(Way::Futex, &self.other_side)),
            Box::new(PingPong::new(Way::Socket, &self.other_side)),
            Box::new(Copy::new(&self.other_side)),
            Box::new(Bound::new(pace, workers)),
            Box::new(Starts::Fork(self.other_side.clone())),
            Box::new(Starts::Exec),
        ];
        floors.extend(floors_of_cluster());
        floors
    }

    /// Everybody who runs in this program.
    #[must_use]
    pub fn locals(&self, pace: Pace, workers: usize) -> Vec<Box<dyn Contender>> {
        let mut locals: Vec<Box<dyn Contender>> = vec![
            Box::new(contender::sequential(pace)),
            Box::new(contender::rayon(pace, workers)),
            Box::new(contender::serial_pool(pace)),
            Box::new(contender::fork(pace, workers, Some(self.server.clone()))),
            Box::new(contender::spawn(pace, workers)),
            Box::new(contender::procspawn(pace, workers)),
        ];
        locals.extend(cluster(pace));
        locals
    }
}

impl Early {
    /// Pools of ours in a sandbox, or with a page open, which are compared with those without where
    /// they are named.
    #[must_use]
    pub fn named(&self, pace: Pace, workers: usize) -> Vec<Box<dyn Contender>> {
        let server = || self.server.clone();
        let mut named: Vec<Box<dyn Contender>> = vec![
            Box::new(contender::confined_fork(pace, workers, server())),
            Box::new(contender::confined_spawn(pace, workers)),
            Box::new(contender::page_of_fork(pace, workers, server())),
        ];
        named.extend(cluster_with_page(pace));
        named
    }
}

/// The pool of many machines, if this program has it and there is a server.
#[cfg(feature = "cluster")]
fn cluster(pace: Pace) -> Option<Box<dyn Contender>> {
    match procpool_testing::nats::program() {
        Ok(_) => Some(Box::new(contender::cluster(pace))),
        Err(why) => {
            println!("not found: ClusterPool: {why}");
            None
        }
    }
}

#[cfg(not(feature = "cluster"))]
fn cluster(_: Pace) -> Option<Box<dyn Contender>> {
    None
}

#[cfg(feature = "cluster")]
fn cluster_with_page(pace: Pace) -> Option<Box<dyn Contender>> {
    let has_server = procpool_testing::nats::program().is_ok();
    has_server.then(|| Box::new(contender::page_of_cluster(pace)) as Box<dyn Contender>)
}

#[cfg(not(feature = "cluster"))]
fn cluster_with_page(_: Pace) -> Option<Box<dyn Contender>> {
    None
}

/// What its parts take.
#[cfg(feature = "cluster")]
fn floors_of_cluster() -> Vec<Box<dyn Contender>> {
    if procpool_testing::nats::program().is_err() {
        return Vec::new();
    }
    let floor = |route| Box::new(crate::floor::Nats::new(route)) as Box<dyn Contender>;
    crate::floor::Route::ALL.into_iter().map(floor).collect()
}

#[cfg(not(feature = "cluster"))]
fn floors_of_cluster() -> Vec<Box<dyn Contender>> {
    Vec::new()
}

/// The contender of this name, for a program that has no other.
#[must_use]
pub fn alone(name: &str, workers: usize) -> Option<Box<dyn Contender>> {
    let pace = Pace::calibrate();
    let known: [Box<dyn Contender>; 5] = [
        Box::new(contender::fork(pace, workers, None)),
        Box::new(contender::spawn(pace, workers)),
        Box::new(contender::procspawn(pace, workers)),
        Box::new(ForkExec::Fork),
        Box::new(ForkExec::Exec),
    ];
    let mut known = known.into_iter().chain(cluster(pace));
    known.find(|known| known.name() == name)
}

/// The floors that are measured in programs of their own.
#[must_use]
pub fn floors_of_programs() -> [(String, Role); 2] {
    [ForkExec::Fork, ForkExec::Exec].map(|floor| (floor.name().to_owned(), floor.role()))
}

/// Python's pools by name, or why they are left out.
///
/// # Errors
/// When one of them starts and then says something that is no answer, or has a wrong result.
pub fn pythons(
    interpreter: &OsStr,
    workers: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(&'static str, Result<Remote, String>)>> {
    let script = package().join(contender::PYTHON_SCRIPT);
    let limit = contender::FIRST_RESULT_LIMIT;
    PYTHON
        .iter()
        .filter(|name| wanted(name))
        .map(|&name| {
            let remote = Remote::python(interpreter, &script, name, workers, limit);
            Ok((name, remote.with_context(|| format!("rival {name}"))?))
        })
        .collect()
}

/// The folder of this package: where cargo says it is now, and else where it was when this was
/// built.
#[must_use]
pub fn package() -> PathBuf {
    let now = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    now.filter(|folder| folder.ends_with("procpool-bench"))
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")))
}
