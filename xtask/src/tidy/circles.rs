//! Files of a room that use each other in a circle: none of them can be read without all of the
//! others.

use super::file::{File, Violation};
use super::modules::{Edge, Modules};
use super::rooms;

/// Circles that are there: their files, sorted, and why they are.
const CIRCLES: &[(&[&str], &str)] = &[
    (
        &["broadcast/decoded", "broadcast/memory"],
        "memory has what its bytes were decoded to, in which there are handles of memory",
    ),
    (
        &["codec/bulk", "codec/de/access", "codec/de/mod"],
        "a decoder reads a bulk value at once, which takes its bytes out of the decoder",
    ),
    (
        &["engine/capture/reader", "engine/capture/worker_pipes"],
        "the reader's table has the pipes, which leave it when they are closed",
    ),
    (
        &["process_pool/builder", "process_pool/mod"],
        "a builder makes a pool, and a pool names its builder",
    ),
    (
        &["sync/futex", "sync/shuttle"],
        "a model's life sleeps on a futex, and who sleeps on one may lose its life",
    ),
    (
        &["worker/channel", "worker/function", "worker/run"],
        "the loop finds a function, a function runs a chunk, and a chunk may lie in the loop's ring",
    ),
];

/// Files of one room use each other in a circle only if `CIRCLES` says why.
pub(super) fn circles(files: &[File]) -> Vec<Violation> {
    let of_rooms = files.iter().filter(|file| rooms::room_of(file).is_some());
    let modules = Modules::new(of_rooms, rooms::HOUSE);
    let inside = Inside::new(&modules);
    let mut violations = Vec::new();
    let mut found = Vec::new();
    for circle in inside.circles() {
        let names = circle.iter().map(|&it| name(modules.file(it)));
        let names: Vec<&str> = names.collect();
        let is_known = CIRCLES.iter().any(|it| it.0 == names);
        if !is_known {
            violations.push(inside.report(&circle, &names));
        }
        found.push(names);
    }
    violations.extend(superfluous(files, &found));
    violations
}

/// A row of the list to which there is no circle any more.
fn superfluous(files: &[File], found: &[Vec<&str>]) -> Vec<Violation> {
    const HERE: &str = "xtask/src/tidy/circles.rs";
    let Some(here) = files.iter().find(|file| file.path == HERE) else {
        return Vec::new();
    };
    let is_there = |row: &&(&[&str], &str)| found.iter().any(|circle| circle == row.0);
    let gone = CIRCLES.iter().filter(|row| !is_there(row));
    gone.map(|row| {
        let message = format!("there is no circle of exactly these files: {:?}", row.0);
        here.violation(1, message)
    })
    .collect()
}

/// A file's path as the list has it.
fn name(file: &File) -> &str {
    let inside = file.path.strip_prefix(rooms::HOUSE).unwrap_or(&file.path);
    inside.strip_suffix(".rs").unwrap_or(inside)
}

/// What the files of each room use of the same room.
struct Inside<'a> {
    modules: &'a Modules<'a>,
    edges: Vec<Vec<Edge>>,
}

impl<'a> Inside<'a> {
    fn new(modules: &'a Modules<'a>) -> Self {
        let room = |module: usize| rooms::room_of(modules.file(module));
        let edges = (0..modules.len()).map(|from| {
            let mut edges = modules.edges(from);
            edges.retain(|edge| room(edge.to) == room(from));
            edges
        });
        Self {
            edges: edges.collect(),
            modules,
        }
    }

    /// All files that use each other, directly or not: each such group with its files in order.
    fn circles(&self) -> Vec<Vec<usize>> {
        let reached: Vec<Vec<bool>> = (0..self.edges.len()).map(|it| self.reached(it)).collect();
        let mut circles: Vec<Vec<usize>> = Vec::new();
        for (file, of_file) in reached.iter().enumerate() {
            if circles.iter().flatten().any(|&it| it == file) {
                continue;
            }
            let together = |other: &usize| of_file[*other] && reached[*other][file];
            let mut circle: Vec<usize> = (0..self.edges.len()).filter(together).collect();
            if !circle.is_empty() {
                circle.sort_by_key(|&it| name(self.modules.file(it)));
                circles.push(circle);
            }
        }
        circles
    }

    /// The files that one uses, directly or not.
    fn reached(&self, from: usize) -> Vec<bool> {
        let mut reached = vec![false; self.edges.len()];
        let mut open = vec![from];
        while let Some(file) = open.pop() {
            for edge in &self.edges[file] {
                if !std::mem::replace(&mut reached[edge.to], true) {
                    open.push(edge.to);
                }
            }
        }
        reached
    }

    /// Names all imports inside of a circle: one of them has to go, at least.
    fn report(&self, circle: &[usize], names: &[&str]) -> Violation {
        let imports = circle.iter().flat_map(|&from| {
            let edges = self.edges[from].iter();
            let edges = edges.filter(|edge| circle.contains(&edge.to));
            edges.map(move |edge| {
                let to = self.modules.file(edge.to);
                format!(
                    "\n    {}:{} {}",
                    self.modules.file(from).path,
                    edge.line,
                    name(to)
                )
            })
        });
        let message = format!(
            "these files use each other in a circle, so none can be read alone: {names:?} \
             (xtask/src/tidy/circles.rs is where to say why, if it must be){}",
            imports.collect::<String>()
        );
        self.modules.file(circle[0]).violation(1, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| File::new(format!("pool-core/src/{path}"), *text);
        let files: Vec<File> = files.iter().map(file).collect();
        let violations = circles(&files);
        violations.iter().map(Violation::to_string).collect()
    }

    #[test]
    fn a_circle_is_found_with_its_imports() {
        let files = [
            (
                "shm/mod.rs",
                "pub mod a;\npub mod b;\npub mod c;\npub mod d;\n",
            ),
            ("shm/a.rs", "use super::b::B;\n"),
            ("shm/b.rs", "\nuse crate::shm::c::C;\n"),
            ("shm/c.rs", "use super::a::A;\n"),
            ("shm/d.rs", "use super::a::A;\nuse super::c::C;\n"),
        ];
        let found = found(&files);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("[\"shm/a\", \"shm/b\", \"shm/c\"]"),
            "{}",
            found[0]
        );
        assert!(
            found[0].contains("pool-core/src/shm/b.rs:2 shm/c"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn what_points_one_way_is_none() {
        let files = [
            ("shm/a.rs", "use super::b::B;\nuse super::c::C;\n"),
            (
                "shm/b.rs",
                "use super::c::C;\n#[cfg(test)]\nuse super::a::A;\n",
            ),
            ("shm/c.rs", ""),
        ];
        assert_eq!(found(&files), [""; 0]);
    }
}
