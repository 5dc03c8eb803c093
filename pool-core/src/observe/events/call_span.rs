//! The spans that calls are made in.

use std::fmt;
use std::sync::Arc;

use tracing_core::Metadata;
use tracing_core::dispatcher::{self, Dispatch};
use tracing_core::span::Id;

use crate::process::fork;

/// A span of the parent's that is kept open.
pub(crate) struct OpenSpan {
    dispatch: Dispatch,
    id: Id,
    /// Of one that was opened here.
    pub(super) metadata: Option<&'static Metadata<'static>>,
}

impl OpenSpan {
    /// The span of this subscriber's that the calling thread is in.
    pub(super) fn current(dispatch: &Dispatch) -> Option<Self> {
        let current = dispatch.current_span();
        Some(Self {
            id: dispatch.clone_span(current.id()?),
            dispatch: dispatch.clone(),
            metadata: None,
        })
    }

    /// One that was just opened.
    pub(super) fn new(dispatch: &Dispatch, id: Id, metadata: &'static Metadata<'static>) -> Self {
        Self {
            dispatch: dispatch.clone(),
            id,
            metadata: Some(metadata),
        }
    }

    /// The span, and the subscriber that knows it.
    pub(super) fn parts(&self) -> (&Dispatch, &Id) {
        (&self.dispatch, &self.id)
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        // As the thread's own, for a registry looks there for the subscriber to close a span's
        // parent with.
        dispatcher::with_default(&self.dispatch, || {
            self.dispatch.try_close(self.id.clone());
        });
    }
}

/// Where spans are let go of. To do so is to run the user's code, which must not happen where the
/// last chunk of a call may end: under locks, and on threads that others wait for.
pub(crate) trait LetGo: Send + Sync {
    fn let_go(&self, span: OpenSpan);
}

/// The span that a call was made in: the parent of its items' events.
pub struct Origin {
    /// There until it is dropped.
    span: Option<OpenSpan>,
    /// What the call is called, whose own span it is.
    call: Option<Box<str>>,
    keeper: Arc<dyn LetGo>,
    fork_depth: usize,
}

impl Origin {
    /// That of a call. If the span is the call's own, and not one that it was made in, this is what
    /// it is called.
    pub(crate) fn new(span: OpenSpan, call: Option<&str>, keeper: Arc<dyn LetGo>) -> Self {
        Self {
            call: call.map(Box::from),
            span: Some(span),
            keeper,
            fork_depth: fork::depth(),
        }
    }

    /// What the call is called, if the span is its own.
    pub(super) fn call_name(&self) -> Option<&str> {
        self.call.as_deref()
    }

    /// The span, and the subscriber that knows it.
    pub(super) fn span(&self) -> Option<(&Dispatch, &Id)> {
        self.span.as_ref().map(OpenSpan::parts)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let Some(span) = self.span.take() else { return };
        if self.fork_depth == fork::depth() {
            self.keeper.let_go(span);
        } else {
            // This is the copy in a forked process: its parent's subscriber may be locked forever
            // here.
            #[allow(clippy::mem_forget, clippy::disallowed_methods)]
            std::mem::forget(span);
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin")
            .field(&self.span.as_ref().map(|span| &span.id))
            .finish()
    }
}
