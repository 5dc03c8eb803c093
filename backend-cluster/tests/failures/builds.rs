//! Agents of other builds of the program.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use procpool_core::{Pool, TaskErrorKind, build_id};
use procpool_testing::nats::Agent;
use tempfile::TempDir;

use crate::Scenario;
use crate::cluster::Cluster;

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![("an_agent_is_of_another_build", another_build)]
}

/// How the note begins that a linker writes a build's identifier into: the lengths of its name and
/// of the identifier, its kind, and its name.
const NOTE: &[u8] = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";

/// This program, with the identifier of another build.
pub(crate) fn other_program() -> (TempDir, std::path::PathBuf) {
    let this = env::current_exe().expect("this program has a path");
    let mut bytes = fs::read(this).expect("it can be read");
    let found = bytes.windows(NOTE.len()).position(|it| it == NOTE);
    let identifier = found.expect("the linker writes one") + NOTE.len();
    bytes[identifier] ^= 1;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("other");
    fs::write(&file, bytes).expect("there is room");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).expect("it is ours");
    (folder, file)
}

fn another_build(test: &str) {
    let Some(mut cluster) = Cluster::some_or_skip(test, 0) else {
        return;
    };
    let (_folder, file) = other_program();
    let url = cluster.server.url();
    let _agent = Agent::start_file(&file, &url, "other");
    let limit = Duration::from_secs(2);
    let pool = cluster.builder().agents_timeout(limit).build();
    let pool = pool.expect("the server is there");
    let build = build_id().to_string();
    let text = loop {
        let error = pool.apply(|x: u64| x, 1).expect_err("nobody can run it");
        assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("no agent for build {build}")),
            "{text}"
        );
        // It takes its time to come up.
        if text.contains("other builds") {
            break text;
        }
    };
    let (_, others) = text.split_once("agents of other builds: ").expect(&text);
    assert!(others.len() >= 32 && !others.contains(&build), "{text}");
    // Where there is one of both, each has its own.
    cluster.add_agent();
    let machine = pool.call(|x: u64| x).measured().apply(7);
    let worker = machine.metrics.worker.expect("it is known");
    assert_eq!((machine.outcome, worker.machine()), (Ok(7), Some("m0")));
}
