//! Names of files.

use super::file::{File, Violation};

/// Names that fit whatever one wants to put there.
const MEANINGLESS: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

/// No module is called after nothing in particular.
pub(super) fn meaningless(file: &File) -> Vec<Violation> {
    let Some(path) = file.path.strip_suffix(".rs") else {
        return Vec::new();
    };
    path.split('/')
        .filter(|part| MEANINGLESS.contains(part))
        .map(|part| {
            let message = format!("`{part}` fits everything and so gathers it: name the noun");
            file.violation(1, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_meaning_is_found_for_files_and_folders() {
        for path in ["src/util.rs", "tests/common/mod.rs"] {
            assert_eq!(meaningless(&File::new(path, "")).len(), 1, "{path}");
        }
        assert_eq!(meaningless(&File::new("src/utility_company.rs", "")), []);
    }
}
