//! Servers that do not let one in, or not do everything.

use std::fs;
use std::process::{Command, Stdio};

use nkeys::KeyPair;
use procpool_core::{BuildError, BuildErrorKind, Pool, TaskError, TaskErrorKind};
use procpool_testing::nats::{Agent, Config};
use procpool_testing::procfs::wait_until;
use tempfile::TempDir;

use crate::Scenario;
use crate::cluster::{Cluster, builder};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("a_token_is_wrong", wrong_token),
        ("a_key_is_wrong", wrong_key),
        ("streams_are_not_permitted", |test| {
            not_permitted(test, "$JS.API.>", "publish")
        }),
        ("work_is_not_permitted", |test| {
            not_permitted(test, "pp.w.>", "publish")
        }),
        ("answers_are_not_permitted", |test| {
            not_permitted(test, "_INBOX.>", "subscribe")
        }),
        ("agents_are_not_heard", |test| {
            not_permitted(test, "pp.c.>", "subscribe")
        }),
        ("an_agent_may_not_take_work", |test| {
            agent_not_permitted(test, "$JS.API.CONSUMER.MSG.NEXT.>", "publish")
        }),
        ("an_agent_may_not_join", |test| {
            agent_not_permitted(test, "pp.hello.>", "publish")
        }),
        ("an_agent_may_not_answer", |test| {
            agent_not_permitted(test, "pp.c.>", "publish")
        }),
        ("an_agent_may_not_listen", |test| {
            agent_not_permitted(test, "pp.a.>", "subscribe")
        }),
    ]
}

/// A key pair: the user's name, and the file with the seed.
struct Key {
    public: String,
    file: std::path::PathBuf,
    _folder: TempDir,
}

impl Key {
    fn new() -> Self {
        let key = KeyPair::new_user();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("seed");
        fs::write(&file, key.seed().expect("it has one")).expect("there is room");
        Self {
            public: key.public_key(),
            file,
            _folder: folder,
        }
    }
}

/// An agent that is not let in says so, and ends.
fn refused_agent(url: &str, variable: &str, value: &str) -> String {
    let this = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(this);
    command.env(variable, value).stderr(Stdio::piped());
    Agent::run(command, url, "m", 1).last_words()
}

fn assert_not_let_in(error: &BuildError, url: &str) {
    assert_eq!(error.kind(), BuildErrorKind::Launch);
    let text = error.to_string();
    assert!(
        text.contains(url) && text.contains("authorization violation"),
        "{text}"
    );
}

fn wrong_token(test: &str) {
    let Some(cluster) = Cluster::with_config(test, Config::new().token("sesame"), 0) else {
        return;
    };
    let url = cluster.server.url();
    let error = cluster.builder().build().expect_err("it has no token");
    assert_not_let_in(&error, &url);
    let said = refused_agent(&url, "PROCPOOL_AGENT_TOKEN", "wrong");
    assert!(
        said.contains("authorization violation") && said.contains(&url),
        "{said}"
    );
}

fn wrong_key(test: &str) {
    let (known, stranger) = (Key::new(), Key::new());
    let user = format!("nkey: {}", known.public);
    let Some(cluster) = Cluster::with_config(test, Config::new().users(&[&user]), 0) else {
        return;
    };
    let url = cluster.server.url();
    let error = cluster.builder().credentials(&stranger.file).build();
    assert_not_let_in(&error.expect_err("it is not known"), &url);
    let name = "PROCPOOL_AGENT_CREDENTIALS";
    let said = refused_agent(&url, name, stranger.file.to_str().expect("text"));
    assert!(said.contains("authorization violation"), "{said}");
    let said = refused_agent(&url, name, "/nowhere");
    assert!(said.contains("/nowhere"), "{said}");
    // With the right one, all is well.
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.env(name, &known.file);
    let _agent = Agent::run(command, &url, "m", 1);
    let pool = builder(&url).credentials(&known.file).build();
    let pool = pool.expect("it is known");
    assert_eq!(pool.apply(|x: u64| x * x, 7), Ok(49));
}

/// A client that may not do this learns it, from `build` or from its tasks.
fn not_permitted(test: &str, what: &str, direction: &str) {
    let (client, agent) = (Key::new(), Key::new());
    let denied = format!(
        "nkey: {}, permissions: {{ {direction}: {{ deny: [ \"{what}\" ] }} }}",
        client.public
    );
    let users = [&*denied, &format!("nkey: {}", agent.public)];
    let Some(cluster) = Cluster::with_config(test, Config::new().users(&users), 0) else {
        return;
    };
    let url = cluster.server.url();
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.env("PROCPOOL_AGENT_CREDENTIALS", &agent.file);
    let _agent = Agent::run(command, &url, "m", 1);
    let text = match builder(&url).credentials(&client.file).build() {
        Err(error) => {
            assert_eq!(error.kind(), BuildErrorKind::Launch);
            error.to_string()
        }
        Ok(pool) => {
            let error: TaskError = pool.apply(|x: u64| x, 1).expect_err("it is not permitted");
            assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
            error.to_string()
        }
    };
    let lower = text.to_lowercase();
    assert!(
        text.contains(&url) && lower.contains("permissions violation"),
        "{text}"
    );
    let part = what.trim_end_matches('>');
    assert!(text.contains(part), "{text}");
}

/// An agent that may not do this says so and ends, and no client waits for it.
fn agent_not_permitted(test: &str, what: &str, direction: &str) {
    let (client, agent) = (Key::new(), Key::new());
    let denied = format!(
        "nkey: {}, permissions: {{ {direction}: {{ deny: [ \"{what}\" ] }} }}",
        agent.public
    );
    let users = [&*denied, &format!("nkey: {}", client.public)];
    let Some(cluster) = Cluster::with_config(test, Config::new().users(&users), 0) else {
        return;
    };
    let url = cluster.server.url();
    let pool = builder(&url).credentials(&client.file).build();
    let pool = pool.expect("it may do everything");
    let file = agent.file.to_str().expect("text");
    let said = refused_agent(&url, "PROCPOOL_AGENT_CREDENTIALS", file);
    let part = what.trim_end_matches('>');
    for part in [&*url, "does not permit", part] {
        assert!(said.contains(part), "{said}");
    }
    wait_until(|| pool.agents().iter().all(|it| it.is_leaving));
}
