//! The end of a worker that cannot go on.

use crate::sync::IS_MODEL;

/// The exit code of a worker whose region makes no sense. The parent never writes such a thing,
/// so something else in this process did.
pub(super) const EXIT_CORRUPT: i32 = 113;

/// The region makes no sense any more, since something in this process wrote into it, or the parent
/// cannot be rung for and does not look by itself. Only the exit code is left to notify it: it
/// hears of a death.
pub(super) fn corrupt() -> ! {
    if IS_MODEL {
        // The worker is a thread there, and the process would end without a word.
        unreachable!("the worker's region makes no sense");
    }
    #[allow(clippy::disallowed_methods, clippy::exit)]
    std::process::exit(EXIT_CORRUPT)
}
