//! Pools of shared objects: of a Python extension, and of plugins. `python3` must be there.

use crate::crates::{
    Crate, DYLIB, EXTENSION, HOST, LATE_DYLIB, MINE, OTHER_PLUGIN, PLUGIN, USES_DYLIB,
};
use crate::scratch::{Scratch, Told};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stranger/extension/host.py");

/// A shared object that was built.
struct Object {
    scratch: Scratch,
    path: String,
}

impl Object {
    fn of(case: Crate) -> Self {
        let scratch = Scratch::with(&[case]);
        let package = format!("build --package {}", case.name);
        scratch.cargo(&package).assert_success();
        let path = scratch.built(&format!("lib{}.so", case.name));
        Self { scratch, path }
    }

    /// One step of the script with a pool of this kind.
    fn python(&self, step: &str, backend: &str, variables: &[(&str, &str)]) -> Told {
        let arguments = [SCRIPT, &self.path, step, backend];
        let told = self.scratch.python(&arguments, variables);
        told.assert_success();
        assert_says(&told, &format!("{step} {backend} is done"));
        told
    }

    /// A program for workers: Python, which loads the object and does this with it.
    fn program(&self, command: &str) -> String {
        let path = &self.path;
        format!("python3\n-c\nimport ctypes; extension = ctypes.CDLL({path:?}); {command}")
    }

    /// A program that starts the other one, and waits for it.
    fn started_by_a_shell(&self, command: &str) -> String {
        let program = self.program(command);
        format!("sh\n-c\n\"$@\"; exit 3\nsh\n{program}")
    }
}

fn assert_says(told: &Told, words: &str) {
    assert!(told.stdout.contains(words), "no {words:?} in {told}");
}

/// How workers are: with the environment of the program, and no handler of Python's for Ctrl-C.
const CLEAN: &str = r#"worker: ("", "", false)"#;

/// A shared object that Python has loaded maps, also from several threads; a task that crashes
/// costs one item; initializers and finalizers run.
#[test]
fn python_maps() {
    let object = Object::of(PLUGIN.named("plugin_maps"));
    for backend in ["serial", "fork", "spawn"] {
        let told = object.python("maps", backend, &[]);
        if backend != "serial" {
            let leaving = told.stdout.matches(" leaves").count();
            assert_eq!(leaving, 2, "the finalizers: {told}");
            assert_says(&told, CLEAN);
        }
    }
}

/// Workers are what a pool names: an interpreter that loads the object and calls `init` in it. What
/// the loader calls in it makes no worker then, whose threads would wait for the loader forever.
#[test]
fn python_makes_workers() {
    for case in [
        EXTENSION.named("extension_makes"),
        PLUGIN.named("plugin_makes"),
    ] {
        let object = Object::of(case);
        let program = object.program("extension.init_extension(); print('passed by')");
        let told = object.python("maps", "spawn", &[("PROGRAM", &program)]);
        assert_says(&told, CLEAN);
        assert!(!told.stdout.contains("passed by"), "{told}");
    }
}

/// Where the object's file is replaced while it is loaded, no worker runs the other build: before
/// the pool is built, and when a worker is to take another one's place.
#[test]
fn a_file_that_is_replaced_is_not_loaded() {
    let object = Object::of(PLUGIN.named("plugin_replaced"));
    let other = Object::of(OTHER_PLUGIN.named("other_plugin_replaced"));
    for (when, words) in [
        ("before", "refused: InvalidConfig"),
        ("after", "ended: Launch"),
    ] {
        let [path, replacement] =
            [&object, &other].map(|it| it.scratch.copied_as(&it.path, "lib.so"));
        let arguments = [SCRIPT, &path, "replaced", "spawn"];
        let variables = [("WHEN", when), ("OTHER", replacement.as_str())];
        let told = object.scratch.python(&arguments, &variables);
        told.assert_success();
        assert_says(&told, words);
        assert_says(&told, "replaced?");
    }
}

/// Where the loader would not load the object into a worker, the pool is not built, and the error
/// says why: its path cannot be given, or the program has more rights than its user.
#[test]
fn what_the_loader_would_not_load_is_refused() {
    let mut object = Object::of(PLUGIN.named("plugin_refused"));
    // Only root can give a program more rights than its user's.
    if rustix::process::geteuid().is_root() {
        let told = object.python("opens", "spawn", &[("MORE_RIGHTS", "yes")]);
        assert_says(&told, "refused: InvalidConfig");
        assert_says(&told, "a program with more rights than its user's");
        // Its workers are copies.
        let told = object.python("opens", "fork", &[("MORE_RIGHTS", "yes")]);
        assert_says(&told, "it works");
    }
    let built = object.path.clone();
    for name in ["a space.so", "a:colon.so", "a$dollar.so"] {
        object.path = object.scratch.copied_as(&built, name);
        let told = object.python("opens", "spawn", &[]);
        assert_says(&told, "refused: InvalidConfig");
        assert_says(&told, "takes no path with spaces, colons or dollars");
        assert_says(&told, name);
    }
}

