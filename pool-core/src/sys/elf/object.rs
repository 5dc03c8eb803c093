//! The program and its libraries, as the loader has loaded them.
//!
//! The loader is asked, and not `/proc/self`: that is closed to a process that has changed its
//! user, whose file may not be read, or that has made itself undumpable; and it may not be mounted
//! at all.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ops::Range;

use nix::libc;

/// What a segment's memory may be used for: to execute, write and read. libc does not have these
/// for each system.
pub(super) const PF_X: u32 = 1;
pub(super) const PF_W: u32 = 2;
pub(super) const PF_R: u32 = 4;

/// An object that is loaded for as long as `'a`.
pub(crate) struct Object<'a> {
    base: u64,
    name: &'a CStr,
    segments: &'a [libc::Elf64_Phdr],
}

/// The main executable. `None`: the loader does not say.
pub(crate) fn main_object() -> Option<Object<'static>> {
    let mut found = None;
    // The first one. It is never unloaded.
    visit(&mut |object| {
        found = Some(object);
        false
    });
    found.filter(|object| !object.segments.is_empty())
}

/// The object that has this crate's code: the main executable, or a shared object that was linked
/// with the crate, a Python extension for instance. It stays loaded from now on, whoever
/// unloads it: its threads, its constants and what the loader says of it are used for good.
/// `None`: the loader does not say.
pub(crate) fn own_object() -> Option<OwnObject> {
    static HERE: u8 = 0;
    let here = (&raw const HERE).addr();
    let mut found = None;
    let mut is_first = true;
    visit(&mut |object| {
        if object.has(here) {
            // In a namespace of its own (`dlmopen`) a shared object may be the first one. glibc,
            // which alone has these, gives the executable no name.
            let is_main = is_first && (cfg!(not(target_env = "gnu")) || object.name.is_empty());
            found = Some(OwnObject { object, is_main });
            return false;
        }
        is_first = false;
        true
    });
    let found = found?;
    if !found.is_main {
        // If the loader refuses, it is as for each library in Rust: who unloads one while it has
        // threads, or references to its constants are about, has said in an `unsafe` block that
        // there are none.
        keep_loaded(found.object.name);
    }
    Some(found)
}

/// See [`own_object`].
pub(crate) struct OwnObject {
    pub(crate) object: Object<'static>,
    /// Whether it is the main executable.
    pub(crate) is_main: bool,
}

/// Another object that is loaded, the first one for which this holds. It stays loaded from now on.
/// `None`: there is no such object, or it is on its way out.
pub(crate) fn kept_object(is_it: &dyn Fn(&Object<'_>) -> bool) -> Option<Object<'static>> {
    let mut found = None;
    let mut is_first = true;
    visit(&mut |object| {
        if is_it(&object) {
            found = Some((object.name.to_owned(), is_first));
            return false;
        }
        is_first = false;
        true
    });
    let (name, is_main) = found?;
    if !is_main && !keep_loaded(&name) {
        return None;
    }
    // Until a moment ago it may have been unloaded, and another one loaded by that name.
    let mut found = None;
    visit(&mut |object| {
        if is_it(&object) && object.name == &*name {
            found = Some(object);
            return false;
        }
        true
    });
    found
}

/// Whether an address is in the main executable.
#[must_use]
pub fn is_in_program(address: usize) -> bool {
    main_object().is_some_and(|it| it.has(address))
}

/// Has the loader never unload the object that it has loaded by this name. `false`: there is none.
fn keep_loaded(name: &CStr) -> bool {
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: the name ends in a zero. Nothing is loaded, and so no code of a library runs.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    !handle.is_null()
}

/// Gives all of them to `look`, the main executable first. None is unloaded meanwhile, for the
/// loader holds its lock.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) fn for_each_object(mut look: impl FnMut(&Object<'_>)) {
    visit(&mut |object| {
        look(&object);
        true
    });
}

/// The dynamic loader that the main executable names, if it names one.
#[must_use]
pub fn interpreter() -> Option<&'static CStr> {
    let name = main_object()?.content(libc::PT_INTERP).next()?;
    CStr::from_bytes_until_nul(name).ok()
}

/// The addresses of a segment, as they stand in the file.
pub(crate) fn addresses(segment: &libc::Elf64_Phdr) -> Range<u64> {
    segment.p_vaddr..segment.p_vaddr.saturating_add(segment.p_filesz)
}

