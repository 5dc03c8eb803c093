//! The places of a pool: where it has a worker each.
//!
//! A place stays, its workers come and go. Each worker is in a slot; while a worker is being replaced its place
//! has two: the *holder*, who works, and the *successor*, who gets ready and then waits for the
//! holder to go. A holder that has been told to go is a *leaver*, and has no place any more, but has to be gone
//! before the place gets another successor: so there are no more than two processes for a place.
//!
//! A place without a holder *sleeps* until there is work for it, or is *closed* because the pool was made smaller.

use std::ops::Range;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Place>);

#[derive(Debug, Default)]
struct Place {
    /// The slot whose worker works here, or whose next one will.
    holder: Option<usize>,
    /// The slot whose worker will hold the place after that.
    successor: Option<usize>,
    /// How many workers have left it and are not dead.
    leavers: u32,
    /// How many workers it has had.
    generation: u32,
    /// There is to be no worker here.
    closed: bool,
}

impl Places {
    /// So many places, the first held by slot 0 and so on.
    pub(super) fn new(count: usize) -> Self {
        let place = |slot| Place {
            holder: Some(slot),
            ..Place::default()
        };
        Self((0..count).map(place).collect())
    }

    /// All of them, by their numbers.
    pub(super) fn all(&self) -> Range<usize> {
        0..self.0.len()
    }

    /// How many there are, without those that are closed.
    pub(super) fn open(&self) -> usize {
        self.0.iter().filter(|place| !place.closed).count()
    }

    /// How many have a holder.
    pub(super) fn awake(&self) -> usize {
        self.0.iter().filter(|place| place.holder.is_some()).count()
    }

    /// A place that sleeps and could be woken.
    pub(super) fn asleep(&self) -> Option<usize> {
        let asleep = |place: &Place| place.holder.is_none() && !place.closed && place.leavers == 0;
        self.0.iter().position(asleep)
    }

    pub(super) fn is_closed(&self, place: usize) -> bool {
        self.0[place].closed
    }

    pub(super) fn holder(&self, place: usize) -> Option<usize> {
        self.0[place].holder
    }

    pub(super) fn successor(&self, place: usize) -> Option<usize> {
        self.0[place].successor
    }

    /// Whether a worker that left the place is still there. A finalizer may take long.
    pub(super) fn is_crowded(&self, place: usize) -> bool {
        self.0[place].leavers > 0
    }

    /// How many workers a place has had.
    pub(super) fn generation(&self, place: usize) -> u32 {
        self.0[place].generation
    }

    /// A place has got one more worker.
    pub(super) fn generate(&mut self, place: usize) {
        self.0[place].generation += 1;
    }

    /// The worker of this slot will be the next to hold the place.
    pub(super) fn appoint(&mut self, place: usize, slot: usize) {
        let place = &mut self.0[place];
        if place.holder.is_none() {
            place.holder = Some(slot);
        } else {
            debug_assert!(place.successor.is_none(), "one successor is enough");
            place.successor = Some(slot);
        }
    }

    /// There will be no successor after all, or not that one.
    pub(super) fn dismiss_successor(&mut self, place: usize) -> Option<usize> {
        self.0[place].successor.take()
    }

    /// The holder goes, if there is a successor: that is the new holder.
    pub(super) fn succeed(&mut self, place: usize) -> Option<usize> {
        let place = &mut self.0[place];
        let successor = place.successor.take()?;
        place.holder = Some(successor);
        Some(successor)
    }

    /// Nobody holds the place any more. Those who did, the holder first.
    pub(super) fn clear(&mut self, place: usize) -> impl Iterator<Item = usize> + use<> {
        let place = &mut self.0[place];
        [place.holder.take(), place.successor.take()]
            .into_iter()
            .flatten()
    }

    /// A worker has left the place, and lives.
    pub(super) fn left(&mut self, place: usize) {
        self.0[place].leavers += 1;
    }

    /// It is dead.
    pub(super) fn is_gone(&mut self, place: usize) {
        self.0[place].leavers -= 1;
    }

    /// There is to be no worker in this place.
    pub(super) fn close(&mut self, place: usize) {
        self.0[place].closed = true;
    }

    /// A place more: one that was closed, or a new one.
    pub(super) fn add(&mut self) -> usize {
        let closed = self.0.iter().position(|place| place.closed);
        let place = closed.unwrap_or_else(|| {
            self.0.push(Place::default());
            self.0.len() - 1
        });
        self.0[place].closed = false;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_holds_the_place_when_the_holder_goes() {
        let mut places = Places::new(2);
        assert_eq!(places.succeed(1), None);
        places.appoint(1, 7);
        assert_eq!((places.holder(1), places.successor(1)), (Some(1), Some(7)));
        assert_eq!(places.succeed(1), Some(7));
        assert_eq!((places.holder(1), places.successor(1)), (Some(7), None));
        assert_eq!((places.holder(0), places.successor(0)), (Some(0), None));
    }

    #[test]
    fn a_place_sleeps_until_it_has_a_holder() {
        let mut places = Places::new(2);
        assert_eq!((places.awake(), places.asleep()), (2, None));
        assert_eq!(places.clear(1).collect::<Vec<_>>(), [1]);
        places.left(1);
        assert_eq!(places.asleep(), None, "somebody is still on the way out");
        places.is_gone(1);
        assert_eq!((places.awake(), places.asleep()), (1, Some(1)));
        places.appoint(1, 5);
        assert_eq!((places.holder(1), places.asleep()), (Some(5), None));
    }

    #[test]
    fn a_closed_place_is_opened_again_first() {
        let mut places = Places::new(3);
        places.clear(1).for_each(drop);
        places.close(1);
        assert_eq!((places.open(), places.asleep()), (2, None));
        assert_eq!((places.add(), places.add()), (1, 3));
        assert_eq!(places.open(), 4);
    }
}
