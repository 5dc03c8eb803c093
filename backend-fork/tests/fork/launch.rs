//! Launching, reaching, killing and reaping, while all is well.

use procpool_core::{ExitStatus, Launcher, Readiness};
use procpool_testing::procfs::{children, exists, group, is_alive, name, parent, signal};
use rustix::process::Signal;
use std::task::Poll;

use crate::Scenario;
use crate::orders::{self, Order};
use crate::processes::{is_readable, stop, wait_for, wait_readable, watch};
use crate::rig::{end, launch, pool, reach, reap, reap_now, round, server, tell, worker};

pub(crate) const SCENARIOS: &[Scenario] = &[
    (
        "a worker is a child of the server with a group and a name of its own",
        identity,
    ),
    ("the server says how a worker ended", statuses),
    ("rings may come before and after the hello", rings),
    ("two pools share a server", two_pools),
    (
        "killing a worker kills what it has started",
        kill_takes_the_group,
    ),
    (
        "reaping a worker kills what it has left",
        reap_takes_the_group,
    ),
    ("reaping a live worker ends it", reap_alive),
    ("200 workers at once", many),
    ("launches wait while the server is busy", stopped_server),
    ("a launch that was given up leaves nothing behind", given_up),
    (
        "an answer that nobody wants does not keep the notifier readable",
        unwanted_answer,
    ),
    (
        "the worker of procpool-core is reached and killed",
        real_worker,
    ),
    (
        "an answer that came with another one is told",
        answers_together,
    ),
];

fn identity() {
    let (server, mut launcher) = pool();
    assert_eq!(launcher.backend(), "fork");
    assert_eq!(group(server.pid()), Some(server.pid()));
    assert_eq!(parent(server.pid()), Some(std::process::id()));

    let (mut link, pid) = worker(&mut launcher, 7);
    // An order that was carried out shows that the worker has come so far.
    tell(&*link, Order::Ring, 0);
    assert_eq!(name(pid), "PoolWorker-7");
    assert_eq!(name(server.pid()), "procpool-server");
    assert_eq!(group(pid), Some(pid));
    assert_eq!(parent(pid), Some(server.pid()));
    assert_eq!(link.poll_ready().expect("still"), Readiness::Ready);

    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 0),
        ExitStatus::Code(0)
    );
    assert!(!exists(pid), "a reaped worker is no zombie");
    assert_eq!(link.reap(), Poll::Ready(ExitStatus::Code(0)), "asked again");
    link.kill();
}

fn statuses() {
    let (_server, mut launcher) = pool();
    for (order, argument, expected) in [
        (Order::Exit, 0, ExitStatus::Code(0)),
        (Order::Exit, 42, ExitStatus::Code(42)),
        (Order::Exit, 255, ExitStatus::Code(255)),
        (Order::Abort, 0, ExitStatus::Signal(6)),
        (Order::Fault, 0, ExitStatus::Signal(11)),
        // The standard library's handler says so on standard error, and aborts.
        (Order::Overflow, 0, ExitStatus::Signal(6)),
        (Order::Panic, 0, ExitStatus::Code(101)),
    ] {
        let (mut link, _) = worker(&mut launcher, 1);
        assert_eq!(
            end(&launcher, &mut link, order, argument),
            expected,
            "{order:?}"
        );
    }
    for by in [Signal::KILL, Signal::TERM, Signal::INT] {
        let (mut link, pid) = worker(&mut launcher, 1);
        tell(&*link, Order::Ring, 0);
        signal(pid, by);
        assert_eq!(reap(&launcher, &mut link), ExitStatus::Signal(by.as_raw()));
    }
    let (mut link, _) = worker(&mut launcher, 1);
    link.kill();
    assert_eq!(reap(&launcher, &mut link), ExitStatus::Signal(9));
}

fn rings() {
    let (_server, mut launcher) = pool();
    for _ in 0..50 {
        let mut link = launch(&mut launcher, 1);
        tell(&*link, Order::Ring, 0);
        tell(&*link, Order::Ring, 0);
        link = reach(link);
        // Whatever is left of the first two is taken out, then there is one to come.
        while is_readable(link.doorbell()) {
            let _ = rustix::io::read(link.doorbell(), &mut [0; 16]);
        }
        tell(&*link, Order::Ring, 0);
        wait_readable(link.doorbell());
        assert_eq!(
            end(&launcher, &mut link, Order::Exit, 1),
            ExitStatus::Code(1)
        );
    }
}

fn two_pools() {
    let server = server();
    let mut one = server.connect().expect("the server runs");
    let mut other = server.connect().expect("the server runs");
    let (link, pid) = worker(&mut one, 1);
    let (mut other_link, other_pid) = worker(&mut other, 1);
    let death = watch(pid);
    drop((link, one));
    wait_readable(death);
    assert!(is_alive(other_pid));
    // By the time that this is answered, the server has seen the other connection's end.
    let (mut later, _) = worker(&mut other, 2);
    assert_eq!(end(&other, &mut later, Order::Exit, 2), ExitStatus::Code(2));
    assert_eq!(
        end(&other, &mut other_link, Order::Exit, 3),
        ExitStatus::Code(3)
    );
    assert!(!exists(other_pid));
}

