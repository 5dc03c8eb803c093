//! What is known of this program's file.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid, getgid, getuid};

/// What is executed again: this program's file, as it was called when it was started.
pub(crate) fn executable() -> io::Result<PathBuf> {
    env::current_exe()
}

/// The path of this program, if it was started by naming it to its loader: nobody does that here.
pub(crate) fn program_of_loader(_executed: &Path) -> io::Result<Option<PathBuf>> {
    Ok(None)
}

/// Whether this program has rights that its user has not, so that the loader does not load into it
/// what the environment says.
pub(crate) fn is_secure() -> bool {
    getuid() != geteuid() || getgid() != getegid()
}

/// The path of the file that this code was loaded from.
///
/// # Errors
/// When it is a shared object, whose workers are to be of a program that somebody names.
pub(crate) fn own_file() -> io::Result<PathBuf> {
    match procpool_core::shared_object() {
        Some(object) => Ok(object.to_owned()),
        None => env::current_exe(),
    }
}
