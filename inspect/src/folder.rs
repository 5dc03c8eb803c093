//! Where the sockets are.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the sockets of this user are: in the folder that the system gives each user for such, or
/// else in that of temporary files. Not where the environment says, since a program and who looks
/// into it may have different ones.
pub(crate) fn of_user(user: u32) -> PathBuf {
    let given = PathBuf::from(format!("/run/user/{user}"));
    if fs::metadata(&given).is_ok_and(|it| it.is_dir() && it.uid() == user) {
        given.join("procpool")
    } else {
        PathBuf::from(format!("/tmp/procpool-{user}"))
    }
}

/// Makes the folder, if it is not there.
///
/// # Errors
/// When it cannot be, or what is there is somebody else's.
pub(crate) fn make(folder: &Path, user: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => check(folder, user),
    }
}

/// Whether nobody else can have put anything there.
///
/// # Errors
/// When somebody can.
pub(crate) fn check(folder: &Path, user: u32) -> io::Result<()> {
    // A link may be somebody else's.
    let found = fs::symlink_metadata(folder)?;
    let is_own = found.uid() == user && found.permissions().mode() & 0o077 == 0;
    if found.is_dir() && is_own {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} should be a folder of user {user} that nobody else can open: remove it",
            folder.display()
        ),
    ))
}

/// The socket of a pool of this process.
pub(crate) fn socket(folder: &Path, process: u32, number: usize) -> PathBuf {
    folder.join(format!("{process}-{number}.sock"))
}

/// Which pool's socket this is, if it is one of this process.
pub(crate) fn number(name: &str, process: u32) -> Option<usize> {
    let name = name.strip_suffix(".sock")?;
    let (of, number) = name.split_once('-')?;
    (of.parse() == Ok(process)).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let path = socket(Path::new("/x"), 17, 3);
        let name = path.file_name().and_then(|it| it.to_str()).expect("text");
        assert_eq!(number(name, 17), Some(3));
        assert_eq!(number(name, 1), None);
        for other in ["17-3", "17.sock", "-3.sock", "17-.sock", "x"] {
            assert_eq!(number(other, 17), None, "{other}");
        }
    }

    #[test]
    fn a_folder_that_others_can_open_is_refused() {
        let base = tempfile::tempdir().expect("a folder");
        let user = rustix::process::geteuid().as_raw();
        let folder = base.path().join("own");
        make(&folder, user).expect("it is made");
        make(&folder, user).expect("it is there");
        assert!(make(&folder, user + 1).is_err());
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).expect("a link");
        assert!(make(&link, user).is_err());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let error = make(&folder, user).unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
    }
}
