//! Which worker is to run a chunk.

/// Where a chunk is to run, if that is not anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// In the worker that all chunks with this number go to.
    Key(u64),
    /// In the worker with this number, counted from 0 and without those that the pool has had
    /// before it was made smaller.
    Nth(usize),
    /// In that of the pool's position with this number: what the pool has made of the others.
    Position(usize),
}

impl Target {
    /// Which of so many workers it is; `None`: that was chosen, or there is none.
    pub(crate) fn choose(self, workers: usize) -> Option<usize> {
        match self {
            Self::Key(key) => (key % workers.max(1) as u64).try_into().ok(),
            Self::Nth(nth) => Some(nth),
            Self::Position(_) => None,
        }
    }
}
