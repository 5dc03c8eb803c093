//! Where the dependencies come from.

use super::file::{File, Violation};

/// How cargo writes its public registry.
const PUBLIC: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// `Cargo.lock` names the public registry and no other source.
pub(super) fn sources(file: &File) -> Vec<Violation> {
    if !file.path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    file.lines()
        .filter(|(_, line)| line.starts_with("source = ") && *line != PUBLIC)
        .map(|(number, _)| {
            let message = "this source is not the public registry: others cannot build from it";
            file.violation(number, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::lines_of;

    #[test]
    fn another_registry_is_found() {
        let text = format!("name = \"a\"\n{PUBLIC}\nsource = \"registry+https://mirror/index\"\n");
        assert_eq!(
            lines_of(&sources(&File::new("Cargo.lock", text.as_str()))),
            [3]
        );
        assert_eq!(sources(&File::new("notes.md", text)), []);
    }
}
