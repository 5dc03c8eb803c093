//! What may happen to a program on its way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::object_store::{self, ObjectMetadata};
use procpool::{ClusterPool, ClusterPoolBuilder, Pool, TaskErrorKind};
use procpool_testing::file_barrier::{self, Gate};
use procpool_testing::nats::{self, Config, Server};
use procpool_testing::procfs::{self, wait_for_death, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::agent::{Agent, new_key, run};

/// What a test is given: its name.
type Scenario = fn(&str);

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("a_signed_program_is_executed", signed),
        ("what_no_trusted_key_has_signed_is_refused", refused),
        ("any_program_is_executed_if_that_is_allowed", unsigned),
        ("another_program_under_its_name_is_not_executed", forged),
        ("a_program_that_fails_is_tried_less_and_less", fails),
        ("programs_finish_when_the_agent_is_asked_to_go", asked_to_go),
        ("programs_are_killed_when_it_is_asked_twice", asked_twice),
        ("programs_end_with_the_agent", killed),
        ("a_store_that_has_forgotten_it_gets_it_again", forgotten),
        ("an_agent_of_a_program_that_dies_comes_back", dies),
        ("our_configuration_permits_programs", configuration),
        ("a_client_that_may_not_publish_is_told_so", not_permitted),
        ("mistakes_are_told", mistakes),
    ]
}

/// What no test waits for: the watchdog comes first.
const LONG: Duration = Duration::from_secs(1000);

/// A server, and a folder with a key.
struct Place {
    server: Server,
    folder: TempDir,
    key: String,
}

impl Place {
    /// None: this test is left out.
    fn some_or_skip(test: &str) -> Option<Self> {
        let server = nats::server_or_skip(test, Config::new())?;
        let folder = tempfile::tempdir().expect("a folder");
        let (key, _) = new_key(folder.path(), "seed");
        Some(Self {
            server,
            folder,
            key,
        })
    }

    fn agent(&self) -> Agent {
        Agent::start(&self.server.url(), &["--trusted-key", &self.key])
    }

    fn builder(&self) -> ClusterPoolBuilder {
        builder(&self.server.url())
    }

    /// A pool whose program is signed.
    fn pool(&self) -> ClusterPool {
        let builder = self.builder().sign_program(self.folder.path().join("seed"));
        builder.build().expect("the server is there")
    }
}

impl Place {
    /// An agent whose program has a task that does not end, and the processes of these.
    fn busy(&self) -> (Agent, ClusterPool, Gate, Vec<u32>) {
        let agent = self.agent();
        let pool = self.pool();
        let gate = Gate::new();
        drop(pool.apply_async(pass, gate.ticket()));
        let mut family = gate.wait_for(1);
        family.extend(agent.programs());
        assert_eq!(family.len(), 2, "a worker and its agent");
        (agent, pool, gate, family)
    }
}

fn builder(url: &str) -> ClusterPoolBuilder {
    ClusterPool::builder(url)
        .agents_timeout(LONG)
        .server_timeout(LONG)
}

/// Where a worker's program comes from.
fn program(_: ()) -> String {
    let program = std::env::current_exe().expect("it has a path");
    program.to_string_lossy().into_owned()
}

fn signed(test: &str) {
    let Some(place) = Place::some_or_skip(test) else {
        return;
    };
    // Whichever comes first.
    let early = Agent::start(
        &place.server.url(),
        &["--idle", "1", "--trusted-key", &place.key],
    );
    let pool = place.pool();
    assert!(pool.wait_for_processes(1, LONG));
    let mut late = place.agent();
    assert!(pool.wait_for_processes(2, LONG));
    let values = pool.map(|x: u64| x * x, 0..100).unwrap();
    assert_eq!(values, Vec::from_iter((0..100).map(|x| x * x)));
    assert_eq!(pool.agents()[0].machine, "machine");
    late.signal(Signal::TERM);
    assert!(late.status().success());
    wait_until(|| pool.processes() == 1);
    let from = pool.apply(program, ()).unwrap();
    assert!(Path::new(&from).starts_with(early.cache()), "{from}");
    let mode = fs::metadata(&from).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o500);
    // It leaves when nobody needs it, and comes back when somebody does: it is there by now.
    let seen = fs::metadata(&from).unwrap().modified().unwrap();
    drop(pool);
    early.wait_until_it_says("has left");
    wait_until(|| early.programs().is_empty());
    let pool = place.pool();
    assert_eq!(pool.apply(program, ()).unwrap(), from);
    assert_eq!(fs::metadata(&from).unwrap().modified().unwrap(), seen);
}

