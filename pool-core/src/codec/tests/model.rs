//! Values of every kind of serde's data model.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{collection, option};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A float that is equal by its bits.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Float(f64);

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

/// Goes by `serialize_bytes`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Copy;
        impl Visitor<'_> for Copy {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_byte_buf(Copy)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Unit;

/// Any value: one variant or field of each kind.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) enum Any {
    Unit,
    UnitStruct(Unit),
    Nothing(()),
    Bool(bool),
    Char(char),
    Signed(i8, i16, i32, i64, i128, isize),
    Unsigned {
        a: u8,
        b: u16,
        c: u32,
        d: u64,
        e: u128,
        f: usize,
    },
    Single(u32),
    Double(Float),
    Text(String),
    Bytes(Bytes),
    Option(Option<Box<Any>>),
    Seq(Vec<Any>),
    Queue(VecDeque<Option<u16>>),
    Map(BTreeMap<String, Any>),
    Numbers(Vec<i16>, Box<[u64]>),
    Tuple(Box<(Any, u8, Any)>),
    Array([u16; 3]),
    Struct(Box<Struct>),
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Struct {
    #[serde(rename = "NAME", alias = "label")]
    name: String,
    #[serde(skip)]
    cache: u32,
    value: Any,
    result: Result<u8, String>,
    flags: (bool, bool),
}

pub(super) fn any_value() -> impl Strategy<Value = Any> {
    let leaf =
        prop_oneof![
            Just(Any::Unit),
            Just(Any::UnitStruct(Unit)),
            Just(Any::Nothing(())),
            any::<bool>().prop_map(Any::Bool),
            any::<char>().prop_map(Any::Char),
            any::<(i8, i16, i32, i64, i128, isize)>()
                .prop_map(|(a, b, c, d, e, f)| Any::Signed(a, b, c, d, e, f)),
            any::<(u8, u16, u32, u64, u128, usize)>()
                .prop_map(|(a, b, c, d, e, f)| Any::Unsigned { a, b, c, d, e, f }),
            any::<u32>().prop_map(Any::Single),
            any::<u64>().prop_map(|bits| Any::Double(Float(f64::from_bits(bits)))),
            any::<String>().prop_map(Any::Text),
            any::<Vec<u8>>().prop_map(|bytes| Any::Bytes(Bytes(bytes))),
            collection::vec_deque(any::<Option<u16>>(), 0..5).prop_map(Any::Queue),
            (
                collection::vec(any::<i16>(), 0..5),
                collection::vec(any::<u64>(), 0..5)
            )
                .prop_map(|(a, b)| Any::Numbers(a, b.into())),
            any::<[u16; 3]>().prop_map(Any::Array),
        ];
    leaf.prop_recursive(6, 48, 4, |inner| {
        prop_oneof![
            option::of(inner.clone()).prop_map(|value| Any::Option(value.map(Box::new))),
            collection::vec(inner.clone(), 0..4).prop_map(Any::Seq),
            collection::btree_map(any::<String>(), inner.clone(), 0..4).prop_map(Any::Map),
            (inner.clone(), any::<u8>(), inner.clone())
                .prop_map(|tuple| Any::Tuple(Box::new(tuple))),
            (
                any::<String>(),
                inner,
                any::<Result<u8, String>>(),
                any::<(bool, bool)>()
            )
                .prop_map(|(name, value, result, flags)| {
                    Any::Struct(Box::new(Struct {
                        name,
                        cache: 0,
                        value,
                        result,
                        flags,
                    }))
                }),
        ]
    })
}
