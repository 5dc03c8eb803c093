//! What `cargo publish` does before it uploads, without the network that it would want. (By hand:
//! `cargo publish --dry-run --workspace`.)

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::steps::Setting;
use crate::watchdog;

/// Members that are not published.
const PRIVATE: &str = "--exclude xtask --exclude procpool-bench --exclude procpool-showcase \
                       --exclude procpool-tests";

/// How the name of a package's file ends.
const ENDING: &str = concat!("-", env!("CARGO_PKG_VERSION"), ".crate");

/// Makes the packages, and checks that each compiles from what is in it and in the others.
///
/// They are in a workspace of their own, where each is what the others depend on. `cargo package`
/// does the same, but it builds each to the end, and most of them several times.
pub(super) fn run(setting: &Setting) -> Result<()> {
    let target = setting.target();
    fs::create_dir_all(&target)?;
    let folder = tempfile::Builder::new()
        .prefix("packages-")
        .tempdir_in(&target)?;
    package(setting, folder.path())?;
    let names = unpack(folder.path())?;
    fs::write(folder.path().join("Cargo.toml"), manifest(&names)?)?;
    fs::copy(
        setting.root().join("Cargo.lock"),
        folder.path().join("Cargo.lock"),
    )?;
    for name in &names {
        // Alone, so that none lives on a feature that another one asks for.
        let mut check = setting.cargo(&format!("check --quiet --offline --package {name}"));
        check.current_dir(folder.path());
        // What they depend on is checked already.
        check.arg("--target-dir").arg(&target);
        watchdog::run(check, super::steps::BUILD_LIMIT)
            .with_context(|| format!("the package of {name}"))?;
    }
    Ok(())
}

/// Cargo has no flag that makes its warnings errors.
fn package(setting: &Setting, folder: &Path) -> Result<()> {
    let mut command = setting.cargo(&format!(
        "package --workspace {PRIVATE} --offline --allow-dirty --no-verify"
    ));
    command.arg("--target-dir").arg(folder);
    let output = command.output().context("cargo cannot be started")?;
    let text = String::from_utf8_lossy(&output.stderr);
    print!("{text}");
    if !output.status.success() || text.contains("warning: ") {
        bail!("the crates cannot be packaged without a warning");
    }
    Ok(())
}

/// Unpacks all packages, each into a folder of its name, and answers their names.
fn unpack(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("package"))? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if let Some(name) = name.strip_suffix(ENDING) {
            names.push(name.to_owned());
            let mut tar = Command::new("tar");
            // As new as they are: the packages' own times are always the same, so that cargo would
            // take a file for the one that it has compiled before.
            tar.arg("--touch").arg("-xzf").arg(&path);
            let status = tar.current_dir(folder).status();
            let status = status.context("`tar` cannot be started")?;
            ensure!(status.success(), "{} cannot be unpacked", path.display());
        }
    }
    ensure!(!names.is_empty(), "there are no packages");
    names.sort();
    Ok(names)
}

/// That of a workspace of the packages. None of what they need from each other is from elsewhere.
fn manifest(names: &[String]) -> Result<String> {
    let folder = |name| format!("{name}-{}", env!("CARGO_PKG_VERSION"));
    let members: Vec<String> = names.iter().map(folder).collect();
    let mut text = format!("[workspace]\nresolver = \"3\"\nmembers = {members:?}\n\n");
    // As this workspace has the crates of others, so that they are the same.
    text += "[profile.dev]\ndebug = false\n\n[patch.crates-io]\n";
    for (name, member) in names.iter().zip(&members) {
        writeln!(text, "{name} = {{ path = {member:?} }}")?;
    }
    Ok(text)
}
