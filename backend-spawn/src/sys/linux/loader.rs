//! What the dynamic loader does: programs that were started by naming them to it (`ld-linux.so
//! ./program`), the files that code is from, and whom it trusts.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::libc;
use procpool_core::interpreter;

/// What is executed again: this program's own file, even when it was renamed or deleted.
pub(crate) fn executable() -> io::Result<PathBuf> {
    Ok(PathBuf::from("/proc/self/exe"))
}

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
    own_file().map(Some)
}

/// Whether this program has rights that its user has not, so that the loader does not load into it
/// what the environment says.
pub(crate) fn is_secure() -> bool {
    // SAFETY: it reads a number that the kernel has left for this process.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) };
    secure != 0
}

/// The path of the file that this code was loaded from.
///
/// # Errors
/// When it cannot be found out.
pub(crate) fn own_file() -> io::Result<PathBuf> {
    let here = own_file as fn() -> _ as usize;
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
    path.ok_or_else(|| io::Error::other("its file is not among /proc/self/maps"))
}

#[cfg(test)]
mod tests {
    use super::{own_file, program_of_loader};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use procpool_core::interpreter;

    #[test]
    fn it_is_known_which_one_was_executed() {
        let this = std::env::current_exe().expect("this program");
        let usual = program_of_loader(&this).expect("the loader is known");
        assert_eq!(usual, None);
        assert_eq!(own_file().expect("a path"), this);
        // A program that is linked statically has none.
        if let Some(loader) = interpreter() {
            let loader = Path::new(OsStr::from_bytes(loader.to_bytes()));
            let found = program_of_loader(loader).expect("a path");
            assert_eq!(found, Some(this));
        }
    }
}
