//! Where code may stand.

use super::file::{File, Violation};

/// The folders at the top that hold code. A new one is a new part of the architecture.
const FOLDERS: &[&str] = &[
    "backend-fork",
    "backend-spawn",
    "conformance",
    "examples",
    "fuzz",
    "pool-bench",
    "pool-core",
    "showcase",
    "src",
    "testing",
    "tests",
    "xtask",
];

/// Rust code stands in the known folders.
pub(super) fn folders(file: &File) -> Vec<Violation> {
    let top = file.path.split_once('/').map(|(top, _)| top);
    if file.rust.is_none() || top.is_some_and(|top| FOLDERS.contains(&top)) {
        return Vec::new();
    }
    let message = format!(
        "code stands in {}; for a new place, say in ARCHITECTURE.md what it is and add it to \
         xtask/src/tidy/top_level.rs",
        FOLDERS.join(", ")
    );
    vec![file.violation(1, message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_in_a_new_place_is_found() {
        assert_eq!(folders(&File::new("src/lib.rs", "")), []);
        assert_eq!(folders(&File::new("pool-core/tests/ring.rs", "")), []);
        assert_eq!(folders(&File::new("notes/a.md", "")), []);
        assert_eq!(folders(&File::new("build.rs", "")).len(), 1);
        assert_eq!(folders(&File::new("scratch/a.rs", "")).len(), 1);
    }
}
