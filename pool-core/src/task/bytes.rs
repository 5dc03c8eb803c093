//! Encoded values, the small ones without an allocation of their own.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::broadcast::Belongings;
use crate::codec::{CodecError, Lent, Memory};
use crate::shm::buffer::Buffer;
use crate::shm::protocol::{Head, MAX_HEAD};

/// How many bytes are kept inline: a number or two.
const INLINE: usize = 22;
/// How many bytes the head of a small value has.
const HEAD: usize = size_of::<u32>();

/// The bytes of one encoded value, or of several; cheap to clone.
#[derive(Clone)]
#[allow(
    private_interfaces,
    reason = "public as the outcome of a handle's cell, which nobody can name"
)]
pub enum Bytes {
    Inline {
        len: u8,
        bytes: [u8; INLINE],
    },
    Heap(Arc<Buffer>),
    /// A large bulk value from a worker: its length as it stood before it, and its memory.
    Bulk(Arc<([u8; 8], Memory)>),
    /// One item that is a large bulk value: its head and the length of the value, and the value
    /// where it lies.
    Lent(Arc<(Vec<u8>, Lent)>),
    /// A value in which there may be handles, and what these mean.
    Attached(Arc<(Bytes, Belongings)>),
}

impl Bytes {
    /// The most bytes that take no allocation.
    pub(crate) const INLINE: usize = INLINE;

    /// So few bytes that they take no allocation.
    #[inline]
    fn inline(slice: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        bytes[..slice.len()].copy_from_slice(slice);
        Self::Inline {
            len: slice.len() as u8,
            bytes,
        }
    }

    /// A number as an item.
    #[inline]
    pub(crate) fn item_of_number(number: &[u8]) -> Self {
        const { assert!(HEAD + size_of::<u128>() <= INLINE) };
        let head = Head::value(number.len()).word().unwrap_or_default();
        let mut bytes = [0; INLINE];
        bytes[..HEAD].copy_from_slice(&head.to_le_bytes());
        bytes[HEAD..HEAD + number.len()].copy_from_slice(number);
        Self::Inline {
            len: (HEAD + number.len()) as u8,
            bytes,
        }
    }

    /// A large bulk value as an item.
    pub(crate) fn lent(value: Lent) -> Self {
        let mut start = Vec::with_capacity(MAX_HEAD + 8);
        let mut head = [0; MAX_HEAD];
        let size = Head::value(8 + value.bytes().len()).write(&mut head);
        start.extend_from_slice(&head[..size]);
        start.extend_from_slice(&value.prefix);
        Self::Lent(Arc::new((start, value)))
    }

    /// The bytes, in two pieces of which the second is often empty.
    #[inline]
    pub(crate) fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Inline { len, bytes } => [&bytes[..usize::from(*len)], &[]],
            Self::Heap(bytes) => [bytes, &[]],
            Self::Bulk(bulk) => [&bulk.0, bulk.1.as_slice()],
            Self::Lent(lent) => [&lent.0, lent.1.bytes()],
            Self::Attached(attached) => attached.0.parts(),
        }
    }

    /// How many there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let [first, second] = self.parts();
        first.len() + second.len()
    }

    /// The bytes in one piece.
    pub(crate) fn as_slice(&self) -> Cow<'_, [u8]> {
        match self.parts() {
            [all, []] => Cow::Borrowed(all),
            parts => Cow::Owned(parts.concat()),
        }
    }

    /// The same of a result, of whose size a worker was master.
    ///
    /// # Errors
    /// When there is no memory to have it in one piece.
    pub(crate) fn to_slice(&self) -> Result<Cow<'_, [u8]>, CodecError> {
        let [first, second] = self.parts();
        if second.is_empty() {
            return Ok(Cow::Borrowed(first));
        }
        let mut all = Vec::new();
        all.try_reserve_exact(first.len() + second.len())
            .map_err(|_| CodecError::no_memory(self.len() as u64))?;
        all.extend_from_slice(first);
        all.extend_from_slice(second);
        Ok(Cow::Owned(all))
    }

    /// The same bytes, with which these live. A bulk value has no handles of any.
    pub(crate) fn with(self, belongings: Belongings) -> Self {
        match self {
            bulk @ Self::Bulk(_) => bulk,
            bytes if belongings.is_empty() => bytes,
            bytes => Self::Attached(Arc::new((bytes, belongings))),
        }
    }

    /// What handles in the value mean, if it [has](Self::with) any.
    pub(crate) fn belongings(&self) -> Option<&Belongings> {
        match self {
            Self::Attached(attached) => Some(&attached.1),
            _ => None,
        }
    }

    /// Whether this is a large bulk value from a worker.
    #[inline]
    pub(crate) fn is_bulk(&self) -> bool {
        matches!(self, Self::Bulk(_))
    }

    /// The two parts of a large bulk value from a worker, if this is one and nobody else has it.
    pub(crate) fn into_bulk(self) -> Result<([u8; 8], Memory), Self> {
        match self {
            Self::Bulk(bulk) => Arc::try_unwrap(bulk).map_err(Self::Bulk),
            bytes => Err(bytes),
        }
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self::Inline {
            len: 0,
            bytes: [0; INLINE],
        }
    }
}

impl From<&[u8]> for Bytes {
    fn from(slice: &[u8]) -> Self {
        // A number is copied without a call.
        if let Ok(number) = <&[u8; 8]>::try_from(slice) {
            Self::inline(number)
        } else if slice.len() <= INLINE {
            Self::inline(slice)
        } else {
            Self::Heap(Arc::new(slice.to_vec().into()))
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Buffer::from(bytes).into()
    }
}

impl From<Buffer> for Bytes {
    fn from(bytes: Buffer) -> Self {
        if bytes.len() <= INLINE {
            Self::from(&bytes[..])
        } else {
            Self::Heap(Arc::new(bytes))
        }
    }
}

impl From<Bytes> for Buffer {
    fn from(bytes: Bytes) -> Self {
        match bytes {
            Bytes::Heap(bytes) => Arc::try_unwrap(bytes).unwrap_or_else(|bytes| (*bytes).clone()),
            bytes => bytes.as_slice().into_owned().into(),
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.as_slice())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(bytes.into())
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(bytes.into())
            }

            /// In formats that have no bytes, they are numbers.
            fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = numbers.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes.into())
            }
        }

        deserializer.deserialize_byte_buf(Read)
    }
}
