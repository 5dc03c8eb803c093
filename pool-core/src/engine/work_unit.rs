//! What the scheduler hands out, and what it gets back.

/// Something that can be handed to a worker and taken apart between its items.
pub(crate) trait WorkUnit: Sized {
    /// What is kept of the outcomes of its items.
    type Outcomes;

    /// How many items it has.
    fn count(&self) -> u32;
    /// The items before and from `at` on.
    fn split(self, at: u32) -> (Self, Self);
    /// Whether its items are a user's, and not what a worker does before its first one.
    fn is_counted(&self) -> bool {
        true
    }
    /// Whether it is not to begin any more: nobody wants it, or its time is over.
    fn is_refused(&self) -> bool;
    /// The number of the position whose worker is to run it; `None`: any worker may.
    fn position(&self) -> Option<usize> {
        None
    }
    /// Units of a higher one are handed out before others.
    fn priority(&self) -> i32;
    /// Room for the outcomes of its items: made when it is handed out, for most that wait are
    /// many and small.
    fn outcomes(&self) -> Self::Outcomes;
}

/// A work unit, or the first items of one, and their outcomes.
#[derive(Debug)]
pub(crate) struct Done<U: WorkUnit> {
    pub(crate) unit: U,
    pub(crate) outcomes: U::Outcomes,
}

/// A unit that was handed to a worker.
pub(crate) struct InFlight<U: WorkUnit> {
    pub(crate) unit: U,
    pub(crate) outcomes: U::Outcomes,
    /// The number of its first item among all that this worker got.
    pub(super) first: u64,
    /// How many of its items have an outcome.
    pub(super) done: u32,
}

impl<U: WorkUnit> InFlight<U> {
    /// Whether every item has its outcome.
    pub(crate) fn is_done(&self) -> bool {
        self.done == self.unit.count()
    }

    /// The number of its first item without an outcome, counted from 1 among all that its worker
    /// got.
    pub(crate) fn next_item(&self) -> u64 {
        self.first + u64::from(self.done) + 1
    }

    /// What is kept of it when it has ended.
    #[inline]
    pub(crate) fn into_done(self) -> Done<U> {
        Done {
            unit: self.unit,
            outcomes: self.outcomes,
        }
    }

    /// How many of its items have no outcome.
    pub(crate) fn open(&self) -> u32 {
        self.unit.count() - self.done
    }
}

/// What a worker that died leaves behind.
pub(crate) struct Salvaged<U: WorkUnit> {
    /// Units all of whose items have an outcome, or that part of one.
    pub(crate) finished: Vec<Done<U>>,
    /// The one item that was running.
    pub(crate) lost: Option<U>,
}
