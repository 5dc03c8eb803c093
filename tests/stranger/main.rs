//! What a stranger meets who depends on the crate: tests under plain `cargo test`, programs that
//! forget the first line of `main`, functions that cannot travel. Each case is a crate of its own,
//! made in cargo's folder for tests and built with the same lock file, without a network.

mod crates;
mod libraries;
mod scratch;

use crate::crates::{
    ABORTS, CAPTURES, CONDITION_BUILDS, CONDITION_ENDS, CONDITION_STAYS, Crate, FORGETS, FORKS,
    FORKS_UNNAMED, LATE, LIBRARY, MARKER, NAMES, NOT_CARRIED, OPTIMISED, OWNER, POINTER, SPAWNS,
    TESTED, TOKEN, UNAWARE,
};
use crate::scratch::{Scratch, Told};

/// `cargo test` runs a stranger's unit tests and integration tests, which use both kinds of pools
/// and need one line for it.
#[test]
fn tests_of_a_stranger_can_use_pools() {
    let told = scratch(&[TESTED]).cargo("test --package tested");
    told.assert_success();
    // Twice: the unit tests and the integration tests.
    let passed = told.stdout.matches("test result: ok. 3 passed").count();
    assert_eq!(passed, 2, "{told}");
}

/// A closure that captures does not compile, and the compiler says what to do.
#[test]
fn a_closure_that_captures_does_not_compile() {
    for case in [CAPTURES, OWNER] {
        let told = assert_does_not_compile(case, 1);
        assert!(
            told.stderr.contains("src/main.rs:8:"),
            "the user's line: {told}"
        );
    }
}

/// Nor does one that captures a value without bytes: one of which there must not be a second one,
/// or one that must not be on another thread.
#[test]
fn a_token_that_is_captured_does_not_compile() {
    assert_does_not_compile(TOKEN, 1);
    // By any kind of pool, as a task, an initializer or a finalizer.
    assert_does_not_compile(MARKER, 4);
}

/// Nor does a function pointer, of which only an address would travel.
#[test]
fn a_function_pointer_does_not_compile() {
    let told = assert_does_not_compile(POINTER, 1);
    assert!(
        told.stderr.contains("src/main.rs:10:"),
        "the user's line: {told}"
    );
    assert!(
        told.stderr.contains("pass the function by its name"),
        "{told}"
    );
}

/// Nor does a call with arguments or results that serde does not carry: each is told what to do, at
/// its own line.
#[test]
fn what_serde_does_not_carry_does_not_compile() {
    let told = scratch(&[NOT_CARRIED]).cargo("build --package not_carried");
    assert!(!told.is_success, "{told}");
    let refused = [
        ("`Point`", "src/main.rs:13:", "derive(serde::Serialize"),
        ("`&String`", "src/main.rs:14:", "`items.iter().cloned()`"),
        (
            "`impl Future<Output = u64>`",
            "src/main.rs:15:",
            "an `async fn`",
        ),
        (
            "`Result<String, std::io::Error>`",
            "src/main.rs:16:",
            "`procpool::remote_errors(f)`",
        ),
    ];
    let errors: Vec<&str> = told.stderr.split("error[").collect();
    for (what, place, remedy) in refused {
        let message = format!("{what} cannot travel to another process");
        let error = errors.iter().find(|error| error.contains(&message));
        let error = error.unwrap_or_else(|| panic!("no {message:?} in {told}"));
        assert!(error.contains(place) && error.contains(remedy), "{error}");
    }
    let message = "an initializer returns nothing or a `Result<(), E>`, and not a `u64`";
    let error = errors.iter().find(|error| error.contains(message));
    let error = error.unwrap_or_else(|| panic!("no {message:?} in {told}"));
    assert!(
        error.contains("src/main.rs:17:") && error.contains("`static`"),
        "{error}"
    );
}

/// The compiler refuses this many places, and says what to do.
fn assert_does_not_compile(case: Crate, places: usize) -> Told {
    let told = scratch(&[case]).cargo(&format!("build --package {}", case.name));
    assert!(!told.is_success, "{told}");
    for words in ["captures nothing", "the context of the call"] {
        let count = told.stderr.matches(words).count();
        assert!(count >= places, "{count} times {words:?} in {told}");
    }
    told
}

/// Without `init` no pool is built, no worker is started, and the error says what is missing.
#[test]
fn a_program_without_init_is_told_so() {
    let told = run(FORGETS);
    told.assert_success();
    assert_says_missing_init(&told);
}

/// Its `main` does not call `init`: a library of it does, before that.
#[test]
fn a_library_needs_no_main() {
    let scratch = scratch(&[LIBRARY, UNAWARE]);
    for profile in ["", RELEASE_THAT_ABORTS] {
        let told = scratch.cargo(&format!("run --package unaware{profile}"));
        told.assert_success();
        assert_eq!(told.stdout.trim(), "[1, 4, 9]", "{told}");
    }
}

/// An `init` that comes after the pool is as good as none.
#[test]
fn an_init_that_comes_too_late_is_none() {
    let told = run(LATE);
    told.assert_success();
    assert_says_missing_init(&told);
}

