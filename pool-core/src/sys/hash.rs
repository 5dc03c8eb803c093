//! A hash by which contents are told apart that are not made to collide.

/// FNV-1a with 128 bits, over words instead of bytes.
pub(crate) struct Hash(pub(crate) u128);

impl Hash {
    pub(crate) const fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    pub(crate) fn add_word(&mut self, word: u64) {
        const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
        self.0 = (self.0 ^ u128::from(word)).wrapping_mul(PRIME);
    }

    /// Adds a field, separated from its neighbours by its length.
    pub(crate) fn add(&mut self, field: &[u8]) {
        self.add_word(field.len() as u64);
        for bytes in field.chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.add_word(u64::from_le_bytes(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_counts() {
        let of = |field: &[u8]| {
            let mut hash = Hash::new();
            hash.add(field);
            hash.0
        };
        let field: Vec<u8> = (0..100).collect();
        for at in 0..field.len() {
            let mut other = field.clone();
            other[at] ^= 1;
            assert_ne!(of(&field), of(&other));
            assert_ne!(of(&field), of(&field[..at]));
        }
    }
}
