//! The end of a worker that cannot go on.

use crate::sync::IS_MODEL;

/// The exit code of a worker whose region makes no sense. The parent never writes such a thing,
/// so something else in this process did.
pub(crate) const EXIT_CORRUPT: i32 = 113;
/// The exit code of a worker that cannot ring for its parent, which does not look by itself.
pub(crate) const EXIT_UNHEARD: i32 = 114;

/// The region makes no sense any more, since something in this process wrote into it. Only the exit
/// code is left to notify the parent: it hears of a death.
pub(super) fn corrupt() -> ! {
    give_up(EXIT_CORRUPT)
}

/// The parent cannot be rung for, and does not look by itself. It hears of a death.
pub(super) fn unheard() -> ! {
    give_up(EXIT_UNHEARD)
}

fn give_up(code: i32) -> ! {
    if IS_MODEL {
        // The worker is a thread there, and the process would end without a word.
        unreachable!("a worker gives up with code {code}");
    }
    #[allow(clippy::disallowed_methods, clippy::exit)]
    std::process::exit(code)
}
