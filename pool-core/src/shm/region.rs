//! The memory that a parent and one worker share.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{self, AtomicBool};

use super::build_identity::PROTOCOL_VERSION;
use super::last_panic::LastPanic;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
use crate::sync::{self, FutexWord};
use crate::sys;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};

const MAGIC: u64 = u64::from_le_bytes(*b"procpool");

/// One page for the words.
const WORDS_BYTES: usize = if sync::IS_MODEL { 1 << 14 } else { 4096 };

/// Behind them, a piece of the worker's stack, when the parent has asked. It takes no memory until
/// then. A model has no use for it.
const STACK_BYTES: usize = if sync::IS_MODEL { 0 } else { 64 * 1024 };

/// The capacities of a worker's two rings, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingSizes {
    pub(crate) requests: usize,
    pub(crate) responses: usize,
}

impl RingSizes {
    /// Both of so many bytes.
    pub(crate) const fn both(bytes: usize) -> Self {
        Self {
            requests: bytes,
            responses: bytes,
        }
    }
}

/// Where the rings begin.
const RINGS: usize = WORDS_BYTES + STACK_BYTES;

/// The smallest and the largest capacity of a ring, in bytes.
pub(crate) const RING_BYTES: std::ops::RangeInclusive<usize> =
    if sync::IS_MODEL { 64 } else { 4096 }..=1 << 30;

/// A value alone on its cache lines, so that two writers of neighbouring values do not slow each
/// other down. 128 bytes, since processors fetch lines in pairs.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct Lines<T>(T);

impl<T> std::ops::Deref for Lines<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The words at the start of a region. Each is written by one side, but for those that say so.
/// They are all atomics, since the other process may write them at any time; what the parent
/// reads in those of the worker, it validates.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Words {
    /// Parent, before the launch: who the worker is.
    pub(crate) identity: Lines<Identity>,
    /// Parent: bytes put into the request ring, ever.
    pub(crate) request_tail: Lines<AtomicU64>,
    /// Worker: bytes taken out of the request ring, ever.
    pub(crate) request_head: Lines<AtomicU64>,
    /// Worker: bytes put into the response ring, ever, that the parent may take.
    pub(crate) response_tail: Lines<AtomicU64>,
    /// Parent: bytes taken out of the response ring, ever.
    pub(crate) response_head: Lines<AtomicU64>,
    /// Worker: how far it is.
    pub(crate) progress: Lines<Progress>,
    /// Both: 1 while the worker sleeps on it (a futex). See "Sleeping" in
    /// `engine/README.md`.
    pub(crate) worker_asleep: Lines<FutexWord>,
    /// Both: the parent says what it wants to be rung for (`WANT_*`), the worker clears it and
    /// rings.
    pub(crate) parent_wants: Lines<AtomicU32>,
    /// Parent: whether what has not begun is taken back. See [`Region::begin_item`].
    reclaim: Lines<Reclaim>,
    /// Parent: what the worker should know.
    pub(crate) advice: Lines<Advice>,
    /// Parent: how many values of the running item were consumed: see [`Region::consumed`].
    consumed: Lines<AtomicU64>,
    /// Worker: where it is, when the parent has asked.
    pub(crate) stack: Lines<Stack>,
    /// Worker: the panic that may end it.
    pub(crate) last_panic: Lines<LastPanic>,
    /// Worker: one more than the number of the item under which it dies for want of memory.
    out_of_memory: Lines<atomic::AtomicU64>,
    /// What its sandbox has refused.
    refused: Lines<Refused>,
}

/// How many system calls have a bit: more than there are on any processor.
const CALLS: usize = 512;

/// See [`Words::refused`].
#[derive(Debug)]
pub(crate) struct Refused {
    /// Worker: one more than the number of the last system call.
    last: atomic::AtomicU32,
    /// Both: a bit for each that was refused since the parent has looked.
    calls: [atomic::AtomicU64; CALLS / 64],
}

impl Default for Refused {
    fn default() -> Self {
        Self {
            last: atomic::AtomicU32::new(0),
            calls: std::array::from_fn(|_| atomic::AtomicU64::new(0)),
        }
    }
}

