//! `cargo xtask portable`: `SpawnPool` with the parts of the system that each Unix has, on Linux.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::{cargo, watchdog};

/// For a build from nothing.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

/// For all tests.
const TEST_LIMIT: Duration = Duration::from_secs(20 * 60);

/// The compiler's flag that chooses them, which changes a build: it has a target folder of its own.
const FLAG: &str = "--cfg procpool_portable";

/// The suites with pools of that backend alone.
const SUITES: &str = "--package procpool-tests --no-default-features --features spawn";

/// What is not promised there, or not yet; and why.
const MISSING: &[(&str, &[&str])] = &[
    (
        "nobody says of another process how much memory and time it has taken, where its task is, \
         or that it has stopped",
        &[
            "live_inputs::nothing_is_kept_of_an_item_while_the_input_waits",
            "metrics::memory_is_told",
            "observe::a_dump_leaves_system_calls_and_errors_alone",
            "observe::a_dump_says_what_is_stuck",
            "observe::a_stopped_worker_has_no_stack",
            "observe::each_worker_has_its_own_figures",
            "observer::workers_say_what_time_they_took",
        ],
    ),
    (
        "a worker that a debugger traces is dead for nobody until the debugger lets go",
        &["unkillable::"],
    ),
    (
        "a worker has a thread that ties it to its parent",
        &[
            "observe::an_initializer_counts_as_no_item",
            "spans::threads_of_tasks_have_the_span_of_their_task",
            "trace::ends_and_replacements_are_traced",
        ],
    ),
    (
        "no processor is chosen, and what calls a worker stays in its environment",
        &[
            "settings::an_empty_environment_has_what_is_set_after_that",
            "settings::each_worker_has_a_processor",
            "settings::replacements_have_the_same_settings",
        ],
    ),
    (
        "the parent-death signal, the order in which the system ends processes, and the status of \
         a child that the system has reaped are Linux's",
        &[
            "ties::a_program_may_ignore_its_children",
            "ties::the_first_tie_is_made_again_after_the_initializer",
            "ties::the_system_ends_workers_first",
        ],
    ),
    (
        "a program is found by its path",
        &[
            "restart_storm::a_deleted_program_goes_on",
            "restart_storm::a_program_that_changes_its_root_goes_on_or_says_why_not",
            "restart_storm::a_replaced_program_goes_on",
            "start::a_program_may_be_started_by_its_loader",
        ],
    ),
    (
        "a pool needs two descriptors more for each worker",
        &[
            "recycling::descriptors_for_one_worker_are_enough",
            "refused::as_many_descriptors_as_the_error_says",
        ],
    ),
    (
        "a pool whose descriptors the program has closed does not always notice",
        &["daemons::a_program_that_closes_what_it_does_not_know_gets_errors"],
    ),
    (
        "nobody can look into a worker: what it offers it has to send, and descriptors that it \
         cannot send for long are refused",
        &[
            "descriptor_limits::too_many_on_their_way_for_long",
            "forged_descriptors::a_flood_costs_its_own_results",
            "forged_results::a_descriptor_that_is_closed",
            "forged_results::a_descriptor_that_is_something_else_by_now",
            "forged_results::a_handle_of_what_was_not_offered",
            "forged_results::a_handle_that_is_inside_of_itself",
            "forged_results::a_pipe_is_not_opened",
            "forged_results::an_honest_forgery_is_taken",
            "forged_results::handles_inside_each_other_are_not_too_deep",
            "forged_results::memory_of_somebody_else",
            "forged_results::memory_that_can_change",
            "forged_results::offers_inside_each_other_are_not_too_many",
        ],
    ),
    (
        "no memory can be sealed: what a worker has made is copied, so it is not the same memory",
        &[
            "forged_descriptors::memory_that_can_change",
            "shared_results::it_goes_on_to_other_pools",
            "shared_results::it_is_freed_with_its_last_handle",
            "shared_results::it_outlives_its_worker",
            "shared_results::the_parent_reads_the_workers_own_memory",
            "shared_results::the_same_is_opened_once",
            "shared_results::what_a_task_has_kept_comes_back",
        ],
    ),
    (
        "shared memory has a name for a moment, which a program that has changed its root has not",
        &["shared_results::a_parent_that_has_changed_its_root"],
    ),
];

/// A cargo command for the crates that have such parts.
pub(crate) fn command(root: &Path, what: &str) -> Command {
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    let mut command = cargo::cargo(root, what);
    command.env("CARGO_TARGET_DIR", cargo::target(root).join("portable"));
    command.env("RUSTFLAGS", format!("{flags} {FLAG}"));
    command
}

/// What runs the tests, each built already by the same command with `--no-run`.
pub(crate) fn tests(root: &Path) -> [Command; 2] {
    let units = "test --package procpool-core --package procpool-spawn --lib";
    let conformance = format!("test {SUITES} --test conformance");
    let mut conformance = command(root, &conformance);
    conformance.args(["--", "spawn::"]);
    for name in MISSING.iter().flat_map(|(_, names)| *names) {
        conformance.arg("--skip").arg(format!("spawn::{name}"));
    }
    [command(root, units), conformance]
}

/// What builds them, and the storm.
pub(crate) fn builds(root: &Path) -> [Command; 2] {
    let units = "test --package procpool-core --package procpool-spawn --lib --no-run";
    let suites = format!("test {SUITES} --test conformance --test chaos --no-run");
    [command(root, units), command(root, &suites)]
}

/// Random calls while workers are killed, for so long.
pub(crate) fn chaos(root: &Path, seconds: &str) -> Command {
    let mut storm = command(
        root,
        &format!("test --quiet {SUITES} --test chaos -- storm"),
    );
    storm.args(["--backend", "spawn", "--seconds", seconds]);
    storm
}

/// Runs all of it.
///
/// # Errors
/// When a test fails.
pub(crate) fn run(root: &Path) -> Result<()> {
    for build in builds(root) {
        watchdog::run(build, BUILD_LIMIT)?;
    }
    for test in tests(root).into_iter().chain([chaos(root, "60")]) {
        watchdog::run(test, TEST_LIMIT)?;
    }
    Ok(())
}
