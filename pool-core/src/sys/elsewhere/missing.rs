//! What there is not.

use std::io;

/// Says so.
pub(super) fn missing(what: &str) -> io::Error {
    let text = format!("{what} cannot be had on this system: pools of processes need a Unix");
    io::Error::new(io::ErrorKind::Unsupported, text)
}
