//! Where the loader has put this program's code.
#![allow(unsafe_code)]

use std::io;

use nix::libc;

/// The address range of the main executable's code: its executable segments.
///
/// The dynamic loader is asked, and not `/proc/self`: that is closed to a process that has
/// changed its user, whose file may not be read, or that has made itself undumpable; and it may
/// not be mounted at all.
pub(crate) fn main_code() -> io::Result<std::ops::Range<usize>> {
    let mut code: Option<std::ops::Range<usize>> = None;
    // SAFETY: the callback is given the `code` above, which outlives the call, and does not panic.
    unsafe { libc::dl_iterate_phdr(Some(add_code), (&raw mut code).cast()) };
    code.ok_or_else(|| io::Error::other("the loader does not say where the program's code is"))
}

/// Puts the range of an object's code into the `Option<Range<usize>>` that `found` points to, and
/// asks for no other object: the first one is the main executable.
///
/// # Safety
/// Of `dl_iterate_phdr`: `object` describes a loaded object, and `found` was given with it.
unsafe extern "C" fn add_code(
    object: *mut libc::dl_phdr_info,
    _bytes: usize,
    found: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader calls this with a valid description, and `main_code` with an `Option`
    // that nobody else uses meanwhile.
    let (object, found) = unsafe {
        (
            &*object,
            &mut *found.cast::<Option<std::ops::Range<usize>>>(),
        )
    };
    if object.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: that is where the loader has this many program headers, for as long as the object
    // is loaded, and the main executable always is.
    let segments =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let page = rustix::param::page_size();
    for segment in segments {
        if segment.p_type != libc::PT_LOAD || segment.p_flags & libc::PF_X == 0 {
            continue;
        }
        let start = (object.dlpi_addr as usize).wrapping_add(segment.p_vaddr as usize);
        let end = start.wrapping_add(segment.p_memsz as usize);
        // As it is mapped: whole pages.
        let (start, end) = (start / page * page, end.next_multiple_of(page));
        *found = Some(match found.take() {
            Some(all) => all.start.min(start)..all.end.max(end),
            None => start..end,
        });
    }
    1
}

#[cfg(test)]
mod tests {
    use super::main_code;

    #[test]
    fn the_code_is_where_the_kernel_has_mapped_it() {
        let code = main_code().expect("the loader knows");
        assert!(code.contains(&(main_code as fn() -> _ as usize)));
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
