//! The signal mask.

use nix::sys::signal::{SigSet, SigmaskHow};

/// Blocks all signals in this thread until the value is dropped.
#[must_use]
pub(crate) fn block_signals() -> BlockedSignals {
    BlockedSignals {
        before: SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .expect("the arguments are valid"),
    }
}

/// See [`block_signals`].
pub(crate) struct BlockedSignals {
    before: SigSet,
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        self.before
            .thread_set_mask()
            .expect("the arguments are valid");
    }
}
