//! The temporary folder of a worker's socket.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A folder in the temporary folder, in which a worker makes its socket during the bootstrap.
///
/// Parent and worker both know its name before it exists, so that the parent can remove it
/// wherever in the bootstrap a worker was killed, and the worker wherever the parent was. (The folder that ipc-channel makes has a random
/// name that only the worker knows; it comes to lie in this one.) The folder also keeps other
/// users from the socket.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder of this `number` in the temporary folder of this process. Does not make it.
    ///
    /// # Errors
    /// When the temporary folder is relative, and the current one is gone.
    pub(crate) fn new(number: u64) -> io::Result<Self> {
        let mut temporary = std::env::temp_dir();
        if temporary.as_os_str().is_empty() {
            // `TMPDIR` is set, to nothing: as good as not set.
            temporary = PathBuf::from("/tmp");
        }
        let temporary = std::path::absolute(temporary)?;
        Ok(Self(temporary.join(format!("procpool-{number:016x}"))))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The temporary folder, for messages.
    pub(crate) fn parent(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }

    /// Makes it, for this user alone.
    pub(crate) fn create(&self) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.0)
    }

    /// Removes it if it is empty.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir(&self.0);
    }

    /// Removes what a worker that died may have left behind, as far as it is what a worker makes.
    pub(crate) fn sweep(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            remove_socket(&entry.path().join(SOCKET));
        }
        self.remove();
    }
}

/// What ipc-channel calls the socket in the folder that it makes.
const SOCKET: &str = "socket";

/// How long a path in the folder becomes: a folder by the `tempfile` crate, and the socket.
pub(crate) const SOCKET_BYTES: usize = "/.tmpXXXXXX/socket".len();

/// Removes an ipc-channel server's socket and the folder that was made for it, if that is what
/// this path is. Never recursive.
pub(crate) fn remove_socket(path: &Path) {
    let Some(folder) = path.parent() else { return };
    let is_ours = folder
        .file_name()
        .and_then(OsStr::to_str)
        .is_some_and(|name| name.starts_with(".tmp"));
    if is_ours && path.file_name() == Some(OsStr::new(SOCKET)) {
        let _ = fs::remove_file(path);
        let _ = fs::remove_dir(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::{Folder, remove_socket};
    use std::fs;

    #[test]
    fn a_sweep_takes_what_a_worker_makes_and_nothing_else() {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder(temporary.path().join("procpool-1"));
        folder.sweep();
        folder.create().expect("a folder");
        let inner = folder.path().join(".tmpabcdef");
        fs::create_dir(&inner).expect("a folder");
        fs::write(inner.join("socket"), "").expect("a file");
        folder.sweep();
        assert!(!folder.path().exists());

        folder.create().expect("a folder");
        let strange = folder.path().join("else");
        fs::create_dir(&strange).expect("a folder");
        fs::write(strange.join("socket"), "").expect("a file");
        folder.sweep();
        assert!(strange.join("socket").exists());
    }

    #[test]
    fn a_socket_elsewhere_stays() {
        let temporary = tempfile::tempdir_in(std::env::temp_dir()).expect("a temporary folder");
        let path = temporary.path().join("precious");
        fs::write(&path, "").expect("a file");
        remove_socket(&path);
        assert!(path.exists());
    }
}
