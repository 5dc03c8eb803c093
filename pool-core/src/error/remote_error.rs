//! Errors of a user's function, in a form that travels.

use std::any::type_name;
use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::panic::foreign_text::Shown;

/// How many causes of an error are kept, at most.
const MAX_CAUSES: usize = 64;

/// Any error, in a form that can be the result of a task: its message, the messages of its causes
/// and the name of its type.
///
/// serde does not carry `std::io::Error`, `Box<dyn Error>` and most other errors. In a function
/// that returns `Result<T, RemoteError>`, `?` converts them:
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, RemoteError, SerialPool};
///
/// fn port(path: String) -> Result<u16, RemoteError> {
///     let text = std::fs::read_to_string(&path)?;
///     Ok(text.trim().parse()?)
/// }
///
/// let outcome = SerialPool::new().apply(port, "/does/not/exist".to_owned())?;
/// let error = outcome.unwrap_err();
/// assert!(error.is_type::<std::io::Error>());
/// assert!(error.to_string().contains("No such file"));
/// # Ok::<(), procpool::TaskError>(())
/// ```
///
/// A function that is there already, and returns `anyhow::Result<T>` or `io::Result<T>`, goes
/// through [`remote_errors`]. Its calls' results are `Result<Result<T, RemoteError>, TaskError>`;
/// [`FlattenErrors`](crate::FlattenErrors) makes one `Result` of the two.
///
/// # What it prints
/// `Display` is the message. `Debug` is what a person reads, since it is what `main` prints when
/// it returns an error: the message and all causes. `{:#?}` has the fields.
///
/// As with `anyhow::Error`, it is no [`Error`] itself, or else `?` could not convert every error
/// into it. It turns into a `Box<dyn Error>`, by `?` as well.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RemoteError {
    message: String,
    causes: Vec<String>,
    type_name: String,
}

impl RemoteError {
    /// From anything that can be an error: a text, a `Box<dyn Error + Send + Sync>`, or an error
    /// that is no [`Error`] itself, such as `anyhow::Error`. (`?` converts all others.)
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::RemoteError;
    ///
    /// fn half(x: u64) -> Result<u64, RemoteError> {
    ///     if x % 2 == 0 { Ok(x / 2) } else { Err(RemoteError::new("it is odd")) }
    /// }
    /// assert_eq!(half(7).unwrap_err().to_string(), "it is odd");
    /// ```
    pub fn new<E: Into<Box<dyn Error + Send + Sync>>>(error: E) -> Self {
        Self::of(&*error.into(), type_name::<E>())
    }

    fn of(error: &dyn Error, type_name: &str) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next
            && causes.len() < MAX_CAUSES
        {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self {
            message: error.to_string(),
            causes,
            type_name: type_name.to_owned(),
        }
    }

    /// What the error said.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What its causes said: that of the error first, then the cause's own, and so on; at most 64.
    pub fn causes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.causes.iter().map(String::as_str)
    }

    /// The name of its type, as [`std::any::type_name`] gives it.
    #[must_use]
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// Whether it was made of an `E`, as far as the name of the type says so.
    #[must_use]
    pub fn is_type<E>(&self) -> bool {
        self.type_name == type_name::<E>()
    }
}

impl<E: Error> From<E> for RemoteError {
    fn from(error: E) -> Self {
        Self::of(&error, type_name::<E>())
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Shown(&self.message), f)
    }
}

impl fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("RemoteError")
                .field("message", &self.message)
                .field("causes", &self.causes)
                .field("type_name", &self.type_name)
                .finish();
        }
        fmt::Display::fmt(self, f)?;
        if !self.causes.is_empty() {
            f.write_str("\n\nCaused by:")?;
        }
        self.causes
            .iter()
            .try_for_each(|cause| write!(f, "\n    {}", Shown(cause)))
    }
}

/// What a `Box<dyn Error>` holds: each cause is the source of the one before.
struct Link {
    error: RemoteError,
    next: Option<Box<Link>>,
}

