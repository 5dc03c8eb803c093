//! The values that a running task emits, on their way to who reads them.
//!
//! At most `buffer` of them are unread: the worker waits for credit, which the reader gives by
//! taking values. How many were consumed stands in the worker's region
//! ([`Region::set_consumed`]), and is said in steps of half the buffer. That is enough: with
//! nothing unread, half the buffer is what the worker may emit at least.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, OnceLock, PoisonError};
use std::task::Waker;

use super::bytes::Bytes;
use crate::broadcast::{Attachments, SharedMemory};
use crate::error::task_error::TaskError;
use crate::panic::catch::catch_and_discard;
use crate::shm::region::Region;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::worker::TakeValue;

/// See the module.
pub(crate) struct Emissions {
    /// How many values may be unread.
    buffer: u64,
    state: Mutex<State>,
    /// Notified when a task in a thread of this process may emit more, or need not.
    room: Condvar,
    /// The memory that handles in the argument mean: values may have the same handles, and the
    /// task may have ended when they are read.
    memory: OnceLock<Vec<Arc<SharedMemory>>>,
}

#[derive(Default)]
struct State {
    /// What was not read.
    unread: VecDeque<Result<Bytes, TaskError>>,
    /// How many values have come.
    emitted: u64,
    /// How many of them the task knows to be consumed.
    consumed: u64,
    reader: Reader,
    /// The task is to emit nothing more.
    is_disconnected: bool,
    /// Nothing more comes, and the outcome is there.
    has_ended: bool,
    /// Of who waits for a value.
    waker: Option<Waker>,
    /// Of who brings values from elsewhere, and waits for room.
    bringer: Option<Waker>,
    /// The worker that runs the task, as far as it is known, and the number of the item there.
    worker: Option<(Arc<Region>, u64)>,
}

/// What becomes of values that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reader {
    /// They wait to be read, and so does the task.
    #[default]
    Reads,
    /// They wait to be read, and the task goes on.
    ReadsLater,
    /// Nobody reads them.
    IsGone,
}

/// See [`Emissions::next`].
pub(crate) enum Next {
    Value(Result<Bytes, TaskError>),
    /// There is none yet.
    Nothing,
    /// All have been read, and the outcome is there.
    End,
}

/// More values have come than may be unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overrun;

impl Emissions {
    /// So many of which may be unread.
    pub(crate) fn new(buffer: u32) -> Self {
        Self {
            buffer: buffer.into(),
            state: Mutex::default(),
            room: Condvar::new(),
            memory: OnceLock::new(),
        }
    }

    /// This memory lives as long as the values.
    pub(crate) fn keep(&self, memory: &[Arc<SharedMemory>]) {
        if !memory.is_empty() {
            self.memory.get_or_init(|| memory.to_vec());
        }
    }

    /// The memory that it [keeps](Self::keep).
    pub(crate) fn memory(&self) -> &[Arc<SharedMemory>] {
        self.memory.get().map_or(&[], |it| it)
    }

