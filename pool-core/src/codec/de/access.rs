//! What stands inside of tuples, structs, sequences and maps.

use serde::de::{DeserializeSeed, MapAccess, SeqAccess};

use super::{CodecError, Decoder};

/// The fields of a tuple or struct. There are as many as the type says.
pub(super) struct Fields<'d, 'de, const M: bool> {
    pub(super) decoder: &'d mut Decoder<'de, M>,
    pub(super) left: usize,
}

impl<'de, const M: bool> SeqAccess<'de> for Fields<'_, 'de, M> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                seed.deserialize(&mut *self.decoder).map(Some)
            }
            None => Ok(None),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The elements of a sequence or the entries of a map. There are as many as the input says.
pub(super) struct Elements<'d, 'de, const M: bool> {
    pub(super) decoder: &'d mut Decoder<'de, M>,
    pub(super) left: usize,
    /// How many elements may be reserved.
    pub(super) hint: usize,
    /// How much input was left where the current entry of a map begins.
    pub(super) entry_at: usize,
}

impl<'de, const M: bool> Elements<'_, 'de, M> {
    /// Reads an element or key.
    #[inline]
    fn take<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, CodecError> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.entry_at = self.decoder.input.len();
                self.take_more(seed).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Reads the rest of the entry.
    #[inline]
    fn take_more<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, CodecError> {
        let before = self.decoder.limits.excess();
        let value = seed.deserialize(&mut *self.decoder)?;
        let used = self.entry_at - self.decoder.input.len();
        let size = size_of::<S::Value>();
        self.decoder.limits.weigh_element(size, used, before)?;
        Ok(value)
    }
}

impl<'de, const M: bool> SeqAccess<'de> for &mut Elements<'_, 'de, M> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        self.take(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.hint))
    }
}

impl<'de, const M: bool> MapAccess<'de> for &mut Elements<'_, 'de, M> {
    type Error = CodecError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        self.take(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, CodecError> {
        self.take_more(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.hint))
    }
}
