//! Which file of a crate uses which other one.

use std::collections::HashMap;

use super::file::File;

/// The modules of a crate, each of which is a file.
pub(super) struct Modules<'a> {
    modules: Vec<Module<'a>>,
    by_path: HashMap<Path, usize>,
}

/// The names from the crate's root on, without `crate`.
type Path = Vec<String>;

struct Module<'a> {
    file: &'a File,
    path: Path,
    uses: Vec<Use>,
}

/// A path in the code that leads to something in the crate.
struct Use {
    line: usize,
    path: Path,
    /// Under which name it is known here, if it was imported.
    name: Option<String>,
}

/// One file uses another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) to: usize,
    pub(super) line: usize,
}

impl<'a> Modules<'a> {
    /// Those of the crate whose sources are in `house`.
    pub(super) fn new(files: impl Iterator<Item = &'a File>, house: &str) -> Self {
        let module = |file: &'a File| {
            let inside = file.path.strip_prefix(house)?.strip_suffix(".rs")?;
            let inside = inside.strip_suffix("/mod").unwrap_or(inside);
            let path: Path = inside.split('/').map(str::to_owned).collect();
            let uses = Reader::new(file, &path).read();
            Some(Module { file, path, uses })
        };
        let modules: Vec<Module<'a>> = files.filter_map(module).collect();
        let paths = modules.iter().map(|module| module.path.clone());
        let by_path = paths.zip(0..).collect();
        Self { modules, by_path }
    }

    pub(super) fn len(&self) -> usize {
        self.modules.len()
    }

    pub(super) fn file(&self, module: usize) -> &'a File {
        self.modules[module].file
    }

    /// The other files that a file uses, each once. What is only passed on by a third one counts
    /// as used from where it is.
    pub(super) fn edges(&self, from: usize) -> Vec<Edge> {
        let mut edges: Vec<Edge> = Vec::new();
        for it in &self.modules[from].uses {
            let Some(to) = self.resolve(&it.path, 0) else {
                continue;
            };
            if to != from && edges.iter().all(|edge| edge.to != to) {
                edges.push(Edge { to, line: it.line });
            }
        }
        edges
    }

    /// The file that has what a path leads to.
    fn resolve(&self, path: &[String], depth: usize) -> Option<usize> {
        const DEEP: usize = 8;
        let (length, module) = (1..=path.len())
            .rev()
            .find_map(|length| Some((length, *self.by_path.get(&path[..length])?)))?;
        let Some(name) = path.get(length) else {
            return Some(module);
        };
        let uses = &self.modules[module].uses;
        let passed_on = uses.iter().find(|it| it.name.as_ref() == Some(name));
        match passed_on {
            Some(it) if depth < DEEP => {
                let path = [&it.path[..], &path[length + 1..]].concat();
                self.resolve(&path, depth + 1)
            }
            _ => Some(module),
        }
    }
}

