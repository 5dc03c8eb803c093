//! Where this crate's own code is: in the main executable, or in a shared object that was linked with
//! the crate.
//!
//! The functions that are passed to a pool are compiled into the same object, as a rule, and it is the
//! same file in a worker. All that travels of addresses is therefore counted from its start.
//!
//! The exception are Rust libraries that are shared objects themselves (`dylib`): one has the crate,
//! and the program and other libraries have functions. Those objects are known by a tag, which is
//! made of their content.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::sys::{self, Image, OtherImage};

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

/// The objects besides the own one that functions were found in.
static OTHERS: Mutex<Vec<&'static OtherImage>> = Mutex::new(Vec::new());

/// The object that has something at this address, which is not the own one.
pub(crate) fn other_image_with(address: usize) -> Option<&'static OtherImage> {
    let mut others = others();
    let known = others.iter().find(|it| it.image.span.contains(&address));
    if let Some(known) = known {
        return Some(known);
    }
    let found = sys::other_image_with(address)?;
    // Two of the same tag could not be told apart in a worker.
    let is_new = others.iter().all(|it| it.tag != found.tag);
    is_new.then(|| remember(&mut others, found))
}

/// The object with this tag. It is looked for each time until it is found: it may be loaded yet.
pub(crate) fn other_image_of(tag: u64) -> Option<&'static OtherImage> {
    let mut others = others();
    if let Some(known) = others.iter().find(|it| it.tag == tag) {
        return Some(known);
    }
    let found = sys::other_image_of(tag)?;
    Some(remember(&mut others, found))
}

fn others() -> MutexGuard<'static, Vec<&'static OtherImage>> {
    OTHERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember(others: &mut Vec<&'static OtherImage>, found: OtherImage) -> &'static OtherImage {
    let found = Box::leak(Box::new(found));
    others.push(found);
    found
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
