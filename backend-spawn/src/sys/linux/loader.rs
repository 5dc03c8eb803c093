//! Programs that were started by naming them to the dynamic loader: `ld-linux.so ./program`.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, slice};

use nix::libc;

/// The path of this program, if it was started in that way: what the kernel has executed, and
/// would execute again, is then the loader. `None`: in the usual way.
///
/// # Errors
/// When the path cannot be found out.
pub(crate) fn program_of_loader(executed: &Path) -> io::Result<Option<PathBuf>> {
    let Some(loader) = interpreter() else {
        return Ok(None);
    };
    let file = |path: &Path| {
        let file = fs::metadata(path).ok()?;
        Some((file.dev(), file.ino()))
    };
    let executed = file(executed);
    if executed.is_none() || executed != file(Path::new(OsStr::from_bytes(loader.to_bytes()))) {
        return Ok(None);
    }
    let here = program_of_loader as fn(&'static Path) -> _ as usize;
    let maps = fs::read("/proc/self/maps")?;
    let path = maps.split(|byte| *byte == b'\n').find_map(|line| {
        // start-end permissions offset device inode path
        let range = line.split(|byte| *byte == b' ').next()?;
        let (start, end) = str::from_utf8(range).ok()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let path = line.iter().position(|byte| *byte == b'/')?;
        (address(start)?..address(end)?)
            .contains(&here)
            .then(|| PathBuf::from(OsStr::from_bytes(&line[path..])))
    });
    match path {
        Some(path) => Ok(Some(path)),
        None => Err(io::Error::other("its file is not among /proc/self/maps")),
    }
}

/// The loader that the main executable names, if it names one.
fn interpreter() -> Option<&'static CStr> {
    let mut found: Option<&'static CStr> = None;
    // SAFETY: the callback is given `found`, which outlives the call, and does not panic.
    unsafe { libc::dl_iterate_phdr(Some(find_interpreter), (&raw mut found).cast()) };
    found
}

/// Puts the name of an object's loader into the `Option<&CStr>` that `found` points to, and asks
/// for no other object: the first one is the main executable.
///
/// # Safety
/// Of `dl_iterate_phdr`: `object` describes a loaded object, and `found` was given with it.
unsafe extern "C" fn find_interpreter(
    object: *mut libc::dl_phdr_info,
    _bytes: usize,
    found: *mut c_void,
) -> c_int {
    // SAFETY: the loader calls this with a valid description, and `interpreter` with an `Option`
    // that nobody else uses meanwhile.
    let (object, found) = unsafe { (&*object, &mut *found.cast::<Option<&'static CStr>>()) };
    if object.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: that is where the loader has this many program headers, for as long as the object
    // is loaded, and the main executable always is.
    let segments = unsafe { slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    for segment in segments {
        if segment.p_type == libc::PT_INTERP {
            let address = (object.dlpi_addr as usize).wrapping_add(segment.p_vaddr as usize);
            // SAFETY: the loader itself was found by these bytes of the main executable; they are
            // loaded, stay where they are, and are never written to.
            let name =
                unsafe { slice::from_raw_parts(address as *const u8, segment.p_memsz as usize) };
            *found = CStr::from_bytes_until_nul(name).ok();
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::{interpreter, program_of_loader};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    #[test]
    fn it_is_known_which_one_was_executed() {
        let this = std::env::current_exe().expect("this program");
        let usual = program_of_loader(&this).expect("the loader is known");
        assert_eq!(usual, None);
        // A program that is linked statically has none.
        if let Some(loader) = interpreter() {
            let loader = Path::new(OsStr::from_bytes(loader.to_bytes()));
            let found = program_of_loader(loader).expect("a path");
            assert_eq!(found, Some(this));
        }
    }
}
