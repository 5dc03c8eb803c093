//! The programs that this machine has: a folder in which each is called by its hash.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest::{Hash, Manifest};

/// How many programs are kept that do not run.
const KEPT: usize = 16;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Cache(PathBuf);

impl Cache {
    /// Opens it, or makes it. Nobody else may write into it: what is in it is executed.
    ///
    /// # Errors
    /// When somebody else may, or it cannot be made.
    pub(super) fn open(folder: PathBuf) -> Result<Self, String> {
        let shown = folder.display();
        let failed = |error| format!("the folder for programs, {shown}: {error}");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(failed)?;
        let about = fs::metadata(&folder).map_err(failed)?;
        if about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o022 != 0 {
            return Err(format!(
                "others may write into the folder for programs, {shown}: it must be this user's, \
                 with mode 700"
            ));
        }
        Ok(Self(folder))
    }

    fn path(&self, hash: &Hash) -> PathBuf {
        self.0.join(hash.as_str())
    }

    /// The file of a program, if it is there and whole.
    pub(super) fn find(&self, manifest: &Manifest) -> Option<PathBuf> {
        let path = self.path(&manifest.sha256);
        check(&path, manifest).is_ok().then_some(path)
    }

    /// A file to write a program into.
    pub(super) fn begin(&self) -> io::Result<tempfile::NamedTempFile> {
        tempfile::NamedTempFile::new_in(&self.0)
    }

    /// Keeps what was written, if it is this program.
    pub(super) fn keep(
        &self,
        file: tempfile::NamedTempFile,
        manifest: &Manifest,
    ) -> Result<PathBuf, String> {
        check(file.path(), manifest)?;
        let failed = |error: &dyn std::fmt::Display| format!("it cannot be kept: {error}");
        // No descriptor may be open for writing when it is executed.
        let path = file.into_temp_path();
        fs::set_permissions(&path, Permissions::from_mode(0o500))
            .map_err(|error| failed(&error))?;
        let kept = self.path(&manifest.sha256);
        path.persist(&kept).map_err(|error| failed(&error))?;
        Ok(kept)
    }

    /// Removes those that were got first, but for some and for those that run.
    pub(super) fn tidy(&self, runs: impl Fn(&Hash) -> bool) -> io::Result<()> {
        let mut idle: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if Hash::try_from(name).is_ok_and(|hash| !runs(&hash)) {
                idle.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        idle.sort();
        let too_many = idle.len().saturating_sub(KEPT);
        for (_, path) in &idle[..too_many] {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Whether this file is that program.
fn check(path: &Path, manifest: &Manifest) -> Result<(), String> {
    let failed = |error: io::Error| format!("it cannot be read: {error}");
    let file = File::open(path).map_err(failed)?;
    let (hash, size) = Hash::of(file).map_err(failed)?;
    if hash == manifest.sha256 && size == manifest.size {
        Ok(())
    } else {
        Err(format!(
            "what the store has is another program: {size} bytes with hash {hash}, not {} with \
             {}",
            manifest.size, manifest.sha256
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn manifest(content: &[u8]) -> Manifest {
        let (sha256, size) = Hash::of(content).unwrap();
        Manifest {
            sha256,
            size,
            name: String::new(),
            signed: None,
        }
    }

    fn keep(cache: &Cache, content: &[u8], manifest: &Manifest) -> Result<PathBuf, String> {
        let mut file = cache.begin().unwrap();
        file.write_all(content).unwrap();
        cache.keep(file, manifest)
    }

    #[test]
    fn what_is_kept_is_what_was_named() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("programs")).unwrap();
        let program = manifest(b"a program");
        assert_eq!(cache.find(&program), None);
        let error = keep(&cache, b"a prog", &program).unwrap_err();
        assert!(error.contains("another program"), "{error}");
        assert_eq!(cache.find(&program), None);
        let path = keep(&cache, b"a program", &program).unwrap();
        assert_eq!(cache.find(&program), Some(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o500);
        // Nothing is left of what was not kept.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // A file that was changed since is not that program.
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        fs::write(&path, b"a pr0gram").unwrap();
        assert_eq!(cache.find(&program), None);
    }

    #[test]
    fn nobody_else_may_write_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("programs");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o770)).unwrap();
        let error = Cache::open(path).unwrap_err();
        assert!(error.contains("others may write"), "{error}");
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("programs")).unwrap();
        let manifests: Vec<_> = (0..KEPT + 3)
            .map(|number| {
                let content = number.to_string().into_bytes();
                let manifest = manifest(&content);
                let path = keep(&cache, &content, &manifest).unwrap();
                let file = File::open(path).unwrap();
                let begin = SystemTime::UNIX_EPOCH;
                let at = begin + Duration::from_secs(number as u64);
                file.set_modified(at).unwrap();
                manifest
            })
            .collect();
        // The first one runs.
        cache.tidy(|hash| *hash == manifests[0].sha256).unwrap();
        let there: Vec<_> = manifests
            .iter()
            .map(|manifest| cache.find(manifest).is_some())
            .collect();
        let mut expected = vec![true; KEPT + 3];
        expected[1] = false;
        expected[2] = false;
        assert_eq!(there, expected);
    }
}
