//! Where this crate's own code is: in the main executable, or in a shared object that was linked with
//! the crate.
//!
//! The functions that are passed to a pool are compiled into the same object, and it is the same file
//! in a worker. All that travels of addresses is therefore counted from its start.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use crate::sys::{self, Image};

/// Where the code of the object is in this process.
pub(crate) fn own_code() -> &'static Range<usize> {
    &own_image().code
}

/// Where the object is in this process.
pub(crate) fn own_image() -> &'static Image {
    static NOWHERE: Image = Image {
        code: 0..0,
        constants: Vec::new(),
        span: 0..0,
        shared: None,
    };
    // If the system does not say: then every function is refused, with a message. Pools have
    // asked before they were built.
    find_own_image().unwrap_or(&NOWHERE)
}

/// Finds out where the object is.
pub(crate) fn find_own_image() -> io::Result<&'static Image> {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    match IMAGE.get() {
        Some(image) => Ok(image),
        None => {
            let image = sys::own_image()?;
            Ok(IMAGE.get_or_init(|| image))
        }
    }
}

/// The shared object that this crate was linked into, by the path by which it was loaded. `None`:
/// it is part of the main executable.
///
/// A worker must have the same object. A process that is a copy of this one has it; another program
/// has it only if it loads it.
#[must_use]
pub fn shared_object() -> Option<&'static Path> {
    own_image().shared.as_deref()
}
