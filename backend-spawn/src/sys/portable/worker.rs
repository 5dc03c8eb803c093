//! What a process asks about itself and does to itself to become a worker.

use std::ffi::OsStr;
use std::io::{self, Read};

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The system kills no process when another one ends: the tie is what does. `false`: the parent has
/// ended already.
pub(crate) fn die_with_parent() -> io::Result<bool> {
    Ok(true)
}

/// A process has the name of its program.
pub(crate) fn name_process(_program: &OsStr) {}
