//! What waits for the worker of one position, and for no other.

use std::collections::VecDeque;

use crate::engine::work_unit::WorkUnit;

/// See the module.
pub(super) struct Pinned<U> {
    positions: Vec<Position<U>>,
    /// How many units wait in all.
    count: usize,
}

struct Position<U> {
    waiting: VecDeque<U>,
    is_closed: bool,
}

impl<U: WorkUnit> Pinned<U> {
    /// So many positions.
    pub(super) fn new(positions: usize) -> Self {
        let mut pinned = Self {
            positions: Vec::new(),
            count: 0,
        };
        pinned.grow(positions);
        pinned
    }

    fn grow(&mut self, positions: usize) {
        let position = || Position {
            waiting: VecDeque::new(),
            is_closed: false,
        };
        if self.positions.len() < positions {
            self.positions.resize_with(positions, position);
        }
    }

    /// There is to be a worker in this position.
    pub(super) fn open(&mut self, position: usize) {
        self.grow(position + 1);
        self.positions[position].is_closed = false;
    }

    /// There will be no worker in this position: gives what waits for it.
    pub(super) fn close(&mut self, position: usize) -> VecDeque<U> {
        let Some(position) = self.positions.get_mut(position) else {
            return VecDeque::new();
        };
        position.is_closed = true;
        self.count -= position.waiting.len();
        std::mem::take(&mut position.waiting)
    }

    /// The queue that this unit belongs into, if it is for one position that has a worker.
    fn queue_of(&mut self, unit: &U) -> Option<&mut VecDeque<U>> {
        let position = self.positions.get_mut(unit.position()?)?;
        (!position.is_closed).then_some(&mut position.waiting)
    }

    /// A unit, behind those that wait for the same position. It comes back if it is for none.
    #[inline]
    pub(super) fn push_back(&mut self, unit: U) -> Option<U> {
        let Some(queue) = self.queue_of(&unit) else {
            return Some(unit);
        };
        queue.push_back(unit);
        self.count += 1;
        None
    }

    /// The same, ahead of them.
    pub(super) fn push_front(&mut self, unit: U) -> Option<U> {
        let Some(queue) = self.queue_of(&unit) else {
            return Some(unit);
        };
        queue.push_front(unit);
        self.count += 1;
        None
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether something waits for this position.
    #[inline]
    pub(super) fn has(&self, position: Option<usize>) -> bool {
        let waiting = |at: usize| {
            self.positions
                .get(at)
                .is_some_and(|it| !it.waiting.is_empty())
        };
        position.is_some_and(waiting)
    }

    /// The unit that is next in this position. What is not to begin goes into `refused`.
    pub(super) fn pop(&mut self, position: Option<usize>, refused: &mut Vec<U>) -> Option<U> {
        let position = self.positions.get_mut(position?)?;
        while let Some(unit) = position.waiting.pop_front() {
            self.count -= 1;
            if !unit.is_refused() {
                return Some(unit);
            }
            refused.push(unit);
        }
        None
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &U> {
        self.positions.iter().flat_map(|it| &it.waiting)
    }

    /// Takes out the units for which `take` says so.
    pub(super) fn extract(&mut self, take: impl Fn(&U) -> bool) -> Vec<U> {
        let mut taken = Vec::new();
        if self.count > 0 {
            for position in &mut self.positions {
                for unit in std::mem::take(&mut position.waiting) {
                    if take(&unit) {
                        taken.push(unit);
                    } else {
                        position.waiting.push_back(unit);
                    }
                }
            }
            self.count -= taken.len();
        }
        taken
    }
}
