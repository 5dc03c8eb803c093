//! Where the loader has put the code and constants of the object that has this crate's code.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::libc;

use super::identity::identity_of;
use super::object::{Object, PF_R, PF_W, PF_X, kept_object, own_object};
use crate::sys::loaded::{Image, OtherImage};

/// Where the object lies that has this crate's code: the main executable, or a shared object.
pub(crate) fn own_image() -> io::Result<Image> {
    own_object()
        .map(|own| {
            let name = OsStr::from_bytes(own.object.name().to_bytes());
            Image {
                shared: (!own.is_main).then(|| PathBuf::from(name)),
                ..image_of(&own.object)
            }
        })
        .filter(|image| !image.code.is_empty())
        .ok_or_else(|| io::Error::other("the loader does not say where the program's code is"))
}

impl OtherImage {
    fn of(object: &Object<'static>) -> Self {
        Self {
            tag: tag_of(object),
            image: image_of(object),
        }
    }
}

fn tag_of(object: &Object<'_>) -> u64 {
    let identity = identity_of(object);
    let folded = (identity >> 64) as u64 ^ identity as u64;
    folded >> (u64::BITS - OtherImage::TAG_BITS)
}

/// The object that has something at this address.
pub(crate) fn other_image_with(address: usize) -> Option<OtherImage> {
    kept_object(&|object| object.has(address)).map(|object| OtherImage::of(&object))
}

/// The object with this tag.
pub(crate) fn other_image_of(tag: u64) -> Option<OtherImage> {
    kept_object(&|object| tag_of(object) == tag).map(|object| OtherImage::of(&object))
}

fn image_of(object: &Object<'_>) -> Image {
    let place = |segment: &libc::Elf64_Phdr, bytes| object.place(segment, bytes);
    let segments = object.segments();
    let loaded = |wanted: u32, unwanted: u32| {
        segments.iter().filter(move |it| {
            let flags = it.p_flags;
            it.p_type == libc::PT_LOAD && flags & wanted != 0 && flags & unwanted == 0
        })
    };
    let mut image = Image::default();
    let page = rustix::param::page_size();
    for segment in loaded(PF_X, 0) {
        let range = place(segment, segment.p_memsz);
        // As it is mapped: whole pages.
        let (start, end) = (range.start / page * page, range.end.next_multiple_of(page));
        image.code = if image.code.is_empty() {
            start..end
        } else {
            image.code.start.min(start)..image.code.end.max(end)
        };
    }
    let unwritable = loaded(PF_R, PF_W).map(|it| place(it, it.p_filesz));
    image.constants.extend(unwritable);
    // Constants with addresses in them: the loader has filled these in, and has made them
    // unwritable after that.
    let relocated = segments.iter().filter(|it| it.p_type == libc::PT_GNU_RELRO);
    let before = image.constants.len();
    image
        .constants
        .extend(relocated.map(|it| place(it, it.p_memsz)));
    if image.constants.len() == before {
        // A program that was linked without that has them among its variables.
        let writable = loaded(PF_W, 0).map(|it| place(it, it.p_filesz));
        image.constants.extend(writable);
    }
    let start = image.constants.iter().map(|it| it.start).min();
    let end = image.constants.iter().map(|it| it.end).max();
    image.span = start.unwrap_or(0)..end.unwrap_or(0);
    image
}

#[cfg(test)]
mod tests {
    use super::own_image;

    #[test]
    fn the_code_is_where_the_kernel_has_mapped_it() {
        let code = own_image().expect("the loader knows").code;
        assert!(code.contains(&(own_image as fn() -> _ as usize)));
        // Nothing of another file is in between.
        let maps = std::fs::read_to_string("/proc/self/maps").expect("there is a /proc");
        let program = std::env::current_exe().expect("this program");
        let executable: Vec<std::ops::Range<usize>> = maps
            .lines()
            .filter(|line| line.ends_with(program.to_str().expect("text")))
            .filter(|line| line.contains(" r-xp "))
            .map(|line| {
                let (range, _) = line.split_once(' ').expect("fields");
                let (start, end) = range.split_once('-').expect("a range");
                let address = |text| usize::from_str_radix(text, 16).expect("an address");
                address(start)..address(end)
            })
            .collect();
        let first = executable.first().expect("this program has code").start;
        let last = executable.last().expect("this program has code").end;
        assert_eq!(code, first..last);
    }
}
