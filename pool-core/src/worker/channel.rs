//! The worker's ends of the rings: its loop (frames in, records out), and where it waits.
#![allow(unsafe_code)]

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use super::copy::Original;
use super::corrupt::{EXIT_CORRUPT, corrupt, unheard};
use super::function::FunctionId;
use super::ringer::Ringer;
use super::run::{ChunkRun, Source};
use super::{context, memory, parent, state};
use crate::broadcast::{Attachments, ResultOffer, SharedMemory, forget_freed, offer};
use crate::codec::{self, CodecError};
use crate::error::hint::hint;
use crate::passing;
use crate::shm::protocol;
use crate::shm::protocol::{
    FRAME_HEADER, Failure, FrameHeader, FrameKind, Head, LARGE_BYTES, MAX_HEAD, RecordKind, Stage,
};
use crate::shm::region::{LOOKS_BY_ITSELF, Region, RingSizes, WANT_RESULTS, WANT_SPACE};
use crate::shm::ring::{Consumer, Producer};
use crate::sync::atomic::{Ordering, fence};
use crate::sync::thread;
use crate::sys;

/// How often, and how far apart, a worker that cannot ring looks whether the parent knows.
const LOOKS: u32 = 1_000;
const LOOK: Duration = Duration::from_millis(1);

/// How often, and how far apart as well, it is tried to send files for which the system has no
/// room, though nothing of this worker's is on its way.
const SENDS: u32 = 5_000;

/// How long a worker that may spin looks for work before it sleeps, at most: a little longer than
/// it costs to wake a sleeper, which is the most that spinning can save.
const MAX_SPIN_NS: u64 = 50_000;
/// The same at least, where spinning has been in vain for a while.
const MIN_SPIN_NS: u64 = 1_000;

/// The largest buffer that is kept for the next item.
pub(super) const KEEP_BYTES: usize = 1 << 20;

/// The exit code of a worker that the parent retired.
const EXIT_RETIRED: i32 = 0;
/// The exit code of a worker whose initializer panicked.
const EXIT_UNINITIALIZED: i32 = 112;

/// The worker's ends of everything.
pub(super) struct WorkerChannel {
    region: Arc<Region>,
    requests: Consumer,
    responses: Producer,
    /// How many bytes a result may have.
    max_result: u64,
    /// How many taken bytes are given back at the latest.
    release_at: usize,
    ringer: Ringer,
    /// How many items have been begun or passed over.
    items: u64,
    /// Whether an item has ended with a failure.
    has_failed: bool,
    /// How long to look for work before sleeping, in nanoseconds.
    spin: u64,
    /// Whether items begin with a fence; see [`Region::begin_item`].
    fenced: bool,
    /// How often the parent had freed memory when that was last heeded.
    freed: u32,
    /// The buffer for arguments that are not in one piece in the ring.
    argument: Vec<u8>,
    original: Original,
    /// What was offered to the parent, which may not have taken it yet.
    offered: Vec<Arc<SharedMemory>>,
}

/// How far a worker is that runs items of equal sizes. Two numbers are all that changes with each:
/// what follows from them is booked at the end, also if that is a panic's.
struct NumberRun<'a> {
    channel: &'a mut WorkerChannel,
    /// How many items of the frame had not begun before.
    left: &'a mut u32,
    region: Arc<Region>,
    original: Original,
    argument_bytes: usize,
    /// The last item that has begun.
    begun: u64,
    /// The position after the last result.
    position: u64,
}

impl NumberRun<'_> {
    /// Begins the next item, as [`WorkerChannel::begin_item`].
    #[inline(always)]
    fn begin(&mut self) -> bool {
        let begins = self.region.begin_item(self.begun + 1, self.channel.fenced);
        self.begun += u64::from(begins);
        begins
    }

    /// The result of the item, of so many bytes, is where it belongs. It counts should the process
    /// die now.
    #[inline(always)]
    fn end(&mut self, bytes: usize) {
        self.position += bytes as u64;
        let staged = &self.region.words().progress.staged;
        staged.store(self.position, Ordering::Release);
    }
}

