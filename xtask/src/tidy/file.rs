//! One file of the workspace, as the rules see it, and what they say of it.

use std::fmt;

use super::rust_text::RustText;

/// A text file of the workspace.
pub(super) struct File {
    /// Its path from the root, with slashes: `pool-core/src/shm/region.rs`.
    pub(super) path: String,
    /// What it says.
    pub(super) text: String,
    /// The same taken apart, if it is Rust.
    pub(super) rust: Option<RustText>,
}

impl File {
    pub(super) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let rust = path.ends_with(".rs").then(|| RustText::new(&text));
        Self { path, text, rust }
    }

    /// The lines, counted from 1.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// The lines of Rust code without comments and the insides of literals, counted from 1.
    /// None, if it is not Rust.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.rust.iter().flat_map(RustText::code))
    }

    /// Whether this line of Rust code is there for tests, examples or benchmarks alone.
    pub(super) fn is_proof(&self, line: usize) -> bool {
        is_proof(&self.path) || self.rust.as_ref().is_some_and(|rust| rust.is_test(line))
    }

    /// Whether this is the source of the rules, which must name what they forbid.
    pub(super) fn is_rule(&self) -> bool {
        self.path.starts_with("xtask/src/tidy/")
    }

    pub(super) fn violation(&self, line: usize, message: impl Into<String>) -> Violation {
        Violation {
            path: self.path.clone(),
            line,
            message: message.into(),
        }
    }
}

/// Whether everything in this file is there for tests, examples or benchmarks alone.
pub(super) fn is_proof(path: &str) -> bool {
    const FOLDERS: &[&str] = &[
        "tests",
        "examples",
        "benches",
        "conformance",
        "testing",
        "pool-bench",
    ];
    let stem = path.rsplit('/').next().unwrap_or(path);
    let stem = stem.strip_suffix(".rs").unwrap_or(stem);
    path.split('/').any(|part| FOLDERS.contains(&part))
        || stem == "tests"
        || stem.ends_with("_tests")
}

/// Where a rule is broken, and why it is there.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Violation {
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// The lines in which a rule finds something: what the rules' own tests compare.
#[cfg(test)]
pub(super) fn lines_of(violations: &[Violation]) -> Vec<usize> {
    violations.iter().map(|found| found.line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_printed_so_that_editors_find_the_place() {
        let file = File::new("a/b.rs", "");
        assert_eq!(file.violation(7, "why").to_string(), "a/b.rs:7: why");
    }

    #[test]
    fn proof_is_known_by_its_place_or_its_attribute() {
        assert!(is_proof("tests/conformance/main.rs"));
        assert!(is_proof("pool-core/src/schedule/tests.rs"));
        assert!(is_proof("pool-core/src/ring_tests.rs"));
        assert!(!is_proof("pool-core/src/contests.rs"));
        let file = File::new("src/a.rs", "fn a() {}\n#[cfg(test)]\nmod t {\n}\n");
        assert!(!file.is_proof(1));
        assert!(file.is_proof(3));
    }
}
