//! The chunk of a lazy call that is being filled: one thread puts items into it, and any thread
//! that finds a worker without work takes them out, also while the input keeps that thread waiting.
//!
//! The filling thread says how much is there, and then looks whether somebody wants it; a thread
//! that wants it says so, and then looks how much is there. So one of them sees the other, given a
//! full barrier on each side; but a barrier costs more than a small item. The thread that wants,
//! which is rare, therefore executes both sides' by `membarrier`. Where a kernel or sandbox has
//! none, the filling thread executes a fence for each item.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, PoisonError};

use serde::Serialize;

use super::append_log::{Appended, Appender, Log};
use super::call_site::CallSite;
use crate::api::handle::Collector;
use crate::broadcast::Attachments;
use crate::codec;
use crate::panic::catch::{panic_scope, report_for};
use crate::shm::protocol;
use crate::shm::protocol::Head;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, compiler_fence, fence};
use crate::sync::{Mutex, MutexGuard, thread_number};
use crate::sys;
use crate::task::bytes::Bytes;
use crate::task::chunk::Chunk;
use crate::task::chunk_outcome::CompletionSink;
use crate::task::encode::{Limit, Stop, append, panicked, refused};
use crate::task::open_input::OpenInput;

/// The chunk of one call that is being filled. See the module.
pub(crate) struct OpenChunk {
    call: CallSite,
    collector: Arc<Collector>,
    /// The receiver of the outcomes leads the pool for them.
    attended: AtomicBool,
    /// The thread that fills it, as [`thread_number`] names it.
    filled_by: AtomicUsize,
    /// A worker has nothing to do: no item is to be kept back.
    wanted: AtomicU32,
    /// There are no barriers that one thread can execute for another.
    is_fenced: bool,
    /// Sees to it that there is a thread that fills it.
    starter: OnceLock<Box<dyn Fn() + Send + Sync>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    log: Option<Arc<Log>>,
    /// How many bytes of the log have gone into chunks.
    claimed: usize,
    /// The index of the first item that has not.
    next: usize,
    /// How long the items took to encode from there on, in nanoseconds, if that is measured.
    times: Vec<u64>,
    /// What handles in items mean that have not gone, each with the index of its item, in the order
    /// of these. Of one that has gone, nothing is kept: the input may wait as long as it likes.
    attachments: VecDeque<(usize, Attachments)>,
}

impl OpenChunk {
    pub(crate) fn new(call: CallSite, collector: Arc<Collector>) -> Self {
        Self {
            call,
            collector,
            attended: AtomicBool::new(true),
            filled_by: AtomicUsize::new(0),
            wanted: AtomicU32::new(0),
            is_fenced: !sys::has_own_barriers(),
            starter: OnceLock::new(),
            state: Mutex::new(State::default()),
        }
    }

    /// What its call is called.
    pub(crate) fn name(&self) -> Cow<'static, str> {
        self.call.name()
    }

    /// Filling thread: whether what it has put in is wanted now.
    #[inline(always)]
    fn is_wanted(&self) -> bool {
        is_wanted(&self.wanted, self.is_fenced)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread fills it from now on.
    pub(crate) fn fill_here(&self) {
        let here = thread_number();
        let before = self.filled_by.load(Ordering::Relaxed);
        if before == here {
            return;
        }
        self.filled_by.store(here, Ordering::Relaxed);
        if before != 0 {
            // The thread that filled it before may sleep, and did not ask when a worker was idle.
            self.interrupt();
        }
    }

    /// Nobody will drive the pool for the outcomes of what comes.
    #[cfg(feature = "stream")]
    pub(crate) fn leave_unattended(&self) {
        self.attended.store(false, Ordering::Relaxed);
    }

    /// Called by a thread that asks for items, before it does: it makes sure that a thread takes
    /// some.
    pub(crate) fn on_ask(&self, starter: impl Fn() + Send + Sync + 'static) {
        let is_first = self.starter.set(Box::new(starter)).is_ok();
        debug_assert!(is_first, "it is for the maker of this");
    }

    /// The filling thread has seen that it is wanted.
    pub(crate) fn heed(&self) {
        self.wanted.store(0, Ordering::SeqCst);
    }

    /// What is there, as a chunk.
    fn claim(&self) -> Option<Chunk> {
        if self.collector.is_abandoned() {
            return None;
        }
        let mut state = self.lock();
        let log = state.log.clone()?;
        let bytes = log.bytes(state.claimed);
        let count = protocol::count_items(bytes);
        state.chunk(self, bytes.len(), count, bytes.into())
    }
}

