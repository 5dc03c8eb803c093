//! How many items travel together: pure decisions.

use std::time::Duration;

use super::encode::Limit;
use super::grain::Grain;

/// How much larger one chunk may be than what was measured before.
const GROWTH: u32 = 8;
/// How much less a chunk counts with each one that is measured after it.
const KEPT: f64 = 0.75;
/// The most items in one chunk.
const MAX_ITEMS: u32 = 1 << 16;

/// Sizes the chunks of one call: as the caller says, or else by the time that items take.
#[derive(Debug, Clone)]
pub(crate) struct Chunker {
    fixed: Option<u32>,
    grain: Grain,
    /// How many items were measured, the latest ones counting most.
    measured: f64,
    /// How long they took together, in nanoseconds.
    took_ns: f64,
    /// The largest chunk whose time is known.
    largest: u32,
}

impl Chunker {
    pub(crate) fn new(fixed: Option<u32>, grain: Grain) -> Self {
        Self {
            fixed,
            grain,
            measured: 0.0,
            took_ns: 0.0,
            largest: 1,
        }
    }

    /// The executor is like this now.
    pub(crate) fn adapt(&mut self, grain: Grain) {
        self.grain = grain;
    }

    /// How many items the next chunk should have, where `left` items are left, if that is known.
    pub(crate) fn size(&self, left: Option<usize>) -> u32 {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        if self.measured == 0.0 {
            return 1;
        }
        let item_ns = self.took_ns / self.measured;
        let target_ns = self.grain.chunking.target.as_nanos() as f64;
        let by_time = (target_ns / item_ns.max(0.1)) as u32;
        // Guided: a share of what is left, so that the last chunks are small.
        let by_share = left.map_or(u32::MAX, |left| {
            u32::try_from(left / self.grain.workers.saturating_mul(2)).unwrap_or(u32::MAX)
        });
        by_time
            .min(self.largest.saturating_mul(GROWTH))
            .min(by_share)
            .clamp(1, MAX_ITEMS)
    }

    /// When a chunk that should have this many items is full.
    pub(crate) fn limit(&self, size: u32) -> Limit {
        Limit {
            items: size as usize,
            bytes: match self.fixed {
                None => self.grain.chunking.max_bytes,
                Some(_) => usize::MAX,
            },
            until: None,
        }
    }

    /// How many items may be under way at a time: enough that each worker has its next chunk
    /// while it is at one.
    pub(crate) fn window(&self, left: Option<usize>) -> usize {
        let chunks = self.grain.chunking.ahead.max(1);
        let chunks = chunks.saturating_mul(self.grain.workers);
        chunks.saturating_mul(self.size(left) as usize)
    }

    /// This many items took this long.
    pub(crate) fn observe(&mut self, items: u32, took: Duration) {
        if items == 0 || took.is_zero() {
            return;
        }
        // A chunk says as much about one item as it has items: the time of a single small one is
        // mostly that of the chunk.
        self.measured = self.measured * KEPT + f64::from(items);
        self.took_ns = self.took_ns * KEPT + took.as_nanos() as f64;
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
    use super::super::chunking::Chunking;
    use super::*;

    fn grain(workers: usize) -> Grain {
        Grain {
            workers,
            chunking: Chunking::default(),
        }
    }

    /// What an executor says while a call goes on counts from then on.
    #[test]
    fn an_executor_may_change_its_mind() {
        let mut chunker = Chunker::new(None, grain(2));
        for _ in 0..10 {
            let size = chunker.size(None);
            chunker.observe(size, Duration::from_micros(10) * size);
        }
        assert_eq!((chunker.size(None), chunker.window(None)), (100, 600));
        let mut other = grain(5);
        other.chunking.target = Duration::from_millis(4);
        other.chunking.ahead = 2;
        other.chunking.max_bytes = 1000;
        chunker.adapt(other);
        assert_eq!((chunker.size(None), chunker.window(None)), (400, 4000));
        assert_eq!(chunker.limit(400).bytes, 1000);
    }

    #[test]
    fn a_fixed_size_is_kept() {
        let mut chunker = Chunker::new(Some(20), grain(4));
        chunker.observe(20, Duration::from_nanos(20));
        assert_eq!(chunker.size(Some(1000)), 20);
        assert_eq!(chunker.limit(20).items, 20);
        assert_eq!(chunker.limit(20).bytes, usize::MAX);
    }

    #[test]
    fn slow_items_travel_alone() {
        let mut chunker = Chunker::new(None, grain(4));
        assert_eq!(chunker.size(None), 1);
        chunker.observe(1, Duration::from_millis(5));
        assert_eq!(chunker.size(None), 1);
    }

    #[test]
    fn fast_items_travel_in_ever_larger_chunks() {
        let mut chunker = Chunker::new(None, grain(2));
        let mut size = 1;
        for _ in 0..10 {
            chunker.observe(size, Duration::from_nanos(u64::from(size) * 10));
            let next = chunker.size(None);
            assert!(next <= size * GROWTH);
            size = next;
        }
        assert_eq!(size, MAX_ITEMS);
    }

    /// A chunk that was sent early, for a worker that had nothing to do, is small, whatever its
    /// items are like.
    #[test]
    fn a_small_chunk_says_little() {
        let mut chunker = Chunker::new(None, grain(2));
        for _ in 0..10 {
            chunker.observe(2_000, Duration::from_nanos(20_000));
        }
        let before = chunker.size(None);
        for _ in 0..3 {
            chunker.observe(1, Duration::from_nanos(2_000));
        }
        assert!(chunker.size(None) >= before / 2);
        // Unless it takes long.
        chunker.observe(1, Duration::from_millis(500));
        assert!(chunker.size(None) < before / 100);
    }

    #[test]
    fn items_that_become_faster_travel_together_again() {
        let mut chunker = Chunker::new(None, grain(2));
        chunker.observe(1_000, Duration::from_micros(10));
        chunker.observe(1_000, Duration::from_secs(1));
        assert_eq!(chunker.size(None), 1);
        for _ in 0..60 {
            let size = chunker.size(None);
            chunker.observe(size, Duration::from_nanos(u64::from(size) * 10));
        }
        assert!(chunker.size(None) >= 1_000);
    }

    #[test]
    fn the_last_chunks_are_small() {
        let mut chunker = Chunker::new(None, grain(2));
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
