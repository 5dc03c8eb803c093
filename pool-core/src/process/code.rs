//! Where this program's code and constants are.

use std::io;
use std::ops::Range;
use std::sync::OnceLock;

use crate::sys::{self, Image};

/// Where the main executable's code is in this process.
pub(crate) fn main_code() -> &'static Range<usize> {
    &main_image().code
}

/// Where the main executable is in this process.
pub(crate) fn main_image() -> &'static Image {
    static NOWHERE: Image = Image {
        code: 0..0,
        constants: Vec::new(),
        span: 0..0,
    };
    // If the system does not say: then every function is refused, with a message. Pools have
    // asked before they were built.
    find_main_image().unwrap_or(&NOWHERE)
}

/// Finds out where the main executable is.
pub(crate) fn find_main_image() -> io::Result<&'static Image> {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    match IMAGE.get() {
        Some(image) => Ok(image),
        None => {
            let image = sys::main_image()?;
            Ok(IMAGE.get_or_init(|| image))
        }
    }
}