/// Where a Rust library is a shared object and has the crate, functions of the program are in
/// another object than that, and so are those of a third one. A worker that has not loaded it says
/// so, and lives on.
#[test]
fn functions_may_be_in_another_object_than_the_crate() {
    let scratch = Scratch::with(&[DYLIB, USES_DYLIB, LATE_DYLIB]);
    let late = "rustc --package late_dylib -- -C prefer-dynamic";
    scratch.cargo(late).assert_success();
    let late = scratch.built("liblate_dylib.so");
    let told = scratch.cargo(&format!("run --package uses_dylib {late}"));
    told.assert_success();
    for pool in ["serial", "fork", "spawn"] {
        assert_says(&told, &format!("{pool}: it works"));
    }
    assert_eq!(told.stdout.matches("a worker leaves").count(), 4, "{told}");
    let late: Vec<&str> = told
        .stdout
        .lines()
        .filter(|it| it.starts_with("late: "))
        .collect();
    let [a, b, c, d, e, f] = late[..] else {
        panic!("six outcomes: {told}");
    };
    assert_eq!([a, b, e, f], ["late: 2", "late: 4", "late: 2", "late: 4"]);
    for refused in [c, d] {
        assert!(refused.starts_with("late: Decode: "), "{told}");
        assert!(refused.contains("this worker has not loaded"), "{told}");
    }
}

/// The code of docs/libraries.md, as it stands there.
#[test]
fn the_page_about_libraries_works() {
    let page = include_str!("../../docs/libraries.md");
    let block = |language: &str| {
        let (_, rest) = page
            .split_once("## A Python extension")
            .and_then(|(_, section)| section.split_once(&format!("```{language}\n")))
            .expect("there is a block");
        rest.split_once("```").expect("it ends").0
    };
    let scratch = Scratch::with(&[MINE]);
    scratch.write("mine/src/lib.rs", block("rust"));
    scratch.cargo("build --package mine").assert_success();
    let script = block("python").replace("libmine.so", &scratch.built("libmine.so"));
    let told = scratch.python(&["-c", &script], &[]);
    told.assert_success();
    assert_says(&told, "[1, 4, 9, 16]");
}

/// However Python ends, its workers do: by the end of the script, Ctrl-C, `SIGKILL`.
#[test]
fn no_worker_outlives_python() {
    let object = Object::of(PLUGIN.named("plugin_outlives"));
    let program = object.program("extension.init_extension()");
    for (backend, variables) in [
        ("fork", &[][..]),
        ("spawn", &[]),
        ("spawn", &[("PROGRAM", program.as_str())]),
    ] {
        let told = object.python("ends", backend, variables);
        for line in ["leaves 0", "stays -2", "stays -9"] {
            assert_says(&told, line);
        }
    }
}

/// Where Python has threads already, nothing is forked, and the error says what to do. It works
/// with a server that was started before, and with workers that are executed.
#[test]
fn python_with_threads() {
    let object = Object::of(EXTENSION.named("extension_threads"));
    let told = object.python("with_threads", "fork", &[]);
    for words in [
        "refused: Threads",
        "when the shared object is loaded",
        "numpy",
        "SpawnPool",
    ] {
        assert_says(&told, words);
    }
    let told = object.python("with_threads", "fork", &[("SERVER_FIRST", "yes")]);
    assert_says(&told, "it works");
    let object = Object::of(PLUGIN.named("plugin_threads"));
    for backend in ["fork", "spawn"] {
        assert_says(&object.python("with_threads", backend, &[]), "it works");
    }
}

/// Without `init`, the error names what helps a shared object, and nothing of the program is
/// executed.
#[test]
fn a_shared_object_without_init_is_told_so() {
    let told = Object::of(EXTENSION.named("extension_uninitialised")).python("opens", "spawn", &[]);
    for words in [
        "refused: MissingInit",
        "libextension_uninitialised.so",
        "procpool::init_before_main!() in it",
        ".program(..)",
        "ForkPool",
    ] {
        assert_says(&told, words);
    }
    assert!(!told.stdout.contains("first line of main"), "{told}");
    assert_eq!(told.stdout.matches("MissingInit").count(), 1, "{told}");
}

/// A program that does not become a worker is noticed, and the error says what it lacks: one that
/// loads nothing, one that does not call `init`, one that has another build, one that stays, one
/// that starts another process for it, one that is not there.
#[test]
fn a_program_that_becomes_no_worker_is_told_so() {
    let object = Object::of(EXTENSION.named("extension_programs"));
    let ends = "before it reached procpool::init(): python3 must load this very build of";
    let other = Object::of(PLUGIN.named("plugin_programs"));
    for (program, words) in [
        ("python3\n-c\npass".to_owned(), ends),
        (object.program("print('only loaded')"), ends),
        (other.program("extension.init_extension()"), ends),
        (
            object.program("extension.open_pool(2)"),
            "passed by procpool::init(): python3 must load",
        ),
        (
            "python3\n-c\nimport time; time.sleep(600)".to_owned(),
            "did not answer within",
        ),
        (
            object.started_by_a_shell("extension.init_extension(); print('it works')"),
            "it must be that process itself, not one that it starts",
        ),
        ("no-such-program".to_owned(), "there is no such program"),
        ("./no-such-program".to_owned(), "cannot execute"),
    ] {
        let variables = [("PROGRAM", program.as_str()), ("LIMIT_MS", "3000")];
        let told = object.python("opens", "spawn", &variables);
        assert_says(&told, "refused: ");
        assert_says(&told, words);
        assert!(!told.stdout.contains("it works"), "{told}");
    }
}

/// A program and two plugins, each with a copy of the crate and pools of both kinds, at the same
/// time.
#[test]
fn plugins_have_pools_of_their_own() {
    let cases = [
        EXTENSION.named("closed_plugin"),
        PLUGIN.named("one_plugin"),
        OTHER_PLUGIN,
    ];
    let scratch = Scratch::with(&[&cases[..], &[HOST]].concat());
    scratch.cargo("build --workspace").assert_success();
    let paths = cases.map(|case| scratch.built(&format!("lib{}.so", case.name)));
    let told = scratch.run("host", &paths.each_ref().map(String::as_str));
    told.assert_success();
    assert_says(&told, "pools of 2 plugins and of the program work");
    assert_says(&told, "and their objects stay");
}
