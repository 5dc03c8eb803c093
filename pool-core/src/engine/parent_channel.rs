//! A worker as the parent reaches it: its rings, and the words in its region. It moves bytes, and
//! has every one that the worker wrote checked, by [`RecordReader`] and by [`Booking`].

use std::sync::Arc;

use super::booking::Booking;
use super::record_reader::{RecordReader, Step};
use super::work;
use crate::broadcast::files_of;
use crate::observe::stats::Stats;
use crate::passing::Outbox;
use crate::shm::protocol::{FRAME_HEADER, FrameHeader, FrameKind, Head, MAX_HEAD};
use crate::shm::region::{LOOKS_BY_ITSELF, Region, RingSizes, WANT_RESULTS, WANT_SPACE};
use crate::shm::ring::{Consumer, Corrupt, Producer};
use crate::sync::atomic::Ordering;
use crate::sys::fd::BorrowedFd;
use crate::task::bytes::Bytes;
use crate::task::chunk::Chunk;

/// The parent's side of one running worker.
pub(super) struct ParentChannel {
    region: Arc<Region>,
    requests: Producer,
    responses: Consumer,
    /// The frame that was sent last, if it is not wholly in the ring.
    unsent: Option<Unsent>,
    reader: RecordReader,
    /// What is passed beside the rings, once there is something.
    outbox: Option<Box<Outbox>>,
    /// What the parent asked to be rung for and was not, as far as it knows.
    wants: u32,
    /// It cannot ring.
    is_mute: bool,
    may_spin: bool,
}

/// A frame that is not wholly in the ring. It has the items for itself, for the chunk may be taken
/// back and apart while the worker has yet to read past them.
struct Unsent {
    header: [u8; FRAME_HEADER],
    context: Box<[u8]>,
    items: Bytes,
    /// Bytes of the frame that are in the ring.
    sent: usize,
}

/// What is longer is worth a look of the worker's while the rest is put into the ring.
const PUBLISH_BYTES: usize = 512;

impl ParentChannel {
    pub(super) fn new(region: Arc<Region>, rings: RingSizes) -> Self {
        Self {
            requests: Producer::requests(region.clone(), rings),
            responses: Consumer::responses(region.clone(), rings),
            region,
            unsent: None,
            outbox: None,
            reader: RecordReader::new(rings.responses / 8),
            wants: 0,
            is_mute: false,
            may_spin: false,
        }
    }

    /// From now on, results may have this many bytes. The worker keeps to that if it is honest.
    pub(super) fn limit_results(&mut self, bytes: u64) {
        self.reader.limit_results(bytes);
    }

    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    /// The worker's region, and how much it had published when that was last looked at.
    pub(super) fn last_seen(&self) -> (Arc<Region>, u64) {
        (self.region.clone(), self.responses.last_seen())
    }

    /// Puts a chunk into the ring, and returns whether all of it is there. The worker gets it when
    /// it is published, for which a small one may wait until others are there.
    ///
    /// What is passed with it goes by this socket, and before it. `before`: the number of the item
    /// before its first one.
    pub(super) fn put(
        &mut self,
        chunk: &Chunk,
        before: u64,
        socket: BorrowedFd<'_>,
    ) -> Result<bool, Corrupt> {
        if chunk.has_attachments() {
            self.pass(chunk, before, socket);
        }
        let header = work::header(chunk);
        let (context, items) = (chunk.context(), &chunk.items);
        let sent = put_frame(&mut self.requests, &header, context, items, 0)?;
        if sent < FRAME_HEADER + context.len() + items.len() {
            self.unsent = Some(Unsent {
                header,
                context: context.into(),
                items: items.clone(),
                sent,
            });
        }
        if sent > PUBLISH_BYTES {
            self.publish();
        }
        Ok(self.unsent.is_none() && self.has_passed_all())
    }

