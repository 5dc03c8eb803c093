//! Descriptors, and what happens at the system's limits.

use procpool_core::{ExitStatus, Launcher, Readiness};
use procpool_testing::procfs::{children, descriptors};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::Scenario;
use crate::orders::Order;
use crate::processes::{raw, regions, wait_for, wait_readable};
use crate::rig::{end, launch, pool, round, server, tell, try_launch, try_reach, worker};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("200 launches leave no descriptor behind", flat),
    (
        "a worker holds its own doorbell and region alone",
        worker_descriptors,
    ),
    ("too few descriptors in the parent", parent_limit),
    ("too few descriptors in the server", server_limit),
    (
        "too few descriptors in the server for a pool",
        server_limit_connect,
    ),
    ("too few processes", process_limit),
];

fn flat() {
    let (server, mut launcher) = pool();
    // At the second, the parent has heard of the standby.
    round(&mut launcher, 0);
    round(&mut launcher, 1);
    let own = descriptors(std::process::id());
    let servers = descriptors(server.pid());
    for number in 2..=200 {
        round(&mut launcher, number);
    }
    // Those that are given up as well.
    for number in 201..=250 {
        drop(launch(&mut launcher, number));
    }
    wait_for("the server reaps them", || {
        children(server.pid()).is_empty()
    });
    round(&mut launcher, 251);
    assert_eq!(descriptors(std::process::id()), own);
    assert_eq!(descriptors(server.pid()), servers);
    assert_eq!(regions(server.pid()), 0);
    assert_eq!(regions(std::process::id()), 0);

    drop(launcher);
    for _ in 0..20 {
        let mut launcher = server.connect().expect("the server runs");
        round(&mut launcher, 1);
    }
    wait_for("the server closes the pools' connections", || {
        descriptors(server.pid()).len() == servers.len() - 1
    });
}

fn worker_descriptors() {
    // The second server inherits the handle of the first, like any file that the program has open.
    let first = server();
    let inherited = descriptors(std::process::id());
    let second = server();
    let mut launcher = second.connect().expect("the server runs");
    let mut other = second.connect().expect("the server runs");
    let _others = [worker(&mut other, 1), worker(&mut launcher, 1)];
    let (link, pid) = worker(&mut launcher, 2);
    tell(&*link, Order::Ring, 0);
    let _later = worker(&mut launcher, 3);

    let mut held = descriptors(pid);
    assert_eq!(held.remove(&0).as_deref(), Some("/dev/null"));
    held.retain(|number, target| inherited.get(number) != Some(target));
    let doorbell = rustix::fs::fstat(link.doorbell())
        .expect("the doorbell is open")
        .st_ino;
    let held: Vec<_> = held.into_values().collect();
    assert_eq!(held, [format!("pipe:[{doorbell}]")]);
    assert_eq!(regions(pid), 1);
    drop(first);
}

fn parent_limit() {
    let (_server, mut launcher) = pool();
    let open = descriptors(std::process::id()).len() as u64;
    limit_own(Resource::Nofile, open + 10);
    let mut links = Vec::new();
    let error = loop {
        let number = links.len() as u32 + 1;
        match try_launch(&mut launcher, number).and_then(try_reach) {
            Ok(link) => links.push(link),
            Err(error) => break error,
        }
        assert!(links.len() < 10, "each takes two descriptors of ten");
    };
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    // What is running goes on, and when there is room again, so do launches.
    let (mut one, mut other) = (links.pop().expect("some"), links.pop().expect("some"));
    assert_eq!(
        end(&launcher, &mut one, Order::Exit, 1),
        ExitStatus::Code(1)
    );
    assert_eq!(
        end(&launcher, &mut other, Order::Exit, 2),
        ExitStatus::Code(2)
    );
    drop((one, other));
    let (mut link, _) = worker(&mut launcher, 100);
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 3),
        ExitStatus::Code(3)
    );
}

fn server_limit() {
    let (server, mut launcher) = pool();
    let (mut first, _) = worker(&mut launcher, 1);
    round(&mut launcher, 2);
    // Room for none, and for one of the two.
    for room in [0, 1] {
        let before = limit_server(&server, Resource::Nofile, limit_for(server.pid(), room));
        let mut link = launch(&mut launcher, 3);
        wait_readable(link.doorbell());
        // The server may be dying, and the caller has other things to do than to wait for that.
        assert_eq!(link.poll_ready().expect("no error yet"), Readiness::HungUp);
        let error = try_reach(link).err().expect("no room");
        assert!(error.to_string().contains("ulimit -n"), "{error}");
        prlimit(Some(raw(server.pid())), Resource::Nofile, before).expect("it was so before");
    }
    assert_eq!(
        end(&launcher, &mut first, Order::Exit, 1),
        ExitStatus::Code(1)
    );
    round(&mut launcher, 4);
    assert!(children(server.pid()).is_empty());
}

fn server_limit_connect() {
    let (server, mut settled) = pool();
    round(&mut settled, 1);
    let before = limit_server(&server, Resource::Nofile, limit_for(server.pid(), 0));
    // Whether the connection is refused is known only to the launch.
    let mut launcher = server.connect().expect("the server runs");
    let error = try_launch(&mut launcher, 1).and_then(try_reach).err();
    let error = error.expect("no room for the connection").to_string();
    assert!(
        error.contains("no room for this pool's connection"),
        "{error}"
    );
    prlimit(Some(raw(server.pid())), Resource::Nofile, before).expect("it was so before");
    let mut launcher = server.connect().expect("the server runs");
    let (mut link, _) = worker(&mut launcher, 1);
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 1),
        ExitStatus::Code(1)
    );
    assert!(launcher.notifier().is_some());
}

fn process_limit() {
    // The limit does not hold for root.
    if rustix::process::geteuid().is_root() {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
    }
    let (server, mut launcher) = pool();
    limit_server(&server, Resource::Nproc, 0);
    let error = try_reach(launch(&mut launcher, 1))
        .err()
        .expect("no process is allowed");
    let text = error.to_string();
    assert!(text.contains("cannot fork a worker"), "{text}");
    assert!(text.contains("ulimit -u"), "{text}");
}

fn limit_own(resource: Resource, current: u64) {
    let maximum = getrlimit(resource).maximum;
    let limit = Rlimit {
        current: Some(current),
        maximum,
    };
    setrlimit(resource, limit).expect("a limit may be lowered");
}

/// Answers the limit before.
fn limit_server(server: &procpool_fork::ForkServer, resource: Resource, current: u64) -> Rlimit {
    let limit = Rlimit {
        current: Some(current),
        maximum: getrlimit(resource).maximum,
    };
    prlimit(Some(raw(server.pid())), resource, limit).expect("a limit may be lowered")
}

/// The limit of open files that leaves a process room for this many more.
fn limit_for(pid: u32, room: usize) -> u64 {
    let open = descriptors(pid);
    let mut free = (0..).filter(|number| !open.contains_key(number));
    free.nth(room).expect("numbers go on").into()
}
