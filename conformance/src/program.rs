//! This test program, run again as another one: for tests about a program's beginning and end.

use std::path::Path;
use std::process::ExitCode;

pub(crate) use procpool_testing::again::asked_for;
pub use procpool_testing::again::{Again, Started};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::backends::Subject;

/// A program: its name, and what it does.
pub type Program = (String, fn());

/// The programs of these names, for one kind of pool.
#[macro_export]
macro_rules! programs {
    ($subject:ident: $($program:ident),+ $(,)?) => {
        vec![$((
            $crate::program::name::<$subject>(stringify!($program)),
            $program::<$subject> as fn(),
        )),+]
    };
}
pub(crate) use programs;

/// A program's full name.
pub fn name<S: Subject>(name: &str) -> String {
    format!("{}::{name}", S::NAME)
}

/// Is that program.
pub(crate) fn run(name: &str, programs: Vec<Program>) -> ExitCode {
    // When the test is given up, so is its program.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let program = programs.iter().find(|program| program.0 == name);
    let (_, main) = program.expect("there is a program of this name");
    main();
    ExitCode::SUCCESS
}

/// The program of this name, to be run.
pub fn again<S: Subject>(name: &str) -> Again {
    Again::new(&self::name::<S>(name))
}

/// The same from another file, which is this program.
pub fn again_at<S: Subject>(file: &Path, name: &str) -> Again {
    Again::at(file, &self::name::<S>(name))
}
