//! What comes before a worker's first task: settings, then the initializer.

use crate::error::task_error::TaskError;

/// How far that is. Each transition says whether it was legal; if not, nothing changes.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) enum Setup {
    /// It applies its settings.
    #[default]
    Settings,
    /// It runs the initializer, or has not begun.
    Initializer,
    /// That has finished, or there is none.
    Ready,
    /// One of both failed.
    Failed(TaskError),
}

impl Setup {
    fn goes_on(&self) -> bool {
        matches!(self, Self::Settings | Self::Initializer)
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }

    /// Settings: they are applied, and the initializer is to run.
    pub(super) fn begin_initializer(&mut self) -> bool {
        let is_legal = matches!(self, Self::Settings);
        if is_legal {
            *self = Self::Initializer;
        }
        is_legal
    }

    /// Settings or initializer: all has succeeded.
    pub(super) fn succeed(&mut self) -> bool {
        let is_legal = self.goes_on();
        if is_legal {
            *self = Self::Ready;
        }
        is_legal
    }

    /// Settings or initializer: one of them has failed.
    pub(super) fn fail(&mut self, error: TaskError) -> bool {
        let is_legal = self.goes_on();
        if is_legal {
            *self = Self::Failed(error);
        }
        is_legal
    }
}
