//! What tests, examples and benchmarks must not leave behind. (Processes are looked for after
//! every single command, by the watchdog.)

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Result, bail};
use tempfile::TempDir;

/// Where shared memory has names. Ours has none, and should a dependency's get one, it must go.
const NAMED_MEMORY: &str = "/dev/shm";

/// How names of shared memory begin that can be ours.
const OUR_MEMORY: &[&str] = &["procpool", "ipc-channel"];

/// What was there before, and a temporary folder in which only our programs write.
pub(super) struct Leftovers {
    folder: TempDir,
    memory: BTreeSet<String>,
}

impl Leftovers {
    /// Remembers what is there now.
    pub(super) fn watch() -> Result<Self> {
        Ok(Self {
            // A short name: the path of a Unix socket in it must fit into 107 bytes.
            folder: tempfile::Builder::new().prefix("procpool-ci-").tempdir()?,
            memory: names_in(Path::new(NAMED_MEMORY))?,
        })
    }

    /// The temporary folder for our programs.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Fails when there is more than before.
    pub(super) fn check(&self) -> Result<()> {
        let mut left = Vec::new();
        for name in names_in(self.folder())? {
            // What it holds shows what made it: ipc-channel's folders hold a `socket`.
            let inside = names_in(&self.folder().join(&name)).unwrap_or_default();
            let inside = Vec::from_iter(inside).join(", ");
            left.push(format!("{name} ({inside}) in the temporary folder"));
        }
        let memory = names_in(Path::new(NAMED_MEMORY))?;
        left.extend(
            new_memory(&self.memory, &memory)
                .into_iter()
                .map(|name| format!("{name} in {NAMED_MEMORY}")),
        );
        if !left.is_empty() {
            bail!("left behind: {}", left.join("; "));
        }
        println!("nothing is left in the temporary folder or in {NAMED_MEMORY}");
        Ok(())
    }
}

/// The names in a folder, which may not exist.
fn names_in(folder: &Path) -> io::Result<BTreeSet<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// What has come since, without that of other programs.
fn new_memory<'a>(before: &BTreeSet<String>, now: &'a BTreeSet<String>) -> Vec<&'a String> {
    now.iter()
        .filter(|name| !before.contains(*name))
        .filter(|name| OUR_MEMORY.iter().any(|ours| name.starts_with(ours)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn only_new_memory_of_ours_counts() {
        let before = set(&["procpool-old"]);
        let now = set(&["procpool-old", "procpool-new", "of-a-browser"]);
        assert_eq!(new_memory(&before, &now), ["procpool-new"]);
    }

    #[test]
    fn a_socket_left_in_the_temporary_folder_is_found() {
        let leftovers = Leftovers::watch().expect("there is a temporary folder");
        leftovers.check().expect("nothing is left yet");
        let folder = leftovers.folder().join(".tmpAbCdEf");
        fs::create_dir(&folder).expect("it is ours");
        fs::write(folder.join("socket"), "").expect("it is ours");
        let error = leftovers.check().expect_err("something is left");
        assert!(error.to_string().contains(".tmpAbCdEf (socket)"), "{error}");
    }

    #[test]
    fn a_folder_that_does_not_exist_is_empty() {
        let names = names_in(Path::new("/dev/shm/no/such/folder"));
        assert!(names.expect("it just is not there").is_empty());
    }
}