/// See [`Words::identity`].
#[derive(Debug, Default)]
pub(crate) struct Identity {
    magic: AtomicU64,
    version: AtomicU32,
    /// The two halves of the parent's
    /// [`build_identity`](crate::shm::build_identity::build_identity).
    build: [AtomicU64; 2],
    pub(crate) number: AtomicU32,
    pub(crate) generation: AtomicU32,
    /// [`WorkerInfo::seed`](crate::process::worker_info::WorkerInfo::seed).
    pub(crate) seed: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
}

/// See [`Words::progress`].
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Like `response_tail`, but up to the last finished item, whether published or not: what a
    /// worker that dies in the middle of a chunk leaves behind.
    pub(crate) staged: AtomicU64,
    /// When the running item began, on the monotonic clock in nanoseconds. Kept only for items
    /// that have a deadline.
    pub(crate) item_started: AtomicU64,
    /// When the frame began that it runs, on the monotonic clock in nanoseconds; 0: it runs none.
    pub(crate) frame_started: AtomicU64,
    /// Both: how many `tracing` events there was no room for in the pipe, as far as the parent has
    /// not counted them.
    #[cfg_attr(
        not(feature = "tracing"),
        allow(dead_code, reason = "the layout is the same")
    )]
    pub(crate) events_dropped: AtomicU64,
    /// The number, counted from 1, of the last item that it has begun, or was about to begin.
    begun: AtomicU64,
    /// How much memory it holds, in bytes, at the end of the last frame. Kept only where that
    /// matters.
    resident: AtomicU64,
}

/// See [`Words::reclaim`].
#[derive(Debug, Default)]
struct Reclaim {
    /// `NOTHING_RECLAIMED`, `DECIDING` or `DECIDED`; a futex for a worker that waits for the
    /// latter.
    state: FutexWord,
    /// Once decided: the number of the last item that the worker may run.
    last: AtomicU64,
}

const NOTHING_RECLAIMED: u32 = 0;
const DECIDING: u32 = 1;
const DECIDED: u32 = 2;

/// See [`Words::advice`].
#[derive(Debug, Default)]
pub(crate) struct Advice {
    /// Whether a worker that finds nothing to do may spin for a while before it sleeps.
    pub(crate) may_spin: AtomicU32,
    /// The number, counted from 1, of the item that should stop early; 0 for none.
    pub(crate) cancelled: AtomicU64,
    /// How often memory was freed of which the worker may hold some.
    pub(crate) freed: AtomicU32,
    /// The most detailed `tracing` events that it should forward: 1 for errors to 5 for all, 0 for
    /// none.
    pub(crate) max_level: AtomicU32,
    /// How many bytes a result may have; 0: any number.
    pub(crate) max_result: AtomicU64,
    /// The parent cannot put barriers into other processes: see [`Region::begin_item`].
    fence_items: AtomicU32,
}

/// See [`Words::stack`]. A model has no use for it.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    /// Parent: the number of its question.
    pub(crate) asked: atomic::AtomicU32,
    /// Worker: the number of the question that was answered last.
    pub(crate) answered: atomic::AtomicU32,
    /// Where the worker's executable has its code.
    pub(crate) code: atomic::AtomicU64,
    /// Where the thread that runs tasks was interrupted, and its stack and frame pointers; on some
    /// processors also where it would return to.
    pub(crate) instruction: atomic::AtomicU64,
    pub(crate) stack: atomic::AtomicU64,
    pub(crate) frame: atomic::AtomicU64,
    pub(crate) link: atomic::AtomicU64,
    /// How many words of the stack were copied, from the stack pointer on: see [`Region::stack`].
    pub(crate) count: atomic::AtomicU32,
}

/// In `parent_wants`: ring when there is a result.
pub(crate) const WANT_RESULTS: u32 = 1;
/// In `parent_wants`: ring when there is space in the request ring.
pub(crate) const WANT_SPACE: u32 = 2;
/// In `parent_wants`: the parent knows that this worker has lost its doorbell, and looks now and
/// then.
pub(crate) const LOOKS_BY_ITSELF: u32 = 4;

const _: () = assert!(size_of::<Words>() <= WORDS_BYTES);

/// The memory that a parent and one worker share: a page of words, and a ring each way.
///
/// It is mapped in exactly two processes. A worker that writes rubbish into it harms itself
/// alone, for the parent validates all that it reads here.
pub struct Region {
    memory: sys::Mapping,
    /// Whether this process has its side of the rings already.
    is_claimed: AtomicBool,
    /// See [`wake_by`](Self::wake_by).
    wakeup: OnceLock<OwnedFd>,
}

