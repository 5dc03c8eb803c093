//! What to do about a missing `init`: it is something else in a program, a test, a library and a
//! shared object.

use std::env;
use std::fmt;
use std::path::Path;

use procpool_core::shared_object;

/// How a worker is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// This program is executed again.
    Again,
    /// This program is executed again, with this shared object loaded into it.
    Preloaded,
    /// Somebody has named a program.
    Named(String),
}

/// What to do about a missing `init`, as a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remedy {
    way: Way,
    place: Place,
}

/// Where this code is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In a program, perhaps as a part of a library.
    Program,
    /// In a program that cargo has built to run tests or benchmarks.
    Test,
    /// In the shared object with this path.
    SharedObject(String),
}

impl Remedy {
    /// Where this code is.
    pub(crate) fn here(way: Way) -> Self {
        let place = match shared_object() {
            Some(path) => Place::SharedObject(path.display().to_string()),
            None if env::current_exe().is_ok_and(|path| is_test(&path)) => Place::Test,
            None => Place::Program,
        };
        Self { way, place }
    }
}

/// Whether a program is one of tests or benchmarks: cargo puts these, with a hash behind their
/// names, where nobody but it looks.
fn is_test(program: &Path) -> bool {
    let folder = program.parent().and_then(Path::file_name);
    let hash = program
        .file_name()
        .and_then(|name| name.to_str()?.rsplit_once('-'))
        .map_or("", |(_, hash)| hash);
    let is_hash = hash.len() == 16 && hash.bytes().all(|it| it.is_ascii_hexdigit());
    folder.is_some_and(|name| name == "deps") && is_hash
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, &self.way) {
            (Place::SharedObject(path), Way::Again) => write!(
                f,
                "this code is in a shared object ({path}), so say procpool::init_before_main!() in \
                 it, once and outside of all functions: workers are this program with the object \
                 loaded into it first, which then makes a worker of it; or name a program that \
                 loads it and calls procpool::init() in it, by .program(..); or use ForkPool"
            ),
            (Place::SharedObject(path), Way::Preloaded) => write!(
                f,
                "a worker is this program with LD_PRELOAD={path}, and what the loader lacks, it \
                 says on standard error; name a program that loads the object and calls \
                 procpool::init() in it, by .program(..), or use ForkPool"
            ),
            (Place::SharedObject(path), Way::Named(program)) => write!(
                f,
                "{program} must load this very build of {path}, and then call a function in it \
                 that calls procpool::init() (for Python, the function that makes the module); \
                 and it must be that process itself, not one that it starts"
            ),
            (Place::Program | Place::Test, Way::Named(program)) => write!(
                f,
                "{program} must be this very program, or execute it in its own process, and \
                 procpool::init() must be the first line of main"
            ),
            (Place::Test, _) => f.write_str(
                "this is a test binary, whose main is the harness': say \
                 procpool::init_before_main!() in the test file, once and outside of all functions \
                 (for unit tests, in the crate's root under #[cfg(test)]); with `harness = false`, \
                 call it as the first line of main",
            ),
            (Place::Program, _) => f.write_str(
                "call it as the first line of main; a library, whose users' main knows nothing of \
                 it, and a test file, whose main is the harness', say \
                 procpool::init_before_main!() instead",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Place, Remedy, Way, is_test};

    #[test]
    fn tests_are_known_by_their_path() {
        assert!(is_test(Path::new(
            "/a/target/debug/deps/mine-0123456789abcdef"
        )));
        for other in [
            "/a/target/debug/mine",
            "/a/target/debug/deps/mine",
            "/a/target/debug/examples/mine-0123456789abcdef",
            "/a/target/debug/deps/mine-0123456789abcdeg",
            "mine",
            "/",
        ] {
            assert!(!is_test(Path::new(other)), "{other}");
        }
        assert_eq!(Remedy::here(Way::Again).place, Place::Test);
    }

    /// Each names what is right at its place, and nothing that cannot be done there.
    #[test]
    fn each_place_has_its_remedy() {
        let object = || Place::SharedObject("/lib/mine.so".to_owned());
        let named = || Way::Named("python3".to_owned());
        let cases: [(Place, Way, &[&str], &[&str]); 7] = [
            (
                Place::Program,
                Way::Again,
                &["first line of main", "library", "init_before_main!()"],
                &["ForkPool", "program(..)"],
            ),
            (
                Place::Test,
                Way::Again,
                &["init_before_main!() in the test file", "#[cfg(test)]"],
                &["users"],
            ),
            (
                object(),
                Way::Again,
                &[
                    "/lib/mine.so",
                    "init_before_main!() in it",
                    "program(..)",
                    "ForkPool",
                ],
                &["first line of main", "harness"],
            ),
            (
                object(),
                Way::Preloaded,
                &["LD_PRELOAD=/lib/mine.so", "program(..)", "ForkPool"],
                &["first line of main"],
            ),
            (
                object(),
                named(),
                &[
                    "python3 must load",
                    "/lib/mine.so",
                    "procpool::init()",
                    "Python",
                ],
                &["first line of main"],
            ),
            (
                Place::Program,
                named(),
                &["python3 must be this very program", "first line of main"],
                &["shared object"],
            ),
            (
                Place::Test,
                named(),
                &["python3 must be this very program"],
                &["shared object"],
            ),
        ];
        for (place, way, said, unsaid) in cases {
            let text = Remedy { way, place }.to_string();
            for words in said {
                assert!(text.contains(words), "no {words:?} in {text}");
            }
            for words in unsaid {
                assert!(!text.contains(words), "{words:?} in {text}");
            }
        }
    }
}
