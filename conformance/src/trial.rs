//! Tests as the harness knows them.

use libtest_mimic::Trial;

use crate::watchdog;

/// A test: its name within its section, and what it does.
pub type Test = (&'static str, fn());

/// The tests of these names, for one kind of pool.
#[macro_export]
macro_rules! tests {
    ($subject:ident: $($test:ident),+ $(,)?) => {
        vec![$((stringify!($test), $test::<$subject> as fn())),+]
    };
}

/// `spawn::results::map_equals_serial` and its like, each under the watchdog.
pub(crate) fn trials<'a>(
    subject: &str,
    sections: impl IntoIterator<Item = (&'a str, Vec<Test>)>,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (section, tests) in sections {
        for (name, test) in tests {
            let name = format!("{subject}::{section}::{name}");
            trials.push(Trial::test(name.clone(), move || {
                let _watched = watchdog::watch(name);
                test();
                Ok(())
            }));
        }
    }
    trials
}
