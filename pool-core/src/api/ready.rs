//! The outcomes of a chunk as an iterator gives them, one at a time.

use std::sync::Arc;
use std::vec;

use super::decode::ItemOutcome;
use crate::shm::buffer::Buffer;
use crate::shm::protocol::VALUE_HEAD;
use crate::task::chunk_outcome::ChunkOutcome;

/// The outcomes of one chunk that were not given yet.
pub(super) struct Ready<T> {
    /// Numbers stay as they have come, and each is read when it is given: a `Result` has twice the
    /// bytes of a number, and a chunk of them would go through memory once more.
    numbers: Buffer,
    /// Where the next number's record begins.
    at: usize,
    /// Anything else.
    decoded: vec::IntoIter<T>,
}

impl<T> Default for Ready<T> {
    fn default() -> Self {
        Self {
            numbers: Buffer::default(),
            at: 0,
            decoded: Vec::new().into_iter(),
        }
    }
}

impl<T: ItemOutcome> Ready<T> {
    pub(super) fn new(part: Arc<ChunkOutcome>) -> Self {
        let part = match (T::number_size(), Arc::try_unwrap(part)) {
            (Some(size), Ok(part)) => match part.into_records_of(size) {
                Ok(numbers) => {
                    return Self {
                        numbers,
                        ..Self::default()
                    };
                }
                Err(part) => Arc::new(part),
            },
            (_, Ok(part)) => Arc::new(part),
            (_, Err(shared)) => shared,
        };
        let mut decoded = Vec::with_capacity(part.count as usize);
        T::read_all(part, &mut decoded);
        Self {
            decoded: decoded.into_iter(),
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        let numbers = match T::number_size() {
            Some(size) => (self.numbers.len() - self.at) / (VALUE_HEAD + size),
            None => 0,
        };
        numbers + self.decoded.len()
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<T> {
        if let Some(size) = T::number_size()
            && let Some(record) = self.numbers.get(self.at..self.at + VALUE_HEAD + size)
        {
            self.at += VALUE_HEAD + size;
            return T::of_number(&record[VALUE_HEAD..]);
        }
        self.decoded.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::task_error::{TaskError, TaskErrorKind};
    use crate::task::chunk_outcome::Outcomes;

    type Item<R> = Result<R, TaskError>;

    /// A chunk of these, the first of which has the index 10.
    fn chunk(values: &[Item<u64>]) -> Arc<ChunkOutcome> {
        let count = values.len() as u32;
        let mut outcomes = Outcomes::with_capacity(count);
        for value in values {
            match value {
                Ok(number) => outcomes.push_value(&number.to_le_bytes()),
                Err(error) => outcomes.push_error(error.clone()),
            }
        }
        Arc::new(ChunkOutcome {
            count,
            outcomes,
            ..ChunkOutcome::failed(10, count, TaskError::closed())
        })
    }

    fn all<T: ItemOutcome>(mut ready: Ready<T>) -> Vec<T> {
        let mut all = Vec::new();
        let whole = ready.len();
        while let Some(outcome) = ready.next() {
            all.push(outcome);
            assert_eq!(ready.len(), whole - all.len());
        }
        assert!(ready.next().is_none(), "it has ended");
        all
    }

    #[test]
    fn numbers_are_given_in_their_order_and_counted() {
        let ready = Ready::<Item<u64>>::new(chunk(&[Ok(7), Ok(u64::MAX), Ok(0)]));
        assert!(
            !ready.numbers.is_empty(),
            "they are read when they are given"
        );
        assert_eq!(all(ready), [Ok(7), Ok(u64::MAX), Ok(0)]);
    }

    #[test]
    fn one_error_among_numbers_is_given_in_its_place() {
        let values = [Ok(7), Err(TaskError::closed()), Ok(8)];
        let given = all(Ready::<Item<u64>>::new(chunk(&values)));
        assert_eq!((&given[0], &given[2]), (&Ok(7), &Ok(8)));
        let error = given[1].as_ref().unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::Closed);
        assert_eq!(error.index(), Some(11));
    }

    #[test]
    fn numbers_of_another_size_cannot_be_read() {
        let given = all(Ready::<Item<u32>>::new(chunk(&[Ok(7), Ok(8)])));
        let kinds: Vec<_> = given
            .iter()
            .map(|it| it.as_ref().unwrap_err().kind())
            .collect();
        assert_eq!(kinds, [TaskErrorKind::Decode; 2]);
    }

    /// Something else has the outcome as well, such as a watcher of the call.
    #[test]
    fn a_shared_outcome_is_read_too() {
        let shared = chunk(&[Ok(7), Ok(8)]);
        let ready = Ready::<Item<u64>>::new(Arc::clone(&shared));
        assert_eq!(all(ready), [Ok(7), Ok(8)]);
        assert_eq!(shared.count, 2);
    }
}
