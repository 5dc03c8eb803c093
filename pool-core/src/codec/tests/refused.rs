//! What the format cannot carry is refused in words that help.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::IgnoredAny;
use serde::ser::{Error, SerializeTuple};
use serde::{Deserialize, Serialize, Serializer};

use super::{decode, encode, encoded, failed, refused};

#[derive(Debug, Serialize, Deserialize)]
struct Inner {
    x: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Flattened {
    id: u32,
    #[serde(flatten)]
    inner: Inner,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlattenedMap {
    #[serde(flatten)]
    rest: BTreeMap<String, u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum InternallyTagged {
    Unit,
    Newtype(Inner),
    Struct { x: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum AdjacentlyTagged {
    Unit,
    Newtype(u32),
    Struct { x: u32 },
}

/// What `T` answers to bytes that it made itself.
fn refused_to_read<T>(value: &T) -> String
where
    T: Serialize + serde::de::DeserializeOwned + fmt::Debug + 'static,
{
    let message = failed::<T>(&encoded(value));
    let name = std::any::type_name::<T>();
    assert!(
        message.starts_with(&format!("cannot decode `{name}`: ")),
        "{message}"
    );
    message
}

#[test]
fn types_that_ask_the_bytes_what_they_are() {
    let messages = [
        refused_to_read(&Flattened {
            id: 1,
            inner: Inner { x: 2 },
        }),
        refused_to_read(&FlattenedMap {
            rest: BTreeMap::from([("a".to_owned(), 1)]),
        }),
        refused_to_read(&Untagged::Number(1)),
        refused_to_read(&Untagged::Text("text".to_owned())),
        refused_to_read(&InternallyTagged::Unit),
        refused_to_read(&InternallyTagged::Newtype(Inner { x: 1 })),
        refused_to_read(&InternallyTagged::Struct { x: 1 }),
        refused_to_read(&AdjacentlyTagged::Unit),
        refused_to_read(&AdjacentlyTagged::Newtype(1)),
        refused_to_read(&AdjacentlyTagged::Struct { x: 1 }),
        failed::<IgnoredAny>(&[]),
        // As a part of something else, the whole is named.
        refused_to_read(&vec![(1u8, Untagged::Number(1))]),
    ];
    for message in messages {
        assert!(message.contains("#[serde(flatten)]"), "{message}");
        assert!(message.contains("#[serde(untagged)]"), "{message}");
        assert!(
            message.contains("internally or adjacently tagged"),
            "{message}"
        );
        assert!(
            message.contains("wrap the value in `procpool::Json`"),
            "{message}"
        );
    }
    let message = refused_to_read(&InternallyTagged::Unit);
    assert!(
        message.contains("(looking for internally tagged enum InternallyTagged)"),
        "{message}"
    );
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Skipping {
    first: u8,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    second: Option<u8>,
    third: u8,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum SkippingVariant {
    Variant {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        field: Option<u8>,
    },
}

#[test]
fn fields_left_out() {
    let value = Skipping {
        first: 1,
        second: Some(2),
        third: 3,
    };
    assert_eq!(decode::<Skipping>(&encoded(&value)).unwrap(), value);

    let message = refused(&Skipping {
        first: 1,
        second: None,
        third: 3,
    });
    let name = std::any::type_name::<Skipping>();
    assert!(
        message.starts_with(&format!("cannot encode `{name}`: ")),
        "{message}"
    );
    assert!(message.contains("skip_serializing_if"), "{message}");
    assert!(
        message.contains("the field `second` of `Skipping`"),
        "{message}"
    );

    let message = refused(&vec![SkippingVariant::Variant { field: None }]);
    assert!(message.contains("SkippingVariant"), "{message}");
    assert!(
        message.contains("the field `field` of `Variant`"),
        "{message}"
    );
}

/// A variant that is left out on both sides shifts no others when it comes last.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum SkippedLast {
    First,
    Second,
    #[serde(skip)]
    Last,
}

#[test]
fn variants_left_out() {
    for value in [SkippedLast::First, SkippedLast::Second] {
        assert_eq!(decode::<SkippedLast>(&encoded(&value)).unwrap(), value);
    }
    assert!(refused(&SkippedLast::Last).contains("SkippedLast"));
}

struct Undisplayable;

impl fmt::Display for Undisplayable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

impl Serialize for Undisplayable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Fails, or panics, when part of it is written.
struct Unfinished {
    panics: bool,
}

impl Serialize for Unfinished {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&[7u64; 16])?;
        assert!(!self.panics, "as asked");
        Err(Error::custom("not today"))
    }
}

#[test]
fn values_that_fail_leave_nothing_behind() {
    assert!(
        refused(&Undisplayable).ends_with("Undisplayable`: the `Display` of a value in it failed")
    );
    assert!(refused(&Unfinished { panics: false }).ends_with("Unfinished`: not today"));

    let mut out = vec![1];
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        encode(&Unfinished { panics: true }, &mut out)
    }));
    assert!(panicked.is_err());
    assert_eq!(out, [1]);
}
