//! Which examples there are, and with which arguments they are run.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

type Arguments = fn() -> Vec<OsString>;

/// The examples that take arguments. All others run without.
const ARGUMENTS: &[(&str, Arguments)] = &[("wordcount", || vec![many_files().into()])];

/// The examples in the folder `examples`, by name, each with its arguments.
///
/// # Errors
/// When the folder cannot be read, has no example, or lacks one that [`ARGUMENTS`] names.
pub(super) fn plan(root: &Path) -> Result<Vec<(String, Vec<OsString>)>> {
    let folder = root.join("examples");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder).context("there is no folder `examples`")? {
        let path = entry?.path();
        if path.is_dir() && !path.join("main.rs").exists() {
            continue;
        }
        paths.push(path);
    }
    assign(
        names(&paths),
        &ARGUMENTS.iter().map(|row| row.0).collect::<Vec<_>>(),
    )?
    .into_iter()
    .map(|name| {
        let row = ARGUMENTS.iter().find(|row| row.0 == name);
        Ok((name, row.map(|row| (row.1)()).unwrap_or_default()))
    })
    .collect()
}

/// A folder with text in many files: the sources of the dependencies, which are on every machine
/// that has built this. Where they are kept elsewhere, our own must do.
fn many_files() -> PathBuf {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")));
    home.map(|home| home.join("registry").join("src"))
        .filter(|sources| sources.is_dir())
        .unwrap_or_else(|| PathBuf::from("procpool-core"))
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

/// Makes sure that the examples which have arguments are still there.
fn assign(names: Vec<String>, with_arguments: &[&str]) -> Result<Vec<String>> {
    if names.is_empty() {
        bail!("the folder `examples` is empty");
    }
    for name in with_arguments {
        if !names.iter().any(|known| known == name) {
            bail!("xtask has arguments for the example `{name}`, which does not exist");
        }
    }
    Ok(names)
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
    fn arguments_for_nothing_are_refused() {
        let names = vec!["tour".to_owned()];
        assert!(assign(names.clone(), &["tour"]).is_ok());
        assert!(assign(names, &["wordcount"]).is_err());
        assert!(assign(Vec::new(), &[]).is_err());
    }
}
