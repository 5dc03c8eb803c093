//! The memory of a large bulk value that arrives before it is known what it is.
#![allow(unsafe_code)]

use std::collections::TryReserveError;
use std::mem::MaybeUninit;
use std::ptr;

use bytemuck::{Pod, allocation, cast_slice};

use crate::sys;

/// Bytes in memory that is right for numbers of some size, so that it can become a vector of them.
pub(crate) struct Memory {
    words: Words,
    bytes: usize,
}

/// How many bytes may get room before they are there. Room that is not touched takes addresses, not
/// memory.
pub(crate) const AHEAD: u64 = if cfg!(any(fuzzing, test)) {
    1 << 10
} else {
    64 << 20
};

/// As many words as the bytes need; what the last one has beyond them is zero.
enum Words {
    One(Vec<u8>),
    Two(Vec<u16>),
    Four(Vec<u32>),
    Eight(Vec<u64>),
    Sixteen(Vec<u128>),
}

/// The same for words of every size.
macro_rules! with_words {
    ($memory:expr, $words:ident => $what:expr) => {
        match $memory {
            Words::One($words) => $what,
            Words::Two($words) => $what,
            Words::Four($words) => $what,
            Words::Eight($words) => $what,
            Words::Sixteen($words) => $what,
        }
    };
}

impl Memory {
    /// None yet, for numbers of this many bytes each. `None`: there are no such numbers.
    pub(crate) fn new(element: usize) -> Option<Self> {
        let words = match element {
            1 => Words::One(Vec::new()),
            2 => Words::Two(Vec::new()),
            4 => Words::Four(Vec::new()),
            8 => Words::Eight(Vec::new()),
            16 => Words::Sixteen(Vec::new()),
            _ => return None,
        };
        Some(Self { words, bytes: 0 })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        let all: &[u8] = with_words!(&self.words, words => cast_slice(words));
        &all[..self.bytes]
    }

    /// The bytes that it takes.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn capacity(&self) -> usize {
        fn bytes<N>(words: &Vec<N>) -> usize {
            words.capacity() * size_of::<N>()
        }
        with_words!(&self.words, words => bytes(words))
    }

    /// Appends `count` bytes, all of which `fill` writes, of `left` that are to come. That so many
    /// will come is somebody's word: what gets room before it is there is at most [`AHEAD`], or as
    /// much as there is.
    ///
    /// # Errors
    /// When there is no memory for them; nothing is filled then.
    pub(crate) fn extend(
        &mut self,
        count: usize,
        left: u64,
        fill: impl FnOnce(&mut [MaybeUninit<u8>]),
    ) -> Result<(), TryReserveError> {
        let more = left.min(AHEAD.max(self.bytes as u64)) as usize;
        let room = self.bytes + more.max(count);
        let is_all = more as u64 == left;
        with_words!(&mut self.words, words => extend(words, self.bytes, count, room, is_all, fill))?;
        self.bytes += count;
        Ok(())
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let count = self.bytes as u64;
        self.into_numbers(count)
            .unwrap_or_else(|other| other.as_slice().to_vec())
    }

    /// The numbers, if there are so many and the memory was meant for such.
    pub(super) fn into_numbers<N: Pod>(self, count: u64) -> Result<Vec<N>, Self> {
        let bytes = self.bytes;
        if count.checked_mul(size_of::<N>() as u64) != Some(bytes as u64) {
            return Err(self);
        }
        let words = match self.words {
            Words::One(words) => cast(words).map_err(Words::One),
            Words::Two(words) => cast(words).map_err(Words::Two),
            Words::Four(words) => cast(words).map_err(Words::Four),
            Words::Eight(words) => cast(words).map_err(Words::Eight),
            Words::Sixteen(words) => cast(words).map_err(Words::Sixteen),
        };
        words.map_err(|words| Self { words, bytes })
    }
}