    /// Passes what the items of a chunk need.
    #[cold]
    fn pass(&mut self, chunk: &Chunk, before: u64, socket: BorrowedFd<'_>) {
        let outbox = self.outbox.get_or_insert_default();
        outbox.add_memory(files_of(chunk.attachments()).into_iter());
        let items = chunk.descriptors().chunk_by(|one, other| one.0 == other.0);
        for item in items {
            let number = before + u64::from(item[0].0) + 1;
            let files = item.iter().map(|(_, it)| (it.key, it.file.clone()));
            outbox.add_item(number, files.collect());
        }
        outbox.send(socket);
    }

    /// Whether nothing that is to be passed waits for room.
    #[inline]
    pub(super) fn has_passed_all(&self) -> bool {
        self.outbox.as_ref().is_none_or(|outbox| outbox.is_empty())
    }

    /// The worker begins no items behind this one: they were taken back.
    pub(super) fn taken_back_behind(&mut self, number: u64) {
        if let Some(outbox) = &mut self.outbox {
            outbox.forget_items_behind(number);
        }
    }

    /// The worker has nothing to do any more.
    #[cold]
    pub(super) fn forget_unpassed(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            outbox.forget_items();
        }
    }

    /// Goes on sending what is not wholly in the ring, and returns whether now it is.
    pub(super) fn send_on(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Corrupt> {
        if let Some(outbox) = &mut self.outbox {
            outbox.send(socket);
        }
        if let Some(unsent) = &mut self.unsent {
            let (context, items) = (&unsent.context, &unsent.items);
            let sent = unsent.sent;
            unsent.sent = put_frame(&mut self.requests, &unsent.header, context, items, sent)?;
            if unsent.sent == FRAME_HEADER + context.len() + items.len() {
                self.unsent = None;
            }
            self.publish();
        }
        Ok(self.unsent.is_none() && self.has_passed_all())
    }

    /// Retires the worker, which has answered everything and runs the finalizer before.
    pub(super) fn send_retire(&mut self, finalizer: Option<u64>) -> Result<(), Corrupt> {
        // The finalizer takes `()`, which has no bytes: an item with an empty head.
        let mut head = [0; MAX_HEAD];
        let size = Head::value(0).write(&mut head);
        let header = FrameHeader {
            kind: FrameKind::Retire,
            deadline: false,
            measured: false,
            passes: false,
            entry: finalizer.unwrap_or(0),
            items: u32::from(finalizer.is_some()),
            context: 0,
            bytes: size as u64,
        };
        if self.requests.free()? < FRAME_HEADER + size {
            // It has read all that it was sent and keeps less than an eighth of the ring back, or
            // it lies. There would be nobody to say that there is space again.
            return Err(Corrupt);
        }
        self.requests.put(&header.write())?;
        if finalizer.is_some() {
            self.requests.put(&head[..size])?;
        }
        self.publish();
        Ok(())
    }

    /// Lets the worker have what was put into the ring.
    pub(super) fn publish(&mut self) {
        if self.requests.publish() {
            self.wake();
        }
    }

    /// Wakes the worker if it sleeps.
    pub(super) fn wake(&self) {
        self.region.wake_worker();
    }

    /// Notifies the worker that memory was freed of which it may hold some.
    pub(super) fn tell_of_frees(&mut self, socket: BorrowedFd<'_>) {
        if let Some(outbox) = &mut self.outbox {
            outbox.add_frees();
            outbox.send(socket);
        }
        let freed = &self.region.words().advice.freed;
        let times = freed.load(Ordering::Relaxed);
        freed.store(times.wrapping_add(1), Ordering::Release);
        self.wake();
    }

    /// Whether the worker has read all that it was sent.
    pub(super) fn is_drained(&mut self) -> Result<bool, Corrupt> {
        Ok(self.unsent.is_none() && self.requests.is_drained()?)
    }

    /// Counts the bytes that went either way.
    pub(super) fn count(&self, stats: &mut Stats) {
        stats.bytes_sent += self.requests.position();
        stats.bytes_received += self.responses.last_seen();
    }

    /// The bytes of memory that the record takes which is only partly there.
    #[cfg(any(fuzzing, test))]
    pub(super) fn memory(&self) -> usize {
        self.reader.memory()
    }

    /// Whether to ring: for results, and for space.
    pub(super) fn listen(&mut self, rings: bool) {
        if self.is_mute {
            return;
        }
        let wants = if rings { WANT_RESULTS | WANT_SPACE } else { 0 };
        // The worker clears it when it rings, so what we know may be too much, never too little.
        if wants != 0 || self.wants != 0 {
            self.wants = wants;
            let word = &*self.region.words().parent_wants;
            word.store(wants, Ordering::Relaxed);
        }
    }

    /// The worker has no doorbell any more, and is told that it needs none.
    pub(super) fn mute(&mut self) {
        self.is_mute = true;
        let word = &*self.region.words().parent_wants;
        // Again each time: it may just have cleared the word in order to ring.
        word.store(LOOKS_BY_ITSELF, Ordering::Relaxed);
    }

    /// Whether the worker may spin when it runs out of work.
    pub(super) fn let_spin(&mut self, may: bool) {
        if may != self.may_spin {
            self.may_spin = may;
            let word = &self.region.words().advice.may_spin;
            word.store(u32::from(may), Ordering::Relaxed);
        }
    }

    /// Takes in all records that are there.
    pub(super) fn drain(&mut self, booking: &mut Booking<'_>) -> Result<(), Corrupt> {
        if self.responses.available()? == 0 {
            return Ok(());
        }
        self.take_seen(booking)?;
        if self.responses.release() {
            // Only then: a part of a head that is there and cannot be taken is no news.
            booking.drained.news = true;
            // It may be waiting for space.
            self.wake();
        }
        Ok(())
    }

    /// Takes in what a dead worker had finished without publishing it.
    pub(super) fn drain_remains(&mut self, booking: &mut Booking<'_>) -> Result<(), Corrupt> {
        self.responses.available()?;
        self.take_seen(booking)?;
        let staged = self.region.words().progress.staged.load(Ordering::Acquire);
        self.responses.accept(staged)?;
        self.take_seen(booking)
    }

    /// Takes in the records that were seen.
    fn take_seen(&mut self, booking: &mut Booking<'_>) -> Result<(), Corrupt> {
        loop {
            if let Some(record) = self.reader.short(&mut self.responses, booking.due())? {
                booking.book(record)?;
                // Values of the same size may follow, of this chunk or of the next.
                if let Some((open, records)) = booking.values() {
                    let count = self.reader.run(&mut self.responses, open, records);
                    booking.book_values(count);
                }
            } else if !self.take_long(booking)? {
                return Ok(());
            }
        }
    }

    /// Takes in a record that is long, or as much of it as is there. `false`: there is no more for
    /// now.
    #[inline(never)]
    fn take_long(&mut self, booking: &mut Booking<'_>) -> Result<bool, Corrupt> {
        loop {
            match self.reader.long(&mut self.responses, booking.due())? {
                Step::Record(record) => {
                    booking.book(record)?;
                    return Ok(true);
                }
                Step::Part { more } => {
                    if self.responses.unreleased() >= self.reader.max_copy() {
                        self.responses.release();
                        self.wake();
                        booking.drained.news = true;
                    }
                    if !more {
                        return Ok(false);
                    }
                }
                Step::Offer(offer) => {
                    let Some(offer) = booking.book_offer(offer, &self.region)? else {
                        return Ok(true);
                    };
                    self.reader.put_back(offer);
                    return Ok(false);
                }
                Step::Emitted(value) => {
                    booking.book_emitted(value, &self.region)?;
                    return Ok(true);
                }
                Step::End => return Ok(false),
            }
        }
    }
}

