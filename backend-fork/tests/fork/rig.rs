//! What the engine does with a launcher and its links, done by hand.

use std::task::Poll;
use std::time::Duration;

use procpool_core::{ExitStatus, LaunchError, LaunchSpec, Launcher, Readiness, WorkerHandle};
use procpool_fork::{ForkLauncher, ForkServer};
use procpool_testing::procfs::{children, is_alive, name};

use crate::orders::{self, Order};
use crate::processes::{is_readable_within, wait_for, wait_readable};

/// A fork server whose workers take orders.
pub(crate) fn server() -> ForkServer {
    ForkServer::start_serving(orders::serve).expect("there is one thread")
}

/// A server, and one pool's connection to it.
pub(crate) fn pool() -> (ForkServer, ForkLauncher) {
    let server = server();
    let launcher = server.connect().expect("the server runs");
    (server, launcher)
}

/// The standby of this server, as soon as there is one.
pub(crate) fn standby(server: &ForkServer) -> u32 {
    let mut found = None;
    wait_for("the server makes a standby", || {
        let serves = server.pid();
        let sleeps = |pid: &u32| *pid != serves && is_alive(*pid) && name(*pid) == STANDBY;
        found = children(std::process::id()).into_iter().find(sleeps);
        found.is_some()
    });
    found.expect("it was found")
}

/// What a standby is called.
pub(crate) const STANDBY: &str = "procpool-spare";

/// How soon the engine asks again what no descriptor reports.
const SOON: Duration = Duration::from_millis(1);

pub(crate) fn try_launch(
    launcher: &mut ForkLauncher,
    number: u32,
) -> Result<Box<dyn WorkerHandle>, LaunchError> {
    loop {
        match launcher.launch(&LaunchSpec::for_tests(number, 4096)) {
            Err(error) if error.to_string() == "the fork server is dying" => {
                std::thread::sleep(SOON);
            }
            launched => return launched,
        }
    }
}

pub(crate) fn launch(launcher: &mut ForkLauncher, number: u32) -> Box<dyn WorkerHandle> {
    try_launch(launcher, number).expect("a launch succeeds")
}

/// Waits until a worker is reached.
pub(crate) fn reach(link: Box<dyn WorkerHandle>) -> Box<dyn WorkerHandle> {
    try_reach(link).expect("the worker is reached")
}

pub(crate) fn try_reach(
    mut link: Box<dyn WorkerHandle>,
) -> Result<Box<dyn WorkerHandle>, LaunchError> {
    loop {
        wait_readable(link.doorbell());
        match link.poll_ready()? {
            Readiness::HungUp => std::thread::sleep(SOON),
            Readiness::Pending => {}
            Readiness::Ready => return Ok(link),
        }
    }
}

/// A worker that is reached, and its process identifier.
pub(crate) fn worker(launcher: &mut ForkLauncher, number: u32) -> (Box<dyn WorkerHandle>, u32) {
    let link = reach(launch(launcher, number));
    let pid = link.pid().expect("a reached worker has one");
    (link, pid)
}

/// Waits for a worker's death, and answers how it ended.
pub(crate) fn reap(launcher: &ForkLauncher, link: &mut Box<dyn WorkerHandle>) -> ExitStatus {
    wait_readable(link.exit_fd().expect("a reached worker has one"));
    reap_now(launcher, link)
}

/// The same, without waiting before.
pub(crate) fn reap_now(launcher: &ForkLauncher, link: &mut Box<dyn WorkerHandle>) -> ExitStatus {
    loop {
        match link.reap() {
            Poll::Ready(status) => return status,
            Poll::Pending => {
                let notifier = launcher.notifier().expect("this backend has one");
                is_readable_within(notifier, SOON);
            }
        }
    }
}

/// Gives a worker an order, and waits for its death.
pub(crate) fn end(
    launcher: &ForkLauncher,
    link: &mut Box<dyn WorkerHandle>,
    order: Order,
    argument: u32,
) -> ExitStatus {
    orders::give(&link.region(), order, argument);
    reap(launcher, link)
}

/// Gives a worker an order, and waits until it is done.
pub(crate) fn tell(link: &dyn WorkerHandle, order: Order, argument: u32) -> u32 {
    orders::give(&link.region(), order, argument);
    orders::report(&link.region())
}

/// The life of a worker. When it is over, the server has done everything that it was ordered
/// before.
pub(crate) fn round(launcher: &mut ForkLauncher, number: u32) {
    let (mut link, _) = worker(launcher, number);
    assert_eq!(
        end(launcher, &mut link, Order::Exit, 0),
        ExitStatus::Code(0)
    );
}
