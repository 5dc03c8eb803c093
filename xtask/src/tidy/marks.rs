//! What is not finished.

use super::file::{File, Violation};
use super::rust_text::has_token;

/// Notes to oneself.
const NOTES: &[&str] = &["TODO", "FIXME", "XXX"];

/// No notes to oneself. (Clippy finds `todo!` and its like.)
pub(super) fn unfinished(file: &File) -> Vec<Violation> {
    if file.is_rule() {
        return Vec::new();
    }
    let comments: Vec<(usize, &str)> = match &file.rust {
        Some(rust) => (1..).zip(rust.comments()).collect(),
        None => file.lines().collect(),
    };
    comments
        .into_iter()
        .flat_map(|(number, line)| {
            let found = NOTES.iter().filter(move |mark| has_token(line, mark));
            found.map(move |mark| (number, mark))
        })
        .map(|(number, mark)| {
            let message = format!(
                "`{mark}` is unfinished work that nobody will find again: do it, or open an issue"
            );
            file.violation(number, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::lines_of;

    #[test]
    fn marks_are_found_in_comments_but_not_in_literals() {
        let text = "fn f() {}\n// FIXME: later\nlet x = \"TODO\";\n";
        assert_eq!(lines_of(&unfinished(&File::new("src/a.rs", text))), [2]);
    }

    #[test]
    fn marks_are_found_in_prose() {
        let text = "# Notes\nXXX\nXXXL is a size\n";
        assert_eq!(lines_of(&unfinished(&File::new("README.md", text))), [2]);
    }
}
