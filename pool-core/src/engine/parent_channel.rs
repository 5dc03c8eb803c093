//! A worker as the parent reaches it: its handle and its rings. It moves bytes, and checks every
//! one that the worker wrote.

use std::sync::Arc;

use super::drained::Drained;
use super::peer::Peer;
use super::record::{RecordBytes, accept, no_memory};
use super::scheduler::Scheduler;
use super::slot_id::SlotId;
use super::work;
use crate::broadcast::MAX_OFFERED_BYTES;
use crate::codec::Memory;
use crate::observe::stats::Stats;
use crate::shm::item_timing::ItemTiming;
use crate::shm::protocol;
use crate::shm::protocol::{
    FRAME_HEADER, FrameHeader, FrameKind, Head, LARGE_BYTES, MAX_FAILURE_BYTES, MAX_HEAD,
    RecordKind,
};
use crate::shm::region::{LOOKS_BY_ITSELF, Region, WANT_RESULTS, WANT_SPACE};
use crate::shm::ring::{Consumer, Corrupt, Producer};
use crate::sync::atomic::{Ordering, fence};
use crate::sys;
use crate::task::bytes::Bytes;
use crate::task::chunk::{Chunk, Outcomes};

/// The parent's side of one running worker.
pub(super) struct ParentChannel {
    region: Arc<Region>,
    requests: Producer,
    responses: Consumer,
    /// The frame that was sent last, if it is not wholly in the ring.
    unsent: Option<Unsent>,
    /// The record that is only partly there.
    partial: Option<Partial>,
    /// How many bytes a result may have.
    max_result: u64,
    /// How many bytes of a long record are taken and given back at a time.
    piece: usize,
    /// What the parent asked to be rung for and was not, as far as it knows.
    wants: u32,
    /// It cannot ring.
    is_mute: bool,
    may_spin: bool,
}

/// A frame that is not wholly in the ring. It has the items for itself, for the load may be taken
/// back and apart while the worker has yet to read past them.
struct Unsent {
    header: [u8; FRAME_HEADER],
    items: Bytes,
    /// Bytes of the frame that are in the ring.
    sent: usize,
}

/// A record of which the beginning has arrived.
struct Partial {
    kind: RecordKind,
    /// Bytes that are still to come.
    left: u64,
    /// The length that stands before the memory of a bulk value.
    prefix: [u8; 8],
    /// `None`: there was no memory for it, and it is passed over.
    memory: Option<Memory>,
    /// All bytes of it, as they were announced.
    len: u64,
}

/// What is longer is worth a look of the worker's while the rest is put into the ring.
const PUBLISH_BYTES: usize = 512;

impl ParentChannel {
    pub(super) fn new(region: Arc<Region>, request_bytes: usize, response_bytes: usize) -> Self {
        Self {
            requests: Producer::requests(region.clone(), request_bytes),
            responses: Consumer::responses(region.clone(), request_bytes, response_bytes),
            region,
            unsent: None,
            partial: None,
            max_result: u64::MAX,
            piece: response_bytes / 8,
            wants: 0,
            is_mute: false,
            may_spin: false,
        }
    }

    /// From now on, results may have this many bytes. The worker keeps to that if it is honest.
    pub(super) fn limit_results(&mut self, bytes: u64) {
        self.max_result = bytes;
    }

    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    /// The worker's region, and how much it had published when that was last looked at.
    pub(super) fn last_seen(&self) -> (Arc<Region>, u64) {
        (self.region.clone(), self.responses.last_seen())
    }

    /// Puts a load into the ring, and returns whether all of it is there. The worker gets it when
    /// it is published, for which a small one may wait until others are there.
    pub(super) fn put(&mut self, chunk: &Chunk) -> Result<bool, Corrupt> {
        let header = work::header(chunk);
        let items = &chunk.items;
        let sent = put_frame(&mut self.requests, &header, items, 0)?;
        if sent < FRAME_HEADER + items.len() {
            self.unsent = Some(Unsent {
                header,
                items: items.clone(),
                sent,
            });
        }
        if sent > PUBLISH_BYTES {
            self.publish();
        }
        Ok(self.unsent.is_none())
    }

