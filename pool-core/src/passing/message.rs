//! What stands in the packets.
//!
//! ```text
//! packet = kind (4), how many names (4), number of the item (8), names (24 each)
//! ```
//! All integers are little-endian. A name is a random number and an inode, which is 0 for what is
//! no memory. The descriptors of a packet are in the order of its names.

use crate::sys::MAX_PASSED;

/// Names what is passed, in every process that has it.
pub(crate) type Key = (u128, u64);

/// What a packet is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Descriptors that stand in the argument of an item, which has this number for its worker.
    Item = 1,
    /// Memory that handles in later arguments mean.
    Memory = 2,
    /// Memory that the sender has freed. No descriptors are with it.
    Freed = 3,
    /// What stands in the result of an item.
    Result = 4,
}

/// A packet without its descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) keys: Vec<Key>,
}

const HEAD: usize = 16;
const NAME: usize = 24;

/// The longest packet.
pub(super) const MAX_BYTES: usize = HEAD + MAX_PASSED * NAME;

impl Message {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + NAME * self.keys.len());
        bytes.extend((self.kind as u32).to_le_bytes());
        bytes.extend((self.keys.len() as u32).to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        for (id, inode) in &self.keys {
            bytes.extend(id.to_le_bytes());
            bytes.extend(inode.to_le_bytes());
        }
        bytes
    }

    /// `None`: these bytes are no message.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk()?;
        let kind = match u32::from_le_bytes(*kind) {
            1 => Kind::Item,
            2 => Kind::Memory,
            3 => Kind::Freed,
            4 => Kind::Result,
            _ => return None,
        };
        let (count, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let count = u32::from_le_bytes(*count) as usize;
        if count > MAX_PASSED || rest.len() != count * NAME {
            return None;
        }
        let mut keys = Vec::with_capacity(count);
        for name in rest.chunks_exact(NAME) {
            let id = u128::from_le_bytes(*name.first_chunk()?);
            let inode = u64::from_le_bytes(*name.last_chunk()?);
            keys.push((id, inode));
        }
        Some(Self {
            kind,
            number: u64::from_le_bytes(*number),
            keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for kind in [Kind::Item, Kind::Memory, Kind::Freed, Kind::Result] {
            for count in [0, 1, 2, MAX_PASSED as u128] {
                let message = Message {
                    kind,
                    number: u64::MAX - 1,
                    keys: (0..count).map(|it| (it << 100 | 7, it as u64)).collect(),
                };
                let bytes = message.write();
                assert!(bytes.len() <= MAX_BYTES);
                assert_eq!(Message::read(&bytes), Some(message));
                assert_eq!(Message::read(&bytes[..bytes.len() - 1]), None);
                assert_eq!(Message::read(&[&bytes[..], &[0]].concat()), None);
            }
        }
    }

    #[test]
    fn rubbish_is_no_message() {
        assert_eq!(Message::read(&[]), None);
        assert_eq!(Message::read(&[0; HEAD]), None);
        assert_eq!(Message::read(&[5; HEAD]), None);
        let mut long = vec![0; HEAD + (MAX_PASSED + 1) * NAME];
        long[0] = 1;
        long[4..8].copy_from_slice(&(MAX_PASSED as u32 + 1).to_le_bytes());
        assert_eq!(Message::read(&long), None);
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Message::read(&long), None);
    }
}
