//! The configuration that we give to users: what is needed works with it, and nothing else does.

use std::env;
use std::process::Command;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use procpool_core::{Pool, TaskErrorKind, WorkerDump, WorkerState, build_id, worker};
use procpool_testing::file_barrier::{self, Gate};
use procpool_testing::nats::{self, Agent, Config, Server};
use procpool_testing::procfs::{wait_for_death, wait_until};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::Scenario;
use crate::builds::other_program;
use crate::cluster::{LONG, builder};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("our_configuration_permits_all_that_is_needed", permits),
        (
            "our_configuration_permits_nothing_else",
            permits_nothing_else,
        ),
    ]
}

/// A server with our configuration.
fn server_or_skip(test: &str) -> Option<Server> {
    nats::server_or_skip(test, Config::of_docs())
}

fn url(server: &Server, user: &str) -> String {
    server.url_at(&format!("{user}:of-{user}@127.0.0.1"))
}

fn start_agent(server: &Server, name: &str) -> Agent {
    let this = env::current_exe().expect("this program has a path");
    Agent::run(Command::new(this), &url(server, "agent"), name, 1)
}

fn heed(ticket: String) {
    file_barrier::add(&ticket, std::process::id());
    while !worker::is_cancelled() {
        std::thread::yield_now();
    }
}

fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

fn permits(test: &str) {
    let Some(server) = server_or_skip(test) else {
        return;
    };
    let (_folder, other) = other_program();
    let _other = Agent::start_file(&other, &url(&server, "agent"), "other");
    let of_client = url(&server, "client");
    let pool = builder(&of_client).agents_timeout(Duration::from_secs(1));
    let pool = pool.build().expect("it may do that");
    // Which builds there are is answered, too, as soon as it is there.
    wait_until(|| {
        let error = pool.apply(|x: u64| x, 1).expect_err("nobody can run it");
        assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
        error.to_string().contains("agents of other builds: ")
    });
    drop(pool);
    let _agents = ["m0", "m1"].map(|name| start_agent(&server, name));
    let pool = builder(&of_client).build().expect("it may do that");
    assert!(pool.wait_for_processes(2, LONG));
    let squares: Vec<u64> = (0..1000).map(|x| x * x).collect();
    assert_eq!(pool.map(|x: u64| x * x, 0..1000), Ok(squares));
    let large = vec![7_u8; 3 << 20];
    let value = pool.broadcast(large.clone()).expect("memory");
    let lengths = pool.map(
        |(value, bytes): (procpool_core::Broadcast<[u8]>, Vec<u8>)| {
            (value.len(), bytes.len(), bytes)
        },
        (0..4).map(|_| (value.clone(), large.clone())),
    );
    for (of_value, of_item, bytes) in lengths.expect("values") {
        assert_eq!((of_value, of_item), (large.len(), large.len()));
        assert!(bytes == large);
    }
    let gate = Gate::new();
    let handle = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    let runs = |state| state == WorkerState::Running;
    let dump = pool.dump();
    assert_eq!(dump.workers.iter().filter(|it| runs(it.state)).count(), 1);
    let activity = pool.downgrade().activity().expect("the pool is there");
    let is_of_machine = |it: &WorkerDump| it.info.as_ref().is_some_and(|it| it.machine().is_some());
    assert!(
        activity
            .iter()
            .all(|it| it.stack.is_none() && is_of_machine(it))
    );
    let running = activity.iter().filter(|it| runs(it.state));
    let functions: Vec<_> = running.filter_map(|it| it.task.as_ref()).collect();
    assert!(
        functions.len() == 1 && functions[0].function.ends_with("pass"),
        "{functions:?}"
    );
    assert_eq!(pool.stats().running, 1);
    gate.open();
    handle.get().expect("it has passed");
    let gate = Gate::new();
    let handle = pool.apply_async(heed, gate.ticket());
    gate.wait_for(1);
    handle.cancel();
    assert!(handle.get().expect_err("cancelled").is_cancelled());
    let gate = Gate::new();
    let handle = pool.apply_async(pass, gate.ticket());
    let pids = gate.wait_for(1);
    handle.kill();
    assert!(handle.get().expect_err("killed").is_cancelled());
    wait_for_death(&pids);
    assert_eq!(pool.apply(|x: u64| x * x, 7), Ok(49));
    drop(pool);
    wait_until(|| server.log().contains("Server is ready"));
    // It would have said so.
    assert!(!server.log().contains("Violation"), "{}", server.log());
}

