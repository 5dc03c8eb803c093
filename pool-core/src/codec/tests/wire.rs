//! The bytes themselves, as the table in the codec's documentation has them.

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use super::{assert_round_trip, decode, encode, encoded};
use crate::codec::de::Decoder;
use crate::codec::is_err;

#[derive(serde::Serialize)]
struct Pair {
    small: u8,
    large: u16,
}

#[derive(serde::Serialize)]
struct Unit;

#[derive(serde::Serialize)]
struct Newtype(u16);

#[derive(serde::Serialize)]
enum Choice {
    Unit,
    Newtype(u8),
    Tuple(u8, u8),
    Struct { field: u8 },
}

#[test]
fn numbers_are_little_endian_at_full_width() {
    assert_eq!(encoded(&true), [1]);
    assert_eq!(encoded(&0x12u8), [0x12]);
    assert_eq!(encoded(&-2i8), [0xfe]);
    assert_eq!(encoded(&0x1234u16), [0x34, 0x12]);
    assert_eq!(encoded(&-2i32), [0xfe, 0xff, 0xff, 0xff]);
    assert_eq!(encoded(&1u64), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encoded(&1usize), encoded(&1u64));
    assert_eq!(encoded(&-1isize), encoded(&-1i64));
    assert_eq!(
        encoded(&(1u128 << 120)),
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    );
    assert_eq!(encoded(&1f32), 1f32.to_bits().to_le_bytes());
    assert_eq!(encoded(&1f64), 1f64.to_bits().to_le_bytes());
    assert_eq!(encoded(&'ß'), [0xdf, 0, 0, 0]);
}

#[test]
fn what_has_a_length_says_it_first() {
    assert_eq!(encoded("ab"), [2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
    assert_eq!(encoded(&String::from("ab")), encoded("ab"));
    assert_eq!(
        encoded(&vec![Some(7u8), None]),
        [2, 0, 0, 0, 0, 0, 0, 0, 1, 7, 0]
    );
    assert_eq!(
        encoded(&BTreeMap::from([(1u8, 2u8)])),
        [1, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    );
    assert_eq!(encoded(&[1u8, 2][..]), [2, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
}

#[test]
fn what_has_a_shape_says_nothing() {
    assert_eq!(encoded(&Pair { small: 1, large: 2 }), [1, 2, 0]);
    assert_eq!(encoded(&(1u8, 2u16)), [1, 2, 0]);
    assert_eq!(encoded(&[1u16, 2]), [1, 0, 2, 0]);
    assert_eq!(encoded(&Newtype(1)), [1, 0]);
    assert_eq!(encoded(&Unit), [0; 0]);
    assert_eq!(encoded(&()), [0; 0]);
}

#[test]
fn enums_say_the_index() {
    assert_eq!(encoded(&Choice::Unit), [0, 0, 0, 0]);
    assert_eq!(encoded(&Choice::Newtype(9)), [1, 0, 0, 0, 9]);
    assert_eq!(encoded(&Choice::Tuple(8, 9)), [2, 0, 0, 0, 8, 9]);
    assert_eq!(encoded(&Choice::Struct { field: 9 }), [3, 0, 0, 0, 9]);
}

#[test]
fn appends() {
    let mut out = vec![9];
    encode(&1u8, &mut out).unwrap();
    encode(&vec![2u8], &mut out).unwrap();
    assert_eq!(out, [9, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
}

/// A sequence that says `announced` about its length, which is two.
struct Announced(Option<usize>);

impl Serialize for Announced {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(self.0)?;
        seq.serialize_element(&1u8)?;
        seq.serialize_element(&2u8)?;
        seq.end()
    }
}

#[test]
fn lengths_are_counted_not_believed() {
    for announced in [None, Some(0), Some(2), Some(usize::MAX)] {
        let bytes = encoded(&Announced(announced));
        assert_eq!(bytes, encoded(&vec![1u8, 2]), "{announced:?}");
    }
}

/// Is serialized by its `Display`, and notes what it was told about readers.
#[derive(Debug, PartialEq)]
struct Displayed(u32);

impl fmt::Display for Displayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "number ")?;
        write!(f, "{}", self.0)
    }
}

impl Serialize for Displayed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(!serializer.is_human_readable());
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Displayed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        assert!(!deserializer.is_human_readable());
        let text = String::deserialize(deserializer)?;
        let number = text
            .strip_prefix("number ")
            .and_then(|digits| digits.parse().ok());
        number
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("no number"))
    }
}

#[test]
fn displayed_values_are_strings() {
    assert_eq!(encoded(&Displayed(42)), encoded("number 42"));
    assert_round_trip(vec![Displayed(1), Displayed(u32::MAX)]);
    let error = decode::<Displayed>(&encoded("rubbish")).unwrap_err();
    assert!(
        error.to_string().ends_with("Displayed`: no number"),
        "{error}"
    );
}

#[test]
fn the_decoder_lends_from_its_input() {
    let bytes = encoded(&("text", vec![1u8, 2]));
    let mut decoder = Decoder::<false>::new(black_box(&bytes));
    let (text, data) = <(&str, &[u8])>::deserialize(&mut decoder).unwrap();
    decoder.finish().unwrap();
    assert_eq!((text, data), ("text", &[1, 2][..]));
    assert!(bytes.as_ptr_range().contains(&text.as_ptr()));
    assert!(bytes.as_ptr_range().contains(&data.as_ptr()));
}

/// `count_errors` tells results apart by that.
#[test]
fn an_error_is_known_by_its_first_bytes() {
    type Outcome<T, E> = Result<T, E>;
    assert!(is_err(&encoded(&Outcome::<u64, String>::Err(
        "no".to_owned()
    ))));
    assert!(is_err(&encoded(&Outcome::<String, ()>::Err(()))));
    assert!(!is_err(&encoded(&Outcome::<u64, ()>::Ok(1))));
    assert!(!is_err(&encoded(&Outcome::<Vec<u8>, ()>::Ok(vec![1; 9]))));
    assert!(!is_err(&[]));
}
