//! Backtraces that are taken in one process and read in another.
//!
//! To look up the names of a backtrace's functions takes a fifth of a second the first time in a
//! process, since it reads the debug information; to walk the stack takes microseconds. So the
//! worker only walks, and sends where in the executable each function was; the names are
//! looked up in the parent, which runs the same executable, when somebody reads them.

use std::ffi::c_void;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::process::code::own_code;

/// More frames than this are of no use to a reader.
const MAX_FRAMES: usize = 128;

/// The callers of a function, the innermost first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backtrace {
    /// Where each one is in the executable's code; `None` for code of a library, which is
    /// elsewhere in another process.
    frames: Vec<Option<u64>>,
}

impl Backtrace {
    /// Appends a caller, by its return address, and says whether there is room for more.
    pub(crate) fn push(&mut self, address: usize) -> bool {
        if self.frames.len() < MAX_FRAMES {
            let code = own_code();
            let place = code
                .contains(&address)
                .then(|| (address - code.start) as u64);
            self.frames.push(place);
        }
        self.frames.len() < MAX_FRAMES
    }

    /// The names and places of the callers, as far as this executable knows them: from the function
    /// that panicked to the one that the pool has called.
    pub(crate) fn resolve(&self) -> String {
        let code = own_code();
        let mut functions = Functions::default();
        // The worker says how many there are; each takes time to look up.
        for frame in self.frames.iter().take(MAX_FRAMES) {
            match frame {
                Some(place) => match code.start.checked_add(*place as usize) {
                    Some(address) if functions.describe(address) => {}
                    _ => functions.push_unknown(format!("<program+{place:#x}>")),
                },
                None => functions.push_unknown("<in a library>".to_owned()),
            }
        }
        functions.skip_panicking();
        functions.end_at_pool();
        functions.to_string()
    }
}

/// What is known of the functions of a stack, the innermost first. Those that were inlined count.
#[derive(Debug, Default)]
pub(crate) struct Functions(Vec<Function>);

#[derive(Debug)]
struct Function {
    name: String,
    place: Option<Place>,
}

/// Where in the source a function was.
#[derive(Debug)]
struct Place {
    file: String,
    line: u32,
    column: Option<u32>,
}

impl Function {
    /// Whether it runs tasks, or catches their panics.
    fn is_pool(&self) -> bool {
        is_pool(&self.name) || self.place.as_ref().is_some_and(|it| is_pool_file(&it.file))
    }

    fn is_standard(&self) -> bool {
        let is_there = |it: &Place| is_standard_file(&it.file);
        is_standard(&self.name) || self.place.as_ref().is_some_and(is_there)
    }

    /// Whether it is what the standard library calls functions by.
    fn is_call(&self) -> bool {
        let is_there = |it: &Place| it.file.ends_with("/library/core/src/ops/function.rs");
        self.name.starts_with("core::ops::function::Fn")
            || self.place.as_ref().is_some_and(is_there)
    }
}

impl Functions {
    /// Appends what this process knows of the code before a return address, and says whether it
    /// knows anything.
    pub(crate) fn describe(&mut self, address: usize) -> bool {
        let before = self.0.len();
        backtrace::resolve(address as *mut c_void, |symbol| {
            // Without the hash at the end.
            let name = symbol.name().map(|name| format!("{name:#}"));
            let place = symbol.filename().zip(symbol.lineno());
            let place = place.map(|(file, line)| Place {
                file: file.display().to_string(),
                line,
                column: symbol.colno(),
            });
            if name.is_some() || place.is_some() {
                let name = name.unwrap_or_else(|| "<unknown>".to_owned());
                self.0.push(Function { name, place });
            }
        });
        self.0.len() > before
    }

    /// Appends a function of which only this is known.
    pub(crate) fn push_unknown(&mut self, name: String) {
        self.0.push(Function { name, place: None });
    }

    /// Takes away what panics, down to the function of somebody else's that did.
    fn skip_panicking(&mut self) {
        // So the standard library marks where its own part ends.
        let ends = |it: &Function| it.name.contains("__rust_end_short_backtrace");
        let Some(start) = self.0.iter().position(ends) else {
            return;
        };
        self.0.drain(..=start);
        let is_own = |it: &Function| !it.is_standard() && !it.is_pool();
        if let Some(start) = self.0.iter().position(is_own) {
            self.0.drain(..start);
        }
    }

    /// Takes away what runs tasks, and what starts threads.
    pub(crate) fn end_at_pool(&mut self) {
        let starts =
            |it: &Function| it.is_pool() || it.name.contains("__rust_begin_short_backtrace");
        if let Some(end) = self.0.iter().position(starts) {
            self.0.truncate(end);
        }
        while self.0.last().is_some_and(Function::is_call) {
            self.0.pop();
        }
    }
}

/// What runs tasks, and what catches their panics.
const MODULES: [&str; 3] = ["worker", "panic::catch", "panic::unwind"];

/// Whether a function of this name is in one of these.
fn is_pool(name: &str) -> bool {
    // That of a trait begins with `<`.
    let path = name.trim_start_matches('<');
    let Some(path) = path.strip_prefix(concat!(env!("CARGO_CRATE_NAME"), "::")) else {
        return false;
    };
    let is_below = |module: &&str| {
        path.strip_prefix(*module)
            .is_some_and(|rest| rest.starts_with("::"))
    };
    MODULES.iter().any(is_below)
}

