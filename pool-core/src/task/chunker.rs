//! How many items travel together: pure decisions.

use std::time::Duration;

use super::encode::Limit;

/// How long a chunk should keep a worker: so long that handing it over costs little beside it,
/// and so short that nobody idles for long at the end.
const TARGET_NS: u64 = 1_000_000;
/// The most bytes that a chunk of several items should have.
const TARGET_BYTES: usize = 32 * 1024;
/// How much larger one chunk may be than what was measured before.
const GROWTH: u32 = 8;
/// The most items in one chunk.
const MAX_ITEMS: u32 = 1 << 16;

/// Sizes the chunks of one call: as the caller says, or else by the time that items take.
#[derive(Debug, Clone)]
pub(crate) struct Chunker {
    fixed: Option<u32>,
    workers: u32,
    /// Smoothed time of one item, in nanoseconds; `None` until measured.
    item_ns: Option<f64>,
    /// The largest chunk whose time is known.
    largest: u32,
}

impl Chunker {
    pub(crate) fn new(fixed: Option<u32>, workers: usize) -> Self {
        Self {
            fixed,
            workers: u32::try_from(workers).unwrap_or(u32::MAX).max(1),
            item_ns: None,
            largest: 1,
        }
    }

    /// How many items the next chunk should have, where `left` items are left, if that is known.
    pub(crate) fn size(&self, left: Option<usize>) -> u32 {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let Some(item_ns) = self.item_ns else {
            return 1;
        };
        let by_time = (TARGET_NS as f64 / item_ns.max(0.1)) as u32;
        // Guided: a share of what is left, so that the last chunks are small.
        let by_share = left.map_or(u32::MAX, |left| {
            u32::try_from(left / (2 * self.workers as usize)).unwrap_or(u32::MAX)
        });
        by_time
            .min(self.largest.saturating_mul(GROWTH))
            .min(by_share)
            .clamp(1, MAX_ITEMS)
    }

    /// When a chunk that should have so many items is full.
    pub(crate) fn limit(&self, size: u32) -> Limit {
        Limit {
            items: size as usize,
            bytes: match self.fixed {
                None => TARGET_BYTES,
                Some(_) => usize::MAX,
            },
            until: None,
        }
    }

    /// How many items may be under way at a time: enough that each worker has its next chunk
    /// while it is at one.
    pub(crate) fn window(&self, left: Option<usize>) -> usize {
        3 * self.workers as usize * self.size(left) as usize
    }

    /// So many items took so long.
    pub(crate) fn observe(&mut self, items: u32, took: Duration) {
        if items == 0 || took.is_zero() {
            return;
        }
        let sample = took.as_nanos() as f64 / f64::from(items);
        self.item_ns = Some(match self.item_ns {
            None => sample,
            // A larger chunk says more about one item than a smaller one.
            Some(_) if items > self.largest => sample,
            Some(before) => before * 0.75 + sample * 0.25,
        });
        self.largest = self.largest.max(items);
    }
}

/// The chunk sizes of a call whose items are all known beforehand and cannot be measured first:
/// ever smaller shares of what is left. What turns out uneven is balanced by taking back.
pub(crate) fn guided(left: usize, workers: usize, fixed: Option<u32>) -> u32 {
    fixed.unwrap_or_else(|| {
        u32::try_from(left.div_ceil(4 * workers.max(1)))
            .unwrap_or(u32::MAX)
            .clamp(1, MAX_ITEMS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_size_is_kept() {
        let mut chunker = Chunker::new(Some(20), 4);
        chunker.observe(20, Duration::from_nanos(20));
        assert_eq!(chunker.size(Some(1000)), 20);
        assert_eq!(chunker.limit(20).items, 20);
        assert_eq!(chunker.limit(20).bytes, usize::MAX);
    }

    #[test]
    fn slow_items_travel_alone() {
        let mut chunker = Chunker::new(None, 4);
        assert_eq!(chunker.size(None), 1);
        chunker.observe(1, Duration::from_millis(5));
        assert_eq!(chunker.size(None), 1);
    }

    #[test]
    fn fast_items_travel_in_ever_larger_chunks() {
        let mut chunker = Chunker::new(None, 2);
        let mut size = 1;
        for _ in 0..10 {
            chunker.observe(size, Duration::from_nanos(u64::from(size) * 10));
            let next = chunker.size(None);
            assert!(next <= size * GROWTH);
            size = next;
        }
        assert_eq!(size, MAX_ITEMS);
    }

    #[test]
    fn the_last_chunks_are_small() {
        let mut chunker = Chunker::new(None, 2);
        chunker.observe(1000, Duration::from_nanos(10_000));
        assert_eq!(chunker.size(Some(400)), 100);
        assert_eq!(chunker.size(Some(3)), 1);
    }

    #[test]
    fn guided_sizes_cover_everything() {
        let mut left = 1000;
        while left > 0 {
            let size = guided(left, 4, None) as usize;
            assert!((1..=left).contains(&size));
            left -= size;
        }
        assert_eq!(guided(10, 4, Some(3)), 3);
    }
}
