//! What must be there.

use super::file::{File, Violation};

/// Files that others rely on finding, and why.
const FILES: &[(&str, &str)] = &[
    ("ARCHITECTURE.md", "newcomers start there"),
    (
        "CHANGELOG.md",
        "users read there what a release changes for them",
    ),
    ("Cargo.lock", "CI and everyone else must build the same"),
    ("LICENSE-APACHE", "the manifests promise it"),
    ("LICENSE-MIT", "the manifests promise it"),
    ("README.md", "it is the front page"),
];

/// The files that others rely on exist.
pub(super) fn files(files: &[File]) -> Vec<Violation> {
    FILES
        .iter()
        .filter(|(path, _)| !files.iter().any(|file| file.path == *path))
        .map(|(path, reason)| Violation {
            path: (*path).to_owned(),
            line: 1,
            message: format!("this file is missing: {reason}"),
        })
        .collect()
}

/// Every example says first what to look at.
pub(super) fn example_docs(file: &File) -> Vec<Violation> {
    let is_root = match file.path.strip_prefix("examples/") {
        Some(rest) if rest.ends_with(".rs") => !rest.contains('/') || rest.ends_with("/main.rs"),
        _ => false,
    };
    if !is_root || file.text.starts_with("//! ") {
        return Vec::new();
    }
    let message = "begin with a `//!` comment that says what this shows and what to look at";
    vec![file.violation(1, message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_found() {
        let mut tree: Vec<File> = FILES.iter().map(|row| File::new(row.0, "")).collect();
        assert_eq!(files(&tree), []);
        tree.retain(|file| file.path != "CHANGELOG.md");
        let found = files(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "CHANGELOG.md");
    }

    #[test]
    fn an_example_without_a_word_is_found() {
        let silent = "fn main() {}\n";
        let found = |path| example_docs(&File::new(path, silent)).len();
        assert_eq!(found("examples/tour.rs"), 1);
        assert_eq!(found("examples/tour/main.rs"), 1);
        assert_eq!(found("examples/tour/part.rs"), 0);
        let spoken = File::new("examples/tour.rs", "//! Look at the first line.\n");
        assert_eq!(example_docs(&spoken), []);
    }
}
