//! What each manifest of the workspace says.

use super::file::{File, Violation};

/// What is said once, in the root manifest, and why each package takes it from there.
const INHERITED: &[(&str, &str)] = &[
    ("version.workspace = true", "all packages have the same"),
    ("edition.workspace = true", "all packages have the same"),
    (
        "rust-version.workspace = true",
        "all packages have the same",
    ),
    ("license.workspace = true", "all packages have the same"),
    (
        "[lints]\nworkspace = true",
        "without it `unsafe_code` is not denied",
    ),
];

/// Every package takes from the workspace what is the same for all, and has a front page if it is
/// published.
pub(super) fn inheritance(file: &File) -> Vec<Violation> {
    let is_manifest = file.path == "Cargo.toml" || file.path.ends_with("/Cargo.toml");
    let has = |lines: &str| format!("\n{}", file.text).contains(&format!("\n{lines}\n"));
    // A workspace of its own has nothing to take from.
    let is_apart = file.path != "Cargo.toml" && has("[workspace]");
    if !is_manifest || is_apart || !has("[package]") {
        return Vec::new();
    }
    let missing = INHERITED.iter().filter(|row| !has(row.0));
    let mut violations: Vec<Violation> = missing
        .map(|(lines, why)| file.violation(1, format!("write `{lines}`: {why}")))
        .collect();
    if !has("publish = false") && !has("readme = \"README.md\"") {
        let message = "write `publish = false`, or give the package a README of its own";
        violations.push(file.violation(1, message));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"xtask\"\nversion.workspace = true\n\
                        edition.workspace = true\nrust-version.workspace = true\n\
                        license.workspace = true\npublish = false\n\n[lints]\nworkspace = true\n";

    fn found(path: &str, text: &str) -> usize {
        inheritance(&File::new(path, text)).len()
    }

    #[test]
    fn each_thing_that_is_not_said_is_found() {
        assert_eq!(found("x/Cargo.toml", GOOD), 0);
        for line in GOOD.lines().filter(|line| line.contains('=')).skip(1) {
            let text = GOOD.replace(&format!("\n{line}\n"), "\n");
            assert_eq!(found("x/Cargo.toml", &text), 1, "without `{line}`");
        }
        let text = GOOD.replace("publish = false", "readme = \"README.md\"");
        assert_eq!(found("x/Cargo.toml", &text), 0);
    }

    #[test]
    fn what_is_no_package_of_this_workspace_owes_nothing() {
        let text = "[package]\nname = \"x\"\nversion = \"1\"\n\n[workspace]\n";
        assert_eq!(found("x/Cargo.toml", text), 0);
        assert_ne!(found("Cargo.toml", text), 0);
        assert_eq!(found("Cargo.toml", "[workspace]\nmembers = []\n"), 0);
    }
}