    /// How many values may be unread.
    pub(crate) fn buffer(&self) -> u32 {
        u32::try_from(self.buffer).unwrap_or(u32::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker may emit one more value: it knows how many were consumed.
    pub(crate) fn has_credit(&self) -> bool {
        let state = self.lock();
        state.emitted - state.consumed < self.buffer
    }

    /// How many values were not read.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn unread(&self) -> usize {
        self.lock().unread.len()
    }

    /// Whether a value has come. Then the task has begun, whatever anybody says.
    pub(crate) fn has_any(&self) -> bool {
        self.lock().emitted > 0
    }

    /// Takes in a value of the item with this number that the worker of this region runs. Says
    /// whether somebody waits for it, who is to be [woken](Self::wake). It wakes nobody but the
    /// worker, so it may be called under a lock.
    pub(crate) fn push(
        &self,
        value: Result<Bytes, TaskError>,
        region: &Arc<Region>,
        item: u64,
    ) -> Result<bool, Overrun> {
        let mut state = self.lock();
        if state.emitted - state.consumed >= self.buffer {
            return Err(Overrun);
        }
        if state
            .worker
            .as_ref()
            .is_none_or(|(_, known)| *known != item)
        {
            state.worker = Some((region.clone(), item));
        }
        state.emitted += 1;
        if state.reader != Reader::IsGone {
            state.unread.push_back(value);
        }
        let bringer = self.give_credit(&mut state);
        debug_assert!(bringer.is_none(), "a worker of the pool brings it");
        Ok(state.waker.is_some())
    }

    /// The worker is at the next item, and what it is told is about that.
    pub(crate) fn leave_worker(&self) {
        self.lock().worker = None;
    }

    /// Lets the task know what was consumed, if that is enough to be said. Gives the waker of who
    /// is to be woken for that without the lock.
    #[must_use]
    fn give_credit(&self, state: &mut State) -> Option<Waker> {
        let consumed = match state.reader {
            Reader::Reads => state.emitted - state.unread.len() as u64,
            Reader::ReadsLater | Reader::IsGone => state.emitted,
        };
        if consumed - state.consumed >= (self.buffer / 2).max(1) {
            state.consumed = consumed;
            if let Some((region, item)) = &state.worker {
                region.set_consumed(*item, consumed);
                region.wake_worker();
            }
            self.room.notify_all();
        }
        // Under no lock of the pool's: its chunks have a worker of the pool's own.
        let has_room = state.emitted - state.consumed < self.buffer;
        state.bringer.take_if(|_| has_room)
    }

    /// What comes next for the reader.
    pub(crate) fn next(&self) -> Next {
        let mut state = self.lock();
        match state.unread.pop_front() {
            Some(value) => {
                let bringer = self.give_credit(&mut state);
                drop(state);
                wake(bringer);
                Next::Value(value)
            }
            None if state.has_ended => Next::End,
            None => Next::Nothing,
        }
    }

    /// Whether a value waits to be read, or none will come any more. If not, the waker, if any, is
    /// woken when that changes, and no other that was given before.
    pub(crate) fn poll(&self, waker: Option<&Waker>) -> bool {
        let is_ready = |state: &State| !state.unread.is_empty() || state.has_ended;
        let state = self.lock();
        let Some(waker) = waker else {
            return is_ready(&state);
        };
        if is_ready(&state) {
            return true;
        }
        if state.waker.as_ref().is_some_and(|it| it.will_wake(waker)) {
            return false;
        }
        // To clone or drop a waker is to run what the user has written.
        drop(state);
        let mut other = Some(waker.clone());
        let mut state = self.lock();
        let is_ready = is_ready(&state);
        if !is_ready {
            mem::swap(&mut state.waker, &mut other);
        }
        drop(state);
        drop(other);
        is_ready
    }

    /// Nobody waits for a value any more.
    pub(crate) fn forget_waker(&self) {
        let waker = self.lock().waker.take();
        drop(waker);
    }

    /// Wakes who waits for a value.
    pub(crate) fn wake(&self) {
        let waker = self.lock().waker.take();
        wake(waker);
    }

    /// Nothing more comes, and the outcome is there.
    pub(crate) fn end(&self) {
        let bringer = {
            let mut state = self.lock();
            state.has_ended = true;
            state.is_disconnected = true;
            // That of a worker that has died.
            state.worker = None;
            state.bringer.take()
        };
        self.room.notify_all();
        wake(bringer);
        self.wake();
    }

    /// The values are not read: those that there are go, and those that come.
    pub(crate) fn discard(&self) {
        let (unread, bringer) = {
            let mut state = self.lock();
            state.reader = Reader::IsGone;
            let unread = mem::take(&mut state.unread);
            (unread, self.give_credit(&mut state))
        };
        wake(bringer);
        drop(unread);
    }

    /// The task is not to wait for the reader any more. The values that come are kept.
    pub(crate) fn lift_bound(&self) {
        let mut state = self.lock();
        if state.reader == Reader::Reads {
            state.reader = Reader::ReadsLater;
            let bringer = self.give_credit(&mut state);
            drop(state);
            wake(bringer);
        }
    }

    /// The call was cancelled. A worker learns of that by its region; this is for a task in a
    /// thread of this process.
    pub(crate) fn disconnect(&self) {
        let bringer = {
            let mut state = self.lock();
            state.is_disconnected = true;
            state.bringer.take()
        };
        self.room.notify_all();
        wake(bringer);
    }

    /// Takes in a value from elsewhere. `false`: there is no room, or nothing is to come.
    pub(crate) fn bring(&self, value: Result<Bytes, TaskError>) -> bool {
        let mut state = self.lock();
        if state.is_disconnected || state.emitted - state.consumed >= self.buffer {
            return false;
        }
        state.emitted += 1;
        if state.reader != Reader::IsGone {
            state.unread.push_back(value);
        }
        let bringer = self.give_credit(&mut state);
        drop(state);
        wake(bringer);
        self.wake();
        true
    }

    /// Whether there is room for a value from elsewhere, or nothing is to come. If not, the waker
    /// is woken when that changes, and no other that was given before.
    pub(crate) fn poll_room(&self, waker: &Waker) -> bool {
        // To clone or drop a waker is to run what the user has written.
        let mut other = Some(waker.clone());
        let mut state = self.lock();
        let is_ready = state.is_disconnected || state.emitted - state.consumed < self.buffer;
        if !is_ready {
            mem::swap(&mut state.bringer, &mut other);
        }
        drop(state);
        drop(other);
        is_ready
    }
}

/// A waker is the user's.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        catch_and_discard(|| waker.wake());
    }
}