    /// Goes on sending what is not wholly in the ring, and returns whether now it is.
    pub(super) fn send_on(&mut self) -> Result<bool, Corrupt> {
        if let Some(unsent) = &mut self.unsent {
            let items = &unsent.items;
            unsent.sent = put_frame(&mut self.requests, &unsent.header, items, unsent.sent)?;
            if unsent.sent == FRAME_HEADER + items.len() {
                self.unsent = None;
            }
            self.publish();
        }
        Ok(self.unsent.is_none())
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
            entry: finalizer.unwrap_or(0),
            items: u32::from(finalizer.is_some()),
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
    fn wake(&self) {
        let asleep = &*self.region.words().worker_asleep;
        // What was published before, the worker sees, or we see that it sleeps. See `wait` in
        // `worker::serve`.
        fence(Ordering::SeqCst);
        if asleep.load(Ordering::Relaxed) != 0 {
            asleep.store(0, Ordering::Relaxed);
            sys::futex_wake(asleep);
        }
    }

    /// Notifies the worker that memory was freed of which it may hold some.
    pub(super) fn tell_of_frees(&self) {
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
        let memory = self.partial.as_ref().and_then(|it| it.memory.as_ref());
        memory.map_or(0, Memory::capacity)
    }

    /// How many bytes a record of this kind may have, from a worker that keeps to its limit.
    fn longest(&self, kind: RecordKind) -> u64 {
        match kind {
            RecordKind::Time => ItemTiming::BYTES as u64,
            RecordKind::Value | RecordKind::Bulk => self.max_result,
            RecordKind::SharedResult => self.max_result.saturating_add(MAX_OFFERED_BYTES),
            RecordKind::Failure => MAX_FAILURE_BYTES,
        }
    }

    /// Says what to ring for: nothing, or results and, where needed, space.
    pub(super) fn listen(&mut self, results: bool, space: bool) {
        if self.is_mute {
            return;
        }
        let wants =
            if results { WANT_RESULTS } else { 0 } | if results && space { WANT_SPACE } else { 0 };
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
    pub(super) fn drain(
        &mut self,
        slot: SlotId,
        peer: Peer<'_>,
        scheduler: &mut Scheduler<Chunk>,
        drained: &mut Drained,
    ) -> Result<(), Corrupt> {
        if self.responses.available()? == 0 {
            return Ok(());
        }
        while self.take_record(slot, peer, scheduler, drained)? {}
        if self.responses.release() {
            // Only then: a part of a head that is there and cannot be taken is no news.
            drained.news = true;
            // It may be waiting for space.
            self.wake();
        }
        Ok(())
    }

    /// Takes in what a dead worker had finished without publishing it.
    pub(super) fn drain_remains(
        &mut self,
        slot: SlotId,
        peer: Peer<'_>,
        scheduler: &mut Scheduler<Chunk>,
        drained: &mut Drained,
    ) -> Result<(), Corrupt> {
        self.responses.available()?;
        while self.take_record(slot, peer, scheduler, drained)? {}
        let staged = self.region.words().progress.staged.load(Ordering::Acquire);
        self.responses.accept(staged)?;
        while self.take_record(slot, peer, scheduler, drained)? {}
        Ok(())
    }

    /// Takes one record, or a part of one. `false`: there is no more for now.
    fn take_record(
        &mut self,
        slot: SlotId,
        peer: Peer<'_>,
        scheduler: &mut Scheduler<Chunk>,
        drained: &mut Drained,
    ) -> Result<bool, Corrupt> {
        let seen = self.responses.seen();
        if let Some(partial) = &mut self.partial {
            // In pieces, so that the worker can fill one while the other is copied.
            let count = (partial.left).min(seen.min(self.piece) as u64) as usize;
            match &mut partial.memory {
                // Of the finalizer, whose outcome is nobody's.
                Some(_) if scheduler.is_retiring(slot) => self.responses.skip(count),
                // The length is the worker's word: memory grows with what arrives, not with that,
                // but not beyond it. And there may be none.
                Some(memory) => {
                    let responses = &mut self.responses;
                    let fill = |room: &mut [_]| responses.take_into(room);
                    if memory.extend(count, partial.left, fill).is_err() {
                        partial.memory = None;
                        self.responses.skip(count);
                    }
                }
                None => self.responses.skip(count),
            }
            partial.left -= count as u64;
            if partial.left > 0 {
                if self.responses.unreleased() >= self.piece {
                    self.responses.release();
                    self.wake();
                    drained.news = true;
                }
                return Ok(count < seen);
            }
            if let Some(partial) = self.partial.take() {
                let kind = partial.kind;
                let bytes = match (kind, partial.memory) {
                    (_, None) => RecordBytes::Offered(Err(no_memory(partial.len, peer.info))),
                    (RecordKind::SharedResult, Some(memory)) if !scheduler.is_retiring(slot) => {
                        let load = scheduler.front_mut(slot).ok_or(Corrupt)?;
                        let Some(value) = peer.take_offering(memory.as_slice(), load)? else {
                            // It stays here, and the item is the one that was lost.
                            let memory = Some(memory);
                            self.partial = Some(Partial { memory, ..partial });
                            return Ok(false);
                        };
                        RecordBytes::Offered(value.map(|length| {
                            let mut bytes = memory.into_bytes();
                            bytes.truncate(length);
                            bytes
                        }))
                    }
                    (RecordKind::Bulk, Some(memory)) => RecordBytes::Bulk(partial.prefix, memory),
                    (_, Some(memory)) => RecordBytes::Owned(memory.into_bytes()),
                };
                accept(slot, peer, scheduler, drained, kind, bytes)?;
            }
            return Ok(true);
        }
        if seen < 4 {
            return Ok(false);
        }
        let mut bytes = [0; 4];
        match self.responses.peek_word() {
            Some(word) => bytes = word.to_le_bytes(),
            None => self.responses.peek(&mut bytes),
        }
        let size = Head::size(bytes);
        if seen < size {
            return Ok(false);
        }
        let head = if size == bytes.len() {
            Head::read(&bytes)
        } else {
            let mut bytes = [0; MAX_HEAD];
            self.responses.peek(&mut bytes);
            Head::read(&bytes)
        };
        let head = head.ok_or(Corrupt)?;
        if !scheduler.is_retiring(slot) {
            // Refused before its bytes come: there may be no end to them.
            let is_due = match head.kind {
                RecordKind::Time if head.len == ItemTiming::BYTES as u64 => {
                    scheduler.item_metrics_mut(slot).is_some() && scheduler.open_items(slot) > 0
                }
                RecordKind::Time => head.len == 8,
                _ => scheduler.open_items(slot) > 0,
            } && head.len <= self.longest(head.kind)
                && (head.kind != RecordKind::Bulk || head.len >= LARGE_BYTES as u64);
            if !is_due {
                return Err(Corrupt);
            }
        }
        let mut prefix = [0; 8];
        let mut element = 1;
        let mut size = size;
        let mut left = head.len;
        if head.kind == RecordKind::Bulk {
            if seen < size + prefix.len() {
                return Ok(false);
            }
            self.responses.skip(size);
            self.responses.peek(&mut prefix);
            element = protocol::take_element(&mut prefix);
            size = prefix.len();
            // It is long enough, or will be nobody's.
            left = left.saturating_sub(size as u64);
        }
        self.responses.skip(size);
        let available = (seen - size) as u64;
        if head.len <= SMALL && head.len <= available && head.kind < RecordKind::Bulk {
            let mut small = [0; SMALL as usize];
            let small = &mut small[..head.len as usize];
            self.responses.peek(small);
            self.responses.skip(small.len());
            accept(
                slot,
                peer,
                scheduler,
                drained,
                head.kind,
                RecordBytes::Small(small),
            )?;
            self.take_run(slot, scheduler, size + head.len as usize);
        } else {
            self.partial = Some(Partial {
                kind: head.kind,
                left,
                prefix,
                memory: Some(Memory::new(element).ok_or(Corrupt)?),
                len: head.len,
            });
        }
        Ok(true)
    }
}

/// Puts a frame into the ring from the byte `sent` on, as much of it as there is space for, and
/// returns how many of its bytes are there then.
fn put_frame(
    requests: &mut Producer,
    header: &[u8; FRAME_HEADER],
    items: &Bytes,
    mut sent: usize,
) -> Result<usize, Corrupt> {
    let [first, second] = items.parts();
    let mut before = 0;
    for part in [&header[..], first, second] {
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

impl ParentChannel {
    /// Takes the values that follow, of the same load, all at once, as far as they are of `size`
    /// bytes each, with their heads, as the one before was.
    fn take_run(&mut self, slot: SlotId, scheduler: &mut Scheduler<Chunk>, size: usize) {
        let open = scheduler.open_items(slot);
        let mut done = 0;
        if scheduler.item_metrics_mut(slot).is_some() {
            // Each comes behind what was measured of it.
            return;
        }
        let Some(Outcomes::Many { records, .. }) = scheduler.outcomes_mut(slot) else {
            return;
        };
        // More and more at a time, since results of changing sizes would be copied in vain again
        // and again.
        let mut left = self.responses.seen().min(open as usize * size) / size;
        let mut step = FIRST_RUN;
        while left > 0 {
            let start = records.len();
            // For what is likely to come, too.
            records.make_room((left * size).min(ROOM));
            // Copied first and looked at then: the worker may go on writing into its ring.
            self.responses.copy(left.min(step) * size, records);
            let taken = protocol::count_values(&records[start..], size);
            records.truncate(start + taken * size);
            self.responses.skip(taken * size);
            done += taken as u32;
            if taken < step {
                break;
            }
            left -= taken;
            step *= 8;
        }
        scheduler.items_done(slot, done);
    }
}

/// This many values are looked for first behind one that has come.
const FIRST_RUN: usize = 8;

/// How much room is made for the results of a chunk when the first of them come.
const ROOM: usize = 64 * 1024;

/// The longest record that is copied by way of the stack.
const SMALL: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::worker_info::WorkerInfo;
    use crate::shm::region::Region;

    const BYTES: usize = 4096;
    const SLOT: SlotId = SlotId::new(0);

    /// Both ends of a region, and a scheduler whose one worker is up.
    fn both_ends() -> (ParentChannel, Producer, Scheduler<Chunk>) {
        let (region, _file) = Region::create(Region::bytes_for(BYTES, BYTES)).expect("memory");
        region.introduce(1, 0, BYTES, BYTES);
        let region = Arc::new(region);
        let channel = ParentChannel::new(region.clone(), BYTES, BYTES);
        let mut scheduler = Scheduler::new(1, None);
        scheduler.up(SLOT);
        (
            channel,
            Producer::responses(region, BYTES, BYTES),
            scheduler,
        )
    }

    fn drain(
        channel: &mut ParentChannel,
        scheduler: &mut Scheduler<Chunk>,
    ) -> Result<bool, Corrupt> {
        let mut drained = Drained::default();
        let info = WorkerInfo::new(1, 0, 1);
        channel.drain(SLOT, Peer::dead(&info), scheduler, &mut drained)?;
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

    #[test]
    fn answers_that_nobody_has_asked_for_are_refused() {
        for (kind, bytes) in [
            (RecordKind::Value, &[0; 8][..]),
            (RecordKind::Failure, &[0; 8]),
            (RecordKind::SharedResult, &[0; 8]),
            (RecordKind::Time, &[0; 8]),
            (RecordKind::Time, &[0; 3]),
        ] {
            let (mut channel, mut worker, mut scheduler) = both_ends();
            let len = bytes.len() as u64;
            let mut head = [0; MAX_HEAD];
            let size = Head { kind, len }.write(&mut head);
            worker.put(&head[..size]).expect("space");
            worker.put(bytes).expect("space");
            worker.publish();
            assert_eq!(
                drain(&mut channel, &mut scheduler),
                Err(Corrupt),
                "{kind:?}"
            );
        }
    }

    /// Memory grows with what arrives, not with what is announced.
    #[test]
    fn an_endless_record_takes_no_memory_before_it_comes() {
        let (mut channel, mut worker, mut scheduler) = both_ends();
        let chunk = Chunk::initializer(crate::FunctionId::of_nothing(), vec![0; 4]);
        scheduler.submit(chunk);
        assert_eq!(scheduler.assign(&mut Vec::new()), Some(SLOT));
        let mut head = [0; MAX_HEAD];
        let size = Head {
            kind: RecordKind::Value,
            len: u64::MAX,
        }
        .write(&mut head);
        worker.put(&head[..size]).expect("space");
        worker.put(&[7; 100]).expect("space");
        worker.publish();
        assert_eq!(drain(&mut channel, &mut scheduler), Ok(true));
        let partial = channel.partial.expect("a record that goes on");
        let memory = partial.memory.expect("there is memory for it");
        assert!(memory.as_slice().len() <= 100 && memory.capacity() <= 4096);
    }
}
