//! Pools of shared objects: of a Python extension, and of plugins. `python3` must be there.

use crate::crates::{EXTENSION, HOST, PLUGIN};
use crate::scratch::{Scratch, Told};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stranger/extension/host.py");

/// The extension, built.
fn extension() -> Scratch {
    let scratch = Scratch::with(&[EXTENSION]);
    scratch.cargo("build --package extension").assert_success();
    scratch
}

/// One step of the script with a pool of this kind.
fn python(scratch: &Scratch, step: &str, backend: &str, variables: &[(&str, &str)]) -> Told {
    let path = scratch.built("libextension.so");
    let told = scratch.python(&[SCRIPT, &path, step, backend], variables);
    told.assert_success();
    assert_says(&told, &format!("{step} {backend} is done"));
    told
}

fn assert_says(told: &Told, words: &str) {
    assert!(told.stdout.contains(words), "no {words:?} in {told}");
}

/// A shared object that Python has loaded maps, also from several threads; a task that crashes
/// costs one item; initializers and finalizers run.
#[test]
fn python_maps() {
    let scratch = extension();
    for backend in ["serial", "fork"] {
        let told = python(&scratch, "maps", backend, &[]);
        if backend != "serial" {
            let leaving = told.stdout.matches(" leaves").count();
            assert_eq!(leaving, 2, "the finalizers: {told}");
        }
    }
}

/// However Python ends, its workers do: by the end of the script, Ctrl-C, `SIGKILL`.
#[test]
fn no_worker_outlives_python() {
    let scratch = extension();
    let told = python(&scratch, "ends", "fork", &[]);
    for line in ["leaves 0", "stays -2", "stays -9"] {
        assert_says(&told, line);
    }
}

/// Where Python has threads already, nothing is forked, and the error says what to do. It works
/// with a server that was started before.
#[test]
fn python_with_threads() {
    let scratch = extension();
    let told = python(&scratch, "with_threads", "fork", &[]);
    for words in [
        "refused: Threads",
        "when the shared object is loaded",
        "numpy",
    ] {
        assert_says(&told, words);
    }
    let told = python(&scratch, "with_threads", "fork", &[("SERVER_FIRST", "yes")]);
    assert_says(&told, "it works");
}

/// A program and two plugins, each with a copy of the crate and pools of its own, at the same time.
#[test]
fn plugins_have_pools_of_their_own() {
    let scratch = Scratch::with(&[HOST, EXTENSION, PLUGIN]);
    let packages = "--package host --package extension --package plugin";
    scratch.cargo(&format!("build {packages}")).assert_success();
    let plugins = ["libextension.so", "libplugin.so"].map(|name| scratch.built(name));
    let told = scratch.run("host", &[&plugins[0], &plugins[1]]);
    told.assert_success();
    assert_says(&told, "pools of 2 plugins and of the program work");
    assert_says(&told, "and their objects stay");
}
