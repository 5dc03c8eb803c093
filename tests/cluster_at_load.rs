//! A test file, whose `main` is the harness': its agents begin before that.
#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they start programs"
)]

use std::process::Command;

use procpool::{ClusterPool, Pool};
use procpool_testing::left_out;

procpool::init_before_main!();

fn pool(test: &str) -> Option<ClusterPool> {
    let pool = ClusterPool::local(1).map_err(|error| error.to_string());
    left_out::unless(test, "a NATS server", pool)
}

/// The names of variables that make a program an agent, here and in what this program starts.
fn variables_of_agents((): ()) -> Vec<String> {
    let env = Command::new("env").output().expect("it is executed");
    let of_child = String::from_utf8_lossy(&env.stdout).into_owned();
    let of_child = of_child.lines().map(|line| format!("child: {line}"));
    let here = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    here.chain(of_child)
        .filter(|it| it.contains("PROCPOOL_AGENT"))
        .collect()
}

#[test]
fn agents_begin_before_main() {
    if let Some(pool) = pool("agents_begin_before_main") {
        let squares = pool.map(|x: u64| x * x, 0..4).expect("they are agents");
        assert_eq!(squares, [0, 1, 4, 9]);
    }
}

/// Else each program that a task starts, and that calls `init`, would be an agent, too.
#[test]
fn tasks_do_not_start_agents() {
    if let Some(pool) = pool("tasks_do_not_start_agents") {
        let found = pool.apply(variables_of_agents, ()).expect("it can look");
        assert_eq!(found, [""; 0]);
    }
}