fn refused(test: &str) {
    let Some(place) = Place::some_or_skip(test) else {
        return;
    };
    let (_, strange) = new_key(place.folder.path(), "stranger");
    let agent = place.agent();
    // Each pool's program is the same, so the second one is not told of.
    let small = Agent::start(
        &place.server.url(),
        &["--trusted-key", &place.key, "--max-size", "1"],
    );
    let unsigned = place.builder().publish_program();
    let unsigned = unsigned.agents_timeout(Duration::from_millis(200));
    let unsigned = unsigned.build().unwrap();
    agent.wait_until_it_says("is refused: it is not signed");
    let error = unsigned.apply(|x: u64| x, 1).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Launch);
    drop(agent);
    let agent = place.agent();
    agent.wait_until_it_says("is refused: it is not signed");
    drop(unsigned);
    let agent = place.agent();
    let pool = place.builder().sign_program(strange).build().unwrap();
    agent.wait_until_it_says("is not trusted");
    // Who comes with a right signature is not punished for that.
    let trusted = place.pool();
    assert!(trusted.wait_for_processes(1, LONG));
    small.wait_until_it_says("--max-size is 1048576");
    assert!(small.programs().is_empty());
    assert_eq!(fs::read_dir(small.cache()).unwrap().count(), 0);
    drop(pool);
}

fn unsigned(test: &str) {
    let Some(place) = Place::some_or_skip(test) else {
        return;
    };
    let _agent = Agent::start(&place.server.url(), &["--allow-unsigned"]);
    let pool = place.builder().publish_program().build().unwrap();
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
}

/// Puts something else into the store.
fn forge(server: &Server, name: &str, size: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(server.url()).await.unwrap();
        let context = jetstream::new(client);
        let config = object_store::Config {
            bucket: "PP_bin".to_owned(),
            ..object_store::Config::default()
        };
        let store = context.create_object_store(config).await.unwrap();
        let content = b"#!/bin/sh\n".repeat(size as usize / 10 + 1);
        let mut content = &content[..size as usize];
        let meta = ObjectMetadata {
            name: name.to_owned(),
            ..ObjectMetadata::default()
        };
        store.put(meta, &mut content).await.unwrap();
    });
}

fn forged(test: &str) {
    let Some(place) = Place::some_or_skip(test) else {
        return;
    };
    // The name of this program, which an honest agent says.
    let name = {
        let agent = place.agent();
        let pool = place.pool();
        assert!(pool.wait_for_processes(1, LONG));
        let from = pool.apply(program, ()).unwrap();
        drop(agent);
        Path::new(&from).file_name().unwrap().to_owned()
    };
    let size = fs::metadata(std::env::current_exe().unwrap())
        .unwrap()
        .len();
    let place = Place {
        server: nats::server_or_skip(test, Config::new()).unwrap(),
        ..place
    };
    forge(&place.server, name.to_str().unwrap(), size);
    let agent = place.agent();
    // The client sees that something is there.
    let _pool = place.pool();
    agent.wait_until_it_says("what the store has is another program");
    assert!(agent.programs().is_empty());
    assert_eq!(fs::read_dir(agent.cache()).unwrap().count(), 0);
}

fn fails(test: &str) {
    let Some(place) = Place::some_or_skip(test) else {
        return;
    };
    let arguments = ["--trusted-key", &place.key];
    let agent = Agent::start_with(&place.server.url(), &arguments, &[("TEST_FAILS", "1")]);
    let _pool = place.pool();
    for next in ["tried again", "not tried for 1s", "not tried for 2s"] {
        let said = format!("is {next}: it has ended with exit status: 3");
        agent.wait_until_it_says(&said);
    }
}

