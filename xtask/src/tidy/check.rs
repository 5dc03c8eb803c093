//! The list of the rules, and what they are applied to.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use walkdir::{DirEntry, WalkDir};

use super::file::{File, Violation};
use super::{circles, manifest, required, rooms, text, unsafety};

type FileRule = fn(&File) -> Vec<Violation>;
type TreeRule = fn(&[File]) -> Vec<Violation>;

/// The rules that look at one file at a time.
const FILE_RULES: &[FileRule] = &[
    manifest::inheritance,
    rooms::imports,
    text::hosts,
    text::machine_paths,
    text::whitespace,
    text::width,
    unsafety::places,
];

/// The rules that need all files.
const TREE_RULES: &[TreeRule] = &[
    circles::circles,
    required::files,
    unsafety::superfluous_places,
];

/// Checks all files of the workspace and prints everything that breaks a rule.
///
/// # Errors
/// When something does, or a file cannot be read.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = read(root)?;
    let violations = check(&files);
    for violation in &violations {
        println!("{violation}");
    }
    if !violations.is_empty() {
        bail!("{} places break the house rules", violations.len());
    }
    println!("{} files keep the house rules", files.len());
    Ok(())
}

fn check(files: &[File]) -> Vec<Violation> {
    let of_files = files
        .iter()
        .flat_map(|file| FILE_RULES.iter().flat_map(move |rule| rule(file)));
    let of_tree = TREE_RULES.iter().flat_map(|rule| rule(files));
    let mut violations: Vec<Violation> = of_files.chain(of_tree).collect();
    violations.sort();
    violations
}

/// Reads all text files but git's and cargo's own.
fn read(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(root).into_iter().filter_entry(is_ours) {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        let path = entry.path();
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let relative = path.strip_prefix(root)?.to_string_lossy();
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File::new(relative.replace('\\', "/"), text));
        }
    }
    Ok(files)
}

/// What the fuzzer keeps in the folder `fuzz`: its inputs may look like text.
const FUZZER_FOLDERS: &[&str] = &["artifacts", "corpus", "coverage", "grown", "target"];

fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    match entry.depth() {
        1 => name != ".git" && name != "target",
        2 if entry.path().parent().is_some_and(|it| it.ends_with("fuzz")) => {
            !FUZZER_FOLDERS.iter().any(|folder| name == *folder)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_are_reported_at_once_and_in_order() {
        let files = [
            File::new("src/b.rs", "unsafe {}\n/root/x\n"),
            File::new("src/a.rs", "/root/x \n"),
        ];
        let found = check(&files);
        let places: Vec<(&str, usize)> = found
            .iter()
            .map(|violation| (violation.path.as_str(), violation.line))
            .filter(|(path, _)| files.iter().any(|file| file.path == *path))
            .collect();
        let expected = [
            ("src/a.rs", 1),
            ("src/a.rs", 1),
            ("src/b.rs", 1),
            ("src/b.rs", 2),
        ];
        assert_eq!(places, expected);
    }
}
