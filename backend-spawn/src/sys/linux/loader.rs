//! Programs that were started by naming them to the dynamic loader: `ld-linux.so ./program`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procpool_core::interpreter;

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

#[cfg(test)]
mod tests {
    use super::program_of_loader;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use procpool_core::interpreter;

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
