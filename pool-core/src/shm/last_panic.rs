//! The panic that a worker leaves to its parent, should the process end by it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::panic::foreign_text;
use crate::panic::report::PanicReport;

/// How many bytes its place and its message have together, at most.
const TEXT_BYTES: usize = 2048;
/// And its place alone.
const LOCATION_BYTES: usize = 512;
/// And the thread's name, of which the system keeps 15.
const THREAD_BYTES: usize = 64;
/// What stands behind a message that was cut.
const CUT: &str = "..";

/// In `lengths`: there is a panic.
const PRESENT: u64 = 1 << 63;
/// In `lengths`: it was in a thread that does not run tasks.
const OTHER_THREAD: u64 = 1 << 62;
/// The least bits of the lengths of the thread's name and the place. The message's is the rest.
const THREAD_SHIFT: u32 = 48;
const LOCATION_SHIFT: u32 = 32;

/// A part of the words of a region, which the worker writes. Most workers never do. The parent
/// reads it when the worker is dead, and trusts nothing in it.
#[derive(Debug)]
pub(crate) struct LastPanic {
    /// `PRESENT`, perhaps `OTHER_THREAD`, and how many bytes of the text are the thread's name, the
    /// place, and the message. Written last.
    lengths: AtomicU64,
    /// The number of the item that ran.
    item: AtomicU64,
    /// The thread's name, the place, and the message, one behind the other.
    text: [AtomicU64; TEXT_BYTES / 8],
}

impl Default for LastPanic {
    fn default() -> Self {
        Self {
            lengths: AtomicU64::new(0),
            item: AtomicU64::new(0),
            text: [const { AtomicU64::new(0) }; TEXT_BYTES / 8],
        }
    }
}