/// Reads the paths of a file.
struct Reader<'a> {
    tokens: Vec<(usize, &'a str)>,
    at: usize,
    path: &'a [String],
    is_import: bool,
    uses: Vec<Use>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a File, path: &'a [String]) -> Self {
        let lines = file.code().filter(|(number, _)| !file.is_proof(*number));
        let tokens = lines.flat_map(|(number, line)| tokens(line).map(move |it| (number, it)));
        Self {
            tokens: tokens.collect(),
            at: 0,
            path,
            is_import: false,
            uses: Vec::new(),
        }
    }

    fn read(mut self) -> Vec<Use> {
        let children = self.children();
        // Modules that are written out here are part of this file.
        let mut inner = Vec::new();
        let mut braces = 0;
        while self.at < self.tokens.len() {
            let before = self.at.checked_sub(1).map(|at| self.tokens[at].1);
            match self.token(0) {
                "use" => self.is_import = true,
                ";" => self.is_import = false,
                "mod" if self.token(2) == "{" => inner.push(braces),
                "{" => braces += 1,
                "}" => {
                    braces -= 1;
                    if inner.last() == Some(&braces) {
                        inner.pop();
                    }
                }
                name if self.token(1) == "::" && !matches!(before, Some("::" | "$" | "in")) => {
                    let start = match name {
                        "crate" => Some(Vec::new()),
                        "self" => Some(self.path.to_vec()),
                        "super" => Some(self.parent(inner.len())),
                        name if inner.is_empty() && children.contains(&name) => {
                            Some([self.path, &[name.to_owned()]].concat())
                        }
                        _ => None,
                    };
                    if let Some(start) = start {
                        self.at += 2;
                        self.tree(start);
                        continue;
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
        self.uses
    }

    fn token(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.1)
    }

    /// The names of the modules that are declared here and are other files.
    fn children(&self) -> Vec<&'a str> {
        let three = self.tokens.windows(3);
        let declared = three.filter(|it| it[0].1 == "mod" && it[2].1 == ";");
        declared.map(|it| it[1].1).collect()
    }

    /// What `super` means, so many modules deep in this file.
    fn parent(&self, inner: usize) -> Path {
        let up = usize::from(inner == 0);
        self.path[..self.path.len() - up].to_vec()
    }

    /// Reads what stands behind `start::`, down to the ends of all its branches.
    fn tree(&mut self, mut path: Path) {
        loop {
            let line = self.tokens.get(self.at).map_or(0, |token| token.0);
            match self.token(0) {
                "{" => {
                    self.at += 1;
                    while !matches!(self.token(0), "}" | "") {
                        self.tree(path.clone());
                        if self.token(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "self" => {}
                "super" => {
                    path.pop();
                }
                name if is_name(name) => path.push(name.to_owned()),
                // `*`, or the type in `path::<T>`.
                _ => {
                    if self.token(0) == "*" {
                        self.at += 1;
                    }
                    return self.leaf(line, path, None);
                }
            }
            self.at += 1;
            if self.token(0) == "::" {
                self.at += 1;
                continue;
            }
            let mut name = path.last().cloned();
            if self.is_import && self.token(0) == "as" {
                name = Some(self.token(1).to_owned());
                self.at += 2;
            }
            return self.leaf(line, path, name);
        }
    }

    fn leaf(&mut self, line: usize, path: Path, name: Option<String>) {
        let name = name.filter(|_| self.is_import);
        self.uses.push(Use { line, path, name });
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c == '_' || c.is_alphabetic())
}

/// The names, the `::` and the single other characters of a line.
fn tokens(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let is_word = |c: char| c == '_' || c.is_alphanumeric();
        let end = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, behind) = rest.split_at(end);
        rest = behind;
        Some(token)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The edges between these files, as `from:line to`.
    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| File::new(format!("src/{path}"), *text);
        let files: Vec<File> = files.iter().map(file).collect();
        let modules = Modules::new(files.iter(), "src/");
        let name = |module: usize| modules.file(module).path.as_str();
        (0..modules.len())
            .flat_map(|from| {
                let edges = modules.edges(from).into_iter();
                edges.map(move |it| format!("{}:{} {}", name(from), it.line, name(it.to)))
            })
            .collect()
    }

    #[test]
    fn every_way_to_name_a_file_is_found() {
        for text in [
            "use super::b::B;",
            "use crate::room::b::{self, B as C};",
            "use crate::room::{b, b::B};",
            "use super::{\n    b::{B},\n};",
            "fn f(b: super::b::B) {}",
            "let b = crate::room::b::B::new::<u8>();",
            "mod inner {\n    use super::super::b::B;\n}",
            "use super::b::*;",
        ] {
            let found = edges(&[("room/a.rs", text), ("room/b.rs", "pub struct B;")]);
            let found: Vec<&str> = found.iter().filter_map(|it| it.split(' ').nth(1)).collect();
            assert_eq!(found, ["src/room/b.rs"], "{text}");
        }
    }

    #[test]
    fn tests_comments_and_other_crates_do_not_count() {
        let text = "// super::b::B\npub(in super::super) fn f() {}\n#[cfg(test)]\nuse super::b::B;\nuse std::b::B;\n\
                    #[cfg(test)]\nmod tests {\n    use super::super::b::B;\n}\n\
                    fn f() { self.b::<B>(); $crate::room::b::f(); }\n";
        assert!(edges(&[("room/a.rs", text), ("room/b.rs", "")]).is_empty());
    }

    #[test]
    fn what_is_passed_on_is_used_from_where_it_is() {
        let files = [
            (
                "room/mod.rs",
                "mod a;\nmod b;\npub use a::{A, X as Y};\nstruct Own;\n",
            ),
            ("room/a.rs", "pub struct A;\n"),
            ("room/b.rs", "use super::{A, Y};\n"),
            ("room/c.rs", "use super::Own;\nuse super::A;\n"),
        ];
        let expected = [
            "src/room/mod.rs:3 src/room/a.rs",
            "src/room/b.rs:1 src/room/a.rs",
            "src/room/c.rs:1 src/room/mod.rs",
            "src/room/c.rs:2 src/room/a.rs",
        ];
        assert_eq!(edges(&files), expected);
    }
}
