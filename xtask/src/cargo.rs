//! Cargo, as a developer would call it at the root of the workspace.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cargo command with these arguments, which are separated by spaces.
///
/// It sees the environment of the caller of `cargo xtask`, without what `cargo run` has told
/// xtask about its own package: build scripts and tests would take that for their own.
pub(crate) fn cargo(root: &Path, arguments: &str) -> Command {
    let mut command = program(root, env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments.split_ascii_whitespace());
    command
}

/// The same for another program, such as one that cargo has built.
pub(crate) fn program(root: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(tells_of_xtask) {
            command.env_remove(name);
        }
    }
    command
}

/// The folder in which cargo builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into)
}

/// The same command once more.
pub(crate) fn again(command: &Command) -> Command {
    let mut again = Command::new(command.get_program());
    again.args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        again.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => again.env(name, value),
            None => again.env_remove(name),
        };
    }
    again
}

fn tells_of_xtask(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

#[cfg(test)]
mod tests {
    use super::tells_of_xtask;

    #[test]
    fn settings_of_the_caller_stay() {
        assert!(tells_of_xtask("CARGO_PKG_NAME"));
        assert!(tells_of_xtask("CARGO_MANIFEST_DIR"));
        assert!(!tells_of_xtask("CARGO_TARGET_DIR"));
        assert!(!tells_of_xtask("CARGO_HOME"));
    }
}