impl LastPanic {
    /// Worker: a panic under this item may end the process. What is too long is cut.
    pub(crate) fn write(&self, item: u64, panic: &PanicReport) {
        self.clear();
        let thread = panic.thread.as_deref().unwrap_or_default();
        let (thread, _) = foreign_text::split(thread, THREAD_BYTES);
        let location = panic.location.as_deref().unwrap_or_default();
        let (location, _) = foreign_text::split(location, LOCATION_BYTES);
        let message = panic.message.as_str();
        let room = TEXT_BYTES - thread.len() - location.len();
        let mut text = Vec::with_capacity(TEXT_BYTES);
        text.extend_from_slice(thread.as_bytes());
        text.extend_from_slice(location.as_bytes());
        if message.len() <= room {
            text.extend_from_slice(message.as_bytes());
        } else {
            let (head, _) = foreign_text::split(message, room - CUT.len());
            text.extend_from_slice(head.as_bytes());
            text.extend_from_slice(CUT.as_bytes());
        }
        let message_bytes = text.len() - location.len() - thread.len();
        for (word, bytes) in self.text.iter().zip(text.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.item.store(item, Ordering::Relaxed);
        let is_other = if panic.thread.is_some() {
            OTHER_THREAD
        } else {
            0
        };
        let lengths = PRESENT
            | is_other
            | (thread.len() as u64) << THREAD_SHIFT
            | (location.len() as u64) << LOCATION_SHIFT
            | message_bytes as u64;
        self.lengths.store(lengths, Ordering::Release);
    }

    /// Worker: no panic will end the process.
    pub(crate) fn clear(&self) {
        self.lengths.store(0, Ordering::SeqCst);
    }

    /// Parent: what was left of a panic under the item with this number.
    ///
    /// A copy is made first, so that what is looked at does not change.
    pub(crate) fn read(&self, item: u64) -> Option<PanicReport> {
        let lengths = self.lengths.load(Ordering::Acquire);
        if lengths & PRESENT == 0 || self.item.load(Ordering::Relaxed) != item {
            return None;
        }
        let mut text = Vec::with_capacity(TEXT_BYTES);
        for word in &self.text {
            text.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let mut rest = text.as_slice();
        let mut next = |bits: u64| {
            let bytes = usize::try_from(bits).ok()?;
            let (piece, behind) = rest.split_at_checked(bytes)?;
            rest = behind;
            Some(piece)
        };
        let thread = next((lengths & !PRESENT & !OTHER_THREAD) >> THREAD_SHIFT)?;
        let location = next(lengths >> LOCATION_SHIFT & 0xffff)?;
        let message = next(lengths & u64::from(u32::MAX))?;
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(PanicReport {
            message: lossy(message),
            location: (!location.is_empty()).then(|| lossy(location)),
            backtrace: None,
            thread: (lengths & OTHER_THREAD != 0).then(|| lossy(thread)),
        })
    }
}

/// What a worker leaves of a panic.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    use std::sync::atomic::Ordering;

    use super::{LOCATION_SHIFT, LastPanic, OTHER_THREAD, PRESENT, TEXT_BYTES, THREAD_SHIFT};
    use crate::error::task_error::TaskError;
    use crate::fuzzing::Input;

    /// Reads an input as what a worker has left, and makes the error of it.
    ///
    /// # Panics
    /// When there is more text than room for it, or a message does something to a terminal.
    pub fn last_panic(input: &[u8]) {
        let mut input = Input(input);
        let last = LastPanic::default();
        let (kind, lengths) = (input.byte(), input.word());
        // Lengths that fit are rare otherwise.
        let lengths = if kind.is_multiple_of(2) {
            let short = (lengths & 0xfff) << LOCATION_SHIFT | lengths >> 12 & 0xfff;
            let thread = (lengths >> 24 & 0xff) << THREAD_SHIFT;
            PRESENT | lengths & OTHER_THREAD | thread | short
        } else {
            lengths
        };
        last.lengths.store(lengths, Ordering::Relaxed);
        last.item.store(u64::from(kind / 2), Ordering::Relaxed);
        for word in &last.text {
            word.store(input.word(), Ordering::Relaxed);
        }
        let Some(report) = last.read(0) else {
            return;
        };
        let location = report.location.as_ref().map_or(0, String::len);
        let thread = report.thread.as_ref().map_or(0, String::len);
        // Each byte that is no text becomes a character of three.
        assert!(report.message.len() + location + thread <= 3 * TEXT_BYTES);
        let error = TaskError::aborted(report, "was killed");
        for text in [error.to_string(), format!("{error:?}")] {
            let is_harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
            assert!(!text.contains(is_harmful), "{text:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn panic_at(location: &str, message: &str) -> PanicReport {
        PanicReport {
            message: message.to_owned(),
            location: (!location.is_empty()).then(|| location.to_owned()),
            ..PanicReport::default()
        }
    }

    #[test]
    fn what_was_written_is_read_for_its_item_alone() {
        let last = LastPanic::default();
        assert_eq!(last.read(0), None);
        let mut panic = panic_at("src/main.rs:1:2", "grüße");
        last.write(7, &panic);
        assert_eq!(last.read(7).as_ref(), Some(&panic));
        assert_eq!((last.read(6), last.read(8)), (None, None));
        for thread in ["", "flusher"] {
            panic.thread = Some(thread.to_owned());
            last.write(7, &panic);
            assert_eq!(last.read(7).as_ref(), Some(&panic));
        }
        last.write(8, &panic_at("", ""));
        assert_eq!(last.read(8), Some(panic_at("", "")));
        last.clear();
        assert_eq!(last.read(8), None);
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let last = LastPanic::default();
        let long = "ü".repeat(TEXT_BYTES);
        let mut panic = panic_at(&format!("x{long}"), &long);
        panic.thread = Some(long.clone());
        last.write(1, &panic);
        let report = last.read(1).unwrap();
        assert_eq!(report.thread.unwrap().len(), THREAD_BYTES);
        assert_eq!(report.location.unwrap().len(), LOCATION_BYTES - 1);
        let (kept, cut) = report.message.split_at(report.message.len() - CUT.len());
        assert_eq!(cut, CUT);
        let room = TEXT_BYTES - LOCATION_BYTES - THREAD_BYTES;
        assert!(long.starts_with(kept) && kept.len() > room - 4);
        last.write(1, &panic_at("", &long[..TEXT_BYTES]));
        assert_eq!(last.read(1).unwrap().message, long[..TEXT_BYTES]);
    }

    proptest! {
        /// Whatever a worker has left there: no panic, and no more text than there is room for.
        #[test]
        fn rubbish_is_read_without_harm(
            seed in any::<[u64; 3]>(),
            lengths in prop_oneof![
                any::<u64>(),
                (0..100_u64, 0..3000_u64, 0..3000_u64).prop_map(|(name, at, len)| {
                    PRESENT | name << THREAD_SHIFT | at << LOCATION_SHIFT | len
                }),
            ],
        ) {
            let last = LastPanic::default();
            for (n, word) in (1..).zip(&last.text) {
                let rubbish = seed[0].wrapping_mul(n).wrapping_add(seed[1]).rotate_left(n as u32);
                word.store(rubbish ^ seed[2], Ordering::Relaxed);
            }
            last.lengths.store(lengths, Ordering::Relaxed);
            last.item.store(5, Ordering::Relaxed);
            prop_assert_eq!(last.read(4), None);
            let name = (lengths & !PRESENT & !OTHER_THREAD) >> THREAD_SHIFT;
            let at = lengths >> LOCATION_SHIFT & 0xffff;
            let bytes = name + at + (lengths & u64::from(u32::MAX));
            let fits = lengths & PRESENT != 0 && bytes <= TEXT_BYTES as u64;
            let report = last.read(5);
            prop_assert_eq!(report.is_some(), fits);
            if let Some(report) = report {
                // Each byte that is no text becomes a character of three.
                prop_assert!(report.message.len() <= 3 * TEXT_BYTES);
            }
        }
    }
}
