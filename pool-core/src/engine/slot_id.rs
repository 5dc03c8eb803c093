//! Names of slots, and tables with a row for each slot.

use std::ops::{Index, IndexMut};

/// Names a slot, for as long as the pool lives: room for one worker process after the other. It is
/// no number of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId(usize);

impl SlotId {
    /// The slot with this number, counted from 0.
    pub(crate) const fn new(index: usize) -> Self {
        Self(index)
    }

    /// Its number, counted from 0.
    pub(crate) const fn index(self) -> usize {
        self.0
    }
}

/// One `T` for each slot. It is indexed by a [`SlotId`] and by nothing else.
#[derive(Debug)]
pub(crate) struct PerSlot<T>(Vec<T>);

impl<T> PerSlot<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The names of all slots that there are now.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SlotId> + use<T> {
        (0..self.0.len()).map(SlotId)
    }

    pub(crate) fn get(&self, slot: SlotId) -> Option<&T> {
        self.0.get(slot.0)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotId, &T)> {
        let rows = self.0.iter().enumerate();
        rows.map(|(index, row)| (SlotId(index), row))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SlotId, &mut T)> {
        let rows = self.0.iter_mut().enumerate();
        rows.map(|(index, row)| (SlotId(index), row))
    }

    /// The first slot whose row is like that.
    pub(crate) fn find(&self, is_it: impl FnMut(&T) -> bool) -> Option<SlotId> {
        self.0.iter().position(is_it).map(SlotId)
    }

    /// There is one more slot.
    pub(crate) fn push(&mut self, row: T) -> SlotId {
        self.0.push(row);
        SlotId(self.0.len() - 1)
    }
}

impl<T> FromIterator<T> for PerSlot<T> {
    fn from_iter<I: IntoIterator<Item = T>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}

impl<T> Index<SlotId> for PerSlot<T> {
    type Output = T;

    fn index(&self, slot: SlotId) -> &T {
        &self.0[slot.0]
    }
}

impl<T> IndexMut<SlotId> for PerSlot<T> {
    fn index_mut(&mut self, slot: SlotId) -> &mut T {
        &mut self.0[slot.0]
    }
}
