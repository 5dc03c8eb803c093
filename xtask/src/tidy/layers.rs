//! Imports only ever point down: facade, backends, procpool-core.

use toml::{Table, Value};

use super::file::{File, Violation};
use super::manifest;

/// Each of our packages, and which of the others it may depend on, tests included.
const LAYERS: &[(&str, &[&str])] = &[
    ("procpool-testing", &[]),
    ("procpool-core", &[]),
    ("procpool-fork", &["procpool-core", "procpool-testing"]),
    ("procpool-spawn", &["procpool-core", "procpool-testing"]),
    (
        "procpool",
        &[
            "procpool-core",
            "procpool-fork",
            "procpool-spawn",
            // For its tests.
            "procpool-conformance",
            "procpool-testing",
        ],
    ),
    (
        "procpool-conformance",
        &["procpool-core", "procpool", "procpool-testing"],
    ),
    (
        "procpool-bench",
        &[
            "procpool-core",
            "procpool-fork",
            "procpool-spawn",
            "procpool",
        ],
    ),
    ("procpool-showcase", &["procpool"]),
    (
        "procpool-tests",
        &["procpool", "procpool-conformance", "procpool-testing"],
    ),
    ("xtask", &[]),
    (
        "procpool-fuzz",
        &["procpool-core", "procpool-fork", "procpool-spawn"],
    ),
];

/// The tables of a manifest that name dependencies.
const TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// A package depends only on those of ours that stand below it. (That one depends on itself, for
/// its tests, is how they get features that are off by default.)
pub(super) fn imports(file: &File) -> Vec<Violation> {
    let Some(manifest) = manifest::parse(file) else {
        return Vec::new();
    };
    let Some(package) = manifest::package_name(&manifest) else {
        return Vec::new();
    };
    let Some((_, allowed)) = LAYERS.iter().find(|row| row.0 == package) else {
        let message = format!("xtask/src/tidy/layers.rs does not say where `{package}` stands");
        return vec![file.violation(1, message)];
    };
    dependencies(&manifest)
        .into_iter()
        .filter(|(_, name)| {
            is_ours(name) && name.as_str() != package && !allowed.contains(&name.as_str())
        })
        .map(|(key, name)| {
            let message = format!(
                "`{package}` must not depend on `{name}`: imports only point down, \
                 facade → backends → procpool-core, so that each can be read without \
                 what is above it"
            );
            file.violation(manifest::line_of(file, &key), message)
        })
        .collect()
}

fn is_ours(name: &str) -> bool {
    LAYERS.iter().any(|row| row.0 == name)
}

/// All dependencies of every kind and target: the key in the manifest, and the package's name.
fn dependencies(manifest: &Table) -> Vec<(String, String)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(Table::values);
    std::iter::once(manifest)
        .chain(targets.filter_map(Value::as_table))
        .flat_map(|holder| TABLES.iter().filter_map(|&name| holder.get(name)))
        .filter_map(Value::as_table)
        .flatten()
        .map(|(key, value)| {
            let renamed = value.get("package").and_then(Value::as_str);
            (key.clone(), renamed.unwrap_or(key).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<(usize, String)> {
        imports(&File::new("x/Cargo.toml", text))
            .into_iter()
            .map(|found| (found.line, found.message))
            .collect()
    }

    #[test]
    fn what_points_down_is_fine() {
        let text = "[package]\nname = \"procpool-fork\"\n[dependencies]\nserde = \"1\"\n\
                    procpool-core.workspace = true\n";
        assert_eq!(messages(text), []);
    }

    #[test]
    fn what_points_up_or_sideways_is_found_in_every_table() {
        let text = "[package]\nname = \"procpool-fork\"\n[dependencies]\nprocpool-spawn = \"1\"\n\
                    [dev-dependencies]\nfacade = { path = \"..\", package = \"procpool\" }\n\
                    [target.'cfg(unix)'.dependencies]\nxtask = { path = \"../xtask\" }\n";
        let found = messages(text);
        let lines: Vec<usize> = found.iter().map(|found| found.0).collect();
        assert_eq!(lines, [4, 6, 8]);
        assert!(found[1].1.contains("`procpool`"), "{}", found[1].1);
    }

    #[test]
    fn a_new_package_must_say_where_it_stands() {
        assert_eq!(messages("[package]\nname = \"pool-net\"\n").len(), 1);
    }

    #[test]
    fn nothing_depends_on_the_tools() {
        for tool in ["xtask", "procpool-bench", "procpool-fuzz"] {
            assert!(!LAYERS.iter().any(|row| row.1.contains(&tool)), "{tool}");
        }
    }
}
