//! Encoded values, the small ones without an allocation of their own.

use std::fmt;
use std::sync::Arc;

/// How many bytes are kept inline: a number or two.
const INLINE: usize = 22;

/// The bytes of one encoded value, or of several; cheap to clone.
#[derive(Clone)]
pub(crate) enum Bytes {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Arc<Vec<u8>>),
}

impl Bytes {
    /// The most bytes that take no allocation.
    pub(crate) const INLINE: usize = INLINE;

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Bytes {
    fn from(slice: &[u8]) -> Self {
        if slice.len() <= INLINE {
            let mut bytes = [0; INLINE];
            bytes[..slice.len()].copy_from_slice(slice);
            Self::Inline {
                len: slice.len() as u8,
                bytes,
            }
        } else {
            Self::Heap(Arc::new(slice.to_vec()))
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE {
            Self::from(&bytes[..])
        } else {
            Self::Heap(Arc::new(bytes))
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.as_slice().len())
    }
}
