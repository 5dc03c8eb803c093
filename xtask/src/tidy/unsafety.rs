//! Where `unsafe` may stand. (Clippy sees to what must stand beside it.)

use super::file::{File, Violation};
use super::rust_text::has_token;

/// The files (or folders, with a slash at the end) whose purpose it is, and the purpose.
const PLACES: &[(&str, &str)] = &[
    (
        "backend-fork/src/fork_server.rs",
        "forks beside threads that the caller answers for",
    ),
    (
        "backend-fork/src/pool.rs",
        "lets the caller answer for threads",
    ),
    ("backend-fork/src/failover.rs", "forks the fork server"),
    ("backend-fork/src/server/client.rs", "forks a worker"),
    (
        "backend-fork/src/server/entrypoint.rs",
        "closes what the program has opened",
    ),
    (
        "backend-fork/src/server/forked_worker.rs",
        "vouches for what the worker serves",
    ),
    ("backend-fork/src/server/standby.rs", "forks the standby"),
    (
        "backend-fork/src/elsewhere.rs",
        "a contract, where nothing is forked",
    ),
    ("backend-fork/src/sys/", "system calls, the fork among them"),
    ("backend-fork/tests/fork/", "workers that do harm"),
    (
        "backend-spawn/src/ipc_hello.rs",
        "knows the descriptors of ipc-channel's sockets",
    ),
    (
        "backend-spawn/src/bootstrap.rs",
        "vouches for what the worker serves",
    ),
    ("backend-spawn/src/sys/", "system calls"),
    ("backend-spawn/tests/launching/", "workers that do harm"),
    ("examples/crash.rs", "crashes on purpose"),
    ("showcase/examples/embed_c/", "calls a C library"),
    ("examples/recovery.rs", "measures a bare fork"),
    ("showcase/examples/service/", "crashes on purpose"),
    ("examples/test_isolation.rs", "crashes on purpose"),
    (
        "pool-core/src/api/input/append_log.rs",
        "memory that one thread writes while others read what is there",
    ),
    (
        "pool-core/src/backend/launcher.rs",
        "lets the caller answer for threads",
    ),
    (
        "pool-core/src/process_pool/builder.rs",
        "lets the caller answer for threads",
    ),
    (
        "pool-core/src/broadcast/memory.rs",
        "text that was checked once",
    ),
    (
        "pool-core/src/codec/memory.rs",
        "memory that is written before it is a vector of numbers",
    ),
    (
        "pool-core/src/codec/number.rs",
        "finds that two types are one",
    ),
    (
        "pool-core/src/engine/models/",
        "shares a ring between a model's threads",
    ),
    (
        "pool-core/src/fuzzing/watched.rs",
        "counts the memory of tests",
    ),
    (
        "pool-core/src/worker/emitter.rs",
        "uses what the worker has lent to a task",
    ),
    (
        "pool-core/src/worker/function.rs",
        "calls a function by its offset",
    ),
    (
        "pool-bench/src/floor/fork_exec.rs",
        "forks with nothing of ours, to time it",
    ),
    (
        "pool-bench/src/floor/other_side.rs",
        "forks the process on the floors' other side",
    ),
    (
        "pool-bench/src/floor/shared.rs",
        "shared memory with nothing of ours, to time it",
    ),
    (
        "pool-bench/src/floor/starts.rs",
        "forks with nothing of ours, to time it",
    ),
    (
        "pool-core/src/shm/region.rs",
        "memory that another process writes",
    ),
    (
        "pool-core/src/shm/ring.rs",
        "copies into and out of that memory",
    ),
    ("pool-core/src/sys/", "system calls"),
    (
        "sandbox/src/lib.rs",
        "lets the caller answer for what runs in a signal handler",
    ),
    (
        "sandbox/src/refusals.rs",
        "changes the result of a system call in a signal handler",
    ),
    (
        "sandbox/tests/escapes.rs",
        "ways out of a sandbox, most of which are bare system calls",
    ),
    (
        "pool-core/src/worker/channel.rs",
        "reads arguments where the parent wrote them",
    ),
    (
        "pool-core/src/worker/confinement.rs",
        "vouches for what runs in a signal handler",
    ),
    (
        "pool-core/src/worker/inherited.rs",
        "closes what the program has opened",
    ),
    (
        "pool-core/src/worker/serve.rs",
        "trusts a region, by its contract",
    ),
    (
        "pool-core/src/worker/signal_data.rs",
        "what a signal handler finds, and nobody frees",
    ),
    (
        "pool-core/src/worker/last_allocation.rs",
        "looks for memory in a signal handler",
    ),
    (
        "pool-core/src/worker/stack.rs",
        "copies the stack in a signal handler",
    ),
    (
        "pool-core/src/panic/unwind.rs",
        "asks the unwinder who would catch a panic",
    ),
    (
        "src/before_main.rs",
        "a function that the loader calls before main",
    ),
    (
        "tests/chaos/harness/notes.rs",
        "an inherited descriptor, and tasks that fork",
    ),
    (
        "conformance/src/daemons.rs",
        "forks in tasks, and closes descriptors",
    ),
    (
        "conformance/src/hostile.rs",
        "tasks that mean harm to their worker",
    ),
    (
        "conformance/src/hostile_support.rs",
        "rings and closes the bell of a worker by its number",
    ),
    (
        "conformance/src/memory.rs",
        "writes where there is no memory",
    ),
    (
        "conformance/src/signals.rs",
        "sets signals to their defaults",
    ),
    (
        "conformance/src/ties.rs",
        "forks in tasks, and closes standard streams",
    ),
    (
        "tests/stranger/extension/",
        "what a program calls in a shared object",
    ),
    (
        "tests/sandbox/doors.rs",
        "tries descriptors that are nobody's",
    ),
    (
        "tests/syscalls/sandbox.rs",
        "puts up a sandbox that refuses a system call",
    ),
];

