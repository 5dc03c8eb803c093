//! A record from a worker, on its way to the outcomes.

use crate::codec::Memory;
use crate::error::TaskError;

/// The bytes of a whole record.
pub(super) enum RecordBytes<'a> {
    /// Where they were copied to first.
    Small(&'a [u8]),
    Owned(Vec<u8>),
    /// The length that stands before the memory of a bulk value, and that.
    Bulk([u8; 8], Memory),
    /// Of a result that came with an offer, or why that could not be had.
    Offered(Result<Vec<u8>, TaskError>),
}

impl RecordBytes<'_> {
    pub(super) fn len(&self) -> u64 {
        let prefix = if let Self::Bulk(prefix, _) = self {
            prefix.len()
        } else {
            0
        };
        (prefix + self.as_slice().len()) as u64
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Owned(bytes) | Self::Offered(Ok(bytes)) => bytes,
            Self::Bulk(_, memory) => memory.as_slice(),
            Self::Offered(Err(_)) => &[],
        }
    }
}
