//! A worker whose parent dies while it is being set up.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::worker::{die_with_parent, parent};

/// The folder to remove, as a string of the C kind.
static FOLDER: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());
/// The process whose death is waited for.
static PARENT: AtomicI32 = AtomicI32::new(0);

/// Until [`end`](Self::end), the death of the parent makes this process remove a folder, with the
/// sockets in it, and exit.
///
/// SIGKILL, which a worker dies of afterwards, would leave the folder behind, for nobody else is
/// left who knows of it. What the kernel sends instead is SIGCONT, so that it also reaches a process
/// that was stopped.
#[must_use = "it is to be ended"]
pub(crate) struct Vigil {
    before: SigAction,
}

impl Vigil {
    /// `None`: the parent is dead already.
    pub(crate) fn begin(folder: &Path) -> io::Result<Option<Self>> {
        let folder = CString::new(folder.as_os_str().as_bytes())?;
        let alive = parent();
        PARENT.store(alive.cast_signed(), Ordering::Relaxed);
        // Never freed: the handler may run at any time, and there is one in a process's life.
        FOLDER.store(folder.into_raw(), Ordering::Release);
        let handler = SigHandler::Handler(on_continue);
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::all());
        // SAFETY: the handler makes system calls only, and reads what was stored above.
        let before = unsafe { sigaction(Signal::SIGCONT, &action)? };
        let vigil = Self { before };
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::CONT))?;
        Ok((parent() == alive).then_some(vigil))
    }

    /// From now on, the death of the parent simply kills. `false`: it is dead already.
    pub(crate) fn end(self) -> io::Result<bool> {
        let is_alive = die_with_parent()?;
        // SAFETY: this is what was there before.
        unsafe { sigaction(Signal::SIGCONT, &self.before)? };
        // The signal may have come in between, and found nothing wrong.
        Ok(is_alive && parent() == PARENT.load(Ordering::Relaxed).cast_unsigned())
    }
}

/// The handler of SIGCONT, which may also be what it says: whoever stopped this process wants it to
/// go on. Everything it calls is safe in a handler.
extern "C" fn on_continue(_: c_int) {
    // SAFETY: always sound.
    if unsafe { libc::getppid() } == PARENT.load(Ordering::Relaxed) {
        return;
    }
    let folder = FOLDER.load(Ordering::Acquire);
    if !folder.is_null() {
        // SAFETY: it was made from a string that is never freed.
        remove(unsafe { CStr::from_ptr(folder) });
    }
    // SAFETY: always sound; nothing of this process runs afterwards.
    unsafe { libc::_exit(1) }
}

/// Removes a folder in which there may be folders in which there may be sockets.
fn remove(folder: &CStr) {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the path is a string of the C kind.
    let opened = unsafe { libc::open(folder.as_ptr(), flags) };
    if opened < 0 {
        // It does not exist yet or any more.
        return;
    }
    let mut entries = Entries([0; 1024]);
    loop {
        // SAFETY: the kernel writes no more than it is told there is.
        let bytes = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                opened,
                entries.0.as_mut_ptr(),
                entries.0.len(),
            )
        };
        let Some(mut rest) = usize::try_from(bytes)
            .ok()
            .and_then(|end| entries.0.get(..end))
        else {
            break;
        };
        if rest.is_empty() {
            break;
        }
        while let Some((name, others)) = split_entry(rest) {
            rest = others;
            remove_socket(opened, name);
        }
    }
    // SAFETY: the path is a string of the C kind. The descriptor goes with the process.
    unsafe { libc::rmdir(folder.as_ptr()) };
}

/// Removes what ipc-channel makes for a server, and nothing else.
fn remove_socket(folder: c_int, name: &CStr) {
    const SOCKET: &[u8] = b"/socket\0";
    let name = name.to_bytes();
    let mut path = [0_u8; 64];
    let end = name.len() + SOCKET.len();
    if !name.starts_with(b".tmp") || end > path.len() {
        return;
    }
    path[..name.len()].copy_from_slice(name);
    path[name.len()..end].copy_from_slice(SOCKET);
    // SAFETY: it ends with a null byte.
    unsafe { libc::unlinkat(folder, path.as_ptr().cast(), 0) };
    path[name.len()] = 0;
    // SAFETY: as above.
    unsafe { libc::unlinkat(folder, path.as_ptr().cast(), libc::AT_REMOVEDIR) };
}

/// What the kernel writes a folder's entries into, each of which it aligns to eight bytes.
#[repr(align(8))]
struct Entries([u8; 1024]);

/// The name of the first of a folder's entries, and the others. An entry is an inode and a position
/// of eight bytes each, its length in two, its kind in one, and the name with a null byte.
fn split_entry(entries: &[u8]) -> Option<(&CStr, &[u8])> {
    let length = entries.get(16..18)?.try_into().ok()?;
    let (entry, others) = entries.split_at_checked(u16::from_ne_bytes(length).into())?;
    let name = CStr::from_bytes_until_nul(entry.get(19..)?).ok()?;
    Some((name, others))
}

#[cfg(test)]
mod tests {
    use super::{remove, split_entry};
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn servers_are_removed_and_nothing_else() {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let folder = temporary.path().join("procpool-1");
        let name = CString::new(folder.as_os_str().as_bytes()).expect("a name");
        remove(&name);
        fs::create_dir(&folder).expect("a folder");
        // More than are read at once.
        for number in 0..200 {
            let server = folder.join(format!(".tmp{number:06}"));
            fs::create_dir(&server).expect("a folder");
            if number % 3 != 0 {
                fs::write(server.join("socket"), "").expect("a file");
            }
        }
        remove(&name);
        assert!(!folder.exists());

        fs::create_dir_all(folder.join("else")).expect("a folder");
        fs::write(folder.join("else/socket"), "").expect("a file");
        fs::create_dir(folder.join(".tmpabcdef")).expect("a folder");
        fs::write(folder.join(".tmpabcdef/else"), "").expect("a file");
        remove(&name);
        assert!(folder.join("else/socket").exists());
        assert!(folder.join(".tmpabcdef/else").exists());
    }

    proptest::proptest! {
        #[test]
        fn any_entries_are_survived(entries: Vec<u8>) {
            let mut rest = &entries[..];
            while let Some((_, others)) = split_entry(rest) {
                if others.len() == rest.len() {
                    break;
                }
                rest = others;
            }
        }
    }
}