impl Link {
    fn new(error: RemoteError) -> Self {
        let mut next = None;
        for cause in error.causes.iter().rev() {
            let error = RemoteError {
                message: cause.clone(),
                causes: Vec::new(),
                type_name: String::new(),
            };
            next = Some(Box::new(Self { error, next }));
        }
        Self { error, next }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl Error for Link {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.next.as_deref().map(|link| link as _)
    }
}

impl From<RemoteError> for Box<dyn Error + Send + Sync> {
    fn from(error: RemoteError) -> Self {
        Box::new(Link::new(error))
    }
}

impl From<RemoteError> for Box<dyn Error> {
    fn from(error: RemoteError) -> Self {
        Box::new(Link::new(error))
    }
}

/// The same function, whose errors can travel: for one that returns `anyhow::Result<T>`,
/// `std::io::Result<T>` or any other `Result` whose error serde does not carry.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool, remote_errors};
///
/// fn length(path: String) -> std::io::Result<u64> {
///     Ok(std::fs::metadata(path)?.len())
/// }
///
/// let paths = ["Cargo.toml".to_owned(), "/does/not/exist".to_owned()];
/// let lengths = SerialPool::new().map(remote_errors(length), paths)?;
/// assert!(lengths[0].is_ok());
/// println!("{}", lengths[1].as_ref().unwrap_err());
/// # Ok::<(), procpool::TaskError>(())
/// ```
pub fn remote_errors<F, A, T, E>(function: F) -> impl Fn(A) -> Result<T, RemoteError> + Copy
where
    F: Fn(A) -> Result<T, E> + Copy,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    move |argument| function(argument).map_err(RemoteError::new)
}

#[cfg(test)]
mod tests {
    use std::num::ParseIntError;

    use super::*;
    use crate::codec;

    #[derive(Debug, thiserror::Error)]
    #[error("line {line} is wrong")]
    struct Wrong {
        line: u32,
        source: ParseIntError,
    }

    fn wrong() -> Wrong {
        let source = "x".parse::<u8>().unwrap_err();
        Wrong { line: 7, source }
    }

    #[test]
    fn it_says_what_the_error_said() {
        let error = RemoteError::from(wrong());
        assert_eq!(error.message(), "line 7 is wrong");
        assert_eq!(
            error.causes().collect::<Vec<_>>(),
            ["invalid digit found in string"]
        );
        assert!(error.is_type::<Wrong>() && !error.is_type::<ParseIntError>());
        assert_eq!(
            format!("{error:?}"),
            "line 7 is wrong\n\nCaused by:\n    invalid digit found in string"
        );
        assert!(format!("{error:#?}").contains("type_name: "));
    }

    #[test]
    fn it_travels() {
        let error = RemoteError::from(wrong());
        let mut bytes = Vec::new();
        codec::encode(&error, &mut bytes).unwrap();
        assert_eq!(codec::decode::<RemoteError>(&bytes).unwrap(), error);
    }

    #[test]
    fn it_is_an_error_again_with_all_its_causes() {
        fn fails() -> Result<(), Box<dyn Error>> {
            Err(RemoteError::from(wrong()))?;
            Ok(())
        }
        let error = fails().unwrap_err();
        assert_eq!(error.to_string(), "line 7 is wrong");
        let cause = error.source().expect("there is a cause");
        assert_eq!(cause.to_string(), "invalid digit found in string");
        assert!(cause.source().is_none());
        // There and back it is the same but for the type.
        let again = RemoteError::new(Box::<dyn Error + Send + Sync>::from(RemoteError::from(
            wrong(),
        )));
        assert!(again.causes().eq(RemoteError::from(wrong()).causes()));
    }

    /// An error whose source is itself would have causes without an end.
    #[test]
    fn causes_without_an_end_are_cut() {
        #[derive(Debug, thiserror::Error)]
        #[error("again")]
        struct Again;
        #[derive(Debug)]
        struct Ring;
        impl fmt::Display for Ring {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ring")
            }
        }
        impl Error for Ring {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&Ring)
            }
        }
        assert_eq!(RemoteError::from(Ring).causes().len(), MAX_CAUSES);
        assert_eq!(RemoteError::from(Again).causes().len(), 0);
    }

    #[test]
    fn it_does_nothing_to_a_terminal() {
        let error = RemoteError::new("\u{1b}[2J");
        assert!(!error.to_string().contains('\u{1b}'));
        assert!(!format!("{error:?}").contains('\u{1b}'));
    }

    #[test]
    fn a_function_with_errors_that_travel_captures_nothing() {
        let parse = remote_errors(|text: String| text.parse::<u8>());
        assert_eq!(size_of_val(&parse), 0);
        assert_eq!(parse("7".to_owned()), Ok(7));
        assert!(
            parse("x".to_owned())
                .unwrap_err()
                .is_type::<ParseIntError>()
        );
    }
}
