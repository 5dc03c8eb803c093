//! The main executable as the loader has loaded it.
//!
//! The loader is asked, and not `/proc/self`: that is closed to a process that has changed its
//! user, whose file may not be read, or that has made itself undumpable; and it may not be mounted
//! at all.
#![allow(unsafe_code)]

use std::ops::Range;

use nix::libc;

/// Its program headers, and where they mean.
pub(crate) struct MainObject {
    base: usize,
    pub(crate) segments: &'static [libc::Elf64_Phdr],
}

/// Asks the loader. `None`: it does not say.
pub(crate) fn main_object() -> Option<MainObject> {
    let mut found: Option<MainObject> = None;
    // SAFETY: the callback is given the `found` above, which outlives the call, and does not panic.
    unsafe { libc::dl_iterate_phdr(Some(first_object), (&raw mut found).cast()) };
    found
}

/// Puts an object into the `Option<MainObject>` that `found` points to, and asks for no other: the
/// first one is the main executable.
///
/// # Safety
/// Of `dl_iterate_phdr`: `object` describes a loaded object, and `found` was given with it.
unsafe extern "C" fn first_object(
    object: *mut libc::dl_phdr_info,
    _bytes: usize,
    found: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader calls this with a valid description, and `main_object` with an `Option`
    // that nobody else uses meanwhile.
    let (object, found) = unsafe { (&*object, &mut *found.cast::<Option<MainObject>>()) };
    if !object.dlpi_phdr.is_null() {
        let count = object.dlpi_phnum.into();
        // SAFETY: that is where the loader has this many program headers, for as long as the object
        // is loaded, and the main executable always is.
        let segments = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, count) };
        let base = object.dlpi_addr as usize;
        *found = Some(MainObject { base, segments });
    }
    1
}

impl MainObject {
    /// Where so many bytes of a segment are in memory.
    pub(crate) fn place(&self, segment: &libc::Elf64_Phdr, bytes: u64) -> Range<usize> {
        let start = self.base.wrapping_add(segment.p_vaddr as usize);
        start..start.wrapping_add(bytes as usize)
    }

    /// The bytes of all segments of this kind, as far as they are loaded from the file, readable
    /// and not writable.
    pub(crate) fn content(&self, kind: u32) -> impl Iterator<Item = &'static [u8]> {
        let is_content = move |it: &&libc::Elf64_Phdr| it.p_type == kind && self.is_constant(it);
        self.segments.iter().filter(is_content).map(|it| {
            let place = self.place(it, it.p_filesz);
            // SAFETY: it lies in a segment that is loaded from the file, readable and not writable,
            // and the main executable stays where it is.
            unsafe { std::slice::from_raw_parts(place.start as *const u8, place.len()) }
        })
    }

    /// Whether all bytes of `part` lie in the bytes of the file that one read-only segment is
    /// loaded from.
    fn is_constant(&self, part: &libc::Elf64_Phdr) -> bool {
        self.segments.iter().any(|it| {
            let rights = it.p_flags & (libc::PF_R | libc::PF_W);
            let start = part.p_vaddr.checked_sub(it.p_vaddr);
            it.p_type == libc::PT_LOAD
                && rights == libc::PF_R
                && start
                    .and_then(|start| start.checked_add(part.p_filesz))
                    .is_some_and(|end| end <= it.p_filesz)
        })
    }
}
