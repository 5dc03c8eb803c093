//! What calls show without the feature `progress`: nothing.

#[derive(Clone, Default)]
pub(crate) struct Progress {}

impl Progress {
    pub(crate) fn is_shown(&self) -> bool {
        false
    }

    pub(crate) fn begin(&mut self, _hint: (usize, Option<usize>)) {}

    pub(crate) fn end_known(&mut self, _items: usize) {}

    pub(crate) fn add(&self, _items: u64, _failed: u64) {}

    pub(crate) fn count(&self, _items: u64) {}

    pub(crate) fn count_failures(&self, _items: u64) {}

    pub(crate) fn finish(&mut self) {}

    pub(crate) fn abandon(&mut self) {}
}
