//! Values in a form that says what they are.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// Carries a value as JSON, in arguments and results. Needs the feature `json`.
///
/// The pools' own form is compact: it has no names, and nothing in it says what it is. Types that
/// ask for that cannot travel in it: `serde_json::Value`, and types with `#[serde(flatten)]`,
/// `#[serde(untagged)]`, `#[serde(tag = "..")]` or `#[serde(skip_serializing_if = "..")]`. In
/// `Json` they can, and any other type as well.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Json, Pool, SerialPool};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(tag = "kind")]
/// enum Shape {
///     Circle { radius: f64 },
///     Square { side: f64 },
/// }
///
/// let area = |Json(shape): Json<Shape>| match shape {
///     Shape::Circle { radius } => radius * radius * std::f64::consts::PI,
///     Shape::Square { side } => side * side,
/// };
/// let shapes = [Shape::Circle { radius: 0.0 }, Shape::Square { side: 3.0 }];
/// let areas = SerialPool::new().map(area, shapes.map(Json))?;
/// assert_eq!(areas, [0.0, 9.0]);
/// # Ok::<(), procpool::TaskError>(())
/// ```
///
/// # Cost
/// The value is written as text and parsed again: some tens of nanoseconds for a small one, and
/// for large ones several times what the pools' own form costs. What does not need it should go
/// beside it: `(Json<Header>, Vec<f64>)`.
///
/// # Errors
/// What JSON cannot say is an error of the task, of the kind [`Encode`] or [`Decode`]: a map whose
/// keys are neither text nor numbers; NaN and infinities, which JSON writes as `null`; more than
/// 127 levels of nesting.
///
/// [`Encode`]: crate::TaskErrorKind::Encode
/// [`Decode`]: crate::TaskErrorKind::Decode
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json<T>(pub T);

impl<T> Json<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Json<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A text travels as it is, without a look at each byte.
impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&self.0).map_err(ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Json<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

struct Text<T>(PhantomData<T>);

impl<T: DeserializeOwned> Visitor<'_> for Text<T> {
    type Value = Json<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in JSON")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Json<T>, E> {
        serde_json::from_str(text).map(Json).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::codec;

    fn there_and_back<T: Serialize + DeserializeOwned + 'static>(value: &Json<T>) -> Json<T> {
        let mut bytes = Vec::new();
        codec::encode(value, &mut bytes).unwrap();
        codec::decode(&bytes).unwrap()
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u64),
        Text(String),
        Inner(Inner),
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Inner {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        left_out: Option<u8>,
        here: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Internally {
        Unit,
        Struct { x: u64, y: f64 },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", content = "value")]
    enum Adjacently {
        Newtype(i8),
    }

    #[test]
    fn what_the_codec_refuses_arrives() {
        let inner = Inner {
            left_out: None,
            here: 7,
            rest: BTreeMap::from([("more".to_owned(), json!([1, null, {"a": -0.5}]))]),
        };
        let untagged = [
            Untagged::Number(u64::MAX),
            Untagged::Text("\u{0}\u{1F980}\"\\".to_owned()),
            Untagged::Inner(inner),
        ];
        assert_eq!(there_and_back(&Json(untagged.clone())).0, untagged);
        let internally = [
            Internally::Unit,
            Internally::Struct {
                x: u64::MAX,
                y: 0.1 + 0.2,
            },
        ];
        assert_eq!(there_and_back(&Json(internally.clone())).0, internally);
        let both = (Adjacently::Newtype(-1), json!({"deep": [[[]]]}));
        assert_eq!(there_and_back(&Json(both.clone())).0, both);
    }

    /// Each bit, since a result should not depend on where it was computed.
    #[test]
    fn floats_arrive_as_they_are() {
        for bits in [
            1,
            0x0010_0000_0000_0000,
            0x3fb9_9999_9999_999a,
            0x7fef_ffff_ffff_ffff,
        ] {
            let number = f64::from_bits(bits);
            assert_eq!(there_and_back(&Json(number)).0.to_bits(), bits);
        }
    }

    #[test]
    fn what_json_cannot_say_is_an_error_that_says_so() {
        let mut bytes = Vec::new();
        let by_pairs = Json(BTreeMap::from([((1, 2), 3)]));
        let message = codec::encode(&by_pairs, &mut bytes)
            .unwrap_err()
            .to_string();
        assert!(message.contains("key must be a string"), "{message}");

        codec::encode(&Json(f64::NAN), &mut bytes).unwrap();
        let message = codec::decode::<Json<f64>>(&bytes).unwrap_err().to_string();
        assert!(message.contains("null"), "{message}");
    }

    /// A worker may have written anything.
    #[test]
    fn no_text_and_no_json_are_errors() {
        let mut bytes = Vec::new();
        codec::encode("[1, 2", &mut bytes).unwrap();
        assert!(codec::decode::<Json<Value>>(&bytes).is_err());
        assert!(codec::decode::<Json<Value>>(&[]).is_err());
        let deep = "[".repeat(1_000_000);
        bytes.clear();
        codec::encode(deep.as_str(), &mut bytes).unwrap();
        assert!(codec::decode::<Json<Value>>(&bytes).is_err());
    }
}
