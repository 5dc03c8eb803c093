//! The program and its libraries, where they are of the format Mach-O: as dyld has loaded them.
#![allow(unsafe_code)]
#![allow(
    deprecated,
    reason = "a crate for these few structures is not worth it"
)]

use std::ffi::{CStr, OsStr};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::libc;

use super::hash::Hash;
use super::loaded::{Image, OtherImage};

/// `MH_EXECUTE`: a program.
const MH_EXECUTE: u32 = 2;
/// `LC_UUID`: what the linker tells one build from another by.
const LC_UUID: u32 = 0x1b;
/// `SG_READ_ONLY`: dyld makes it unwritable once it has filled in addresses.
const SG_READ_ONLY: u32 = 0x10;

/// An object that is loaded, and stays so.
struct Object {
    header: *const libc::mach_header_64,
    slide: usize,
    name: &'static CStr,
    is_main: bool,
}

/// The first object for which this holds.
fn find(is_it: impl Fn(&Object) -> bool) -> Option<Object> {
    // SAFETY: dyld answers for any number, with nothing if there is no such object. Its description
    // of one that is unloaded at this moment is not looked at: nobody unloads Rust code with
    // functions for pools, and the header of another one is read only here.
    unsafe {
        (0..libc::_dyld_image_count()).find_map(|index| {
            let header = libc::_dyld_get_image_header(index).cast::<libc::mach_header_64>();
            let name = libc::_dyld_get_image_name(index);
            if header.is_null() || name.is_null() {
                return None;
            }
            let object = Object {
                header,
                slide: libc::_dyld_get_image_vmaddr_slide(index).cast_unsigned(),
                name: CStr::from_ptr(name),
                is_main: (*header).filetype == MH_EXECUTE,
            };
            is_it(&object).then_some(object)
        })
    }
}

/// Has dyld never unload an object. `false`: it is not loaded any more.
fn keep_loaded(object: &Object) -> bool {
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: the name ends in a zero. Nothing is loaded, and so no code of a library runs.
    object.is_main || !unsafe { libc::dlopen(object.name.as_ptr(), flags) }.is_null()
}

fn own_object() -> Option<Object> {
    static HERE: u8 = 0;
    let here = (&raw const HERE).addr();
    let own = find(|object| object.has(here))?;
    // If dyld refuses, it is as for each library in Rust.
    keep_loaded(&own);
    Some(own)
}

impl Object {
    /// Gives each load command to `look`: its kind, and where it is.
    fn each_command(&self, mut look: impl FnMut(u32, *const libc::load_command)) {
        // SAFETY: behind the header of a loaded object there are so many commands, each as long as
        // it says.
        unsafe {
            let mut command = self.header.add(1).cast::<libc::load_command>();
            for _ in 0..(*self.header).ncmds {
                look((*command).cmd, command);
                command = command.byte_add((*command).cmdsize as usize);
            }
        }
    }

    fn segments(&self) -> Vec<libc::segment_command_64> {
        let mut segments = Vec::new();
        self.each_command(|kind, command| {
            if kind == libc::LC_SEGMENT_64 {
                // SAFETY: a command of this kind is a segment's, and a number of any bits is one.
                segments
                    .push(unsafe { command.cast::<libc::segment_command_64>().read_unaligned() });
            }
        });
        segments
    }

    fn place(&self, segment: &libc::segment_command_64) -> Range<usize> {
        let start = self.slide.wrapping_add(segment.vmaddr as usize);
        start..start.wrapping_add(segment.vmsize as usize)
    }

    fn has(&self, address: usize) -> bool {
        let of_file = |it: &&libc::segment_command_64| it.initprot != 0;
        let segments = self.segments();
        let mut segments = segments.iter().filter(of_file);
        segments.any(|it| self.place(it).contains(&address))
    }

    fn image(&self) -> Image {
        let mut image = Image::default();
        for segment in self.segments() {
            let rights = segment.initprot;
            let place = self.place(&segment);
            if rights & libc::VM_PROT_EXECUTE != 0 {
                image.code = if image.code.is_empty() {
                    place.clone()
                } else {
                    image.code.start.min(place.start)..image.code.end.max(place.end)
                };
            }
            let is_constant =
                rights & libc::VM_PROT_WRITE == 0 || segment.flags & SG_READ_ONLY != 0;
            if rights & libc::VM_PROT_READ != 0 && is_constant {
                image.constants.push(place);
            }
        }
        let start = image.constants.iter().map(|it| it.start).min();
        let end = image.constants.iter().map(|it| it.end).max();
        image.span = start.unwrap_or(0)..end.unwrap_or(0);
        image
    }

    fn add_to(&self, hash: &mut Hash) {
        for it in self.segments() {
            for number in [it.vmaddr, it.vmsize, it.filesize] {
                hash.add_word(number);
            }
        }
        self.each_command(|kind, command| {
            if kind == LC_UUID {
                // SAFETY: behind the head of such a command there are sixteen bytes.
                hash.add(&unsafe { command.add(1).cast::<[u8; 16]>().read_unaligned() });
            }
        });
    }

    fn tag(&self) -> u64 {
        let mut hash = Hash::new();
        self.add_to(&mut hash);
        let folded = (hash.0 >> 64) as u64 ^ hash.0 as u64;
        folded >> (u64::BITS - OtherImage::TAG_BITS)
    }

    fn as_other(&self) -> OtherImage {
        OtherImage {
            tag: self.tag(),
            image: self.image(),
        }
    }
}

/// Where the object lies that has this crate's code: the main executable, or a shared object.
pub(crate) fn own_image() -> io::Result<Image> {
    own_object()
        .map(|own| Image {
            shared: (!own.is_main).then(|| PathBuf::from(OsStr::from_bytes(own.name.to_bytes()))),
            ..own.image()
        })
        .filter(|image| !image.code.is_empty())
        .ok_or_else(|| io::Error::other("the loader does not say where the program's code is"))
}

/// The object that has something at this address.
pub(crate) fn other_image_with(address: usize) -> Option<OtherImage> {
    let found = find(|object| object.has(address)).filter(keep_loaded)?;
    Some(found.as_other())
}

/// The object with this tag.
pub(crate) fn other_image_of(tag: u64) -> Option<OtherImage> {
    let found = find(|object| object.tag() == tag).filter(keep_loaded)?;
    Some(found.as_other())
}

/// Whether an address is in the main executable.
#[must_use]
pub fn is_in_program(address: usize) -> bool {
    find(|object| object.is_main).is_some_and(|it| it.has(address))
}

/// The dynamic loader that the main executable names: dyld, which is not asked to execute anything.
#[must_use]
pub fn interpreter() -> Option<&'static CStr> {
    None
}

/// A number that two processes share if they run the same build of the same program: made of its
/// segments, and of the identifier that the linker has given it.
pub(crate) fn build_identity(protocol: u32) -> u128 {
    let mut hash = Hash::new();
    hash.add(env!("CARGO_PKG_VERSION").as_bytes());
    hash.add_word(protocol.into());
    if let Some(own) = own_object() {
        own.add_to(&mut hash);
    }
    hash.0
}

/// The same: every linker gives identifiers, which are hashes of the content.
pub(crate) fn build_content(protocol: u32) -> u128 {
    build_identity(protocol)
}
