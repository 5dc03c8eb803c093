//! The positions of a pool, each of which has a worker.
//!
//! A position stays, its workers come and go. Each worker is in a slot. While a worker is being
//! replaced, its position has two: the *active* one works, and the *successor* gets ready and then
//! waits until the active one retires. A retired worker is *draining*: it has no position any more,
//! but it must be gone before the position gets another successor. So a position has at most two
//! processes.
//!
//! A position without an active worker *sleeps* until there is work for it, or is *closed* because
//! the pool was made smaller.

use super::slot_id::SlotId;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Positions(Vec<Position>);

/// Names a position of a pool, for good. It is no index of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PositionId(usize);

impl PositionId {
    /// Its number, counted from 0.
    pub(super) fn index(self) -> usize {
        self.0
    }
}

#[derive(Debug, Default)]
struct Position {
    /// The slot whose worker works here, or whose next one will.
    active: Option<SlotId>,
    /// The slot whose worker will be active here after that.
    successor: Option<SlotId>,
    /// How many workers have retired from it and are not dead.
    draining: u32,
    /// How many workers it has had.
    generation: u32,
    /// There is to be no worker here.
    closed: bool,
}

impl Positions {
    /// This many positions: slot 0 is active in the first, and so on.
    pub(super) fn new(count: usize) -> Self {
        let position = |index| Position {
            active: Some(SlotId::new(index)),
            ..Position::default()
        };
        Self((0..count).map(position).collect())
    }

    /// All of them, by their numbers.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = PositionId> + use<> {
        (0..self.0.len()).map(PositionId)
    }

    /// How many there are, without those that are closed.
    pub(super) fn open(&self) -> usize {
        self.0.iter().filter(|position| !position.closed).count()
    }

    /// How many have an active worker.
    pub(super) fn awake(&self) -> usize {
        self.0
            .iter()
            .filter(|position| position.active.is_some())
            .count()
    }

    /// A position that sleeps and could be woken.
    pub(super) fn parked(&self) -> Option<PositionId> {
        self.all().find(|position| self.is_parked(*position))
    }

    /// Whether a position sleeps and could be woken.
    pub(super) fn is_parked(&self, position: PositionId) -> bool {
        let position = &self.0[position.0];
        position.active.is_none() && !position.closed && position.draining == 0
    }

    pub(super) fn is_closed(&self, position: PositionId) -> bool {
        self.0[position.0].closed
    }

    pub(super) fn active(&self, position: PositionId) -> Option<SlotId> {
        self.0[position.0].active
    }

    pub(super) fn successor(&self, position: PositionId) -> Option<SlotId> {
        self.0[position.0].successor
    }

    /// Whether a worker that retired from it is still there. A finalizer may take long.
    pub(super) fn is_crowded(&self, position: PositionId) -> bool {
        self.0[position.0].draining > 0
    }

    /// How many workers a position has had.
    pub(super) fn generation(&self, position: PositionId) -> u32 {
        self.0[position.0].generation
    }

    /// A position has got one more worker.
    pub(super) fn generate(&mut self, position: PositionId) {
        self.0[position.0].generation += 1;
    }

    /// The worker of this slot will be the next active one.
    pub(super) fn appoint(&mut self, position: PositionId, slot: SlotId) {
        let position = &mut self.0[position.0];
        if position.active.is_none() {
            position.active = Some(slot);
        } else {
            debug_assert!(position.successor.is_none(), "one successor is enough");
            position.successor = Some(slot);
        }
    }

    /// There will be no successor after all, or not that one.
    pub(super) fn dismiss_successor(&mut self, position: PositionId) -> Option<SlotId> {
        self.0[position.0].successor.take()
    }

    /// The active worker retires, if there is a successor: that becomes the active one.
    pub(super) fn succeed(&mut self, position: PositionId) -> Option<SlotId> {
        let position = &mut self.0[position.0];
        let successor = position.successor.take()?;
        position.active = Some(successor);
        Some(successor)
    }

    /// The position is empty from now on. Gives the slots that it had, the active one first.
    pub(super) fn clear(&mut self, position: PositionId) -> impl Iterator<Item = SlotId> + use<> {
        let position = &mut self.0[position.0];
        [position.active.take(), position.successor.take()]
            .into_iter()
            .flatten()
    }

    /// A worker has retired from the position, and lives.
    pub(super) fn left(&mut self, position: PositionId) {
        self.0[position.0].draining += 1;
    }

    /// It is dead.
    pub(super) fn is_gone(&mut self, position: PositionId) {
        self.0[position.0].draining -= 1;
    }

    /// There is to be no worker in this position.
    pub(super) fn close(&mut self, position: PositionId) {
        self.0[position.0].closed = true;
    }

    /// One more position: one that was closed, or a new one.
    pub(super) fn add(&mut self) -> PositionId {
        let closed = self.0.iter().position(|position| position.closed);
        let position = closed.unwrap_or_else(|| {
            self.0.push(Position::default());
            self.0.len() - 1
        });
        self.0[position].closed = false;
        PositionId(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_active_when_the_one_before_retires() {
        let mut positions = Positions::new(2);
        assert_eq!(positions.succeed(PositionId(1)), None);
        positions.appoint(PositionId(1), SlotId::new(7));
        assert_eq!(
            (
                positions.active(PositionId(1)),
                positions.successor(PositionId(1))
            ),
            (Some(SlotId::new(1)), Some(SlotId::new(7)))
        );
        assert_eq!(positions.succeed(PositionId(1)), Some(SlotId::new(7)));
        assert_eq!(
            (
                positions.active(PositionId(1)),
                positions.successor(PositionId(1))
            ),
            (Some(SlotId::new(7)), None)
        );
        assert_eq!(
            (
                positions.active(PositionId(0)),
                positions.successor(PositionId(0))
            ),
            (Some(SlotId::new(0)), None)
        );
    }

    #[test]
    fn a_position_sleeps_until_it_has_an_active_worker() {
        let mut positions = Positions::new(2);
        assert_eq!((positions.awake(), positions.parked()), (2, None));
        assert_eq!(
            positions.clear(PositionId(1)).collect::<Vec<_>>(),
            [SlotId::new(1)]
        );
        positions.left(PositionId(1));
        assert_eq!(positions.parked(), None, "somebody is still on the way out");
        positions.is_gone(PositionId(1));
        assert_eq!(
            (positions.awake(), positions.parked()),
            (1, Some(PositionId(1)))
        );
        positions.appoint(PositionId(1), SlotId::new(5));
        assert_eq!(
            (positions.active(PositionId(1)), positions.parked()),
            (Some(SlotId::new(5)), None)
        );
    }

    #[test]
    fn a_closed_position_is_opened_again_first() {
        let mut positions = Positions::new(3);
        positions.clear(PositionId(1)).for_each(drop);
        positions.close(PositionId(1));
        assert_eq!((positions.open(), positions.parked()), (2, None));
        assert_eq!(
            (positions.add(), positions.add()),
            (PositionId(1), PositionId(3))
        );
        assert_eq!(positions.open(), 4);
    }
}
