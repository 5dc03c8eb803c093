//! Calls that a library must not make, but tests, examples and benchmarks may. (Clippy bans a
//! method everywhere or nowhere.)

use super::file::{File, Violation};
use super::rust_text::has_token;

/// No `thread::sleep`.
pub(super) fn sleeps(file: &File) -> Vec<Violation> {
    offences(
        file,
        |line| {
            has_token(line, "thread::sleep")
                || (line.contains("thread::{") && has_token(line, "sleep"))
        },
        "a sleep is either too short or too long: wait for the event, with a deadline",
    )
}

fn offences(file: &File, offends: impl Fn(&str) -> bool, message: &str) -> Vec<Violation> {
    file.code()
        .filter(|(number, line)| offends(line) && !file.is_proof(*number))
        .map(|(number, _)| file.violation(number, message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::lines_of;

    #[test]
    fn a_sleep_outside_tests_is_found_however_it_is_imported() {
        let text = "std::thread::sleep(d);\nuse std::thread::{self, sleep};\nself.sleep(d);\n";
        assert_eq!(lines_of(&sleeps(&File::new("src/a.rs", text))), [1, 2]);
        assert!(sleeps(&File::new("examples/a.rs", text)).is_empty());
    }
}
