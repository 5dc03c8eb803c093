//! Which examples there are, and with which arguments they are run.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

type Arguments = fn() -> Vec<OsString>;

/// The examples that take arguments. All others run without.
const ARGUMENTS: &[(&str, Arguments)] = &[
    ("observe", || vec![TRACE.into()]),
    ("wordcount", || vec![many_files().into()]),
];

/// The trace that an example writes. What draws it must understand it.
pub(super) const TRACE: &str = "target/observe.json";

/// The packages that have examples.
pub(super) const PACKAGES: [&str; 2] = ["procpool", "procpool-showcase"];

/// The folder of each.
const FOLDERS: [&str; 2] = ["examples", "showcase/examples"];

/// One example: its name, its arguments.
pub(super) struct Example {
    pub(super) name: String,
    pub(super) arguments: Vec<OsString>,
}

/// All examples.
///
/// # Errors
/// When a folder cannot be read, has no example, or one that [`ARGUMENTS`] names is nowhere.
pub(super) fn plan(root: &Path) -> Result<Vec<Example>> {
    let mut plan = Vec::new();
    for folder in FOLDERS {
        let names = names(&paths(&root.join(folder))?);
        if names.is_empty() {
            bail!("the folder `{folder}` has no example");
        }
        plan.extend(names.into_iter().map(|name| Example {
            arguments: arguments(&name),
            name,
        }));
    }
    for (name, _) in ARGUMENTS {
        if plan.iter().all(|example| example.name != *name) {
            bail!("xtask has arguments for the example `{name}`, which does not exist");
        }
    }
    Ok(plan)
}

fn arguments(name: &str) -> Vec<OsString> {
    let row = ARGUMENTS.iter().find(|row| row.0 == name);
    row.map(|row| (row.1)()).unwrap_or_default()
}

fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder);
    let entries = entries.with_context(|| format!("there is no folder {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !path.is_dir() || path.join("main.rs").exists() {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// A folder with text in many files: the sources of the dependencies, which are on every machine
/// that has built this. Where they are kept elsewhere, our own must do.
fn many_files() -> PathBuf {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")));
    home.map(|home| home.join("registry").join("src"))
        .filter(|sources| sources.is_dir())
        .unwrap_or_else(|| PathBuf::from("pool-core"))
}

/// The names of the examples at these paths: files `name.rs`, and folders with a `main.rs`.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = paths
        .iter()
        .filter(|path| path.extension().is_none_or(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_examples() {
        let paths = ["e/tour.rs", "e/crash", "e/notes.md"].map(PathBuf::from);
        assert_eq!(names(&paths), ["crash", "tour"]);
    }

    #[test]
    fn examples_of_all_folders_are_found_with_their_arguments() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let plan = plan(&root).expect("there are examples");
        let find = |name| plan.iter().find(|it| it.name == name).expect("it exists");
        assert!(find("tour").arguments.is_empty());
        assert_eq!(find("wordcount").arguments.len(), 1);
    }
}
