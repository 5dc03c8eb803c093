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
}
