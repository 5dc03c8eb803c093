//! How far the end of a pool is.

use crate::error::task_error::{TaskError, TaskErrorKind};

/// See the module. It only ever gets nearer: open, closing, ended.
#[derive(Debug, Default)]
pub(super) struct End(Stage);

#[derive(Debug, Default)]
enum Stage {
    /// The pool takes tasks.
    #[default]
    Open,
    /// It finishes those that it has.
    Closing,
    /// It has given up all tasks, for this reason.
    Ended(TaskError),
}

impl End {
    /// Whether the pool takes tasks.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.0, Stage::Open)
    }

    /// Whether the pool has given up all tasks.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.0, Stage::Ended(_))
    }

    /// Why a new task is not taken. `None`: it is.
    pub(super) fn refusal(&self) -> Option<TaskError> {
        match &self.0 {
            Stage::Open => None,
            Stage::Ended(reason) if reason.kind() != TaskErrorKind::Cancelled => {
                Some(reason.clone())
            }
            Stage::Closing | Stage::Ended(_) => Some(TaskError::closed()),
        }
    }

    /// Why it has given up all tasks. `None`: it has not.
    pub(super) fn reason(&self) -> Option<&TaskError> {
        match &self.0 {
            Stage::Ended(reason) => Some(reason),
            Stage::Open | Stage::Closing => None,
        }
    }

    /// Open: no tasks are taken from now on. Says whether any were.
    pub(super) fn close(&mut self) -> bool {
        let was_open = self.is_open();
        if was_open {
            self.0 = Stage::Closing;
        }
        was_open
    }

    /// Open or closing: all tasks are given up, for this reason. Says whether they were not before;
    /// the first reason stays.
    pub(super) fn give_up(&mut self, reason: &TaskError) -> bool {
        let is_first = !self.has_ended();
        if is_first {
            self.0 = Stage::Ended(reason.clone());
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_only_gets_nearer() {
        let mut end = End::default();
        assert!(end.is_open() && end.refusal().is_none());
        assert!(end.close() && !end.close());
        let refusal = end.refusal().map(|error| error.kind());
        assert_eq!(refusal, Some(TaskError::closed().kind()));
        let reason = TaskError::new(TaskErrorKind::Launch, "no workers");
        assert!(!end.has_ended() && end.give_up(&reason));
        assert!(
            !end.give_up(&TaskError::terminated()),
            "the first reason stays"
        );
        assert!(!end.close() && !end.is_open() && end.has_ended());
        let refusal = end.refusal().map(|error| error.kind());
        assert_eq!(refusal, Some(TaskErrorKind::Launch));
    }

    /// Who submits to a pool that was terminated has not had a task cancelled.
    #[test]
    fn a_terminated_pool_is_closed_for_new_tasks() {
        let mut end = End::default();
        assert!(end.give_up(&TaskError::terminated()));
        let refusal = end.refusal().map(|error| error.kind());
        assert_eq!(refusal, Some(TaskError::closed().kind()));
    }
}
