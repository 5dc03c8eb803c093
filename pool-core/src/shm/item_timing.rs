//! What a worker says of an item that is measured.

use serde::{Deserialize, Serialize};

/// What a worker says of one item: times in nanoseconds, memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ItemTiming {
    /// When it began, on the monotonic clock, which all processes share.
    pub(crate) begun: u64,
    /// How long it took to decode the argument.
    pub(crate) decode: u64,
    /// How long the function ran.
    pub(crate) run: u64,
    /// How long it took to encode the result.
    pub(crate) encode: u64,
    /// Processor time of all that, of all threads of the worker.
    pub(crate) cpu: u64,
    /// The most memory that the worker ever had resident, up to the end of the item.
    pub(crate) peak_rss: u64,
}

impl ItemTiming {
    /// How many bytes it travels as.
    pub(crate) const BYTES: usize = 48;

    pub(crate) fn write(&self) -> [u8; Self::BYTES] {
        let words = [
            self.begun,
            self.decode,
            self.run,
            self.encode,
            self.cpu,
            self.peak_rss,
        ];
        let mut bytes = [0; Self::BYTES];
        for (room, word) in bytes.chunks_exact_mut(8).zip(words) {
            room.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None`: these bytes are of another length.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| bytes[at..].first_chunk().copied().map(u64::from_le_bytes);
        Some(Self {
            begun: word(0)?,
            decode: word(8)?,
            run: word(16)?,
            encode: word(24)?,
            cpu: word(32)?,
            peak_rss: word(40)?,
        })
    }

    /// The same, cut to what can be: the item began after `earliest`, and all of it was before
    /// `now`. It is a worker's word, and none of it may be later than the present, or overflow.
    pub(crate) fn within(self, earliest: u64, now: u64) -> Self {
        let begun = self.begun.clamp(earliest.min(now), now);
        let mut left = now - begun;
        let mut cut = |time: u64| {
            let time = time.min(left);
            left -= time;
            time
        };
        Self {
            begun,
            decode: cut(self.decode),
            run: cut(self.run),
            encode: cut(self.encode),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: ItemTiming = ItemTiming {
        begun: 1000,
        decode: 10,
        run: 200,
        encode: 30,
        cpu: 205,
        peak_rss: 1 << 20,
    };

    #[test]
    fn measures_survive() {
        assert_eq!(ItemTiming::read(&SOME.write()), Some(SOME));
        assert_eq!(ItemTiming::read(&SOME.write()[1..]), None);
    }

    #[test]
    fn what_can_be_is_left_as_it_is() {
        assert_eq!(SOME.within(900, 2000), SOME);
    }

    #[test]
    fn lies_are_cut() {
        let lie = ItemTiming {
            begun: u64::MAX,
            decode: u64::MAX,
            run: u64::MAX,
            encode: u64::MAX,
            ..SOME
        };
        let cut = lie.within(500, 2000);
        assert_eq!((cut.begun, cut.decode, cut.run), (2000, 0, 0));
        let cut = ItemTiming { begun: 0, ..lie }.within(500, 2000);
        assert_eq!((cut.begun, cut.decode, cut.run), (500, 1500, 0));
        // A submission that is later than now cannot be either.
        assert_eq!(lie.within(3000, 2000).begun, 2000);
    }
}