impl Drop for NumberRun<'_> {
    fn drop(&mut self) {
        let channel = &mut *self.channel;
        let begun = self.begun - channel.items;
        let results = self.position - channel.responses.position();
        channel.items = self.begun;
        *self.left -= begun as u32;
        channel.requests.skip(begun as usize * self.argument_bytes);
        channel.responses.advance(results as usize);
    }
}

impl WorkerChannel {
    pub(super) fn new(region: Arc<Region>, ringer: Ringer, rings: RingSizes) -> Self {
        Self {
            requests: Consumer::requests(region.clone(), rings),
            responses: Producer::responses(region.clone(), rings),
            max_result: u64::MAX,
            release_at: rings.requests / 8,
            ringer,
            items: 0,
            has_failed: false,
            spin: MAX_SPIN_NS,
            fenced: region.prepare_items(),
            region,
            freed: 0,
            argument: Vec::new(),
            original: Original::here(),
            offered: Vec::new(),
        }
    }

    /// Runs what the parent sends, until that says that it is enough. Says with which code to
    /// leave.
    pub(super) fn serve(&mut self) -> i32 {
        loop {
            let Some(header) = self.next_frame() else {
                return EXIT_CORRUPT;
            };
            if header.kind == FrameKind::Retire {
                // Before the finalizer, which ends what the initializer has begun: a state may
                // refer to that.
                state::drop_all();
            }
            if header.items > 0 && !self.run(&header) {
                return EXIT_CORRUPT;
            }
            match header.kind {
                FrameKind::Retire => return EXIT_RETIRED,
                // What follows in the ring must not run here.
                FrameKind::Initialize if self.has_failed => return EXIT_UNINITIALIZED,
                FrameKind::Initialize => parent::bind_again(),
                FrameKind::Run => {}
            }
        }
    }

    /// Waits for the next frame. `None`: these bytes are no frame.
    fn next_frame(&mut self) -> Option<FrameHeader> {
        let mut bytes = [0; FRAME_HEADER];
        self.read(&mut bytes);
        FrameHeader::read(&bytes)
    }

    /// Runs a frame's items. `false`: there is no such function.
    fn run(&mut self, header: &FrameHeader) -> bool {
        let found = FunctionId::resolve(header.entry);
        let Some(entry) = found.or_else(|| FunctionId::missing(header.entry)) else {
            return false;
        };
        let max_result = self
            .region
            .words()
            .advice
            .max_result
            .load(Ordering::Relaxed);
        self.max_result = NonZero::new(max_result).map_or(u64::MAX, NonZero::get);
        let context = self.read_context(header.context as usize);
        if header.passes {
            passing::expect_descriptors();
        }
        #[cfg(feature = "tracing")]
        crate::observe::events::begin_frame(header.kind == FrameKind::Run);
        let start = sys::now_ns();
        self.frame_started(start);
        (entry.function())(&mut ChunkRun {
            source: Source::WorkerChannel {
                channel: self,
                items: header.items,
                deadline: header.deadline,
                measured: header.measured,
            },
        });
        // The parent may free the memory that it means, once it has all results.
        drop(context);
        if let Some(bytes) = memory::resident() {
            self.region.set_resident(bytes);
        }
        let took = sys::now_ns().saturating_sub(start);
        self.frame_started(0);
        self.put_record(RecordKind::Time, &took.to_le_bytes());
        self.hand_over();
        if !self.offered.is_empty() {
            self.wait_until_taken();
        }
        if header.passes {
            passing::discard_packets(self.items);
        }
        self.heed_frees();
        true
    }

    /// What the items of a frame need, which stands in front of them.
    #[inline]
    fn read_context(&mut self, bytes: usize) -> Option<context::Entered> {
        if bytes == 0 {
            return None;
        }
        let mut context = Vec::new();
        self.read_into(bytes, &mut context);
        context::enter(&context, true)
    }

    /// Lets go of memory that the parent has freed, if it has freed any. `false`: it has not.
    #[inline]
    fn heed_frees(&mut self) -> bool {
        let freed = self.region.words().advice.freed.load(Ordering::Acquire);
        let is_news = freed != self.freed;
        is_news && self.forget_freed(freed)
    }

