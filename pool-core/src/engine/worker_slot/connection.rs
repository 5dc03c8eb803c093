//! Whether a worker can be heard.

/// Whether a worker can be heard. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Connection {
    #[default]
    Connected,
    /// A living worker that has no bell any more finishes what it runs, and the parent looks for
    /// that now and then.
    Disconnected { since: u64, look_at: u64 },
    /// It has none, and nobody looks: it was retired or killed.
    Silent,
}

impl Connection {
    /// Since when it has been disconnected and is looked after.
    pub(super) fn disconnected_since(self) -> Option<u64> {
        match self {
            Self::Disconnected { since, .. } => Some(since),
            Self::Connected | Self::Silent => None,
        }
    }

    /// When to look after it again, if it is disconnected.
    #[inline]
    pub(super) fn polled_at(self) -> Option<u64> {
        match self {
            Self::Disconnected { look_at, .. } => Some(look_at),
            Self::Connected | Self::Silent => None,
        }
    }
}

/// Why a living worker cannot be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Unheard {
    /// Something in it has closed its doorbell.
    Closed,
    /// The system has refused what it takes to listen to it.
    Unwatched,
}
