//! One error in place of two.

use std::error::Error;
use std::fmt;

use super::task_error::TaskError;

/// Why a call of a function that can fail has no value: what [`FlattenErrors`] gives.
///
/// `Debug` prints what a person reads, as `main` does with the error that it returns.
#[derive(Clone, PartialEq, Eq)]
pub enum CallError<E> {
    /// The task has no result: it panicked, its worker died, it was too slow.
    Task(TaskError),
    /// The function returned this error.
    Returned(E),
}

impl<E> CallError<E> {
    /// The error that the function returned.
    pub fn returned(self) -> Option<E> {
        match self {
            Self::Returned(error) => Some(error),
            Self::Task(_) => None,
        }
    }

    /// Why the task has no result.
    pub fn task(&self) -> Option<&TaskError> {
        match self {
            Self::Task(error) => Some(error),
            Self::Returned(_) => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(error) => fmt::Display::fmt(error, f),
            Self::Returned(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(error) => fmt::Debug::fmt(error, f),
            Self::Returned(error) => fmt::Debug::fmt(error, f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for CallError<E> {}

/// Makes one `Result` of two, where a function returns a `Result` itself.
///
/// | of | comes |
/// |---|---|
/// | `Result<Result<T, E>, TaskError>`: one task, one item | `Result<T, CallError<E>>` |
/// | `Result<Vec<Result<T, E>>, TaskError>`: a `map` | `Result<Vec<T>, CallError<E>>`, with the error of the lowest index |
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{CallError, FlattenErrors, Pool, RemoteError, SerialPool};
///
/// fn parse(text: String) -> Result<u64, RemoteError> {
///     Ok(text.parse()?)
/// }
///
/// fn total(texts: Vec<String>) -> Result<u64, CallError<RemoteError>> {
///     let numbers = SerialPool::new().map(parse, texts).flatten_errors()?;
///     Ok(numbers.into_iter().sum())
/// }
///
/// assert_eq!(total(vec!["1".into(), "2".into()]).unwrap(), 3);
/// assert!(matches!(total(vec!["one".into()]), Err(CallError::Returned(_))));
///
/// let texts = ["1".to_owned(), "one".to_owned()];
/// for outcome in SerialPool::new().imap(parse, texts) {
///     match outcome.flatten_errors() {
///         Ok(number) => println!("{number}"),
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// ```
pub trait FlattenErrors {
    /// The value, or what there is of both errors.
    type Flat;

    /// The value, or the one error of the two that there is.
    fn flatten_errors(self) -> Self::Flat;
}

impl<T, E> FlattenErrors for Result<Result<T, E>, TaskError> {
    type Flat = Result<T, CallError<E>>;

    fn flatten_errors(self) -> Self::Flat {
        self.map_err(CallError::Task)?.map_err(CallError::Returned)
    }
}

impl<T, E> FlattenErrors for Result<Vec<Result<T, E>>, TaskError> {
    type Flat = Result<Vec<T>, CallError<E>>;

    fn flatten_errors(self) -> Self::Flat {
        let outcomes = self.map_err(CallError::Task)?.into_iter();
        outcomes
            .map(|outcome| outcome.map_err(CallError::Returned))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_in_place_of_two() {
        let closed = TaskError::closed();
        let all: [Result<Result<u8, &str>, TaskError>; 3] =
            [Ok(Ok(1)), Ok(Err("no")), Err(closed.clone())];
        assert_eq!(
            all.map(FlattenErrors::flatten_errors),
            [
                Ok(1),
                Err(CallError::Returned("no")),
                Err(CallError::Task(closed.clone()))
            ]
        );
        let map: Result<Vec<Result<u8, &str>>, TaskError> = Ok(vec![Ok(1), Err("no"), Err("2")]);
        assert_eq!(map.flatten_errors(), Err(CallError::Returned("no")));
        let map: Result<Vec<Result<u8, &str>>, TaskError> = Err(closed.clone());
        let error = map.flatten_errors().unwrap_err();
        assert_eq!(error.to_string(), closed.to_string());
        assert_eq!(format!("{error:?}"), format!("{closed:?}"));
    }
}
