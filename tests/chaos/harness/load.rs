//! Bytes to carry, and values that resist being carried.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are made one by one.
const BLOCK: usize = 4096;

/// Bytes that travel as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load(pub(crate) Vec<u8>);

impl Load {
    /// This many bytes that follow from a number, each depending on its place.
    pub(crate) fn of(seed: u64, bytes: usize) -> Self {
        let mut load = Vec::with_capacity(bytes + BLOCK);
        let mut word = seed;
        while load.len() < bytes.min(BLOCK) {
            word = word
                .wrapping_mul(0x5851_F42D_4C95_7F2D)
                .wrapping_add(seed | 1);
            load.extend_from_slice(&word.to_le_bytes());
        }
        // Of more, each block differs from the one before in a few bytes: quick even where nothing
        // is optimised.
        while load.len() < bytes {
            let last = load.len() - BLOCK;
            load.extend_from_within(last..);
            let number = (load.len() as u64).to_le_bytes();
            load[last + BLOCK..][..8].copy_from_slice(&number);
        }
        load.truncate(bytes);
        Self(load)
    }
}

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Load {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes).map(Load)
    }
}

/// A value whose encoding or decoding may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    Open,
    EncodeError,
    EncodePanic,
    DecodeError,
    DecodePanic,
}

impl Trap {
    pub(crate) const SHUT: [Self; 4] = [
        Self::EncodeError,
        Self::EncodePanic,
        Self::DecodeError,
        Self::DecodePanic,
    ];

    pub(crate) fn fails_to_encode(self) -> bool {
        matches!(self, Self::EncodeError | Self::EncodePanic)
    }

    pub(crate) fn fails_to_decode(self) -> bool {
        matches!(self, Self::DecodeError | Self::DecodePanic)
    }
}

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::EncodeError => Err(S::Error::custom("a trap on the way out")),
            Self::EncodePanic => panic!("a trap on the way out"),
            Self::Open => serializer.serialize_u8(0),
            Self::DecodeError => serializer.serialize_u8(1),
            Self::DecodePanic => serializer.serialize_u8(2),
        }
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Open),
            1 => Err(D::Error::custom("a trap on the way in")),
            _ => panic!("a trap on the way in"),
        }
    }
}
