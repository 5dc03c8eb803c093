//! What is not finished.

use super::file::{File, Violation};
use super::rust_text::{RustText, has_token};

/// Code that stands in for code.
const MACROS: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Notes to oneself.
const NOTES: &[&str] = &["TODO", "FIXME", "XXX"];

/// No stand-ins and no notes to oneself.
pub(super) fn unfinished(file: &File) -> Vec<Violation> {
    if file.is_rule() {
        return Vec::new();
    }
    let macros = file
        .code()
        .flat_map(|(number, line)| found(number, line, MACROS));
    let comments = file.rust.iter().flat_map(RustText::comments);
    let comments: Vec<(usize, &str)> = match &file.rust {
        Some(_) => (1..).zip(comments).collect(),
        None => file.lines().collect(),
    };
    let notes = comments
        .into_iter()
        .flat_map(|(number, line)| found(number, line, NOTES));
    macros
        .chain(notes)
        .map(|(number, mark)| {
            let message = format!(
                "`{mark}` is unfinished work that nobody will find again: do it, or open an issue"
            );
            file.violation(number, message)
        })
        .collect()
}

fn found<'a>(
    number: usize,
    line: &'a str,
    marks: &'a [&'a str],
) -> impl Iterator<Item = (usize, &'a str)> {
    marks
        .iter()
        .filter(move |mark| has_token(line, mark))
        .map(move |&mark| (number, mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::lines_of;

    #[test]
    fn marks_are_found_in_code_and_comments_but_not_in_literals() {
        let text = "fn f() { todo!() }\n// FIXME: later\nlet x = \"TODO todo!\";\ndbg!(x);\n";
        assert_eq!(
            lines_of(&unfinished(&File::new("src/a.rs", text))),
            [1, 4, 2]
        );
    }

    #[test]
    fn marks_are_found_in_prose() {
        let text = "# Notes\nXXX\nXXXL is a size\n";
        assert_eq!(lines_of(&unfinished(&File::new("README.md", text))), [2]);
    }
}