    /// `false`: what is to be let go of is said behind the descriptors of items that come next.
    #[cold]
    fn forget_freed(&mut self, freed: u32) -> bool {
        let is_all = passing::discard_packets(self.items);
        if is_all {
            self.freed = freed;
        }
        forget_freed();
        is_all
    }

    fn frame_started(&self, time: u64) {
        let started = &self.region.words().progress.frame_started;
        started.store(time, Ordering::Relaxed);
    }

    /// Begins the next item. `false`: it and all after it in the ring were taken back.
    #[inline]
    pub(super) fn begin_item(&mut self, deadline: bool) -> bool {
        if deadline {
            // Before the item is known to run, so that a reader of that sees no earlier time.
            let started = &self.region.words().progress.item_started;
            started.store(sys::now_ns(), Ordering::Relaxed);
        }
        let begins = self.region.begin_item(self.items + 1, self.fenced);
        self.items += u64::from(begins);
        begins
    }

    /// Runs items whose arguments and results are numbers, one after the other, as long as they lie
    /// in the ring in one piece and their results have space in one piece. Whatever it leaves, for
    /// whatever reason, goes the ordinary way, which takes three times as long.
    #[inline(always)]
    pub(super) fn run_numbers<A: 'static, R: 'static>(
        &mut self,
        left: &mut u32,
        function: &impl Fn(A) -> R,
    ) {
        let (Some(argument), Some(result)) = (codec::number_size::<A>(), codec::number_size::<R>())
        else {
            return;
        };
        let heads = [argument, result].map(|size| Head::value(size).word().unwrap_or_default());
        let [expected, head] = heads.map(u32::to_le_bytes);
        // SAFETY: the producer of this ring is the parent, and nothing is released before the end.
        let arguments = unsafe { self.requests.in_place() };
        // SAFETY: nothing else is put in before the end; a panic leaves the rest of it alone.
        let Ok(room) = (unsafe { self.responses.room() }) else {
            corrupt();
        };
        let items = arguments.chunks_exact(4 + argument);
        let places = room.chunks_exact_mut(4 + result);
        let most = (*left as usize).min(self.release_at / (4 + argument));
        let mut run = NumberRun {
            argument_bytes: 4 + argument,
            begun: self.items,
            position: self.responses.position(),
            region: self.region.clone(),
            original: self.original,
            channel: self,
            left,
        };
        for (item, place) in items.zip(places).take(most) {
            let (word, bytes) = item.split_at(4);
            let Some(number) = codec::read_number(bytes).filter(|_| *word == expected) else {
                break;
            };
            if !run.begin() {
                break;
            }
            let value = function(number);
            run.original.leave_if_copy();
            let bytes = codec::number_bytes(&value).unwrap_or_default();
            let (first, rest) = place.split_at_mut(4);
            first.copy_from_slice(&head);
            rest.copy_from_slice(bytes);
            run.end(4 + result);
        }
        drop(run);
        if self.requests.unreleased() >= self.release_at {
            self.release();
        }
    }

    /// Gives the bytes of the next item to `look`: where they are in the ring if they are there
    /// in one piece, and otherwise in a buffer.
    #[inline(always)]
    pub(super) fn with_item<T>(&mut self, look: impl FnOnce(&[u8]) -> T) -> T {
        if let Some(len) = self.requests.peek_word().and_then(Head::value_len)
            // SAFETY: the producer of this ring is the parent, and nothing is released before the
            // bytes were looked at.
            && let Some(bytes) = unsafe { self.requests.take_in_place(4 + len) }
        {
            let seen = look(&bytes[4..]);
            if self.requests.unreleased() >= self.release_at {
                self.release();
            }
            return seen;
        }
        let bytes = self.copy_item();
        let seen = look(&bytes);
        // One large argument must not make the worker large forever.
        if bytes.capacity() <= KEEP_BYTES {
            self.argument = bytes;
        }
        seen
    }

