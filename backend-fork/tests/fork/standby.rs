//! The server's standby: there is one, it takes the server's place, and it is replaced itself.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use procpool_core::{ExitStatus, LaunchError, Launcher, WorkerHandle};
use procpool_fork::{ForkLauncher, ForkServer};
use procpool_testing::procfs::{
    children, descriptors, group, is_alive, name, parent, signal, state, status, with_variable,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::orders::{self, Order};
use crate::processes::{raw, regions, stop, wait_for, wait_readable, watch};
use crate::rig::{
    STANDBY, end, launch, pool, reach, reap, round, server, standby, tell, try_launch, try_reach,
    worker,
};
use crate::{Scenario, again};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a standby is a sibling of the server", identity),
    ("a standby takes the place of a killed server", succession),
    ("a server is killed twenty times in a row", dynasty),
    ("all pools of a server that is killed go on", several_pools),
    ("a standby that is killed is replaced", standby_killed),
    ("server and standby killed at once are the end", both_killed),
    (
        "launches under way are asked for again",
        killed_while_launching,
    ),
    (
        "a server is killed at any moment of its start",
        killed_early,
    ),
    (
        "servers that die before they serve come to an end",
        fruitless,
    ),
    (
        "the reason why there was no standby is told",
        standby_refused,
    ),
    (
        "a standby holds its socket and the parent alone",
        standby_descriptors,
    ),
    (
        "successions leave no descriptor and no process behind",
        flat,
    ),
    ("a standby sleeps", sleeps),
    (
        "what a worker has started goes with it though the server is dead",
        group_of_an_orphan,
    ),
    ("a stopped standby does not block the last drop", || {
        let (server, _launcher) = pool();
        stop(standby(&server));
        drop(server);
    }),
    (
        "a parent is killed at any moment",
        parent_killed_at_any_moment,
    ),
];

/// Run by other scenarios.
pub(crate) const PARTS: &[Scenario] = &[(PARENT, restless_parent)];

const PARENT: &str = "a parent that kills its servers";

/// Names one run of it, and with it all processes that come of it.
const MARK: &str = "PROCPOOL_FORK_MARK";

fn identity() {
    let server = server();
    let pid = standby(&server);
    assert_eq!(parent(pid), Some(std::process::id()));
    assert_eq!(group(pid), Some(server.pid()));
    assert_eq!(status(pid, "Threads").as_deref(), Some("1"));
    for set in ["SigBlk", "SigPnd"] {
        assert_eq!(status(pid, set), status(server.pid(), set));
    }
    drop(server);
    assert!(children(std::process::id()).is_empty());
}

/// Kills the server, and waits until its workers are dead.
fn kill_server(
    server: &ForkServer,
    links: &mut [&mut Box<dyn WorkerHandle>],
    launcher: &ForkLauncher,
) {
    signal(server.pid(), Signal::KILL);
    for link in links {
        assert_eq!(reap(launcher, link), ExitStatus::Orphaned);
    }
}

fn succession() {
    let (server, mut launcher) = pool();
    let (first, next) = (server.pid(), standby(&server));
    let (mut link, _) = worker(&mut launcher, 1);
    kill_server(&server, &mut [&mut link], &launcher);

    let (mut link, pid) = worker(&mut launcher, 2);
    assert_eq!(parent(pid), Some(next));
    assert_eq!(server.pid(), next);
    assert_eq!(name(next), "procpool-server");
    assert_eq!(group(next), Some(first));
    assert_ne!(standby(&server), next);
    // It reaps them and says how they ended, as the first one did.
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 7),
        ExitStatus::Code(7)
    );
    let (mut link, _) = worker(&mut launcher, 3);
    assert_eq!(
        end(&launcher, &mut link, Order::Abort, 0),
        ExitStatus::Signal(6)
    );
    let family = [next, standby(&server)];
    let mut ours = children(std::process::id());
    ours.retain(|pid| !family.contains(pid));
    assert_eq!(ours, [] as [u32; 0], "the dead one is reaped");
}

fn dynasty() {
    let (server, mut launcher) = pool();
    for number in 0..20 {
        let next = standby(&server);
        let (mut link, pid) = worker(&mut launcher, number);
        assert_eq!(parent(pid), Some(server.pid()));
        kill_server(&server, &mut [&mut link], &launcher);
        assert_eq!(server.pid(), next);
    }
    round(&mut launcher, 21);
}