/// Puts a frame into the ring from the byte `sent` on, as much of it as there is space for, and
/// returns how many of its bytes are there then.
fn put_frame(
    requests: &mut Producer,
    header: &[u8; FRAME_HEADER],
    context: &[u8],
    items: &Bytes,
    mut sent: usize,
) -> Result<usize, Corrupt> {
    let [first, second] = items.parts();
    let mut before = 0;
    for part in [&header[..], context, first, second] {
        let at = sent - before;
        if at < part.len() {
            sent += requests.put(&part[at..])?;
        }
        before += part.len();
        if sent < before {
            break;
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::booking::Drained;
    use crate::engine::peer::Peer;
    use crate::engine::scheduler::Scheduler;
    use crate::engine::slot_id::SlotId;
    use crate::process::worker_info::WorkerInfo;

    const BYTES: usize = 4096;
    const RINGS: RingSizes = RingSizes::both(BYTES);
    const SLOT: SlotId = SlotId::new(0);

    /// Both ends of a region, and a scheduler whose one worker is up.
    fn both_ends() -> (ParentChannel, Producer, Scheduler<Chunk>) {
        let (region, _file) = Region::create(Region::bytes_for(RINGS)).expect("memory");
        region.introduce(1, 0, RINGS);
        let region = Arc::new(region);
        let channel = ParentChannel::new(region.clone(), RINGS);
        let mut scheduler = Scheduler::new(1, None);
        scheduler.up(SLOT);
        (channel, Producer::responses(region, RINGS), scheduler)
    }

    fn drain(
        channel: &mut ParentChannel,
        scheduler: &mut Scheduler<Chunk>,
    ) -> Result<bool, Corrupt> {
        let mut drained = Drained::default();
        let info = WorkerInfo::new(1, 0, 1);
        channel.drain(&mut Booking {
            slot: SLOT,
            peer: Peer::dead(&info, None),
            scheduler,
            drained: &mut drained,
        })?;
        Ok(drained.news)
    }

    /// A loop that looks until nothing is new would never end.
    #[test]
    fn a_part_of_a_head_is_no_news() {
        let (mut channel, mut worker, mut scheduler) = both_ends();
        assert_eq!(drain(&mut channel, &mut scheduler), Ok(false));
        for _ in 0..3 {
            worker.put(&[1]).expect("space");
            worker.publish();
            assert_eq!(drain(&mut channel, &mut scheduler), Ok(false));
        }
    }

    /// A worker whose record is longer than its ring waits for space in the middle of it.
    #[test]
    fn space_is_given_back_in_the_middle_of_a_record() {
        let (mut channel, mut worker, mut scheduler) = both_ends();
        let chunk = Chunk::initializer(crate::FunctionId::of_nothing(), vec![0; 4]);
        scheduler.submit(chunk);
        assert_eq!(scheduler.assign(&mut Vec::new()), Some(SLOT));
        let mut head = [0; MAX_HEAD];
        let size = Head::value(3 * BYTES).write(&mut head);
        let record = [&head[..size], &[7; 3 * BYTES]].concat();
        let mut rest = &record[..];
        while !rest.is_empty() {
            let put = worker.put(rest).expect("the parent does not lie");
            assert!(put > 0, "there is space again");
            worker.publish();
            rest = &rest[put..];
            assert_eq!(drain(&mut channel, &mut scheduler), Ok(true));
        }
        assert_eq!(channel.memory(), 0, "all of it is booked");
    }

    /// The worker can write while the parent copies.
    #[test]
    fn space_is_given_back_before_all_that_was_seen_is_taken() {
        let (mut channel, mut worker, mut scheduler) = both_ends();
        let chunk = Chunk::initializer(crate::FunctionId::of_nothing(), vec![0; 4]);
        scheduler.submit(chunk);
        assert_eq!(scheduler.assign(&mut Vec::new()), Some(SLOT));
        let mut head = [0; MAX_HEAD];
        let size = Head::value(3 * BYTES).write(&mut head);
        worker.put(&head[..size]).expect("space");
        worker.put(&[7; BYTES - MAX_HEAD]).expect("space");
        worker.publish();
        let info = WorkerInfo::new(1, 0, 1);
        let mut booking = Booking {
            slot: SLOT,
            peer: Peer::dead(&info, None),
            scheduler: &mut scheduler,
            drained: &mut Drained::default(),
        };
        channel.responses.available().expect("nobody lies");
        channel.take_seen(&mut booking).expect("it is what is due");
        assert!(booking.drained.news);
        assert!(channel.responses.unreleased() < channel.reader.max_copy());
    }
}