type Visit<'a> = &'a mut dyn FnMut(Object<'static>) -> bool;

/// Gives the objects to `visit`, until it says `false`. It must not keep one that can be unloaded
/// beyond its call, nor panic.
fn visit(mut visit: Visit<'_>) {
    // SAFETY: the loader calls `on_object` only before it returns, with this argument, which is the
    // reference that is meant there.
    unsafe { libc::dl_iterate_phdr(Some(on_object), (&raw mut visit).cast()) };
}

/// # Safety
/// Of `dl_iterate_phdr`: `object` describes a loaded object, and `visit` was given with it.
unsafe extern "C" fn on_object(
    object: *mut libc::dl_phdr_info,
    _bytes: usize,
    visit: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader calls this with a valid description. There are an object's name, if it has
    // one, and so many program headers, if any, as long as it is loaded. `visit` is that of the
    // function above, which waits for us.
    let (object, visit) = unsafe {
        let object = &*object;
        let (name, segments) = (object.dlpi_name, object.dlpi_phdr);
        let object = Object {
            base: object.dlpi_addr,
            name: if name.is_null() {
                c""
            } else {
                CStr::from_ptr(name)
            },
            segments: if segments.is_null() {
                &[]
            } else {
                std::slice::from_raw_parts(segments, object.dlpi_phnum.into())
            },
        };
        (object, &mut *visit.cast::<Visit<'_>>())
    };
    i32::from(!visit(object))
}

impl<'a> Object<'a> {
    /// What was added to the addresses in its file.
    #[cfg(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The path by which it was loaded; nothing for the main executable.
    pub(crate) fn name(&self) -> &'a CStr {
        self.name
    }

    /// Its program headers.
    pub(crate) fn segments(&self) -> &'a [libc::Elf64_Phdr] {
        self.segments
    }

    /// Where so many bytes of a segment are in memory.
    pub(crate) fn place(&self, segment: &libc::Elf64_Phdr, bytes: u64) -> Range<usize> {
        let start = self.base.wrapping_add(segment.p_vaddr) as usize;
        start..start.wrapping_add(bytes as usize)
    }

    /// Whether this address is in a segment that is loaded.
    pub(crate) fn has(&self, address: usize) -> bool {
        self.segments
            .iter()
            .filter(|it| it.p_type == libc::PT_LOAD)
            .any(|it| self.place(it, it.p_memsz).contains(&address))
    }

    /// The bytes at these addresses of the file, if they are loaded from it, all in one segment,
    /// readable and not writable.
    pub(crate) fn bytes(&self, addresses: Range<u64>) -> Option<&'a [u8]> {
        let count = addresses.end.checked_sub(addresses.start)?;
        self.segments.iter().find(|it| {
            let rights = it.p_flags & (PF_R | PF_W);
            let range = self::addresses(it);
            it.p_type == libc::PT_LOAD
                && rights == PF_R
                && range.start <= addresses.start
                && addresses.end <= range.end
        })?;
        let start = self.base.wrapping_add(addresses.start) as usize;
        let start = std::ptr::with_exposed_provenance::<u8>(start);
        // SAFETY: they lie in a segment that is loaded from the file, readable and not writable,
        // and the object is loaded for as long as `'a`.
        Some(unsafe { std::slice::from_raw_parts(start, count as usize) })
    }

    /// The bytes of all segments of this kind, as far as they have [such](Self::bytes).
    pub(crate) fn content(&self, kind: u32) -> impl Iterator<Item = &'a [u8]> {
        let segments = self.segments.iter().filter(move |it| it.p_type == kind);
        segments.filter_map(|it| self.bytes(addresses(it)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_comes_first_and_its_bytes_are_where_they_are() {
        let mut bases = Vec::new();
        for_each_object(|object| bases.push(object.base()));
        assert!(bases.len() > 1, "the C library");
        let main = main_object().expect("this program");
        assert_eq!(main.base(), bases[0]);
        let text = "a constant of this program";
        let start = (text.as_ptr().addr() as u64).wrapping_sub(main.base());
        let end = start + text.len() as u64;
        let bytes = main.bytes(start..end).expect("it is loaded");
        assert_eq!((bytes.as_ptr(), bytes), (text.as_ptr(), text.as_bytes()));
    }

    /// This is a program, so its own object is the main executable.
    #[test]
    fn the_own_object_is_the_one_with_this_code() {
        let own = own_object().expect("this program");
        assert!(own.is_main);
        assert_eq!(
            own.object.base(),
            main_object().expect("this program").base()
        );
        let here = own_object as fn() -> _ as usize;
        assert!(own.object.has(here));
        assert!(is_in_program(here) && !is_in_program(0));
        let mut others = 0;
        for_each_object(|object| others += usize::from(!object.has(here)));
        assert!(others > 0, "the C library is elsewhere");
    }

    #[test]
    fn an_object_that_is_found_is_kept() {
        let own = own_object().expect("this program").object;
        let other = |it: &Object<'_>| !it.has(own_object as fn() -> _ as usize);
        let is_file = |it: &Object<'_>| other(it) && it.name().to_bytes().contains(&b'/');
        let library = kept_object(&is_file).expect("the C library, or the loader");
        assert_ne!(library.base(), own.base());
        let again = kept_object(&|it| it.base() == library.base()).expect("it is loaded");
        assert_eq!(again.name(), library.name());
        assert!(kept_object(&|_| false).is_none());
        let main = kept_object(&|it| it.base() == own.base()).expect("it needs no name");
        assert_eq!(main.base(), own.base());
    }

    #[test]
    fn what_is_written_or_not_there_has_no_bytes() {
        static VARIABLE: std::sync::Mutex<[u64; 5]> = std::sync::Mutex::new([1; 5]);
        let main = main_object().expect("this program");
        let place = (&raw const VARIABLE).addr() as u64;
        let start = place.wrapping_sub(main.base());
        assert_eq!(main.bytes(start..start + 8), None);
        let largest = main.segments().iter().map(addresses);
        let end = largest.map(|it| it.end).max().expect("segments");
        for range in [end..end + 1, 0..u64::MAX, u64::MAX - 1..u64::MAX] {
            assert_eq!(main.bytes(range), None);
        }
    }
}