fn several_pools() {
    let (server, mut one) = pool();
    let mut other = server.connect().expect("the server runs");
    let mut idle = server.connect().expect("the server runs");
    for number in 0..3 {
        standby(&server);
        let (mut link, _) = worker(&mut one, number);
        let (mut other_link, _) = worker(&mut other, number);
        signal(server.pid(), Signal::KILL);
        assert_eq!(reap(&one, &mut link), ExitStatus::Orphaned);
        assert_eq!(reap(&other, &mut other_link), ExitStatus::Orphaned);
    }
    // One that was connected to the first, and hears of all this only now.
    round(&mut idle, 1);
    round(&mut one, 4);
    round(&mut other, 4);
    round(&mut server.connect().expect("the server runs"), 1);
}

fn standby_killed() {
    let (server, mut launcher) = pool();
    let first = server.pid();
    let (mut link, pid) = worker(&mut launcher, 1);
    for number in 2..6 {
        let last = standby(&server);
        signal(last, Signal::KILL);
        wait_for("there is another one", || standby(&server) != last);
        round(&mut launcher, number);
        wait_for("the dead one is reaped at a launch", || {
            round(&mut launcher, number);
            children(std::process::id()).len() == 2
        });
    }
    assert_eq!(server.pid(), first);
    assert!(is_alive(pid));
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 7),
        ExitStatus::Code(7)
    );
    let next = standby(&server);
    signal(first, Signal::KILL);
    // Connecting makes no difference to launching.
    let mut launcher = server.connect().expect("there is a standby");
    outcome(&mut launcher).expect("there is a standby");
    assert_eq!(server.pid(), next);
}

fn both_killed() {
    let (server, mut launcher) = pool();
    let mut other = server.connect().expect("the server runs");
    let (mut link, _) = worker(&mut launcher, 1);
    let (first, second) = (server.pid(), standby(&server));
    // So that it cannot make another one.
    stop(first);
    let deaths = [first, second].map(watch);
    signal(second, Signal::KILL);
    signal(first, Signal::KILL);
    deaths.into_iter().for_each(wait_readable);
    assert_eq!(reap(&launcher, &mut link), ExitStatus::Orphaned);

    let errors = [
        try_launch(&mut launcher, 2).err(),
        try_launch(&mut other, 2).err(),
        server.connect().err(),
        try_launch(&mut launcher, 3).err(),
    ];
    for error in errors {
        let error = error.expect("there is no server");
        let text = error.to_string();
        let deaths =
            [first, second].map(|pid| format!("process {pid}, was killed by signal 9 (SIGKILL)"));
        assert!(deaths.iter().all(|death| text.contains(death)), "{text}");
        assert!(text.contains("no other can be started"), "{text}");
        assert!(!error.is_lost_fork_server());
    }
    assert_eq!(server.pid(), first);
    assert!(children(std::process::id()).is_empty());
}

fn killed_while_launching() {
    let (server, mut launcher) = pool();
    standby(&server);
    stop(server.pid());
    let mut links: Vec<_> = (1..=50).map(|n| launch(&mut launcher, n)).collect();
    signal(server.pid(), Signal::KILL);
    let mut reached = Vec::new();
    while let Some(link) = links.pop() {
        match try_reach(link) {
            Ok(link) => reached.push(link),
            Err(error) => {
                assert!(error.is_lost_fork_server(), "{error}");
                assert!(error.to_string().contains("SIGKILL"), "{error}");
                links.push(launch(&mut launcher, 51));
            }
        }
    }
    assert_eq!(reached.len(), 50);
    for mut link in reached {
        assert_eq!(
            end(&launcher, &mut link, Order::Exit, 3),
            ExitStatus::Code(3)
        );
    }
}

/// What a launch comes to: a worker, or the reason why there will be none.
fn outcome(launcher: &mut impl Launcher) -> Result<Box<dyn WorkerHandle>, LaunchError> {
    loop {
        let spec = procpool_core::LaunchSpec::for_tests(1, 4096);
        match launcher.launch(&spec).and_then(try_reach) {
            Err(error) if error.is_lost_fork_server() => {}
            outcome => return outcome,
        }
    }
}