#[inline(always)]
fn is_wanted(wanted: &AtomicU32, is_fenced: bool) -> bool {
    if is_fenced {
        fence(Ordering::SeqCst);
    } else {
        compiler_fence(Ordering::SeqCst);
    }
    wanted.load(Ordering::Acquire) != 0
}

impl OpenInput for OpenChunk {
    /// A worker has nothing to do: takes what is there, and sees to it that whatever comes after
    /// that is submitted at once.
    ///
    /// The filling thread itself keeps nothing back while it is here. When it goes on, the worker
    /// that has nothing to do is to get more than the first item.
    fn ask(&self) -> Option<Chunk> {
        if self.filled_by.load(Ordering::Relaxed) == thread_number() {
            return None;
        }
        if let Some(starter) = self.starter.get() {
            starter();
        }
        if self.wanted.swap(1, Ordering::SeqCst) != 0 {
            // The thread that said so before has looked after that, or will.
            return None;
        }
        sys::barrier_here();
        self.claim()
    }

    fn interrupt(&self) {
        self.wanted.store(1, Ordering::Release);
    }
}

impl State {
    /// These items, which are all that is there, as a chunk.
    fn chunk(&mut self, open: &OpenChunk, len: usize, count: usize, items: Bytes) -> Option<Chunk> {
        if count == 0 {
            return None;
        }
        self.claimed += len;
        let first = self.next;
        self.next += count;
        open.collector.expect(count);
        let attended = open.attended.load(Ordering::Relaxed);
        let sink = open.collector.clone();
        let mut chunk = (open.call).chunk(first, count as u32, items, attended, sink);
        chunk.is_fed = true;
        chunk.attach_from(&mut self.attachments_of_gone());
        if !self.times.is_empty() {
            // One more may be noted than is there.
            let count = count.min(self.times.len());
            let times: Vec<u64> = self.times.drain(..count).collect();
            chunk.note_encoding(&times);
        }
        Some(chunk)
    }

    /// What handles mean in the items that have gone.
    fn attachments_of_gone(&mut self) -> Attachments {
        let mut gone = Attachments::default();
        while let Some((index, attachments)) = self.attachments.front_mut()
            && *index < self.next
        {
            gone.append(attachments);
            self.attachments.pop_front();
        }
        gone
    }
}

/// The thread that fills an [`OpenChunk`]: there is one for each.
pub(crate) struct Filler {
    open: Arc<OpenChunk>,
    appender: Option<Appender>,
    /// An item while it is being encoded.
    scratch: Vec<u8>,
    /// How many items were taken, with those that have no bytes.
    taken: usize,
    is_timed: bool,
}

/// A log is made for at least this many bytes, and copied when a chunk has less than a quarter of
/// them.
const LOG_BYTES: usize = 4096;

impl Filler {
    pub(crate) fn new(open: Arc<OpenChunk>) -> Self {
        Self {
            is_timed: open.call.options.is_measured,
            open,
            appender: None,
            scratch: Vec::new(),
            taken: 0,
        }
    }

    pub(crate) fn open(&self) -> &Arc<OpenChunk> {
        &self.open
    }

    /// How many items were taken from the input.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// The bytes that the chunk has, and had.
    fn len(&self) -> usize {
        let appender = self.appender.as_ref();
        appender.map_or(0, |appender| appender.log().len())
    }

