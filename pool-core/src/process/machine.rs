//! The names of machines.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a machine, cheap to clone: each item of a call may come with it. Nothing in it does
/// anything to a terminal that it is shown on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Machine(Arc<str>);

impl From<&str> for Machine {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl Deref for Machine {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_debug())
    }
}

impl Serialize for Machine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Machine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self(name.into()))
    }
}
