//! What the scenario says of itself.

use anyhow::{Result, bail, ensure};

use super::faults::Expected;

/// The scenario's first and last line.
const BEGIN: &str = "begin: right";
const END: &str = "end: right";

/// What a task of the scenario writes to standard error before it dies.
const LAST_WORDS: &str = "last words";

/// What the standard library says when it ends a program because a new thread has got no memory
/// for the stack on which signals are handled. Nothing of ours has run there yet.
const NO_STACK: &str = "failed to allocate an alternative stack";

/// Whether the fault has hit the loader or the standard library: the scenario's program has not
/// come as far as its first line, or was ended in the beginning of a thread.
pub(super) fn has_hit_others(said: &str) -> bool {
    !said.lines().any(|line| line == BEGIN) || said.lines().any(|line| line.starts_with(NO_STACK))
}

/// Whether strace itself has failed, and has ended with an error that says nothing of the program.
pub(super) fn is_tracers(said: &str) -> bool {
    said.lines().any(|line| line.starts_with("strace: ptrace("))
}

/// The errors in which steps have ended.
pub(super) fn errors(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter(|line| is_error(line))
}

fn is_error(line: &str) -> bool {
    line.contains(": error ")
}

/// Whether that is what was expected.
pub(super) fn check(said: &str, expected: Expected) -> Result<()> {
    if has_hit_others(said) {
        return Ok(());
    }
    ensure!(
        said.lines().any(|line| line == END),
        "it did not come to its end:\n{said}"
    );
    for line in said.lines() {
        // What a task says whose output could not be taken elsewhere.
        if line.ends_with(": right") || line == LAST_WORDS {
            continue;
        }
        let is_fine = match expected {
            Expected::Right => false,
            Expected::Ends => is_error(line),
            Expected::NoPool(word) => line.starts_with("build: error ") && line.contains(word),
        };
        if !is_fine {
            bail!("expected was {expected:?}, but\n{line}\nin\n{said}");
        }
    }
    if let Expected::NoPool(_) = expected {
        let is_refused = said.lines().any(|line| line.starts_with("build: error "));
        ensure!(is_refused, "there is a pool all the same:\n{said}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_judged() {
        let is_fine = |lines: &str, expected| {
            let said = format!("{BEGIN}\n{lines}\n{END}\n");
            check(&said, expected).is_ok()
        };
        assert!(is_fine("map: right", Expected::Right));
        assert!(!is_fine("map: error it broke", Expected::Right));
        assert!(is_fine("map: error it broke", Expected::Ends));
        assert!(!is_fine("map: WRONG value", Expected::Ends));
        assert!(!is_fine("thread 'main' panicked at here", Expected::Ends));
        let none = Expected::NoPool("pipe2");
        assert!(is_fine("build: error pipe2: no", none));
        assert!(!is_fine("build: error no", none));
        assert!(!is_fine("map: right", none));
        assert!(!is_fine("map: error pipe2", none));
    }

    #[test]
    fn what_strace_says_of_itself_is_known() {
        let said =
            "join: right\nstrace: ptrace(PTRACE_LISTEN,pid:2010,sig:0): Input/output error\n";
        assert!(is_tracers(said));
        assert!(!is_tracers("join: error of strace: ptrace(no)"));
    }

    #[test]
    fn a_program_that_stops_half_way_is_seen() {
        assert!(check(BEGIN, Expected::Ends).is_err());
        // Its loader failed.
        assert!(check("cannot open shared object file", Expected::Ends).is_ok());
        assert!(check(&format!("{BEGIN}\n{NO_STACK}: why"), Expected::Ends).is_ok());
    }
}