/// `unsafe` stands only in the places whose purpose it is.
pub(super) fn places(file: &File) -> Vec<Violation> {
    if PLACES.iter().any(|row| is_at(file, row.0)) {
        return Vec::new();
    }
    // Once per file: it is the file that moves into the list, or not.
    let first = file.code().find(|(_, line)| is_unsafe(line));
    first
        .map(|(number, _)| {
            let message = "unsafe code stands in few files, so that it can be audited: move it \
                           there, or name this file in xtask/src/tidy/unsafety.rs with its purpose";
            file.violation(number, message)
        })
        .into_iter()
        .collect()
}

/// Every one of those places exists and needs to be one.
pub(super) fn superfluous_places(files: &[File]) -> Vec<Violation> {
    PLACES
        .iter()
        .filter(|(place, _)| {
            !files
                .iter()
                .any(|file| is_at(file, place) && file.code().any(|(_, line)| is_unsafe(line)))
        })
        .map(|(place, _)| Violation {
            path: (*place).to_owned(),
            line: 1,
            message: "nothing here is unsafe (any more): remove it from \
                      xtask/src/tidy/unsafety.rs, so that the list stays the map of the danger"
                .to_owned(),
        })
        .collect()
}

fn is_at(file: &File, place: &str) -> bool {
    file.path == place || (place.ends_with('/') && file.path.starts_with(place))
}

fn is_unsafe(code: &str) -> bool {
    has_token(code, "unsafe") || has_token(code, "allow(unsafe_code)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::lines_of;

    #[test]
    fn unsafe_code_in_another_place_is_found() {
        let text = "#![allow(unsafe_code)]\n// unsafe\nfn f() {\n    unsafe { g(\"unsafe\") }\n}\n";
        assert_eq!(lines_of(&places(&File::new("src/a.rs", text))), [1]);
        let denied = text.replace("#![allow", "#![deny");
        assert_eq!(lines_of(&places(&File::new("src/a.rs", denied))), [4]);
        assert_eq!(places(&File::new("pool-core/src/shm/ring.rs", text)), []);
        assert_eq!(places(&File::new("pool-core/src/sys/linux.rs", text)), []);
        assert_eq!(
            places(&File::new("src/b.rs", "#![deny(unsafe_code)]\n")),
            []
        );
    }

    #[test]
    fn a_place_that_needs_no_unsafe_code_is_found() {
        let needed = |place: &str| {
            let folder = place.ends_with('/');
            let path = if folder {
                format!("{place}a.rs")
            } else {
                place.to_owned()
            };
            File::new(path, "unsafe {}\n")
        };
        let mut tree: Vec<File> = PLACES.iter().map(|row| needed(row.0)).collect();
        assert_eq!(superfluous_places(&tree), []);
        let path = tree.remove(0).path;
        tree.push(File::new(path.as_str(), "// unsafe\n"));
        let found = superfluous_places(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, path);
    }
}
