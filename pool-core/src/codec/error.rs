//! Why a value could not be encoded or decoded.

use std::any::type_name;
use std::fmt;

use serde::{de, ser};

/// Why a value could not be encoded or decoded. It says so in words, and names the type.
///
/// One pointer, so that the results of small values travel in registers.
#[derive(Clone)]
pub struct CodecError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    message: String,
    /// What the caller asked for; unknown until the error reaches `encode` or `decode`.
    request: Option<(Attempt, &'static str)>,
}

/// What was being done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempt {
    Encode,
    Decode,
}

impl CodecError {
    #[cold]
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self(Box::new(Inner {
            message: message.to_string(),
            request: None,
        }))
    }

    /// For this many bytes, for which there is no memory.
    #[cold]
    pub(crate) fn no_memory(bytes: u64) -> Self {
        Self::new(format_args!(
            "there is no memory for its {bytes} bytes (ulimit -v, ulimit -d, a control group?)"
        ))
    }

    /// Names the type that the caller asked to encode or decode.
    #[cold]
    pub(super) fn at<T: ?Sized>(mut self, attempt: Attempt) -> Self {
        self.0.request = Some((attempt, type_name::<T>()));
        self
    }

    /// For a type that asks the bytes what they are.
    #[cold]
    pub(super) fn not_self_describing(expected: &dyn de::Expected) -> Self {
        Self::new(format_args!(
            "it asks the bytes what they are (looking for {expected}), and they do not say: \
             `#[serde(flatten)]`, `#[serde(untagged)]`, internally or adjacently tagged enums \
             (`#[serde(tag = \"..\")]`) and values of other formats need a self-describing format; \
             wrap the value in `procpool::Json` (feature `json`), or use a type without these \
             attributes"
        ))
    }

    /// For a field that is left out when writing, but not when reading.
    #[cold]
    pub(super) fn skipped_field(owner: &str, field: &str) -> Self {
        Self::new(format_args!(
            "`#[serde(skip_serializing_if)]` leaves out the field `{field}` of `{owner}`, and the \
             reader would take the next one for it; wrap the value in `procpool::Json` (feature \
             `json`), or use a type without this attribute"
        ))
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.request {
            Some((Attempt::Encode, name)) => write!(f, "cannot encode `{name}`: ")?,
            Some((Attempt::Decode, name)) => write!(f, "cannot decode `{name}`: ")?,
            None => {}
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CodecError")
            .field(&self.to_string())
            .finish()
    }
}

impl std::error::Error for CodecError {}

impl ser::Error for CodecError {
    #[cold]
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::new(message)
    }
}

impl de::Error for CodecError {
    #[cold]
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::new(message)
    }
}

const _: () = {
    const fn assert<T: Clone + Send + Sync + Unpin + 'static>() {}
    assert::<CodecError>();
};

#[cfg(test)]
mod tests {
    use super::{Attempt, CodecError};

    #[test]
    fn says_what_was_attempted_and_on_what() {
        let error = CodecError::new("no");
        assert_eq!(error.to_string(), "no");
        let error = error.at::<Vec<u8>>(Attempt::Encode);
        assert_eq!(error.to_string(), "cannot encode `alloc::vec::Vec<u8>`: no");
        let error = error.at::<str>(Attempt::Decode);
        assert_eq!(error.clone().to_string(), "cannot decode `str`: no");
        assert_eq!(
            format!("{error:?}"),
            "CodecError(\"cannot decode `str`: no\")"
        );
    }

    #[test]
    fn fits_a_register() {
        assert_eq!(size_of::<Result<(), CodecError>>(), size_of::<usize>());
    }
}