/// The same of its file. Where a program has tables of lines and no more, an inlined function has
/// a name without a path.
fn is_pool_file(file: &str) -> bool {
    let Some(sources) = file!().strip_suffix("panic/backtrace.rs") else {
        return false;
    };
    let Some((_, path)) = file.split_once(sources) else {
        return false;
    };
    MODULES.iter().any(|module| {
        let folder = module.replace("::", "/");
        path.strip_prefix(&folder)
            .is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    })
}

/// Whether a file with this name is one of the standard library's.
fn is_standard_file(file: &str) -> bool {
    ["core", "alloc", "std"]
        .iter()
        .any(|it| file.contains(&format!("/library/{it}/src/")))
}

/// Whether a function of this name is of the standard library.
fn is_standard(name: &str) -> bool {
    let path = name.trim_start_matches('<');
    ["core::", "alloc::", "std::", "__rustc", "rust_begin_unwind"]
        .iter()
        .any(|start| path.starts_with(start))
}

impl fmt::Display for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, function) in self.0.iter().enumerate() {
            writeln!(f, "{number:>4}: {}", function.name)?;
            if let Some(Place { file, line, column }) = &function.place {
                write!(f, "             at {file}:{line}")?;
                match column {
                    Some(column) => writeln!(f, ":{column}")?,
                    None => writeln!(f)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::catch::{catch, with_tasks};
    use super::*;

    fn backtrace(frames: Vec<Option<u64>>) -> Backtrace {
        Backtrace { frames }
    }

    fn named(names: &[&str]) -> Functions {
        let mut functions = Functions::default();
        for name in names {
            functions.push_unknown((*name).to_owned());
        }
        functions
    }

    fn names(functions: &Functions) -> Vec<&str> {
        functions.0.iter().map(|it| it.name.as_str()).collect()
    }

    #[test]
    fn a_backtrace_knows_its_function() {
        let report = with_tasks(|| catch(|| panic!("here"))).map(|(): ()| ());
        let Some(backtrace) = report.unwrap_err().backtrace else {
            return; // Backtraces are switched off.
        };
        let text = backtrace.resolve();
        let first = text.lines().next().unwrap_or_default();
        assert!(first.contains("a_backtrace_knows_its_function"), "{text}");
        // Optimised code has no place beside the name.
        let functions = text
            .lines()
            .filter(|it| !it.trim_start().starts_with("at "));
        assert_eq!(functions.count(), 1, "{text}");
    }

    #[test]
    fn no_more_is_looked_up_than_is_captured() {
        let text = backtrace(vec![None; 1 << 20]).resolve();
        assert_eq!(text.lines().count(), MAX_FRAMES);
    }

    #[test]
    fn places_that_are_none_are_survived() {
        let text = backtrace(vec![None, Some(u64::MAX), Some(1 << 40)]).resolve();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("<program+0x10000000000>"), "{text}");
    }

    #[test]
    fn only_what_the_user_wrote_is_told() {
        let mut functions = named(&[
            "procpool_core::panic::unwind::walk",
            "<alloc::boxed::Box<F,A> as core::ops::function::Fn<Args>>::call",
            "std::panicking::panic_with_hook",
            "std::sys::backtrace::__rust_end_short_backtrace",
            "__rustc::rust_begin_unwind",
            "core::panicking::panic_fmt",
            "<alloc::vec::Vec<T,A> as core::ops::index::Index<I>>::index",
            "mine::inner",
            "alloc::slice::sort",
            "mine::task",
            "core::ops::function::FnOnce::call_once",
            "<procpool_core::worker::run::Plain<F> as procpool_core::worker::run::Task<A,R>>::run",
            "procpool_core::worker::run::run::{{closure}}",
            "procpool_core::panic::catch::panic_scope",
            "mine::main",
        ]);
        functions.skip_panicking();
        functions.end_at_pool();
        let expected = ["mine::inner", "alloc::slice::sort", "mine::task"];
        assert_eq!(names(&functions), expected);
    }

    /// As in a program with tables of lines and no more.
    #[test]
    fn the_file_says_whose_a_function_without_a_path_is() {
        let sources = file!().strip_suffix("panic/backtrace.rs").unwrap();
        let mut functions = Functions::default();
        for (name, file) in [
            (
                "{closure#0}",
                format!("/elsewhere/{sources}panic/catch/mod.rs"),
            ),
            (
                "begin_panic",
                "/rustc/1/library/std/src/panicking.rs".to_owned(),
            ),
            (
                "__rust_end_short_backtrace<A>",
                "/rustc/1/library/std/src/sys.rs".to_owned(),
            ),
            (
                "panic_fmt",
                "/rustc/1/library/core/src/panicking.rs".to_owned(),
            ),
            ("inner", "/elsewhere/src/worker/run.rs".to_owned()),
            ("sort<u8>", "/rustc/1/library/alloc/src/slice.rs".to_owned()),
            ("task", "/elsewhere/src/main.rs".to_owned()),
            (
                "call<A>",
                "/rustc/1/library/core/src/ops/function.rs".to_owned(),
            ),
            ("run<A>", format!("/elsewhere/{sources}worker/run.rs")),
            ("main", "/elsewhere/src/main.rs".to_owned()),
        ] {
            let (name, line, column) = (name.to_owned(), 1, None);
            let place = Some(Place { file, line, column });
            functions.0.push(Function { name, place });
        }
        functions.skip_panicking();
        functions.end_at_pool();
        assert_eq!(names(&functions), ["inner", "sort<u8>", "task"]);
    }

    /// Where names are missing, too much is better than nothing.
    #[test]
    fn a_stack_without_names_stays() {
        let mut functions = named(&["<program+0x1>", "<program+0x2>"]);
        functions.skip_panicking();
        functions.end_at_pool();
        assert_eq!(names(&functions).len(), 2);
    }
}