fn killed_early() {
    let mut survived = 0;
    for step in 0..300 {
        let server = ForkServer::start_serving(orders::serve).expect("there is one thread");
        let pid = server.pid();
        let deadline = Instant::now() + Duration::from_micros(step * 10);
        let mut connected = None;
        while Instant::now() < deadline {
            if step % 2 == 0 {
                connected.get_or_insert_with(|| server.connect());
            }
        }
        signal(pid, Signal::KILL);
        let connected = connected.unwrap_or_else(|| server.connect());
        match connected.and_then(|mut launcher| outcome(&mut launcher)) {
            Ok(link) => {
                tell(&*link, Order::Ring, 0);
                assert_ne!(server.pid(), pid);
                survived += 1;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("standby"), "{text}");
            }
        }
        drop(server);
        assert!(children(std::process::id()).is_empty());
    }
    assert!(
        survived > 0,
        "none was killed late enough to have a standby"
    );
}

fn fruitless() {
    let server = server();
    let mut last = Vec::new();
    let error = loop {
        let next = standby(&server);
        assert!(!last.contains(&next));
        last.push(next);
        let death = watch(server.pid());
        signal(server.pid(), Signal::KILL);
        wait_readable(death);
        match server.connect() {
            Ok(_) => assert!(last.len() < 20, "there is no end to it"),
            Err(error) => break error,
        }
    };
    assert_eq!(last.len(), 8);
    assert!(
        error.to_string().contains("had not started a worker"),
        "{error}"
    );
    // The last standby was killed with it, and nobody has waited for that.
    wait_for("the last one is reaped", || {
        let _ = server.connect();
        children(std::process::id()).is_empty()
    });
}

fn standby_refused() {
    // The limit does not hold for root.
    if rustix::process::geteuid().is_root() {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
    }
    let (server, mut launcher) = pool();
    let (mut link, _) = worker(&mut launcher, 1);
    let limit = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Nproc).maximum,
    };
    let before = prlimit(Some(raw(server.pid())), Resource::Nproc, limit).expect("it may be");
    signal(standby(&server), Signal::KILL);
    // The server lives, and does what it can.
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 3),
        ExitStatus::Code(3)
    );
    let ours = || children(std::process::id());
    wait_for("the dead one is reaped when the server tells", || {
        let _ = try_launch(&mut launcher, 2).and_then(try_reach);
        ours() == [server.pid()]
    });
    // When there is room again, there is a standby.
    prlimit(Some(raw(server.pid())), Resource::Nproc, before).expect("it was so before");
    let next = standby(&server);
    round(&mut launcher, 3);

    prlimit(Some(raw(server.pid())), Resource::Nproc, limit).expect("it may be");
    signal(next, Signal::KILL);
    wait_for("the dead one is reaped when the server tells", || {
        let _ = try_launch(&mut launcher, 2).and_then(try_reach);
        ours() == [server.pid()]
    });
    signal(server.pid(), Signal::KILL);
    let error = outcome(&mut launcher).err().expect("there is no standby");
    let text = error.to_string();
    assert!(text.contains("could not make a standby"), "{text}");
}

fn standby_descriptors() {
    // The second server inherits the handle of the first, like any file that the program has open.
    let first = server();
    let inherited = descriptors(std::process::id());
    let second = server();
    let mut launcher = second.connect().expect("the server runs");
    let others = [worker(&mut launcher, 1), worker(&mut launcher, 2)];
    let of_second = |pid: &u32| group(*pid) == Some(second.pid()) && *pid != second.pid();
    let held = |pid: u32| {
        let mut held = descriptors(pid);
        assert_eq!(held.remove(&0).as_deref(), Some("/dev/null"));
        held.retain(|number, target| inherited.get(number) != Some(target));
        let mut kinds: Vec<_> = held
            .into_values()
            .map(|target| target.split(':').next().unwrap_or_default().to_owned())
            .collect();
        kinds.sort();
        kinds
    };
    let mut ours = children(std::process::id()).into_iter();
    let early = ours.find(of_second).expect("the second one's standby");
    // One that was made when the server had workers.
    signal(early, Signal::KILL);
    let mut late = 0;
    wait_for("there is another one", || {
        let ours = children(std::process::id());
        let other = ours.into_iter().filter(of_second).find(|pid| *pid != early);
        late = other.unwrap_or(0);
        late != 0 && name(late) == STANDBY
    });
    let kinds = held(late);
    // Two ties to the parent, and a socket to be called by.
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert!(kinds.contains(&"socket".to_owned()), "{kinds:?}");
    assert_eq!(regions(late), 0);
    drop((others, first));
}

