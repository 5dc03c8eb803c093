//! The program, as the loader of Windows has put it into memory: its headers say where its parts
//! are (the format PE). On any other system, nobody says.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
#[cfg(windows)]
use std::ops::Range;

use super::missing::missing;
use crate::sys::hash::Hash;
use crate::sys::loaded::{Image, OtherImage};

/// Where the object lies that has this crate's code.
#[cfg(windows)]
pub(crate) fn own_image() -> io::Result<Image> {
    const EXECUTE: u32 = 0x2000_0000;
    const READ: u32 = 0x4000_0000;
    const WRITE: u32 = 0x8000_0000;
    let sections = sections().ok_or_else(|| missing("the place of the program"))?;
    let mut image = Image::default();
    for section in sections {
        if section.flags & EXECUTE != 0 {
            let code = &mut image.code;
            *code = if code.start == code.end {
                section.place.clone()
            } else {
                code.start.min(section.place.start)..code.end.max(section.place.end)
            };
        }
        if section.flags & READ != 0 && section.flags & WRITE == 0 {
            image.constants.push(section.place);
        }
    }
    let start = image.constants.iter().map(|it| it.start).min();
    let end = image.constants.iter().map(|it| it.end).max();
    image.span = start.unwrap_or(0)..end.unwrap_or(0);
    Ok(image)
}

/// Nobody says where it lies.
#[cfg(not(windows))]
pub(crate) fn own_image() -> io::Result<Image> {
    Err(missing("the place of the program"))
}

/// A part of the object.
#[cfg(windows)]
struct Section {
    place: Range<usize>,
    flags: u32,
}

/// The parts of the object that has this crate's code. `None`: its headers are not what is known.
#[cfg(windows)]
fn sections() -> Option<Vec<Section>> {
    let headers = headers()?;
    let word = |at: usize| Some(u32::from_le_bytes(*headers.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_le_bytes(*headers.get(at..)?.first_chunk()?));
    let signature = word(0x3c)? as usize;
    let (count, optional) = (half(signature + 6)?, half(signature + 20)?);
    let table = signature + 24 + usize::from(optional);
    let base = headers.as_ptr().addr();
    let section = |index: usize| {
        let at = table + 40 * index;
        let (bytes, start) = (word(at + 8)? as usize, base + word(at + 12)? as usize);
        Some(Section {
            place: start..start + bytes,
            flags: word(at + 36)?,
        })
    };
    (0..usize::from(count)).map(section).collect()
}

/// The headers of the object that has this crate's code.
#[cfg(windows)]
fn headers() -> Option<&'static [u8]> {
    /// What the loader maps at least: a page, which has all headers.
    const LEAST: usize = 4096;
    unsafe extern "C" {
        /// The linker's name for where the object begins.
        static __ImageBase: u8;
    }
    // SAFETY: an object is mapped from its base on with its headers, a page at least, which can be
    // read and stay as they are.
    let headers = unsafe { std::slice::from_raw_parts(&raw const __ImageBase, LEAST) };
    headers.starts_with(b"MZ").then_some(headers)
}

/// A number that two processes share if they run the same build of the same program: made of the
/// headers, in which the linker writes sizes and a time or a hash.
pub(crate) fn build_identity(protocol: u32) -> u128 {
    let mut hash = Hash::new();
    hash.add(env!("CARGO_PKG_VERSION").as_bytes());
    hash.add_word(protocol.into());
    #[cfg(windows)]
    if let Some(headers) = headers() {
        hash.add(headers);
    }
    hash.0
}

/// The same.
pub(crate) fn build_content(protocol: u32) -> u128 {
    build_identity(protocol)
}

/// No other object has functions for pools.
pub(crate) fn other_image_with(_address: usize) -> Option<OtherImage> {
    None
}

/// No other object has functions for pools.
pub(crate) fn other_image_of(_tag: u64) -> Option<OtherImage> {
    None
}

/// Whether this address is in the program.
pub fn is_in_program(address: usize) -> bool {
    own_image().is_ok_and(|image| image.code.contains(&address))
}

/// What has loaded the program: nobody says.
pub fn interpreter() -> Option<&'static CStr> {
    None
}
