//! Rules for every text, whatever language it is in.

use super::file::{File, Violation};

/// Folders that are somebody's machine and not everybody's.
const MACHINE_FOLDERS: &[&str] = &["/home/", "/root/", "/work/", "/Users/"];

/// Where packages come from is the business of whoever builds.
const HOSTS: &[&str] = &[
    "crates.io",
    "artifactory",
    "pypi.org",
    "registry.npmjs.org",
    "proxy.golang.org",
];

/// No path that exists on one machine only.
pub(super) fn machine_paths(file: &File) -> Vec<Violation> {
    let is_path = |line: &str| {
        MACHINE_FOLDERS.iter().any(|folder| {
            line.match_indices(folder)
                .any(|(start, _)| !is_inside_path(&line[..start]))
        })
    };
    if file.is_rule() {
        return Vec::new();
    }
    file.lines()
        .filter(|(_, line)| is_path(line))
        .map(|(number, _)| {
            file.violation(
                number,
                "this path exists on one machine only: make it relative",
            )
        })
        .collect()
}

/// No host of a package registry. (`Cargo.lock` names one; `deny.toml` says which.)
pub(super) fn hosts(file: &File) -> Vec<Violation> {
    if file.is_rule() || file.path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    file.lines()
        .filter(|(_, line)| HOSTS.iter().any(|host| line.contains(host)))
        .map(|(number, _)| {
            let message =
                "name no registry host: where packages come from is set by whoever builds";
            file.violation(number, message)
        })
        .collect()
}

/// No space at the end of a line, and a line end at the end of the file.
pub(super) fn whitespace(file: &File) -> Vec<Violation> {
    let mut violations: Vec<Violation> = file
        .lines()
        .filter(|(_, line)| line.ends_with([' ', '\t', '\r']))
        .map(|(number, _)| file.violation(number, "space at the end of a line makes noisy diffs"))
        .collect();
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        let message = "end the file with a line end, or the next diff touches this line";
        violations.push(file.violation(file.text.lines().count(), message));
    }
    violations
}

/// The widest line of a comment, in characters. It is rustfmt's for code.
const WIDTH: usize = 100;

/// No comment that is wider than code may be: rustfmt leaves comments alone. Rows of tables and
/// what a program prints are as wide as they are.
pub(super) fn width(file: &File) -> Vec<Violation> {
    let mut is_verbatim = false;
    let mut is_too_wide = |line: &str| {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            is_verbatim = false;
            return false;
        };
        let comment = comment.trim_start_matches(['/', '!']).trim_start();
        if comment.starts_with("```") {
            is_verbatim = !is_verbatim;
        }
        line.chars().count() > WIDTH && !is_verbatim && !comment.starts_with('|')
    };
    let lines = file.lines().filter(|_| file.rust.is_some());
    lines
        .filter(|(_, line)| is_too_wide(line))
        .map(|(number, _)| file.violation(number, "a comment is at most 100 columns wide: wrap it"))
        .collect()
}

/// Whether a slash after this is in the middle of a longer path or address.
fn is_inside_path(before: &str) -> bool {
    before.ends_with(|c: char| c.is_alphanumeric() || "._-~}/".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::lines_of;

    #[test]
    fn a_wide_comment_is_found() {
        let wide = "w ".repeat(60);
        let text = format!(
            "// {wide}\n    /// {wide}\n//! ```text\n//! {wide}\n//! ```\n/// | {wide} |\n\
             const WIDE: &str = \"{wide}\"; // {wide}\n"
        );
        assert_eq!(lines_of(&width(&File::new("src/a.rs", &*text))), [1, 2]);
        assert!(width(&File::new("docs/a.md", text)).is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let text =
            "see /home/me/x\n(\"/root/x\")\nhttps://example.org/work/x\n./home/x\n/usr/bin\n";
        assert_eq!(lines_of(&machine_paths(&File::new("a.md", text))), [1, 2]);
    }

    #[test]
    fn a_registry_is_found() {
        let text = "get it from crates.io\n";
        assert_eq!(lines_of(&hosts(&File::new("a.md", text))), [1]);
        assert_eq!(hosts(&File::new("Cargo.lock", text)), []);
    }

    #[test]
    fn untidy_whitespace_is_found() {
        let found = whitespace(&File::new("a.md", "a\nb \nc\t\nd"));
        assert_eq!(lines_of(&found), [2, 3, 4]);
        assert_eq!(whitespace(&File::new("a.md", "a\n\nb\n")), []);
        assert_eq!(whitespace(&File::new("a.md", "")), []);
    }
}