/// A user of the server's.
struct User {
    client: Client,
    events: UnboundedReceiver<Event>,
}

/// What all may do to whom nothing is permitted.
const NOTHING: &str = "nobody.may.publish.here";

impl User {
    async fn new(server: &Server, user: &str) -> Self {
        let (sender, events) = unbounded_channel();
        let options = ConnectOptions::new()
            .custom_inbox_prefix(format!("_INBOX.{user}"))
            .event_callback(move |event| {
                // Without a test there is nobody to tell.
                let _ = sender.send(event);
                std::future::ready(())
            });
        let options = options.user_and_password(user.into(), format!("of-{user}"));
        let client = options.connect(server.url()).await;
        Self {
            client: client.expect("it is known"),
            events,
        }
    }

    /// What the server has against what was done until now. It says it in order: so all is there
    /// when something else has come that it certainly has something against.
    async fn violations(&mut self) -> Vec<String> {
        self.publish(NOTHING).await;
        let mut all = Vec::new();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(60), self.events.recv());
            let event = event.await.expect("it answers").expect("it is connected");
            if let Event::ServerError(error) = event {
                let text = error.to_string().to_lowercase();
                if text.contains(NOTHING) {
                    return all;
                }
                all.push(text);
            }
        }
    }

    async fn publish(&self, subject: &str) {
        let sent = self.client.publish(subject.to_owned(), "x".into()).await;
        sent.expect("it is sent");
    }

    async fn assert_may_publish(&mut self, subject: &str, is_permitted: bool) {
        self.publish(subject).await;
        self.assert_violations("publish", subject, is_permitted)
            .await;
    }

    async fn assert_may_subscribe(&mut self, subject: &str, is_permitted: bool) {
        let subscribed = self.client.subscribe(subject.to_owned()).await;
        let _subscriber = subscribed.expect("it is sent");
        self.assert_violations("subscription", subject, is_permitted)
            .await;
    }

    async fn assert_violations(&mut self, what: &str, subject: &str, is_permitted: bool) {
        let violations = self.violations().await;
        let expected = format!("{what} to \"{}\"", subject.to_lowercase());
        if is_permitted {
            assert!(violations.is_empty(), "{subject}: {violations:?}");
        } else {
            assert_eq!(violations.len(), 1, "{subject}: {violations:?}");
            assert!(violations[0].contains(&expected), "{violations:?}");
        }
    }
}

fn permits_nothing_else(test: &str) {
    let Some(server) = server_or_skip(test) else {
        return;
    };
    // There is a queue, and something in it.
    let pool = builder(&url(&server, "client")).build();
    let pool = pool.expect("it may do that");
    let handle = pool.apply_async(|x: u64| x * x, 7);
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        client_may(&mut User::new(&server, "client").await).await;
        agent_may(&mut User::new(&server, "agent").await).await;
    });
    // All is as it was.
    let _agent = start_agent(&server, "m0");
    assert_eq!(handle.get(), Ok(49));
}

/// What neither may do with queues.
const STREAMS: [&str; 11] = [
    "STREAM.DELETE.*",
    "STREAM.UPDATE.*",
    "STREAM.PURGE.*",
    "STREAM.MSG.GET.*",
    "STREAM.MSG.DELETE.*",
    "STREAM.SNAPSHOT.*",
    "STREAM.RESTORE.*",
    "STREAM.NAMES",
    "DIRECT.GET.*",
    "CONSUMER.DELETE.*.agents",
    "CONSUMER.CREATE.*.other",
];

/// What neither may do elsewhere.
const ELSEWHERE: [&str; 6] = [
    "elsewhere",
    "pp.x",
    "_INBOX.client.x",
    "_INBOX.agent.x",
    "$KV.x.y",
    "$SYS.REQ.SERVER.PING",
];