impl From<Vec<u8>> for Memory {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.len(),
            words: Words::One(bytes),
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

/// Appends `count` bytes to the `bytes` that the words have. Where there is no room for them, there
/// will be for `room` in all if that can be had, and that `is_all` that is ever needed, or not.
pub(super) fn extend<N: Pod>(
    words: &mut Vec<N>,
    bytes: usize,
    count: usize,
    room: usize,
    is_all: bool,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]),
) -> Result<(), TryReserveError> {
    let size = size_of::<N>();
    let end = bytes + count;
    let needed = end.div_ceil(size);
    if words.capacity() < needed {
        words
            .try_reserve_exact(room.div_ceil(size) - words.len())
            .or_else(|_| words.try_reserve_exact(needed - words.len()))?;
        if is_all {
            // Not before: a mapping that is partly of huge pages cannot be made larger where it is.
            sys::expect_use(words.spare_capacity_mut());
        }
    }
    let start = words.as_mut_ptr().cast::<MaybeUninit<u8>>();
    // SAFETY: the words have room for `needed`, so their memory for `end` bytes and for what the
    // last word has beyond them; as `MaybeUninit`, bytes need not be initialised. When the length
    // says that there are so many words, every byte of them is written (`fill` does so, the callers
    // are this crate's), and whatever the bytes are, they make words, which are plain old data.
    unsafe {
        fill(std::slice::from_raw_parts_mut(start.add(bytes), count));
        ptr::write_bytes(start.add(end), 0, needed * size - end);
        words.set_len(needed);
    }
    Ok(())
}

/// A copy of these bytes as numbers, as many as they make.
#[inline]
pub(super) fn numbers_of<N: Pod>(bytes: &[u8]) -> Result<Vec<N>, TryReserveError> {
    let count = bytes.len() / size_of::<N>();
    let mut numbers = Vec::<N>::new();
    numbers.try_reserve_exact(count)?;
    // SAFETY: there is room for `count` numbers, and so many bytes are there; the new memory
    // overlaps nothing; and whatever the bytes are, they make numbers, which are plain old data.
    unsafe {
        let to = numbers.as_mut_ptr().cast();
        ptr::copy_nonoverlapping(bytes.as_ptr(), to, count * size_of::<N>());
        numbers.set_len(count);
    }
    Ok(numbers)
}

/// The same memory for numbers of another type of that size.
fn cast<N: Pod, M: Pod>(words: Vec<N>) -> Result<Vec<M>, Vec<N>> {
    if size_of::<N>() != size_of::<M>() {
        return Err(words);
    }
    allocation::try_cast_vec(words).map_err(|(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces that end in the middle of a number.
    fn filled(element: usize, bytes: &[u8], piece: usize) -> Memory {
        let mut memory = Memory::new(element).expect("numbers are of that size");
        for piece in bytes.chunks(piece) {
            memory
                .extend(piece.len(), 1 << 20, |room| {
                    for (to, from) in room.iter_mut().zip(piece) {
                        to.write(*from);
                    }
                })
                .expect("there is memory");
        }
        memory
    }

    #[test]
    fn bytes_that_come_in_pieces_become_numbers() {
        let numbers: Vec<f64> = (0..100).map(f64::from).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
        for piece in [1, 3, 8, 13, 800] {
            let memory = filled(8, &bytes, piece);
            assert_eq!(memory.as_slice(), bytes);
            let place = memory.as_slice().as_ptr();
            let back = memory
                .into_numbers::<f64>(100)
                .expect("they are of eight bytes");
            assert_eq!(back, numbers);
            assert_eq!(back.as_ptr().cast(), place);
        }
        assert_eq!(
            filled(16, &[1; 32], 5)
                .into_numbers::<u128>(2)
                .unwrap()
                .len(),
            2
        );
        assert_eq!(
            filled(2, &[1; 32], 5)
                .into_numbers::<i16>(16)
                .unwrap()
                .len(),
            16
        );
    }

    #[test]
    fn memory_for_other_numbers_comes_back() {
        let memory = filled(4, &[7; 12], 5).into_numbers::<f64>(1).unwrap_err();
        let memory = memory.into_numbers::<u8>(12).unwrap_err();
        assert_eq!(memory.as_slice(), [7; 12]);
        let part = filled(4, &[7; 13], 5).into_numbers::<u32>(3).unwrap_err();
        assert_eq!(part.as_slice(), [7; 13]);
        assert!(Memory::new(3).is_none() && Memory::new(0).is_none());
    }
}
