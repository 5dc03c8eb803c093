//! Where this crate's own code is: in the main executable, or in a shared object that was linked
//! with the crate.
//!
//! The functions that are passed to a pool are compiled into the same object, as a rule, and it is
//! the same file in a worker. All that travels of addresses is therefore counted from its start.
//!
//! The exception are Rust libraries that are shared objects themselves (`dylib`): one has the
//! crate, and the program and other libraries have functions. Those objects are known by a tag,
//! which is made of their content.

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

/// The objects besides the own one that functions were found in. The loader is never asked under
/// this lock: a library that it is loading may wait for it.
static OTHERS: Mutex<Vec<&'static OtherImage>> = Mutex::new(Vec::new());

/// The object that has something at this address, which is not the own one.
pub(crate) fn other_image_with(address: usize) -> Option<&'static OtherImage> {
    let is_it = |it: &OtherImage| it.image.span.contains(&address);
    known(is_it).or_else(|| {
        let found = remember(sys::other_image_with(address)?);
        // Two of the same tag could not be told apart in a worker: the first one has it.
        Some(found).filter(|it| is_it(it))
    })
}

/// The object with this tag. It is looked for each time until it is found: it may be loaded yet.
pub(crate) fn other_image_of(tag: u64) -> Option<&'static OtherImage> {
    known(|it| it.tag == tag).or_else(|| sys::other_image_of(tag).map(remember))
}

fn known(is_it: impl Fn(&OtherImage) -> bool) -> Option<&'static OtherImage> {
    let others = others();
    others.iter().copied().find(|it| is_it(it))
}

fn others() -> MutexGuard<'static, Vec<&'static OtherImage>> {
    OTHERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known by the tag of this one: this one, unless there was one before.
fn remember(found: OtherImage) -> &'static OtherImage {
    let mut others = others();
    if let Some(known) = others.iter().copied().find(|it| it.tag == found.tag) {
        return known;
    }
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
