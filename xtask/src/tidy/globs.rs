//! Imports that do not say what they import.

use super::file::{File, Violation};

type IsPlace = fn(&File, usize) -> bool;

/// The globs that are fine, and where: a test module imports all of what it tests, proptest's
/// macros need its prelude, and a `sys` module is one of several of the same shape.
const ALLOWED: &[(&str, IsPlace)] = &[
    ("use super::*;", File::is_proof),
    ("use proptest::prelude::*;", File::is_proof),
    ("pub(crate) use linux::*;", |file, _| {
        file.path.ends_with("/sys/mod.rs")
    }),
];

/// No `use …::*`, but for those of `ALLOWED`.
pub(super) fn globs(file: &File) -> Vec<Violation> {
    file.code()
        .filter(|(number, line)| is_glob(line) && !is_allowed(file, *number, line.trim()))
        .map(|(number, _)| {
            file.violation(
                number,
                "with a glob nobody sees where a name comes from: import the names \
                 (`use super::*` is for test modules)",
            )
        })
        .collect()
}

fn is_allowed(file: &File, number: usize, line: &str) -> bool {
    ALLOWED
        .iter()
        .any(|(glob, is_place)| *glob == line && is_place(file, number))
}

fn is_glob(line: &str) -> bool {
    line.match_indices("::*").any(|(start, glob)| {
        let after = line[start + glob.len()..].trim_start();
        after.is_empty() || after.starts_with([';', ',', '}'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::lines_of;

    #[test]
    fn a_glob_is_found() {
        let text = "use a::*;\nuse a::{b::*, c};\nuse super::*;\nlet a = 2 * 3; // a::*;\n\
                    #[cfg(test)]\nmod tests {\n    use super::*;\n    use proptest::prelude::*;\n    use other::*;\n}\n";
        assert_eq!(lines_of(&globs(&File::new("src/a.rs", text))), [1, 2, 3, 9]);
    }
}
