//! The names of contents.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sys::Hash;

/// What the memory of a [`Broadcast`](crate::Broadcast) has in it: equal for equal bytes, in every
/// process.
///
/// It is a hash, but no cryptographic one: two values have the same only by an accident, or since
/// somebody has wanted it. A machine that works for callers who do not trust each other keeps the
/// content of each apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentId(u128);

impl ContentId {
    /// The name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = Hash::new();
        hash.add(bytes);
        Self(hash.0)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}
