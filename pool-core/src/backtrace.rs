//! Backtraces that are taken in one process and read in another.
//!
//! To look up the names of a backtrace's functions takes a fifth of a second the first time in a
//! process, since it reads the debug information; to walk the stack takes microseconds. So the
//! worker only walks, and sends where in the executable each function was; the names are
//! looked up in the parent, which runs the same executable, when somebody reads them.

use std::ffi::c_void;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::entry::main_code;

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
    /// The callers of this function.
    pub(crate) fn capture() -> Self {
        let code = main_code();
        let mut frames = Vec::new();
        backtrace::trace(|frame| {
            let address = frame.ip() as usize;
            let place = code
                .contains(&address)
                .then(|| (address - code.start) as u64);
            frames.push(place);
            frames.len() < MAX_FRAMES
        });
        Self { frames }
    }

    /// The names and places of the callers, as far as this executable knows them.
    pub(crate) fn resolve(&self) -> String {
        let code = main_code();
        let mut text = String::new();
        // The worker says how many there are; each takes time to look up.
        for (number, frame) in self.frames.iter().take(MAX_FRAMES).enumerate() {
            let address = frame.and_then(|place| code.start.checked_add(place as usize));
            if !address.is_some_and(|address| describe(&mut text, number, address)) {
                append_line(&mut text, number, "<in a library>");
            }
        }
        text
    }
}

/// Appends what this process knows of the code at an address, and says whether it knows anything.
pub(crate) fn describe(text: &mut String, number: usize, address: usize) -> bool {
    let mut is_known = false;
    backtrace::resolve(address as *mut c_void, |symbol| {
        is_known = true;
        append(text, number, symbol);
    });
    is_known
}

fn append(text: &mut String, number: usize, symbol: &backtrace::Symbol) {
    match symbol.name() {
        // Without the hash at the end.
        Some(name) => append_line(text, number, &format!("{name:#}")),
        None => append_line(text, number, "<unknown>"),
    }
    if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
        append_place(text, &file.display().to_string(), line, symbol.colno());
    }
}

// Writing into a string does not fail.

pub(crate) fn append_line(text: &mut String, number: usize, name: &str) {
    let _ = writeln!(text, "{number:>4}: {name}");
}

fn append_place(text: &mut String, file: &str, line: u32, column: Option<u32>) {
    let _ = match column {
        Some(column) => writeln!(text, "             at {file}:{line}:{column}"),
        None => writeln!(text, "             at {file}:{line}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_knows_its_function() {
        let text = Backtrace::capture().resolve();
        assert!(text.contains("a_backtrace_knows_its_function"), "{text}");
    }

    #[test]
    fn no_more_is_looked_up_than_is_captured() {
        let frames = vec![None; 1 << 20];
        let text = Backtrace { frames }.resolve();
        assert_eq!(text.lines().count(), MAX_FRAMES);
    }

    #[test]
    fn places_that_are_none_are_survived() {
        let frames = vec![None, Some(u64::MAX), Some(1 << 40)];
        let text = Backtrace { frames }.resolve();
        assert_eq!(text.matches("<in a library>").count(), 3, "{text}");
    }
}
