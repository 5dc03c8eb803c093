//! A program that forgets `init`: this one, whose `main` is the harness'.
#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they start programs"
)]

use std::env;
use std::process::Command;

use procpool_cluster::ClusterPool;
use procpool_core::BuildErrorKind;

/// Agents would be this program, and start agents, which would start agents.
#[test]
fn no_agent_is_started() {
    let error = ClusterPool::local(1).expect_err("`init` is missing");
    assert_eq!(error.kind(), BuildErrorKind::MissingInit, "{error}");
    let error = error.to_string();
    for words in ["has not been called", "init_before_main!()"] {
        assert!(error.contains(words), "no {words:?} in {error}");
    }
}

/// It would be a client, and the one who has started it would wait for an agent.
#[test]
fn a_program_that_is_to_be_an_agent_is_told() {
    const TEST: &str = "a_program_that_is_to_be_an_agent_is_told";
    const AGENT: &str = "PROCPOOL_AGENT";
    if env::var_os(AGENT).is_none() {
        let program = env::current_exe().expect("it has a path");
        let again = Command::new(program)
            .args(["--exact", TEST])
            .env(AGENT, "nats://127.0.0.1:1")
            .output()
            .expect("it is executed");
        assert!(again.status.success(), "{again:?}");
        return;
    }
    let error = ClusterPool::connect("nats://127.0.0.1:1").expect_err("it is to be an agent");
    assert_eq!(error.kind(), BuildErrorKind::MissingInit, "{error}");
    assert!(
        error.to_string().contains("PROCPOOL_AGENT is set"),
        "{error}"
    );
}