impl Region {
    /// Makes a zero-filled region, and the descriptor by which another process can map it.
    ///
    /// # Errors
    /// When the system is out of descriptors or memory.
    pub fn create(bytes: usize) -> io::Result<(Self, OwnedFd)> {
        let file = sys::memory_file(bytes)?;
        // SAFETY: it is the first mapping of memory that was just made.
        let region = unsafe { Self::map(file.as_fd())? };
        Ok((region, file))
    }

    /// Maps the region behind a descriptor that [`create`](Self::create) made, in another process.
    ///
    /// # Errors
    /// When the system is out of memory, or this is no descriptor of a region.
    ///
    /// # Safety
    /// The memory is that of a `create`, whose size nobody can change. This process has no other
    /// mapping of it that it uses, and when it has handed the mapping to
    /// [`worker::serve`](crate::worker::serve), nobody writes into the memory but that and the
    /// engine of the parent.
    pub unsafe fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self::new(sys::Mapping::shared(file)?))
    }

    fn new(memory: sys::Mapping) -> Self {
        Self {
            memory,
            is_claimed: AtomicBool::new(false),
            wakeup: OnceLock::new(),
        }
    }

    /// In a model, where both sides are in this process: a region for both.
    #[cfg(any(loom, shuttle))]
    pub(crate) fn for_model(bytes: usize) -> Self {
        let region = Self::new(sys::Mapping::of_words(bytes, Words::default()));
        sync::watch(region.request_ring(), bytes - RINGS);
        region
    }

    /// In a model: the same memory for the other side.
    #[cfg(any(loom, shuttle))]
    pub(crate) fn again(&self) -> Self {
        Self::new(self.memory.clone())
    }

    /// In a model: a thread that sleeps on a word here wakes, to be killed.
    #[cfg(shuttle)]
    pub(crate) fn wake_all(&self) {
        self.words().worker_asleep.wake();
        self.words().reclaim.state.wake();
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Where it is mapped. The memory behind it changes at any time.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.memory.address()
    }

    /// The bytes that a region with rings of these capacities takes.
    pub(crate) fn bytes_for(rings: RingSizes) -> usize {
        RINGS + rings.requests + rings.responses
    }

    /// Worker: how much memory it holds, in bytes.
    pub(crate) fn set_resident(&self, bytes: u64) {
        self.words()
            .progress
            .resident
            .store(bytes, Ordering::Relaxed);
    }

    /// Parent: how much memory the worker held when its last frame ended, as it says.
    pub(crate) fn resident(&self) -> u64 {
        self.words().progress.resident.load(Ordering::Relaxed)
    }

    /// Parent, before the launch: writes down who the worker will be.
    pub(crate) fn introduce(&self, number: u32, generation: u32, rings: RingSizes) {
        assert!(
            self.is_filled_by(rings),
            "a launcher made a region of the wrong size"
        );
        let identity = &self.words().identity;
        identity.number.store(number, Ordering::Relaxed);
        identity.generation.store(generation, Ordering::Relaxed);
        identity
            .request_bytes
            .store(rings.requests as u64, Ordering::Relaxed);
        identity
            .response_bytes
            .store(rings.responses as u64, Ordering::Relaxed);
        identity.version.store(PROTOCOL_VERSION, Ordering::Relaxed);
        for (half, word) in
            halves(crate::shm::build_identity::build_identity()).zip(&identity.build)
        {
            word.store(half, Ordering::Relaxed);
        }
        let fence_items = u32::from(!sys::has_barriers());
        let advice = &self.words().advice;
        advice.fence_items.store(fence_items, Ordering::Relaxed);
        identity.magic.store(MAGIC, Ordering::Release);
    }

    /// Whether they are what it was made for. Some systems make memory longer than it was asked
    /// for.
    fn is_filled_by(&self, rings: RingSizes) -> bool {
        self.bytes() == sys::memory_size(Self::bytes_for(rings))
    }

    /// Parent: takes its side of the rings, which have these capacities. `false`: they do not fill
    /// the region, or somebody has that side already. Two would write over each other.
    pub(crate) fn claim(&self, rings: RingSizes) -> bool {
        self.is_filled_by(rings) && !self.is_claimed.swap(true, Ordering::AcqRel)
    }

    /// Worker, first thing: the capacities of the two rings, or why this is no region of ours.
    pub(crate) fn capacities(&self) -> Result<RingSizes, &'static str> {
        if self.bytes() < RINGS {
            return Err("the shared memory is too small to be a region");
        }
        let identity = &self.words().identity;
        if identity.magic.load(Ordering::Acquire) != MAGIC {
            return Err("the shared memory is no region of procpool");
        }
        if identity.version.load(Ordering::Relaxed) != PROTOCOL_VERSION {
            return Err("the region is of another version of procpool");
        }
        // An entry's number means something else in another program.
        if halves(crate::shm::build_identity::build_identity())
            .zip(&identity.build)
            .any(|(half, word)| word.load(Ordering::Relaxed) != half)
        {
            return Err("the region is of another program, or of another build of this one");
        }
        let rings = RingSizes {
            requests: identity.request_bytes.load(Ordering::Relaxed) as usize,
            responses: identity.response_bytes.load(Ordering::Relaxed) as usize,
        };
        let valid = |bytes: &usize| RING_BYTES.contains(bytes) && bytes.is_power_of_two();
        if !valid(&rings.requests) || !valid(&rings.responses) || !self.is_filled_by(rings) {
            return Err("the region's rings do not fill it");
        }
        Ok(rings)
    }

    pub(crate) fn words(&self) -> &Words {
        // SAFETY: the mapping is page-aligned, at least `WORDS_BYTES` long (checked by
        // `introduce` in the parent and `capacities` in the worker), never unmapped while `self`
        // lives, and every field is an atomic, for which any bit pattern is valid.
        unsafe { self.address().cast::<Words>().as_ref() }
    }

    /// Worker: a copy of a part of its stack, when the parent has asked for it.
    pub(crate) fn stack(&self) -> &[atomic::AtomicU64] {
        // SAFETY: between the words and the rings, see `words`, and aligned like a page.
        unsafe {
            let start = self.address().add(WORDS_BYTES).cast();
            std::slice::from_raw_parts(start.as_ptr(), STACK_BYTES / size_of::<u64>())
        }
    }

    /// The first byte of the request ring.
    pub(crate) fn request_ring(&self) -> NonNull<u8> {
        self.at(RINGS)
    }

    /// The first byte of the response ring, which follows the request ring.
    pub(crate) fn response_ring(&self, rings: RingSizes) -> NonNull<u8> {
        self.at(RINGS + rings.requests)
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.bytes(), "a region has its rings inside");
        // SAFETY: it is inside of the mapping, or at its end.
        unsafe { self.address().add(offset) }
    }

    /// Worker: begins the item with this number, counted from 1. `false`: it was taken back and
    /// must be skipped.
    ///
    /// The worker writes down what it begins and then looks whether items are taken back; the
    /// parent says that it takes items back and then looks what has begun. So one of the two sees
    /// the other, given a barrier between the two steps on each side. The worker's would cost more
    /// than a small item does, so the parent, which takes back rarely, executes both by
    /// `membarrier`; `fenced` says that it cannot. A worker that sees the parent at it waits for
    /// the decision, which is the next thing that the parent does.
    #[inline]
    pub(crate) fn begin_item(&self, number: u64, fenced: bool) -> bool {
        let words = self.words();
        words.progress.begun.store(number, Ordering::Release);
        if fenced {
            fence(Ordering::SeqCst);
        } else {
            compiler_fence(Ordering::SeqCst);
        }
        words.reclaim.state.load(Ordering::Acquire) == NOTHING_RECLAIMED || self.may_run(number)
    }

    #[cold]
    fn may_run(&self, number: u64) -> bool {
        let reclaim = &self.words().reclaim;
        while reclaim.state.load(Ordering::Acquire) == DECIDING {
            self.sleep_while(&reclaim.state, DECIDING);
        }
        // If all was reinstated in the meantime, `last` still is what was decided.
        number <= reclaim.last.load(Ordering::Acquire)
    }

    /// Worker, at the beginning: gets ready for [`begin_item`](Self::begin_item), and says whether
    /// it must be fenced.
    pub(crate) fn prepare_items(&self) -> bool {
        let registered = sys::accept_barriers();
        let advised = self.words().advice.fence_items.load(Ordering::Relaxed) != 0;
        !registered || advised
    }

    /// Parent: takes back all that has not begun, and says how many items have, ever.
    pub(crate) fn begin_reclaim(&self) -> u64 {
        let words = self.words();
        words.reclaim.state.store(DECIDING, Ordering::SeqCst);
        sys::barrier_everywhere();
        let begun = words.progress.begun.load(Ordering::Acquire);
        words.reclaim.last.store(begun, Ordering::Release);
        words.reclaim.state.store(DECIDED, Ordering::Release);
        self.wake_sleeper(&words.reclaim.state);
        begun
    }

    /// Parent, when the worker has passed over what was taken back: items may begin again.
    pub(crate) fn finish_reclaim(&self) {
        let reclaim = &self.words().reclaim;
        reclaim.state.store(NOTHING_RECLAIMED, Ordering::Release);
    }

    /// Parent: of the values that the item with this number emits, so many were consumed. A worker
    /// that waits for it is to be [woken](Self::wake_worker).
    ///
    /// Of both numbers the low halves are kept, in one word: what an item reads is its own, or of
    /// one before, and then none of its values was consumed.
    pub(crate) fn set_consumed(&self, item: u64, count: u64) {
        let word = item << 32 | count & u64::from(u32::MAX);
        self.words().consumed.store(word, Ordering::Release);
    }

    /// Worker: how many of the values were consumed that its item has emitted, which has this
    /// number and has emitted so many.
    pub(crate) fn consumed(&self, item: u64, emitted: u64) -> u64 {
        let word = self.words().consumed.load(Ordering::Acquire);
        if (word >> 32) as u32 != item as u32 {
            return 0;
        }
        let behind = (emitted as u32).wrapping_sub(word as u32);
        emitted.saturating_sub(behind.into())
    }

    /// Parent: wakes the worker if it sleeps. What was stored before, the worker sees, or this sees
    /// that it sleeps.
    pub(crate) fn wake_worker(&self) {
        let asleep = &*self.words().worker_asleep;
        fence(Ordering::SeqCst);
        if asleep.load(Ordering::Relaxed) != 0 {
            asleep.store(0, Ordering::Relaxed);
            self.wake_sleeper(asleep);
        }
    }

    /// How this side's process wakes the worker, or is woken, where a word of memory does not do:
    /// see [`sys::wakeup`]. Said once.
    pub(crate) fn wake_by(&self, end: OwnedFd) {
        // A second one is a defect, and then the first one does.
        let set = self.wakeup.set(end);
        debug_assert!(set.is_ok(), "it was said before");
    }

    /// Worker: sleeps while a word here has this value, or for a shorter time.
    pub(crate) fn sleep_while(&self, word: &FutexWord, expected: u32) {
        sys::sleep_while(word, expected, self.wakeup.get().map(AsFd::as_fd));
    }

    /// Parent: wakes the worker that sleeps on this word.
    fn wake_sleeper(&self, word: &FutexWord) {
        sys::wake_sleeper(word, self.wakeup.get().map(AsFd::as_fd));
    }

    /// Worker: whether the running item, which has this number, is to stop.
    pub(crate) fn is_cancelled(&self, item: u64) -> bool {
        self.words().advice.cancelled.load(Ordering::Relaxed) == item
    }

    /// A parent that is another program.
    #[cfg(test)]
    pub(crate) fn pretend_another_build(&self) {
        let build = &self.words().identity.build;
        build[1].fetch_add(1, Ordering::Relaxed);
    }

    /// A worker that lies: what [`items_begun`](Self::items_begun) says from now on.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn lie_about_begun(&self, begun: u64) {
        self.words().progress.begun.store(begun, Ordering::Release);
    }

    /// Parent: when the running item began, in nanoseconds of the monotonic clock, if the worker
    /// was asked to note it. Not to be trusted.
    pub(crate) fn item_started(&self) -> Option<u64> {
        let started = self.words().progress.item_started.load(Ordering::Acquire);
        (started != 0).then_some(started)
    }

    /// Parent: when the worker began the frame that it is at. Not to be trusted.
    pub(crate) fn frame_started(&self) -> Option<u64> {
        let started = self.words().progress.frame_started.load(Ordering::Relaxed);
        (started != 0).then_some(started)
    }

    /// Parent: how many items the worker has begun, ever. Not to be trusted beyond this worker.
    pub(crate) fn items_begun(&self) -> u64 {
        self.words().progress.begun.load(Ordering::Acquire)
    }

    /// Worker, in a handler of signals: it dies for want of memory.
    #[cfg(unix)]
    pub(crate) fn leave_out_of_memory(&self) {
        let item = self.items_begun().wrapping_add(1);
        let word = &self.words().out_of_memory;
        word.store(item, atomic::Ordering::Release);
    }

    /// Parent: whether the worker has died of that under the item with this number.
    pub(crate) fn was_out_of_memory(&self, item: u64) -> bool {
        let word = self.words().out_of_memory.load(atomic::Ordering::Acquire);
        word == item.wrapping_add(1)
    }

    /// Worker, in a handler of signals: its sandbox refuses the system call of this number.
    #[cfg(feature = "sandbox")]
    pub(crate) fn leave_refused_call(&self, number: u32) {
        let refused = &self.words().refused;
        let last = number.saturating_add(1);
        refused.last.store(last, atomic::Ordering::Release);
        if let Some(word) = refused.calls.get(number as usize / 64) {
            word.fetch_or(1 << (number % 64), atomic::Ordering::Release);
        }
    }

    /// Parent: the last system call that the worker's sandbox has refused. Not to be trusted.
    pub(crate) fn last_refused_call(&self) -> Option<u32> {
        let last = self.words().refused.last.load(atomic::Ordering::Acquire);
        last.checked_sub(1)
    }

    /// Parent: those that were refused since it has asked before. Not to be trusted.
    pub(crate) fn take_refused_calls(&self) -> impl Iterator<Item = u32> + use<> {
        let words = self.words().refused.calls.iter();
        let words: Vec<u64> = match words
            .clone()
            .all(|it| it.load(atomic::Ordering::Relaxed) == 0)
        {
            true => Vec::new(),
            false => words
                .map(|it| it.swap(0, atomic::Ordering::AcqRel))
                .collect(),
        };
        (0_u32..).zip(words).flat_map(|(place, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| place * 64 + bit)
        })
    }
}

