//! What runs first in a worker, and may fail.

use std::any::Any;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What an [initializer](crate::PoolBuilder::initializer) may return: nothing, or a
/// `Result<(), E>` whose error can be shown.
///
/// Of the error goes on what `{:#}` shows; so an `anyhow::Error` tells its causes, too.
#[diagnostic::on_unimplemented(
    message = "an initializer returns nothing or a `Result<(), E>`, and not a `{Self}`",
    label = "this initializer returns a `{Self}`",
    note = "a value that tasks are to use goes into a `static`, such as a `OnceLock`",
    note = "the error of a `Result<(), E>` must have `Display`; with several kinds of errors, \
            `E` may be `Box<dyn Error>`"
)]
pub trait InitializerOutcome: private::Sealed {
    /// What the error says, if there is one.
    #[doc(hidden)]
    fn failure(self) -> Option<String>;
}

impl InitializerOutcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display> InitializerOutcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| format!("{error:#}"))
    }
}

/// What never returns.
impl InitializerOutcome for Never {
    fn failure(self) -> Option<String> {
        self
    }
}

type Never = <fn() -> ! as private::Returns>::Type;

mod private {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E> Sealed for Result<(), E> {}
    impl Sealed for super::Never {}

    /// Gives `!` a name.
    pub trait Returns {
        type Type;
    }
    impl<R> Returns for fn() -> R {
        type Type = R;
    }
}

/// The result of an initializer for the engine. It is no value, but for a worker's loop, which
/// makes a failure of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Begun {
    #[serde(skip)]
    failure: Option<String>,
}

/// The same function for a chunk.
pub(crate) fn beginning<F, A, R>(
    initializer: F,
) -> impl Fn(A) -> Begun + Copy + Send + Sync + 'static
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    R: InitializerOutcome,
{
    move |argument| Begun {
        failure: initializer(argument).failure().or_else(confine),
    }
}

/// What the worker is to give up, it gives up now.
#[cfg(feature = "sandbox")]
fn confine() -> Option<String> {
    super::confinement::enter()
}

#[cfg(not(feature = "sandbox"))]
fn confine() -> Option<String> {
    None
}

/// What the initializer says that has failed, if this is the result of one. For all other types
/// that is nothing from the beginning.
#[inline(always)]
pub(super) fn failure_of<R: 'static>(result: &R) -> Option<&str> {
    let begun = (result as &dyn Any).downcast_ref::<Begun>()?;
    begun.failure.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_returned() {
        let error = std::io::Error::other("no licence");
        assert_eq!(().failure(), None);
        assert_eq!(Ok::<(), std::io::Error>(()).failure(), None);
        assert_eq!(Err(error).failure().as_deref(), Some("no licence"));
        let boxed: Result<(), Box<dyn std::error::Error>> = Err("no licence".into());
        let begun = beginning(|()| ());
        assert_eq!(size_of_val(&begun), 0);
        assert_eq!(failure_of(&begun(())), None);
        let failing = beginning(|text: String| Err::<(), String>(text));
        assert_eq!(failure_of(&failing("why".into())), Some("why"));
        assert_eq!(boxed.failure().as_deref(), Some("no licence"));
        assert_eq!(failure_of(&Some("no initializer's")), None);
    }
}
