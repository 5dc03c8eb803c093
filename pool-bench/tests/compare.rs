//! The program `compare` from beginning to end, on little work.
#![allow(clippy::disallowed_methods, reason = "the program is what is tested")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use procpool_bench::record::Report;

fn command(out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_procpool-bench"));
    command.args([
        "compare",
        "--quick",
        "--rounds",
        "2",
        "--workers",
        "2",
        "--out",
    ]);
    command.arg(out).args(arguments);
    command
}

fn compare(out: &Path, arguments: &[&str]) -> Output {
    let output = command(out, arguments).output();
    output.expect("the program starts")
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn report(folder: &Path) -> Report {
    let text = fs::read_to_string(folder.join("compare.json")).expect("the report is there");
    serde_json::from_str(&text).expect("it is what `--baseline` reads")
}

#[test]
fn a_run_leaves_its_numbers_a_page_and_a_baseline() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let work = ["ready", "growth-workers-tasks", "--contender", "ForkPool"];
    let done = compare(folder.path(), &work);
    assert!(done.status.success(), "{}", text(&done));

    let first = report(folder.path());
    let ready = first.find("ready", "ForkPool").expect("it was measured");
    assert_eq!(ready.samples.len(), 2);
    assert!(ready.summary.median > 0.0);
    assert!(first.find("ready", "floor: raw forks").is_some());
    assert!(
        first.find("ready", "SpawnPool").is_none(),
        "it was not asked for"
    );
    let curve = first
        .records
        .iter()
        .filter(|record| record.workload == "growth-workers-tasks");
    assert_eq!(
        curve.filter_map(|record| record.size).collect::<Vec<_>>(),
        [1, 2, 8]
    );
    assert_eq!(first.targets.len(), 1, "{:?}", first.targets);
    assert!(first.machine.cores > 0);

    let page = fs::read_to_string(folder.path().join("compare.html")).expect("the page is there");
    for part in [
        "<!doctype html>",
        "<svg",
        "ForkPool",
        "8 ForkPool workers ready",
        "</html>",
    ] {
        assert!(page.contains(part), "no {part} in the page");
    }
    let page = page.replace("href=\"#", "");
    for outside in ["src=", "href=", "url("] {
        assert!(
            !page.contains(outside),
            "the page needs something else: {outside}"
        );
    }

    // Against a past that was a thousand times as fast, everything is slower.
    let mut faster = first;
    for record in &mut faster.records {
        let summary = &mut record.summary;
        for number in [&mut summary.lower, &mut summary.median, &mut summary.upper] {
            *number /= 1000.0;
        }
    }
    let baseline = folder.path().join("baseline.json");
    fs::write(
        &baseline,
        serde_json::to_string(&faster).expect("it has a form"),
    )
    .expect("it is ours");
    let baseline = baseline.to_str().expect("it is text");
    let work = ["ready", "--contender", "ForkPool", "--baseline", baseline];
    let done = compare(folder.path(), &work);
    assert!(!done.status.success());
    assert!(
        text(&done).contains("SLOWER ready, ForkPool"),
        "{}",
        text(&done)
    );
}

#[test]
fn a_rival_in_python_is_measured_or_missed() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let name = "ProcessPoolExecutor";
    let done = compare(folder.path(), &["apply-async", "--contender", name]);
    assert!(done.status.success(), "{}", text(&done));
    let measured = report(folder.path());
    let missed = measured.notes.iter().any(|note| note.contains("not found"));
    match measured.find("apply-async", name) {
        Some(record) => assert!(record.summary.median > 0.0),
        None => assert!(missed, "{:?}", measured.notes),
    }

    let nobody = ["apply-async", "--python", "no-such-python"];
    let done = compare(
        folder.path(),
        &[&nobody[..], &["--contender", name]].concat(),
    );
    assert!(done.status.success(), "{}", text(&done));
    assert!(
        text(&done).contains("left out: ProcessPoolExecutor: not found: no no-such-python"),
        "{}",
        text(&done)
    );
}

/// mpi4py, where it cannot spawn: a thread fails, and the task waits forever.
#[test]
fn a_rival_that_cannot_start_its_workers_is_left_out() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let module = folder.path().join("mpi4py");
    fs::create_dir(&module).expect("it is ours");
    fs::write(module.join("__init__.py"), "").expect("it is ours");
    fs::write(module.join("futures.py"), CANNOT_SPAWN).expect("it is ours");
    let arguments = ["apply-async", "--contender", "mpi4py"];
    let mut command = command(folder.path(), &arguments);
    let done = command.env("PYTHONPATH", folder.path()).output();
    let done = done.expect("the program starts");
    assert!(done.status.success(), "{}", text(&done));
    let why = "mpi4py: RuntimeError: MPI_ERR_SPAWN: could not spawn processes";
    let notes = report(folder.path()).notes;
    if notes == ["mpi4py: not found: no python3"] {
        return;
    }
    assert_eq!(notes, [why]);
    assert!(
        text(&done).contains(&format!("left out: {why}\n")),
        "{}",
        text(&done)
    );
}

const CANNOT_SPAWN: &str = r#"
import concurrent.futures
import threading


class MPIPoolExecutor(concurrent.futures.Executor):
    def __init__(self, max_workers):
        self.thread = threading.Thread(target=self.spawn)
        self.thread.start()

    def spawn(self):
        raise RuntimeError("MPI_ERR_SPAWN:\ncould not spawn processes")

    def submit(self, function, argument):
        return concurrent.futures.Future()
"#;

#[test]
fn a_workload_that_does_not_exist_is_an_error() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let done = compare(folder.path(), &["no-such-workload"]);
    assert!(!done.status.success());
    assert!(
        text(&done).contains("no workload's key contains"),
        "{}",
        text(&done)
    );
}