/// A task in a thread of this process.
impl TakeValue for Emissions {
    fn take_value(&self, bytes: &[u8], attachments: Attachments) -> bool {
        let mut state = self.lock();
        // The reader reads on, or goes.
        while state.emitted - state.consumed >= self.buffer && !state.is_disconnected {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_disconnected {
            return false;
        }
        state.emitted += 1;
        if state.reader != Reader::IsGone {
            let value = Bytes::from(bytes).with(attachments.into());
            state.unread.push_back(Ok(value));
        }
        let bringer = self.give_credit(&mut state);
        drop(state);
        wake(bringer);
        self.wake();
        true
    }
}

impl std::fmt::Debug for Emissions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emissions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::shm::region::RingSizes;

    fn region() -> Arc<Region> {
        let sizes = RingSizes::both(4096);
        let (region, _file) = Region::create(Region::bytes_for(sizes)).expect("memory");
        region.introduce(1, 0, sizes);
        Arc::new(region)
    }

    fn value(number: u8) -> Result<Bytes, TaskError> {
        Ok(Bytes::from(&[number][..]))
    }

    /// The worker can always emit something when nothing is unread, and never more than the buffer.
    #[test]
    fn credit_follows_the_reader() {
        for buffer in [1, 2, 3, 4, 7, 32] {
            let (emissions, region) = (Emissions::new(buffer), region());
            let mut emitted = 0;
            for round in 0..50_u64 {
                while emitted - region.consumed(9, emitted) < u64::from(buffer) {
                    assert_eq!(emissions.push(value(1), &region, 9), Ok(false));
                    emitted += 1;
                }
                assert!(emissions.unread() <= buffer as usize);
                let refused = emissions.push(value(1), &region, 9);
                assert_eq!(refused, Err(Overrun), "it has no credit");
                let read = (round as usize % 5 + 1).min(emissions.unread());
                for _ in 0..read {
                    assert!(matches!(emissions.next(), Next::Value(Ok(_))));
                }
                if emissions.unread() == 0 {
                    assert!(emissions.has_credit(), "or it would wait forever");
                }
            }
        }
    }

    #[test]
    fn what_is_not_read_does_not_keep_the_task() {
        for gone in [false, true] {
            let (emissions, region) = (Emissions::new(4), region());
            for _ in 0..4 {
                emissions.push(value(1), &region, 3).expect("credit");
            }
            assert!(!emissions.has_credit());
            match gone {
                true => emissions.discard(),
                false => emissions.lift_bound(),
            }
            for emitted in 4..100 {
                assert!(emitted - region.consumed(3, emitted) < 4);
                emissions.push(value(1), &region, 3).expect("credit");
            }
            assert_eq!(emissions.unread(), if gone { 0 } else { 100 });
        }
    }

    #[test]
    fn who_brings_values_is_woken_for_room() {
        #[derive(Default)]
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let ways: [fn(&Emissions); 5] = [
            |it| assert!(matches!(it.next(), Next::Value(_))),
            Emissions::discard,
            Emissions::lift_bound,
            Emissions::disconnect,
            Emissions::end,
        ];
        for way in ways {
            let (emissions, flag) = (Emissions::new(2), Arc::new(Flag::default()));
            let waker = Waker::from(flag.clone());
            assert!(emissions.poll_room(&waker));
            assert!(emissions.bring(value(1)) && emissions.bring(value(2)));
            assert!(!emissions.bring(value(3)), "there is no room");
            assert!(!emissions.poll_room(&waker) && !flag.0.load(Ordering::Relaxed));
            way(&emissions);
            assert!(flag.0.load(Ordering::Relaxed) && emissions.poll_room(&waker));
        }
    }

    /// What a worker is told of the last item would hide what it is told of this one.
    #[test]
    fn the_next_item_of_the_worker_has_the_word() {
        let (first, second, region) = (Emissions::new(1), Emissions::new(1), region());
        first.push(value(1), &region, 1).expect("credit");
        first.leave_worker();
        second.push(value(2), &region, 2).expect("credit");
        assert!(matches!(second.next(), Next::Value(Ok(_))));
        assert!(matches!(first.next(), Next::Value(Ok(_))));
        assert_eq!((region.consumed(1, 1), region.consumed(2, 1)), (0, 1));
    }

    #[test]
    fn the_end_comes_behind_all_values() {
        let (emissions, region) = (Emissions::new(4), region());
        assert!(matches!(emissions.next(), Next::Nothing));
        emissions.push(value(1), &region, 1).expect("credit");
        emissions.push(value(2), &region, 1).expect("credit");
        emissions.end();
        for number in [1, 2] {
            let Next::Value(Ok(bytes)) = emissions.next() else {
                panic!("a value");
            };
            assert_eq!(bytes.as_slice()[..], [number]);
        }
        assert!(matches!(emissions.next(), Next::End));
    }

    #[test]
    fn counts_of_consumed_values_may_wrap() {
        let region = region();
        for (item, count) in [(1, 5), (u64::MAX, 1), (7 << 32 | 3, (5 << 32) - 1)] {
            region.set_consumed(item, count);
            for unread in [0, 1, 100] {
                assert_eq!(region.consumed(item, count + unread), count);
            }
            assert_eq!(region.consumed(item.wrapping_add(1), count + 1), 0);
        }
    }
}