fn kill_takes_the_group() {
    let (_server, mut launcher) = pool();
    let (mut link, _) = worker(&mut launcher, 1);
    let started = watch(tell(&*link, Order::StartProcess, 0));
    link.kill();
    wait_readable(started);
    assert_eq!(reap(&launcher, &mut link), ExitStatus::Signal(9));
}

fn reap_takes_the_group() {
    let (_server, mut launcher) = pool();
    let (mut link, _) = worker(&mut launcher, 1);
    let started = watch(tell(&*link, Order::StartProcess, 0));
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 4),
        ExitStatus::Code(4)
    );
    wait_readable(started);
}

fn reap_alive() {
    let (_server, mut launcher) = pool();
    let (mut link, _) = worker(&mut launcher, 1);
    tell(&*link, Order::Ring, 0);
    assert_eq!(reap_now(&launcher, &mut link), ExitStatus::Signal(9));
}

fn many() {
    let (server, mut launcher) = pool();
    let links: Vec<_> = (1..=200).map(|n| launch(&mut launcher, n)).collect();
    let mut links: Vec<_> = links.into_iter().map(reach).collect();
    assert_eq!(children(server.pid()).len(), 200);
    for (link, code) in links.iter().zip(0..) {
        orders::give(&link.region(), Order::Exit, code);
    }
    for (link, code) in links.iter_mut().zip(0..) {
        assert_eq!(reap(&launcher, link), ExitStatus::Code(code));
    }
    assert!(children(server.pid()).is_empty());
}

fn stopped_server() {
    let (server, mut launcher) = pool();
    stop(server.pid());
    // More than fit into the socket.
    let links: Vec<_> = (1..=400).map(|n| launch(&mut launcher, n)).collect();
    signal(server.pid(), Signal::CONT);
    let mut links: Vec<_> = links.into_iter().map(reach).collect();
    assert_eq!(children(server.pid()).len(), 400);

    // The same with the answers.
    stop(server.pid());
    for link in &mut links {
        assert_eq!(link.reap(), Poll::Pending);
    }
    signal(server.pid(), Signal::CONT);
    for link in &mut links {
        assert_eq!(reap_now(&launcher, link), ExitStatus::Signal(9));
    }
    assert!(children(server.pid()).is_empty());
}

fn given_up() {
    let (server, mut launcher) = pool();

    // Before the server has seen it.
    stop(server.pid());
    drop(launch(&mut launcher, 1));
    let mut killed = launch(&mut launcher, 2);
    killed.kill();
    assert!(killed.poll_ready().is_err());
    assert_eq!(killed.reap(), Poll::Ready(ExitStatus::Unknown));
    signal(server.pid(), Signal::CONT);
    let (link, pid) = worker(&mut launcher, 3);
    wait_for("the server reaps them", || children(server.pid()) == [pid]);

    // When the hello is in the doorbell, unread.
    let unread = launch(&mut launcher, 4);
    wait_readable(unread.doorbell());
    let born = children(server.pid());
    let born = born
        .into_iter()
        .find(|child| *child != pid)
        .expect("a child");
    let death = watch(born);
    drop(unread);
    wait_readable(death);

    // When it was reached.
    let death = watch(pid);
    drop(link);
    wait_readable(death);

    wait_for("the server reaps them", || {
        children(server.pid()).is_empty()
    });
}

fn unwanted_answer() {
    let (server, mut launcher) = pool();
    let (mut link, _) = worker(&mut launcher, 1);
    let (mut other, _) = worker(&mut launcher, 2);
    stop(server.pid());
    assert_eq!(link.reap(), Poll::Pending);
    signal(server.pid(), Signal::CONT);
    wait_readable(launcher.notifier().expect("this backend has one"));
    drop(link);
    assert!(!is_readable(
        launcher.notifier().expect("this backend has one")
    ));
    assert_eq!(
        end(&launcher, &mut other, Order::Exit, 5),
        ExitStatus::Code(5)
    );
    assert!(!is_readable(
        launcher.notifier().expect("this backend has one")
    ));
}

fn answers_together() {
    let (server, mut launcher) = pool();
    let (mut one, _) = worker(&mut launcher, 1);
    let (mut other, _) = worker(&mut launcher, 2);
    stop(server.pid());
    assert_eq!(one.reap(), Poll::Pending);
    assert_eq!(other.reap(), Poll::Pending);
    signal(server.pid(), Signal::CONT);
    // Once another pool is served, both have been answered.
    wait_for("the server reaps them", || {
        children(server.pid()).is_empty()
    });
    round(&mut server.connect().expect("the server runs"), 1);

    assert_eq!(one.reap(), Poll::Ready(ExitStatus::Signal(9)));
    wait_readable(launcher.notifier().expect("this backend has one"));
    assert_eq!(other.reap(), Poll::Ready(ExitStatus::Signal(9)));
    assert!(!is_readable(
        launcher.notifier().expect("this backend has one")
    ));
}

fn real_worker() {
    let server = procpool_fork::ForkServer::start().expect("there is one thread");
    let mut launcher = server.connect().expect("the server runs");
    let (mut link, _) = worker(&mut launcher, 1);
    link.kill();
    assert_eq!(reap(&launcher, &mut link), ExitStatus::Signal(9));
}