/// Where workers come past an `init` that stands under a condition, and go on to build pools: they
/// start no workers of their own, and the program gets the error at once.
#[test]
fn workers_that_come_past_init_build_no_pools() {
    let told = run(CONDITION_BUILDS);
    told.assert_success();
    assert_says_missing_init(&told);
}

/// Where they simply end, the program learns that they did, and how.
#[test]
fn workers_that_end_before_init_are_noticed() {
    let told = run(CONDITION_ENDS);
    told.assert_success();
    assert!(told.stdout.contains("exited with code 7"), "{told}");
}

/// Where they do something else forever, the launch's time is over some day.
#[test]
fn workers_that_never_come_to_init_are_given_up() {
    let told = run(CONDITION_STAYS);
    told.assert_success();
    assert_says_missing_init(&told);
}

/// Workers are what a pool names: the program under another path, or what executes it. What never
/// becomes a worker is given up, and the error says what it should be.
#[test]
fn a_pool_names_its_program() {
    let another = SPAWNS.named("another");
    let scratch = scratch(&[NAMES, another]);
    scratch.cargo("build --workspace").assert_success();
    let told = scratch.run(NAMES.name, &[&scratch.built(another.name)]);
    told.assert_success();
    for line in [
        "MissingInit: cannot build the pool: the worker did not answer within 3s after its launch \
         (builder().launch_timeout(..) sets the limit); perhaps it does not come to \
         procpool::init(): sleep must be this very program, or execute it",
        "MissingInit: cannot build the pool: the worker process exited with code 0 before it \
         reached procpool::init(): true must be this very program",
        "InvalidConfig: cannot build the pool: args(..) are of a program(..)",
        "Launch: cannot build the pool: the worker is another build of the program than its parent",
    ] {
        assert!(told.stdout.contains(line), "no {line:?} in {told}");
    }
}

/// Where panics abort, the error of a task that panicked still says so, and it is not run again.
#[test]
fn a_panic_that_aborts_is_a_panic() {
    let scratch = scratch(&[ABORTS]);
    let built = scratch.cargo(&format!("build --package aborts{RELEASE_THAT_ABORTS}"));
    built.assert_success();
    let told = scratch.run_optimised("aborts", &["argument"]);
    told.assert_success();
    for pool in ["fork", "spawn"] {
        let line = format!(
            "{pool}: Panicked, \"attempt to divide by zero\", aborts/src/main.rs:12:35, Some(6)"
        );
        assert!(told.stdout.contains(&line), "no {line:?} in {told}");
    }
}

/// Where the linker optimises the whole program, functions are what they were, and panics tell of
/// their place.
#[test]
fn a_program_may_be_optimised_as_a_whole() {
    let scratch = scratch(&[OPTIMISED]);
    let lto = "--config profile.release.lto='fat' --config profile.release.codegen-units=1";
    let built = scratch.cargo(&format!("build --release --package optimised {lto}"));
    built.assert_success();
    let told = scratch.run_optimised("optimised", &[]);
    told.assert_success();
    for pool in ["fork", "spawn"] {
        let line = format!(
            "{pool}: Panicked, \"attempt to divide by zero\", optimised/src/main.rs:13:37, \
             backtrace: true"
        );
        assert!(told.stdout.contains(&line), "no {line:?} in {told}");
    }
}

/// Programs mean the same pool when another crate asks for the other backend too: built alone, and
/// built together, where cargo gives both features to both.
#[test]
fn features_of_others_do_not_change_a_program() {
    let scratch = scratch(&[FORKS, SPAWNS]);
    for packages in [
        "--package forks",
        "--package spawns",
        "--package forks --package spawns",
    ] {
        scratch.cargo(&format!("build {packages}")).assert_success();
        for name in [FORKS.name, SPAWNS.name] {
            if packages.contains(name) {
                let told = scratch.run(name, &["argument"]);
                told.assert_success();
                let line = format!("{name}: Ok(9)");
                assert!(told.stdout.contains(&line), "no {line:?} in {told}");
            }
        }
    }
}

/// There is no `ProcessPool` with `fork` alone, where it could only mean another pool than with
/// `spawn`.
#[test]
fn process_pool_comes_with_spawn() {
    let told = scratch(&[FORKS_UNNAMED]).cargo("build --package forks_unnamed");
    assert!(!told.is_success, "{told}");
    assert!(told.stderr.contains("ProcessPool"), "{told}");
    assert!(told.stderr.contains("unresolved import"), "{told}");
}

fn assert_says_missing_init(told: &Told) {
    for words in [
        "MissingInit",
        "procpool::init()",
        "first line of main",
        "init_before_main!()",
    ] {
        assert!(told.stdout.contains(words), "no {words:?} in {told}");
    }
    assert_eq!(
        told.stdout.matches("MissingInit").count(),
        1,
        "said once: {told}"
    );
}

/// As people have it in what they ship. Two tests share what it builds.
const RELEASE_THAT_ABORTS: &str = " --release --config profile.release.panic='abort'";

/// The workspace of all strangers, with these among them.
fn scratch(crates: &[Crate]) -> Scratch {
    Scratch::with(crates)
}

/// Builds and runs a crate's program.
fn run(case: Crate) -> Told {
    let scratch = scratch(&[case]);
    let built = scratch.cargo(&format!("build --package {}", case.name));
    built.assert_success();
    scratch.run(case.name, &["argument"])
}