/// Names for subjects: a build's, and those of a client and an agent.
const CLIENT: &str = "0000000000000001";
const AGENT: &str = "0000000000000002";

fn queue() -> String {
    format!("PP_W_{}", build_id())
}

async fn neither_may(user: &mut User) {
    for subject in STREAMS {
        let subject = format!("$JS.API.{}", subject.replace('*', &queue()));
        user.assert_may_publish(&subject, false).await;
    }
    for subject in ELSEWHERE {
        user.assert_may_publish(subject, false).await;
    }
    for subject in [
        ">",
        "pp.>",
        "pp.w.>",
        "_INBOX.>",
        "$JS.>",
        "$SYS.>",
        "elsewhere",
    ] {
        user.assert_may_subscribe(subject, false).await;
    }
}

async fn client_may(user: &mut User) {
    neither_may(user).await;
    let (build, queue) = (build_id(), queue());
    for subject in [
        // To take work.
        format!("$JS.API.CONSUMER.MSG.NEXT.{queue}.agents"),
        format!("$JS.ACK.{queue}.agents.1.1.1.1600000000000000000.0"),
        // To be an agent.
        format!("pp.c.{build}.{CLIENT}.{AGENT}"),
        format!("pp.hello.{build}"),
        format!("pp.a.{build}.{AGENT}.note"),
        // To look for others' programs, or to remove them all.
        "pp.programs".into(),
        "$JS.API.CONSUMER.CREATE.OBJ_PP_bin".into(),
        "$JS.API.STREAM.DELETE.OBJ_PP_bin".into(),
        "$JS.API.STREAM.UPDATE.OBJ_PP_bin".into(),
    ] {
        user.assert_may_publish(&subject, false).await;
    }
    for subject in [
        format!("pp.a.{build}.{AGENT}.*"),
        format!("pp.a.{build}.{AGENT}.{CLIENT}"),
        "pp.a.>".into(),
        "_INBOX.agent.>".into(),
        format!("pp.who.{build}"),
        "pp.other".into(),
        "pp.program".into(),
        "$O.>".into(),
    ] {
        user.assert_may_subscribe(&subject, false).await;
    }
    // The test sees what is permitted.
    user.assert_may_publish(&format!("pp.a.{build}.{AGENT}.{CLIENT}"), true)
        .await;
    user.assert_may_subscribe(&format!("pp.c.{build}.{CLIENT}.*"), true)
        .await;
}

async fn agent_may(user: &mut User) {
    neither_may(user).await;
    let (build, queue) = (build_id(), queue());
    for subject in [
        // To submit work.
        format!("pp.w.{build}.{CLIENT}"),
        format!("pp.a.{build}.{AGENT}.{CLIENT}"),
        format!("pp.who.{build}"),
        "pp.other".into(),
        // To make queues.
        format!("$JS.API.STREAM.CREATE.{queue}"),
        format!("$JS.API.STREAM.INFO.{queue}"),
        format!("$JS.API.CONSUMER.CREATE.{queue}.agents"),
        format!("$JS.API.CONSUMER.INFO.{queue}.agents"),
        // To publish programs, or to remove them.
        "pp.program".into(),
        "$O.PP_bin.C.x".into(),
        "$O.PP_bin.M.x".into(),
        "$JS.API.STREAM.CREATE.OBJ_PP_bin".into(),
        "$JS.API.STREAM.DELETE.OBJ_PP_bin".into(),
        "$JS.API.STREAM.PURGE.OBJ_PP_bin".into(),
    ] {
        user.assert_may_publish(&subject, false).await;
    }
    for subject in [
        format!("pp.c.{build}.{CLIENT}.*"),
        "pp.c.>".into(),
        "_INBOX.client.>".into(),
        format!("pp.hello.{build}"),
    ] {
        user.assert_may_subscribe(&subject, false).await;
    }
    // The test sees what is permitted.
    user.assert_may_publish(&format!("pp.c.{build}.{CLIENT}.{AGENT}"), true)
        .await;
    user.assert_may_subscribe(&format!("pp.a.{build}.{AGENT}.*"), true)
        .await;
}
