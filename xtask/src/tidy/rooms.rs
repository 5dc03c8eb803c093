//! The rooms of `pool-core`: which folder may import from which.

use std::collections::BTreeSet;

use super::file::{File, Violation};

/// Where the rooms are.
const HOUSE: &str = "pool-core/src/";

/// Each room, the lowest first, and the rooms that it imports from. All of these stand below it,
/// but for `sync` and `sys`, which hold each other under a model checker, where both are simulated.
const ROOMS: &[(&str, &[&str])] = &[
    ("sync", &["sys"]),
    ("sys", &["sync"]),
    ("process", &["sys"]),
    ("panic", &["sync", "process"]),
    ("codec", &["sys"]),
    ("shm", &["sync", "sys", "panic", "codec"]),
    ("error", &["sys", "process", "panic", "shm"]),
    ("broadcast", &["sys", "process", "panic", "codec", "error"]),
    (
        "observe",
        &["sync", "sys", "process", "codec", "shm", "error"],
    ),
    (
        "worker",
        &[
            "sync",
            "sys",
            "process",
            "panic",
            "codec",
            "shm",
            "broadcast",
            "observe",
        ],
    ),
    (
        "task",
        &[
            "sys",
            "process",
            "panic",
            "codec",
            "shm",
            "error",
            "broadcast",
            "observe",
            "worker",
        ],
    ),
    (
        "backend",
        &[
            "sync",
            "sys",
            "process",
            "panic",
            "codec",
            "shm",
            "error",
            "broadcast",
            "observe",
            "worker",
        ],
    ),
    (
        "api",
        &[
            "sync",
            "sys",
            "process",
            "panic",
            "codec",
            "shm",
            "error",
            "broadcast",
            "observe",
            "worker",
            "task",
        ],
    ),
    (
        "engine",
        &[
            "sync",
            "sys",
            "process",
            "panic",
            "codec",
            "shm",
            "error",
            "broadcast",
            "observe",
            "worker",
            "task",
            "backend",
        ],
    ),
    (
        "process_pool",
        &[
            "process", "error", "observe", "worker", "task", "backend", "api", "engine",
        ],
    ),
];

/// Rooms that may hold each other.
#[cfg(test)]
const PAIR: [&str; 2] = ["sync", "sys"];

/// Files at the root.
const ROOT: &[&str] = &["lib.rs", "fuzzing.rs"];

/// A room imports from those of `ROOMS` only, and from no name of the root.
pub(super) fn imports(file: &File) -> Vec<Violation> {
    let Some(room) = room_of(file) else {
        return Vec::new();
    };
    let Some((_, allowed)) = ROOMS.iter().find(|row| row.0 == room) else {
        let message = format!("xtask/src/tidy/rooms.rs does not say what the room `{room}` is");
        return vec![file.violation(1, message)];
    };
    let mut violations = Vec::new();
    for (line, name) in paths(file) {
        if name == room || allowed.contains(&name) {
            continue;
        }
        let message = if ROOMS.iter().any(|row| row.0 == name) {
            format!(
                "`{room}` does not import from `{name}`: imports point down, so that a room can be \
                 read without those above it (xtask/src/tidy/rooms.rs has the list)"
            )
        } else {
            format!(
                "`crate::{name}` is a name for users: inside of the crate, say which room it is from"
            )
        };
        violations.push(file.violation(line, message));
    }
    violations
}

/// Every import that `ROOMS` allows is there: the list tells what is, not what once was.
pub(super) fn superfluous(files: &[File]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (room, allowed) in ROOMS {
        let mut of_room = files
            .iter()
            .filter(|file| room_of(file) == Some(room))
            .peekable();
        let Some(first) = of_room.peek().copied() else {
            continue;
        };
        let used: BTreeSet<&str> = of_room.flat_map(paths).map(|(_, name)| name).collect();
        for name in allowed.iter().filter(|name| !used.contains(*name)) {
            let message = format!(
                "`{room}` imports nothing from `{name}` (any more): remove it from \
                 xtask/src/tidy/rooms.rs, so that the list stays the plan of the house"
            );
            violations.push(first.violation(1, message));
        }
    }
    violations
}

/// The room that a file belongs to. None: it is elsewhere, or there for tests alone.
fn room_of(file: &File) -> Option<&str> {
    let inside = file.path.strip_prefix(HOUSE)?;
    let is_proof = inside.split('/').any(|part| {
        let part = part.strip_suffix(".rs").unwrap_or(part);
        ["models", "fuzzing", "tests"].contains(&part)
    });
    if is_proof || ROOT.contains(&inside) || file.rust.is_none() {
        return None;
    }
    inside.split('/').next()
}

/// The first names behind `crate::` in a file's code, but for those in tests.
fn paths(file: &File) -> Vec<(usize, &str)> {
    const ROOT_PATH: &str = "crate::";
    let mut found = Vec::new();
    for (number, line) in file.code().filter(|(number, _)| !file.is_proof(*number)) {
        for (at, _) in line.match_indices(ROOT_PATH) {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c == '$' || c == '_' || c.is_alphanumeric()) {
                continue;
            }
            let rest = &line[at + ROOT_PATH.len()..];
            let end = rest
                .find(|c: char| c != '_' && !c.is_alphanumeric())
                .unwrap_or(rest.len());
            found.push((number, &rest[..end]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::lines_of;

    #[test]
    fn the_list_has_no_circle() {
        for (number, (room, allowed)) in ROOMS.iter().enumerate() {
            for name in *allowed {
                let below = ROOMS[..number].iter().any(|row| row.0 == *name);
                let is_pair = PAIR.contains(room) && PAIR.contains(name);
                assert!(below || is_pair, "`{room}` stands below `{name}`");
            }
        }
    }

    #[test]
    fn what_points_up_is_found() {
        let text = "use crate::sys::now;\nuse crate::engine::Core;\nlet a = crate::api::pool::A;\n\
                    // crate::engine\n#[cfg(test)]\nmod tests {\n    use crate::engine::Core;\n}\n\
                    let b = crate::TaskError;\n";
        let file = File::new("pool-core/src/shm/ring.rs", text);
        assert_eq!(lines_of(&imports(&file)), [2, 3, 9]);
        let file = File::new("pool-core/src/engine/models/ring.rs", text);
        assert_eq!(imports(&file), []);
    }

    #[test]
    fn a_new_room_must_be_in_the_list() {
        assert_eq!(
            imports(&File::new("pool-core/src/cellar/a.rs", "")).len(),
            1
        );
    }

    #[test]
    fn what_is_not_imported_is_not_in_the_list() {
        let file = File::new("pool-core/src/codec/a.rs", "use crate::codec::b;\n");
        assert_eq!(superfluous(&[file]).len(), 1);
    }
}