    /// Takes arguments from `input` and encodes them, until there are as many as the limit says, in
    /// this turn, or somebody wants them.
    pub(crate) fn fill<A, I>(&mut self, input: &mut Input<I>, limit: Limit) -> Stop
    where
        A: Serialize + 'static,
        I: Iterator<Item = A>,
    {
        let mut is_encoding = false;
        // Caught once for all, since to catch costs as much as to encode a number.
        let stop = catch_unwind(AssertUnwindSafe(|| {
            if let Some(size) = codec::number_size::<A>()
                && !self.is_timed
                && limit.until.is_none()
            {
                return self.fill_with_numbers(input, size, limit);
            }
            let start = self.len();
            let mut count = 0;
            loop {
                if limit.is_reached(count, self.len().saturating_sub(start)) {
                    return Stop::Full;
                }
                is_encoding = false;
                let Some(argument) = input.next() else {
                    return Stop::Exhausted;
                };
                is_encoding = true;
                if let Err(stop) = self.put(argument) {
                    return stop;
                }
                count += 1;
                if self.open.is_wanted() {
                    return Stop::Wanted;
                }
            }
        }));
        stop.unwrap_or_else(|payload| {
            if is_encoding {
                Stop::Failed(panicked(report_for(payload)))
            } else {
                Stop::Panicked(payload)
            }
        })
    }

    /// Encodes an item and puts it in.
    fn put<A: Serialize + 'static>(&mut self, argument: A) -> Result<(), Stop> {
        self.scratch.clear();
        let mut attachments = Attachments::default();
        let start = self.is_timed.then(sys::now_ns);
        panic_scope(|| append(argument, &mut self.scratch, &mut attachments))
            .map_err(|error| Stop::Failed(refused(&error)))?;
        let mut has_descriptors = false;
        if start.is_some() || !attachments.is_empty() {
            let mut state = self.open.lock();
            // Before the item is there, so that it is not without them.
            state.times.extend(start.map(|start| sys::now_ns() - start));
            has_descriptors = !attachments.descriptors().is_empty();
            if !attachments.is_empty() {
                state.attachments.push_back((self.taken, attachments));
            }
        }
        let size = self.scratch.len();
        let appender = match &mut self.appender {
            Some(appender) if appender.room() >= size => appender,
            _ => {
                self.make_room(size);
                self.appender.as_mut().expect("it was just made")
            }
        };
        appender.append(&self.scratch);
        self.taken += 1;
        if self.scratch.capacity() > MAX_SCRATCH {
            self.scratch = Vec::new();
        }
        if has_descriptors {
            // It is the last one of its chunk, so that they are closed as soon as it has ended.
            return Err(Stop::Wanted);
        }
        Ok(())
    }

    /// The same where it is known that they are numbers, of this many bytes: encoding cannot go
    /// wrong and takes a nanosecond, so that all that is done for each item shows.
    #[inline]
    fn fill_with_numbers<A, I>(&mut self, input: &mut Input<I>, size: usize, limit: Limit) -> Stop
    where
        A: 'static,
        I: Iterator<Item = A>,
    {
        if size_of::<I>() > MAX_LENT {
            return self.fill_from(|| input.next(), size, limit);
        }
        // Where nobody else can reach it, so that it stays in registers: it would be stored and
        // loaded for each item otherwise, for others may look at memory between two items.
        let mut lent = Lent::of(input);
        let stop = match &mut lent.input {
            Some(input) => self.fill_from(|| input.next(), size, limit),
            None => return Stop::Exhausted,
        };
        if matches!(stop, Stop::Exhausted) {
            lent.input = None;
        }
        stop
    }

    #[inline(always)]
    fn fill_from<A>(
        &mut self,
        mut next: impl FnMut() -> Option<A>,
        size: usize,
        limit: Limit,
    ) -> Stop
    where
        A: 'static,
    {
        let head = Head::value(size).word().unwrap_or_default().to_le_bytes();
        let record = head.len() + size;
        let mut most = limit.items.min(limit.bytes.div_ceil(record));
        while most > 0 {
            if self.appender.as_ref().is_none_or(|it| it.room() < record) {
                self.make_room(most.min(BLOCK) * record);
            }
            let appender = self.appender.as_mut().expect("there is room in it");
            let (wanted, is_fenced) = (&self.open.wanted, self.open.is_fenced);
            let before = appender.log().len();
            let taken = Taken {
                log: appender.log().clone(),
                before,
                record,
                taken: &mut self.taken,
            };
            let ended = appender.append_numbers(
                head,
                size,
                most,
                &mut next,
                |number| codec::number_bytes(number).unwrap_or_default(),
                || !is_wanted(wanted, is_fenced),
            );
            let count = (appender.log().len() - before) / record;
            drop(taken);
            most -= count;
            match ended {
                Appended::Full => {}
                Appended::End => return Stop::Exhausted,
                Appended::Stopped => return Stop::Wanted,
            }
        }
        Stop::Full
    }

    /// Makes room for this many bytes behind what is there.
    #[cold]
    fn make_room(&mut self, bytes: usize) {
        let mut state = self.open.lock();
        let rest = state.log.take();
        let rest = rest
            .as_ref()
            .map_or(&[][..], |log| log.bytes(state.claimed));
        let capacity = LOG_BYTES.max(bytes + rest.len()).max(2 * rest.len());
        let mut appender = Log::with_capacity(capacity);
        appender.append(rest);
        state.claimed = 0;
        state.log = Some(appender.log().clone());
        self.appender = Some(appender);
    }

    /// The next item has no bytes; gives its index.
    pub(crate) fn skip(&mut self) -> usize {
        self.open.lock().next += 1;
        self.taken += 1;
        self.taken - 1
    }

    /// What is there, as a chunk.
    pub(crate) fn close(&mut self) -> Option<Chunk> {
        if self.open.collector.is_abandoned() {
            return None;
        }
        let mut state = self.open.lock();
        let count = self.taken - state.next;
        let appender = self.appender.take()?;
        let len = appender.log().len();
        if state.claimed == 0 && 4 * len >= appender.log().capacity() {
            // In the memory in which they are.
            state.log = None;
            let items = match appender.into_buffer() {
                Ok(buffer) => buffer.into(),
                Err(appender) => appender.log().bytes(0).into(),
            };
            return state.chunk(&self.open, 0, count, items);
        }
        let bytes = appender.log().bytes(state.claimed);
        let chunk = state.chunk(&self.open, bytes.len(), count, bytes.into());
        self.appender = Some(appender);
        chunk
    }
}

