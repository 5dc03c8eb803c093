//! How long files get.

use super::file::{File, Violation, is_proof};

const LIMIT: usize = 600;

/// Tests are read one at a time, so more of them may stand together.
const LIMIT_FOR_PROOF: usize = 800;

/// No Rust file is too long to be about one thing.
pub(super) fn length(file: &File) -> Vec<Violation> {
    let limit = if is_proof(&file.path) {
        LIMIT_FOR_PROOF
    } else {
        LIMIT
    };
    let lines = file.text.lines().count();
    if file.rust.is_none() || lines <= limit {
        return Vec::new();
    }
    let message = format!("{lines} lines, more than {limit}, are two nouns in one file: find them");
    vec![file.violation(limit + 1, message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found() {
        let text = |lines| "\n".repeat(lines);
        assert_eq!(length(&File::new("src/a.rs", text(LIMIT))), []);
        assert_eq!(length(&File::new("src/a.rs", text(LIMIT + 1))).len(), 1);
        assert_eq!(length(&File::new("tests/a.rs", text(LIMIT + 1))), []);
        assert_eq!(
            length(&File::new("tests/a.rs", text(LIMIT_FOR_PROOF + 1))).len(),
            1
        );
        assert_eq!(length(&File::new("README.md", text(LIMIT + 1))), []);
    }
}
