//! The folder in which strangers' crates are built and run.
#![allow(
    clippy::disallowed_methods,
    reason = "cargo and the strangers' programs are no workers"
)]

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::crates::Crate;

/// Not what any of this takes, but when to call it a hang: a build of all dependencies on the
/// slowest machine, a program that fails at once.
const BUILD_LIMIT: Duration = Duration::from_secs(9 * 60);
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// A workspace of one test's own. All of them build into the same folder, so that what they depend
/// on is built once.
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// Writes down these crates.
    pub(crate) fn with(crates: &[Crate]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("stranger-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("cargo has made it");
        let members: Vec<&str> = crates.iter().map(|each| each.name).collect();
        let manifest = format!(
            "[workspace]\nresolver = \"3\"\nmembers = {members:?}\n\n\
             [profile.dev]\ndebug = 0\n\n[profile.test]\ndebug = 0\n"
        );
        let scratch = Self { folder };
        scratch.write("Cargo.toml", &manifest);
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        let lock = fs::read_to_string(lock).expect("there is a lock file");
        scratch.write("Cargo.lock", &lock);
        for each in crates {
            scratch.write(&format!("{}/Cargo.toml", each.name), &each.manifest());
            for (path, text) in each.files {
                scratch.write(&format!("{}/{path}", each.name), text);
            }
        }
        scratch
    }

    /// Writes one more file.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        let parent = path.parent().expect("it is in the folder");
        fs::create_dir_all(parent).expect("the folder can be written");
        fs::write(path, text).expect("the folder can be written");
    }

    /// A copy of a file by another name, in this test's own folder.
    pub(crate) fn copied_as(&self, path: &str, name: &str) -> String {
        let copy = self.folder.path().join(name);
        // What has the name may be in use.
        let _ = fs::remove_file(&copy);
        fs::copy(path, &copy).expect("the folder can be written");
        copy.to_str().expect("the path is text").to_owned()
    }

    fn target() -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("stranger-target")
    }

    /// Runs cargo with these arguments, without a network.
    pub(crate) fn cargo(&self, arguments: &str) -> Told {
        let mut command = Command::new(env!("CARGO"));
        let mut arguments = arguments.split(' ');
        command
            .args(arguments.next())
            .args(["--offline", "--target-dir"])
            .arg(Self::target())
            .args(arguments)
            .current_dir(self.folder.path())
            // What is set for this workspace's own packages.
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("CARGO_TARGET_DIR")
            .env("CARGO_TERM_COLOR", "never");
        self.told(command, BUILD_LIMIT)
    }

    /// Where cargo puts what it builds.
    pub(crate) fn built(&self, name: &str) -> String {
        let path = Self::target().join("debug").join(name);
        path.to_str().expect("the path is text").to_owned()
    }

    /// Runs a program that was built, which must leave nothing behind.
    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> Told {
        let mut command = Command::new(self.built(name));
        command.args(arguments);
        self.told_all(command)
    }

    /// The same of a program that was built with `--release`.
    pub(crate) fn run_optimised(&self, name: &str, arguments: &[&str]) -> Told {
        let mut command = Command::new(Self::target().join("release").join(name));
        command.args(arguments);
        self.told_all(command)
    }

    /// Runs it. It must leave no file behind.
    fn told_all(&self, mut command: Command) -> Told {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        command.env("TMPDIR", temporary.path());
        let told = self.told(command, RUN_LIMIT);
        let left = fs::read_dir(temporary.path()).expect("it is there");
        let left: Vec<PathBuf> = left.flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}\n{told}");
        told
    }

    /// Runs Python with these arguments.
    pub(crate) fn python(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Told {
        let mut command = Command::new("python3");
        command.args(arguments).envs(variables.iter().copied());
        self.told(command, RUN_LIMIT)
    }

    fn told(&self, mut command: Command, limit: Duration) -> Told {
        // Files, so that nobody has to read while it runs.
        let paths = ["stdout", "stderr"].map(|name| self.folder.path().join(name));
        let [stdout, stderr] = paths
            .each_ref()
            .map(|path| File::create(path).expect("the folder can be written"));
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                break Some(status);
            }
            if begun.elapsed() > limit {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let [stdout, stderr] = paths.map(|path| {
            let bytes = fs::read(path).expect("it was written");
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let told = Told {
            is_success: status.is_some_and(|status| status.success()),
            stdout,
            stderr,
        };
        assert!(status.is_some(), "it hangs: {command:?}\n{told}");
        told
    }
}

/// What a program said.
pub(crate) struct Told {
    pub(crate) is_success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Told {
    pub(crate) fn assert_success(&self) {
        assert!(self.is_success, "{self}");
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.stdout, self.stderr)
    }
}
