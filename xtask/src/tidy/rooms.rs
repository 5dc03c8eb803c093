//! The rooms of `pool-core`: which folder may import from which.

use super::file::{File, Violation};

/// Where the rooms are.
pub(super) const HOUSE: &str = "pool-core/src/";

/// The rooms, the lowest first. Each may import from those before it, and from no other.
const ROOMS: &[&str] = &[
    "sync",
    "sys",
    "process",
    "panic",
    "codec",
    "value",
    "shm",
    "error",
    "passing",
    "broadcast",
    "observe",
    "worker",
    "task",
    "backend",
    "engine",
    "api",
    "process_pool",
];

/// These two hold each other: under a model checker, both are simulated.
const PAIR: [&str; 2] = ["sync", "sys"];

/// Files at the root.
const ROOT: &[&str] = &["lib.rs", "fuzzing.rs"];

/// A room imports from rooms below it only, and from no name of the root.
pub(super) fn imports(file: &File) -> Vec<Violation> {
    let Some(room) = room_of(file) else {
        return Vec::new();
    };
    let Some(floor) = floor_of(room) else {
        let message = format!("xtask/src/tidy/rooms.rs does not say where the room `{room}` is");
        return vec![file.violation(1, message)];
    };
    let is_upward = |name: &str| floor_of(name).is_some_and(|other| other > floor);
    let is_pair = |name: &str| PAIR.contains(&room) && PAIR.contains(&name);
    let mut violations = Vec::new();
    for (line, name) in paths(file) {
        let message = if floor_of(name).is_none() {
            format!(
                "`crate::{name}` is a name for users: inside of the crate, say which room it is \
                 from"
            )
        } else if is_upward(name) && !is_pair(name) {
            format!(
                "`{room}` does not import from `{name}`: imports point down, so that a room can be \
                 read without those above it (xtask/src/tidy/rooms.rs has the order)"
            )
        } else {
            continue;
        };
        violations.push(file.violation(line, message));
    }
    violations
}

fn floor_of(room: &str) -> Option<usize> {
    ROOMS.iter().position(|name| *name == room)
}

/// The room that a file belongs to. None: it is elsewhere, or there for tests alone.
pub(super) fn room_of(file: &File) -> Option<&str> {
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
}
