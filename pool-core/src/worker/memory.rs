//! How much memory this worker holds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use crate::sys;

/// `/proc/self/statm`, where it is asked for.
static STATM: OnceLock<File> = OnceLock::new();

/// From now on it is known.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn watch() -> io::Result<()> {
    if STATM.get().is_none() {
        let file = File::from(sys::off_standard(File::open("/proc/self/statm")?)?);
        read(&file)?;
        STATM.get_or_init(|| file);
    }
    Ok(())
}

/// The resident set in bytes: pages of this process that are in memory, shared ones included.
/// `None`: nobody wants to know, or a task has closed the file.
pub(super) fn resident() -> Option<u64> {
    read(STATM.get()?).ok()
}

fn read(statm: &File) -> io::Result<u64> {
    // Seven numbers of pages.
    let mut bytes = [0; 160];
    let count = statm.read_at(&mut bytes, 0)?;
    let text = str::from_utf8(&bytes[..count]).unwrap_or_default();
    let pages = text.split_ascii_whitespace().nth(1);
    let pages: u64 = pages
        .and_then(|pages| pages.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/statm is not as it was"))?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_used_is_counted() {
        assert_eq!(resident(), None, "nobody has asked");
        watch().expect("/proc is there");
        let before = resident().expect("it is watched");
        assert!(before > 100_000, "{before} bytes");
        let ballast = std::hint::black_box(vec![1_u8; 200 << 20]);
        let after = resident().expect("it is watched");
        assert!(after > before + (100 << 20), "{before}, then {after}");
        drop(ballast);
    }
}