fn halves(identity: u128) -> impl Iterator<Item = u64> {
    [identity as u64, (identity >> 64) as u64].into_iter()
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn region() -> Region {
        let (region, _file) =
            Region::create(Region::bytes_for(RingSizes::both(4096))).expect("memory");
        region.introduce(3, 1, RingSizes::both(4096));
        region
    }

    #[test]
    fn a_region_says_what_it_is() {
        let region = region();
        assert_eq!(region.capacities(), Ok(RingSizes::both(4096)));
        let identity = &region.words().identity;
        assert_eq!(identity.number.load(Ordering::Relaxed), 3);
        identity.request_bytes.store(1 << 16, Ordering::Relaxed);
        assert!(region.capacities().is_err(), "the rings do not fill it");
        identity.magic.store(0, Ordering::Relaxed);
        assert!(region.capacities().is_err(), "no region");
    }

    #[test]
    fn a_region_of_another_build_is_none() {
        let region = region();
        region.pretend_another_build();
        assert!(region.capacities().is_err());
    }

    #[test]
    fn each_side_of_a_region_is_had_once() {
        let region = region();
        let other = RingSizes {
            requests: 4096,
            responses: 1 << 16,
        };
        assert!(!region.claim(other), "not its rings");
        assert!(region.claim(RingSizes::both(4096)));
        assert!(!region.claim(RingSizes::both(4096)), "a second time");
    }

    /// Both sides must agree on every item: whatever the parent took to have begun is run, and
    /// nothing else.
    #[test]
    fn what_is_taken_back_is_not_run_and_the_rest_is() {
        for fenced in [false, true] {
            let region = region();
            if !fenced && region.prepare_items() {
                continue; // The kernel has no barriers: workers are always fenced.
            }
            let stop = AtomicBool::new(false);
            let run = AtomicU64::new(0);
            // Set by the worker when it was refused an item, cleared by the parent.
            let refused = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut number = 1;
                    while !stop.load(Ordering::Acquire) {
                        if refused.load(Ordering::Acquire) {
                            std::thread::yield_now();
                        } else if region.begin_item(number, fenced) {
                            run.store(number, Ordering::Release);
                            number += 1;
                        } else {
                            refused.store(true, Ordering::Release);
                        }
                    }
                });
                for round in 0..20_000_u32 {
                    for _ in 0..round % 200 {
                        std::hint::spin_loop();
                    }
                    let begun = region.begin_reclaim();
                    while !refused.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                    assert_eq!(run.load(Ordering::Acquire), begun, "fenced: {fenced}");
                    region.finish_reclaim();
                    refused.store(false, Ordering::Release);
                }
                stop.store(true, Ordering::Release);
            });
        }
    }
}
