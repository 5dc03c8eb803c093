//! What other suites rest on: the servers of `procpool_testing::nats`, as a client sees them.

use std::process::Stdio;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use procpool_testing::machine::Machine;
use procpool_testing::nats::{self, Authority, Config, Server};
use procpool_testing::procfs::wait_until;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn options() -> ConnectOptions {
    ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(5))
}

/// What JetStream's API says.
fn ask(runtime: &Runtime, client: &Client, subject: &str, body: &str) -> String {
    let subject = format!("$JS.API.{subject}");
    let answer = client.request(subject, body.to_owned().into());
    let answer = runtime.block_on(answer).unwrap();
    String::from_utf8(answer.payload.to_vec()).unwrap()
}

fn make_stream(runtime: &Runtime, client: &Client, name: &str, storage: &str) -> String {
    let body = format!(r#"{{"name":"{name}","subjects":["{name}.>"],"storage":"{storage}"}}"#);
    ask(runtime, client, &format!("STREAM.CREATE.{name}"), &body)
}

fn started(test: &str, config: Config) -> Option<(Server, Runtime)> {
    let server = nats::server_or_skip(test, config)?;
    Some((server, runtime()))
}

#[test]
fn a_killed_server_comes_back_where_it_was_with_what_was_in_files() {
    let Some((mut server, runtime)) = started("a_killed_server_comes_back", Config::new()) else {
        return;
    };
    let url = server.url();
    let client = runtime.block_on(options().connect(&url)).unwrap();
    for storage in ["file", "memory"] {
        let made = make_stream(&runtime, &client, storage, storage);
        assert!(made.contains(r#""did_create":true"#), "{made}");
    }
    let pid = server.pid();
    server.kill();
    server.start_again();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.url(), url);
    // Another client: what the first one asks before it notices the end is lost.
    let client = runtime.block_on(options().connect(&url)).unwrap();
    let file = ask(&runtime, &client, "STREAM.INFO.file", "");
    assert!(file.contains(r#""storage":"file""#), "{file}");
    let memory = ask(&runtime, &client, "STREAM.INFO.memory", "");
    assert!(memory.contains("stream not found"), "{memory}");
    assert!(server.log().matches("Server is ready").count() == 2);
}

#[test]
fn limits_are_kept() {
    let config = Config::new().max_payload(65_536).memory_only();
    let Some((server, runtime)) = started("limits_are_kept", config) else {
        return;
    };
    let client = runtime.block_on(options().connect(server.url())).unwrap();
    assert_eq!(client.server_info().max_payload, 65_536);
    let made = make_stream(&runtime, &client, "file", "file");
    assert!(made.contains("insufficient storage"), "{made}");
    let made = make_stream(&runtime, &client, "memory", "memory");
    assert!(made.contains(r#""did_create":true"#), "{made}");
}

#[test]
fn users_are_let_in_by_their_passwords() {
    let config = Config::new().users(&[
        "user: one, password: secret, permissions: { publish: [ allowed ] }",
        "user: other, password: secret",
    ]);
    let Some((server, runtime)) = started("users_are_let_in", config) else {
        return;
    };
    let connect = |user: &str, password: &str| {
        let options = options().user_and_password(user.into(), password.into());
        runtime.block_on(options.connect(server.url()))
    };
    assert!(connect("one", "secret").is_ok() && connect("other", "secret").is_ok());
    for (user, password) in [("one", "wrong"), ("nobody", "secret")] {
        let error = connect(user, password).unwrap_err().to_string();
        assert!(error.contains("authorization violation"), "{error}");
    }
}

#[test]
fn a_token_lets_in() {
    let Some((server, runtime)) = started("a_token_lets_in", Config::new().token("sesame")) else {
        return;
    };
    let connect = |options: ConnectOptions| runtime.block_on(options.connect(server.url()));
    assert!(connect(options().token("sesame".into())).is_ok());
    assert!(connect(options().token("wrong".into())).is_err());
    assert!(connect(options()).is_err());
}

#[test]
fn tls_is_spoken_with_who_trusts_the_authority() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let config = Config::new().tls(&authority);
    let Some((server, runtime)) = started("tls_is_spoken", config) else {
        return;
    };
    let connect = |trusted: &Authority| {
        let options = options().add_root_certificates(trusted.certificate());
        runtime.block_on(options.require_tls(true).connect(server.url()))
    };
    assert!(connect(&authority).is_ok(), "{}", server.log());
    assert!(connect(&stranger).is_err());
}

#[test]
fn a_server_that_verifies_lets_in_whom_the_authority_has_certified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let config = Config::new().mutual_tls(&authority);
    let Some((server, runtime)) = started("a_server_that_verifies", config) else {
        return;
    };
    let connect = |certified_by: &Authority| {
        let (certificate, key) = certified_by.client("client");
        let options = options().add_root_certificates(authority.certificate());
        let options = options.add_client_certificate(certificate, key);
        runtime.block_on(options.require_tls(true).connect(server.url()))
    };
    assert!(connect(&authority).is_ok(), "{}", server.log());
    assert!(connect(&stranger).is_err());
}

#[test]
fn a_machine_reaches_the_server_while_its_cable_is_in() {
    let config = Config::new().for_machines();
    let Some((server, _)) = started("a_machine_reaches_the_server", config) else {
        return;
    };
    let Some([machine]) = Machine::some_or_skip("a_machine_reaches_the_server") else {
        return;
    };
    let greeted = || {
        let script = format!(
            "read -t 1 word rest </dev/tcp/{}/{} && echo $word",
            machine.gateway(),
            server.port()
        );
        let mut command = machine.command("timeout");
        command
            .args(["2", "bash", "-c", &script])
            .stderr(Stdio::null());
        command.output().unwrap().stdout == b"INFO\n"
    };
    assert!(greeted());
    machine.link_down();
    assert!(!greeted());
    machine.link_up();
    wait_until(greeted);
}