/// Memory for one item that is kept for the next, at most.
const MAX_SCRATCH: usize = 128 * 1024;

/// For how many numbers room is made at a time, at most.
const BLOCK: usize = 4096;

/// An input of more bytes than this is not moved to be read.
const MAX_LENT: usize = 256;

/// An input that is asked for no more once it has said that it has none.
pub(crate) struct Input<I>(Option<I>);

impl<I: Iterator> Input<I> {
    pub(crate) fn new(input: I) -> Self {
        Self(Some(input))
    }

    #[inline]
    fn next(&mut self) -> Option<I::Item> {
        let item = self.0.as_mut()?.next();
        if item.is_none() {
            self.0 = None;
        }
        item
    }

    pub(crate) fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.as_ref().map_or((0, Some(0)), Iterator::size_hint)
    }
}

/// An input away from its place. It goes back there, also if it panics.
struct Lent<'a, I> {
    place: &'a mut Input<I>,
    input: Option<I>,
}

impl<'a, I> Lent<'a, I> {
    fn of(place: &'a mut Input<I>) -> Self {
        let input = place.0.take();
        Self { place, input }
    }
}

impl<I> Drop for Lent<'_, I> {
    fn drop(&mut self) {
        self.place.0 = self.input.take();
    }
}

/// Counts the numbers that were put in, also if the input panics.
struct Taken<'a> {
    log: Arc<Log>,
    before: usize,
    record: usize,
    taken: &'a mut usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.taken += (self.log.len() - self.before) / self.record;
    }
}