fn flat() {
    let (server, mut launcher) = pool();
    let mut one = |number| {
        let next = standby(&server);
        let (mut link, _) = worker(&mut launcher, number);
        kill_server(&server, &mut [&mut link], &launcher);
        assert_eq!(server.pid(), next);
        standby_after(&server, &mut launcher);
        round(&mut launcher, number);
    };
    let held = || {
        let own = kinds(std::process::id());
        let processes = children(std::process::id()).len();
        (
            own,
            kinds(server.pid()),
            processes,
            regions(std::process::id()),
        )
    };
    one(1);
    wait_for("the server reaps its workers", || {
        children(server.pid()).is_empty()
    });
    // The server closes a connection of its own some time after its other end is closed: only when
    // it has done so, it is known what it holds.
    let before = descriptors(server.pid());
    let mut second = server.connect().expect("the server runs");
    round(&mut second, 1);
    drop(second);
    wait_for("the server lets the connection go", || {
        let now = descriptors(server.pid());
        now.iter()
            .all(|(number, target)| before.get(number) == Some(target))
    });
    let first = held();
    for number in 2..30 {
        one(number);
    }
    // A server may have workers to reap that nobody waits for.
    wait_for("as much is held as after the first", || held() == first);
}

/// Launches until the server has a standby, and the parent knows it.
fn standby_after(server: &ForkServer, launcher: &mut impl Launcher) {
    for _ in 0..2 {
        let spec = procpool_core::LaunchSpec::for_tests(1, 4096);
        reach(launcher.launch(&spec).expect("a launch succeeds"));
        standby(server);
    }
}

/// What kinds of descriptors a process has.
fn kinds(pid: u32) -> Vec<String> {
    let held = descriptors(pid).into_values();
    let kinds = held.map(|target| target.split(':').next().unwrap_or_default().to_owned());
    let mut kinds: Vec<_> = kinds.collect();
    kinds.sort();
    kinds
}

fn sleeps() {
    let (server, mut launcher) = pool();
    let pid = standby(&server);
    let switches = || {
        ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"].map(|field| status(pid, field))
    };
    wait_for("it falls asleep", || state(pid).as_deref() == Some("S"));
    let before = switches();
    for number in 0..100 {
        round(&mut launcher, number);
    }
    assert_eq!(switches(), before);
}

fn group_of_an_orphan() {
    let (server, mut launcher) = pool();
    standby(&server);
    let (mut link, _) = worker(&mut launcher, 1);
    let started = tell(&*link, Order::StartProcess, 0);
    let death = watch(started);
    kill_server(&server, &mut [&mut link], &launcher);
    if !has_group_signals() {
        signal(started, Signal::KILL);
    }
    wait_readable(death);
}

/// Whether the kernel, 6.9 or later, can kill the group of a process that was reaped.
fn has_group_signals() -> bool {
    let version = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next(), numbers.next());
    major.zip(minor).is_some_and(|version| version >= (6, 9))
}

/// Kills its servers one after the other, for as long as it lives.
fn restless_parent() {
    let (server, mut launcher) = pool();
    println!("ready");
    let _ = std::io::stdout().flush();
    loop {
        standby(&server);
        let _ = worker(&mut launcher, 1);
        signal(server.pid(), Signal::KILL);
    }
}

fn parent_killed_at_any_moment() {
    for step in 0..100 {
        let mark = format!("{}-{step}", std::process::id());
        let mut parent = again(PARENT)
            .env(MARK, &mark)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be executed");
        let mut line = String::new();
        BufReader::new(parent.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("the parent speaks");
        assert_eq!(line, "ready\n");
        let deadline = Instant::now() + Duration::from_micros(step * 100);
        while Instant::now() < deadline {
            std::thread::yield_now();
        }
        parent.kill().expect("the parent is alive");
        parent.wait().expect("the parent is ours");
        wait_for("nobody is left", || with_variable(MARK, &mark).is_empty());
    }
}
