//! How much work a comparison is worth.

/// Everything that is counted depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Some minutes: the numbers to publish.
    Full,
    /// Half a minute: whether something is badly wrong.
    Quick,
    /// As little as there can be: whether it runs at all.
    Tiny,
}

impl Scale {
    /// The first for a full run, and so on.
    #[must_use]
    pub fn pick<T>(self, full: T, quick: T, tiny: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Tiny => tiny,
        }
    }
}
