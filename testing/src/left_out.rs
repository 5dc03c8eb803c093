//! Tests that need what not every machine has.

use std::collections::BTreeSet;
use std::env;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// CI sets it: there, nothing is left out.
pub const CI: &str = "PROCPOOL_CI";

/// What this program has said already that it leaves out.
static SAID: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// What a test needs. None: it is not to be had here, which is said once, and the test is left out.
///
/// # Panics
/// When it is not to be had, and this is CI.
#[must_use]
pub fn unless<T>(test: &str, what: &'static str, needed: Result<T, String>) -> Option<T> {
    let why = match needed {
        Ok(needed) => return Some(needed),
        Err(why) => why,
    };
    assert!(
        env::var_os(CI).is_none(),
        "{test} needs {what}, and in CI ({CI}) no test is left out: {why}"
    );
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(what) {
        // Not by a macro, whose text the test harness keeps to itself when a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "left out: {test}, and what else needs {what}: {why}"
        );
    }
    None
}
