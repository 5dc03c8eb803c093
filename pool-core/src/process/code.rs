//! Where this program's code is.

use std::io;
use std::ops::Range;
use std::sync::OnceLock;

/// Where the main executable's code is in this process.
pub(crate) fn main_code() -> &'static Range<usize> {
    // If the system does not say: then every function is refused, with a message. Pools have
    // asked before they were built.
    find_main_code().unwrap_or(&(0..0))
}

/// Finds out where the main executable's code is.
pub(crate) fn find_main_code() -> io::Result<&'static Range<usize>> {
    static CODE: OnceLock<Range<usize>> = OnceLock::new();
    match CODE.get() {
        Some(code) => Ok(code),
        None => {
            let code = crate::sys::main_code()?;
            Ok(CODE.get_or_init(|| code))
        }
    }
}