    /// The bytes of an item that is not in one piece in the ring, as far as was seen.
    #[cold]
    fn copy_item(&mut self) -> Vec<u8> {
        let len = self.read_item_len();
        let mut bytes = std::mem::take(&mut self.argument);
        bytes.clear();
        self.read_into(len, &mut bytes);
        bytes
    }

    /// Takes the next item where it is to stay, if it is a large bulk value: its memory is
    /// filled from the ring.
    #[inline]
    pub(super) fn take_bulk<A: 'static>(&mut self) -> Option<Result<A, CodecError>> {
        if !codec::is_bulk::<A>() {
            return None;
        }
        if self.requests.seen() < 4 {
            self.wait_for_bytes();
        }
        // A head that is not in one piece, or a long one, is rare enough for the ordinary way.
        let len = self.requests.peek_word().and_then(Head::value_len)?;
        if len < LARGE_BYTES {
            return None;
        }
        self.requests.skip(4);
        let mut prefix = [0; 8];
        self.read(&mut prefix);
        let count = u64::from_le_bytes(prefix) as usize;
        let mut left = len - 8;
        let value = codec::receive(count, &mut |mut room| {
            while !room.is_empty() {
                let count = self.wait_for_bytes().min(room.len()).min(self.release_at);
                let (now, later) = room.split_at_mut(count);
                self.requests.take_into(now);
                self.release();
                left = left.saturating_sub(count);
                room = later;
            }
        });
        debug_assert_eq!(left, 0, "the parent sends what it announces");
        Some(value.ok_or_else(|| CodecError::new("the bytes are no text")))
    }

    /// Puts a large bulk value into the response ring from where it lies.
    pub(super) fn put_bulk(&mut self, mut prefix: [u8; 8], bytes: &[u8]) {
        self.original.leave_if_copy();
        protocol::put_element(&mut prefix, bytes.len());
        let head = Head {
            kind: RecordKind::Bulk,
            len: 8 + bytes.len() as u64,
        };
        if head.len > self.max_result {
            return self.put_too_long(head.len);
        }
        let mut first = [0; MAX_HEAD];
        let size = head.write(&mut first);
        self.write(&first[..size]);
        self.write(&prefix);
        self.write(bytes);
        self.stage();
    }

    fn read_item_len(&mut self) -> usize {
        let mut head = [0; MAX_HEAD];
        let (first, rest) = head.split_at_mut(4);
        self.read(first);
        let size = Head::size([first[0], first[1], first[2], first[3]]);
        if size > 4 {
            self.read(rest);
        }
        Head::read(&head[..size]).map_or(0, |head| head.len as usize)
    }

    /// Passes over items that were taken back.
    pub(super) fn skip_items(&mut self, count: u32) {
        self.items += u64::from(count);
        for _ in 0..count {
            let mut left = self.read_item_len();
            while left > 0 {
                let count = self.wait_for_bytes().min(left);
                self.requests.skip(count);
                left -= count;
                self.release();
            }
        }
    }

    /// Puts a record into the response ring. It is staged when it is whole: should the process
    /// die after that, the parent still finds it.
    #[inline]
    pub(super) fn put_record(&mut self, kind: RecordKind, bytes: &[u8]) {
        self.original.leave_if_copy();
        self.has_failed |= kind == RecordKind::Failure;
        let head = Head {
            kind,
            len: bytes.len() as u64,
        };
        if head.len > self.max_result
            && matches!(kind, RecordKind::Value | RecordKind::SharedResult)
        {
            return self.put_too_long(head.len);
        }
        if !head
            .word()
            .is_some_and(|word| self.responses.put_small(word, bytes))
        {
            self.put_long_record(head, bytes);
        }
        self.stage();
    }

    /// How many bytes a result may have.
    pub(super) fn max_result(&self) -> u64 {
        self.max_result
    }

    /// Gives the parent a value that the running item emits, behind so many others, as soon as
    /// fewer than `buffer` of these are unread. `false`: the item is to stop.
    #[cold]
    pub(super) fn emit(&mut self, bytes: &[u8], emitted: u64, buffer: u32) -> bool {
        let may_emit = self.wait_to_emit(emitted, buffer);
        if may_emit {
            self.put_record(RecordKind::Emitted, bytes);
            self.hand_over();
        }
        may_emit
    }

    /// The same of a value in which there are handles that mean these.
    #[cold]
    pub(super) fn emit_with(
        &mut self,
        bytes: &mut Vec<u8>,
        attachments: Attachments,
        emitted: u64,
        buffer: u32,
    ) -> Result<bool, CodecError> {
        let Some(offer) = offer(&attachments)? else {
            return Ok(self.emit(bytes, emitted, buffer));
        };
        if !self.wait_to_emit(emitted, buffer) {
            return Ok(false);
        }
        let is_sent = self.send_files(&offer)?;
        offer.write(is_sent, bytes)?;
        self.put_record(RecordKind::SharedEmitted, bytes);
        if is_sent {
            self.hand_over();
        } else {
            // The task goes on, and may end this process.
            self.offer(attachments.into_memory());
            self.wait_until_taken();
        }
        Ok(true)
    }

    /// Waits until fewer than `buffer` of so many values are unread. `false`: the item is to stop.
    fn wait_to_emit(&mut self, emitted: u64, buffer: u32) -> bool {
        self.original.leave_if_copy();
        let region = self.region.clone();
        let item = self.items;
        let is_cancelled = || region.is_cancelled(item);
        let has_room = || emitted - region.consumed(item, emitted) < u64::from(buffer);
        if !has_room() && !is_cancelled() {
            // The parent reads on, asks to stop, or ends this process; or it ends itself.
            self.wait(|_| has_room() || is_cancelled());
        }
        !is_cancelled()
    }

    /// Puts the failure of an item whose result has too many bytes for the parent.
    #[cold]
    fn put_too_long(&mut self, bytes: u64) {
        let message = format!(
            "it has {bytes} bytes, and a result may have {}: raise the limit \
             (builder().max_result_bytes(..)), return it in parts, or share it and return the \
             Broadcast",
            self.max_result
        );
        let mut failure = Vec::new();
        codec::encode(&Failure::error(Stage::EncodeResult, message), &mut failure)
            .expect("text can always be encoded");
        self.put_record(RecordKind::Failure, &failure);
    }

    /// Whether the parent takes a result of so many bytes.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        bytes as u64 <= self.max_result
    }

    /// Sends the files that stand in the result of the item which is about to be put. `false`: they
    /// cannot be sent, but the parent can open them.
    #[cold]
    pub(super) fn send_files(&mut self, offer: &ResultOffer) -> Result<bool, CodecError> {
        self.original.leave_if_copy();
        let mut tries = 0;
        loop {
            match passing::send_result(self.items, &offer.files) {
                Ok(()) => return Ok(true),
                Err(error) if sys::is_congested(&error) && tries < SENDS => {
                    // Whatever this worker has sent, the parent takes with its record.
                    self.wait_until_taken();
                    if tries > 0 {
                        sys::nap(LOOK);
                    }
                    tries += 1;
                }
                Err(_) if offer.is_memory() => return Ok(false),
                Err(error) => {
                    return Err(CodecError::new(format_args!(
                        "its descriptors cannot be sent to the parent: {error}{}",
                        hint(&error)
                    )));
                }
            }
        }
    }

    /// This memory stays until the parent has taken what was put last.
    pub(super) fn offer(&mut self, memory: Vec<Arc<SharedMemory>>) {
        self.offered = memory;
    }

    /// Waits until the parent has taken everything that was put, and has opened what was offered.
    #[cold]
    pub(super) fn wait_until_taken(&mut self) {
        self.hand_over();
        self.wait(|channel| match channel.responses.is_drained() {
            Ok(is_drained) => is_drained,
            Err(_) => corrupt(),
        });
        self.offered.clear();
    }

    #[inline]
    fn stage(&self) {
        let staged = &self.region.words().progress.staged;
        staged.store(self.responses.position(), Ordering::Release);
    }

    #[cold]
    fn put_long_record(&mut self, head: Head, bytes: &[u8]) {
        let mut first = [0; MAX_HEAD];
        let size = head.write(&mut first);
        self.write(&first[..size]);
        self.write(bytes);
    }

    fn write(&mut self, mut bytes: &[u8]) {
        loop {
            match self.responses.put(bytes) {
                Ok(count) if count == bytes.len() => return,
                Ok(count) => bytes = &bytes[count..],
                Err(_) => corrupt(),
            }
            self.hand_over();
            self.wait(|channel| match channel.responses.free() {
                Ok(free) => free > 0,
                Err(_) => corrupt(),
            });
        }
    }

    /// Lets the parent have all results so far and the space of all that was taken, and rings if
    /// it asked for that.
    fn hand_over(&mut self) {
        self.responses.publish();
        self.requests.release();
        self.ring_if_wanted(WANT_RESULTS | WANT_SPACE);
    }

    fn release(&mut self) {
        if self.requests.release() {
            self.ring_if_wanted(WANT_SPACE);
        }
    }

    fn ring_if_wanted(&mut self, reasons: u32) {
        let words = self.region.words();
        // What was published before, the parent must see if we do not see its wish: it sets the
        // wish, then looks; we publish, then look for the wish. One of the two looks finds it.
        fence(Ordering::SeqCst);
        let wants = words.parent_wants.load(Ordering::Relaxed);
        if wants & reasons != 0 {
            words.parent_wants.store(0, Ordering::Relaxed);
            if !self.ringer.ring() {
                self.wait_to_be_looked_at();
            }
        }
    }

    /// A task has closed the doorbell. The parent hears of that, unless something that the task has
    /// started holds a copy; then it hears of a death alone.
    #[cold]
    fn wait_to_be_looked_at(&self) {
        let wants = &self.region.words().parent_wants;
        for _ in 0..LOOKS {
            if wants.load(Ordering::Relaxed) & LOOKS_BY_ITSELF != 0 {
                return;
            }
            sys::nap(LOOK);
        }
        unheard();
    }

    fn read(&mut self, mut into: &mut [u8]) {
        while !into.is_empty() {
            let mut seen = self.requests.seen();
            if seen < into.len() {
                seen = self.wait_for_bytes();
            }
            let count = seen.min(into.len());
            let (now, later) = into.split_at_mut(count);
            self.requests.peek(now);
            self.requests.skip(count);
            into = later;
        }
    }

    fn read_into(&mut self, len: usize, into: &mut Vec<u8>) {
        while into.len() < len {
            let count = self.wait_for_bytes().min(len - into.len());
            // In pieces, so that the parent can fill one while the other is copied.
            self.requests.take(count.min(self.release_at), into);
            self.release();
        }
    }

    /// Waits until there are bytes that were not taken yet, and says how many.
    fn wait_for_bytes(&mut self) -> usize {
        let available = |channel: &mut Self| match channel.requests.available() {
            Ok(available) => available,
            Err(_) => corrupt(),
        };
        let mut count = available(self);
        if count == 0 {
            // Whatever the parent waits for, it must have before we wait for it.
            self.hand_over();
            self.wait(|channel| {
                count = available(channel);
                count > 0
            });
        }
        count
    }

    /// Waits until `ready`. The wait ends when the parent acts, or with the parent.
    fn wait(&mut self, mut ready: impl FnMut(&mut Self) -> bool) {
        if self.region.words().advice.may_spin.load(Ordering::Relaxed) != 0 {
            let start = sys::now_ns();
            while sys::now_ns() - start < self.spin {
                for _ in 0..32 {
                    if ready(self) {
                        self.spin = (self.spin * 2).min(MAX_SPIN_NS);
                        return;
                    }
                    thread::spin_loop();
                }
            }
            self.spin = (self.spin / 2).max(MIN_SPIN_NS);
        }
        loop {
            let region = self.region.clone();
            let asleep = &*region.words().worker_asleep;
            asleep.store(1, Ordering::Relaxed);
            // As in `ring_if_wanted`, with the sides exchanged.
            fence(Ordering::SeqCst);
            if ready(self) {
                asleep.store(0, Ordering::Relaxed);
                return;
            }
            if self.heed_frees() {
                continue;
            }
            region.sleep_while(asleep, 1);
        }
    }
}
