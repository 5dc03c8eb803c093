//! Manifests: how the rules read them, and what each must say.

use toml::{Table, Value};

use super::file::{File, Violation};

/// What is said once, in the root manifest.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license"];

/// The packages that are of no use outside this workspace.
const PRIVATE: &[&str] = &[
    "xtask",
    "procpool-bench",
    "procpool-showcase",
    "procpool-tests",
];

/// The manifest of a package or the workspace, if this is one that can be read at all. (Cargo has
/// clear words for one that cannot.)
pub(super) fn parse(file: &File) -> Option<Table> {
    let is_manifest = file.path == "Cargo.toml" || file.path.ends_with("/Cargo.toml");
    if !is_manifest {
        return None;
    }
    file.text.parse().ok()
}

/// The name of the package, if the manifest has one.
pub(super) fn package_name(manifest: &Table) -> Option<&str> {
    manifest.get("package")?.get("name")?.as_str()
}

/// The first line that begins with this key, or else 1.
pub(super) fn line_of(file: &File, key: &str) -> usize {
    file.lines()
        .find(|(_, line)| {
            let after = line.trim_start().strip_prefix(key);
            after.is_some_and(|after| after.starts_with(['.', ' ', '=']))
        })
        .map_or(1, |(number, _)| number)
}

/// Every package takes from the workspace what is the same for all.
pub(super) fn inheritance(file: &File) -> Vec<Violation> {
    let Some(manifest) = parse(file) else {
        return Vec::new();
    };
    let (Some(package), Some(name)) = (manifest.get("package"), package_name(&manifest)) else {
        return Vec::new();
    };
    if file.path != "Cargo.toml" && manifest.contains_key("workspace") {
        // A workspace of its own, which has nothing to take from.
        return Vec::new();
    }
    let mut violations = Vec::new();
    for key in INHERITED {
        if !is_inherited(package.get(key)) {
            let message = format!(
                "write `{key}.workspace = true`: all packages have the same, said in one place"
            );
            violations.push(file.violation(line_of(file, key), message));
        }
    }
    if !is_inherited(manifest.get("lints")) {
        let message = "write `[lints] workspace = true`: without it `unsafe_code` is not denied";
        violations.push(file.violation(1, message));
    }
    let is_private = package.get("publish").and_then(Value::as_bool) == Some(false);
    if PRIVATE.contains(&name) && !is_private {
        let message = "write `publish = false`: this is of no use outside the workspace";
        violations.push(file.violation(1, message));
    }
    violations
}

fn is_inherited(value: Option<&Value>) -> bool {
    let inherited = value.and_then(|value| value.get("workspace"));
    inherited.and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::lines_of;

    const GOOD: &str = "[package]\nname = \"xtask\"\nversion.workspace = true\n\
                        edition = { workspace = true }\nrust-version.workspace = true\n\
                        license.workspace = true\npublish = false\n[lints]\nworkspace = true\n";

    #[test]
    fn a_package_that_inherits_everything_is_fine() {
        assert_eq!(inheritance(&File::new("x/Cargo.toml", GOOD)), []);
    }

    #[test]
    fn each_thing_that_is_not_inherited_is_found() {
        for line in GOOD.lines().filter(|line| line.contains("workspace")) {
            let others = GOOD.lines().filter(|&other| other != line);
            let text = Vec::from_iter(others).join("\n");
            let found = inheritance(&File::new("x/Cargo.toml", text));
            assert_eq!(found.len(), 1, "without `{line}`");
        }
        let text = GOOD.replace("edition = { workspace = true }", "edition = \"2024\"");
        assert_eq!(
            lines_of(&inheritance(&File::new("x/Cargo.toml", text))),
            [4]
        );
        let text = GOOD.replace("publish = false", "");
        assert_eq!(inheritance(&File::new("x/Cargo.toml", text)).len(), 1);
    }

    #[test]
    fn a_package_with_a_workspace_of_its_own_owes_nothing() {
        let text = "[package]\nname = \"x\"\nversion = \"1\"\n[workspace]\n";
        assert_eq!(inheritance(&File::new("x/Cargo.toml", text)), []);
        assert!(!inheritance(&File::new("Cargo.toml", text)).is_empty());
    }

    #[test]
    fn a_workspace_without_a_package_owes_nothing() {
        let text = "[workspace]\nmembers = []\n";
        assert_eq!(inheritance(&File::new("Cargo.toml", text)), []);
    }
}