/// A task that waits for its gate.
fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

fn asked_to_go(test: &str) {
    let Some(place) = Place::some_or_skip(test) else {
        return;
    };
    let mut agent = place.agent();
    let pool = place.pool();
    let gate = Gate::new();
    let running = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    agent.signal(Signal::TERM);
    wait_until(|| pool.agents().iter().any(|it| it.is_leaving));
    gate.open();
    running.get().unwrap();
    assert!(agent.status().success());
}

/// At the second signal, nothing is waited for.
fn asked_twice(test: &str) {
    let Some(place) = Place::some_or_skip(test) else {
        return;
    };
    let (mut agent, pool, _gate, family) = place.busy();
    agent.signal(Signal::INT);
    // Signals that come at the same time are one.
    wait_until(|| pool.agents().iter().any(|it| it.is_leaving));
    agent.signal(Signal::INT);
    assert!(agent.status().success());
    wait_for_death(&family);
}

fn killed(test: &str) {
    let Some(place) = Place::some_or_skip(test) else {
        return;
    };
    let (mut agent, _pool, _gate, family) = place.busy();
    agent.signal(Signal::KILL);
    agent.status();
    wait_for_death(&family);
}

fn forgotten(test: &str) {
    let Some(mut place) = Place::some_or_skip(test) else {
        return;
    };
    let pool = place.pool();
    place.server.kill();
    fs::remove_dir_all(place.server.store()).unwrap();
    place.server.start_again();
    let _agent = place.agent();
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
}

fn dies(test: &str) {
    let Some(place) = Place::some_or_skip(test) else {
        return;
    };
    let agent = place.agent();
    let pool = place.pool();
    assert!(pool.wait_for_processes(1, LONG));
    procfs::signal(agent.programs()[0], Signal::KILL);
    agent.wait_until_it_says("is tried again: it has ended with signal: 9");
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
}

fn configuration(test: &str) {
    let Some(server) = nats::server_or_skip(test, Config::of_docs()) else {
        return;
    };
    let url = |user: &str| server.url_at(&format!("{user}:of-{user}@127.0.0.1"));
    let agent = Agent::start(&url("agent"), &["--allow-unsigned"]);
    let pool = builder(&url("client")).publish_program().build().unwrap();
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    assert!(!agent.log().contains("Violation"), "{}", agent.log());
}

fn not_permitted(test: &str) {
    let config = Config::of_docs().without("\"$O.PP_bin.C.*\", ");
    let Some(server) = nats::server_or_skip(test, config) else {
        return;
    };
    let builder = builder(&server.url_at("client:of-client@127.0.0.1"));
    let error = builder.publish_program().build().err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("cannot be put into the server's store"),
        "{text}"
    );
    assert!(text.contains("Permissions Violation"), "{text}");
    assert!(text.contains("$O.PP_bin.C."), "{text}");
}

fn mistakes(_test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let (key, file) = new_key(folder.path(), "seed");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let nowhere = "nats://127.0.0.1:1";
    let cases: [(&[&str], &str); 6] = [
        (&["--trusted-key", &key], "no server is named"),
        (&[nowhere], "name keys that are trusted"),
        (&[nowhere, "--trusted-key", "UABC"], "is no public key"),
        (
            &[
                nowhere,
                "--trusted-key",
                &key,
                "--cache",
                shared.to_str().unwrap(),
            ],
            "others may write",
        ),
        (
            &[
                nowhere,
                "--trusted-key",
                &key,
                "--cache",
                cache.to_str().unwrap(),
            ],
            "there is no connection to the NATS server",
        ),
        (
            &["new-key", file.to_str().unwrap()],
            "seed cannot be written",
        ),
    ];
    for (arguments, expected) in cases {
        let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        let (is_well, _, said) = run(&arguments);
        assert!(!is_well && said.contains(expected), "{arguments:?}: {said}");
    }
    let error = builder(nowhere).sign_program(folder.path().join("none"));
    let error = error.build().err().unwrap();
    assert!(
        error.to_string().contains("the file with the signing key"),
        "{error}"
    );
}
