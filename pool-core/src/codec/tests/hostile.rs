//! Bytes from a process that went wrong: an error, never a panic, never more memory than fits them.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Debug};
use std::thread;

use proptest::collection;
use proptest::prelude::{Just, any, prop_oneof, proptest};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::model::{Any, Struct, any_value};
use super::{decode, encoded, failed, refused};
use crate::codec::limits::{FACTOR, MAX_DEPTH, MAX_EXCESS, MAX_FREE};

/// Decodes whatever comes. What is accepted must be exactly what the value encodes to.
fn feed<T: Serialize + DeserializeOwned + 'static>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        assert_eq!(encoded(&value), bytes);
    }
}

/// The same for types with more than one order of elements.
fn feed_unordered<T: DeserializeOwned + 'static>(bytes: &[u8]) {
    drop(decode::<T>(bytes));
}

fn feed_all(bytes: &[u8]) {
    feed::<bool>(bytes);
    feed::<char>(bytes);
    feed::<u128>(bytes);
    feed::<String>(bytes);
    feed::<Option<Option<bool>>>(bytes);
    feed::<Vec<u8>>(bytes);
    feed::<Vec<f64>>(bytes);
    feed::<Box<[u32]>>(bytes);
    feed::<Vec<bool>>(bytes);
    feed::<Vec<char>>(bytes);
    feed::<Vec<String>>(bytes);
    feed::<Vec<(u8, Option<String>)>>(bytes);
    feed::<Vec<Vec<Vec<u16>>>>(bytes);
    feed::<Result<Vec<u8>, String>>(bytes);
    feed::<(u32, String, [bool; 3])>(bytes);
    feed::<Tree>(bytes);
    feed::<std::path::PathBuf>(bytes);
    feed_unordered::<Any>(bytes);
    feed_unordered::<Struct>(bytes);
    feed_unordered::<BTreeMap<String, Any>>(bytes);
    feed_unordered::<HashMap<u8, Vec<i64>>>(bytes);
    feed_unordered::<HashSet<Option<u8>>>(bytes);
    feed_unordered::<std::time::Duration>(bytes);
    feed_unordered::<std::time::SystemTime>(bytes);
    feed_unordered::<std::ffi::CString>(bytes);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        feed_all(&bytes);
    }

    /// Mostly zeros, so that lengths and tags are often plausible.
    #[test]
    fn plausible_bytes_never_panic(
        bytes in collection::vec(prop_oneof![6 => Just(0), 3 => 0u8..3, 1 => any::<u8>()], 0..128),
    ) {
        feed_all(&bytes);
    }

    #[test]
    fn damaged_bytes_never_panic(value in any_value(), at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = encoded(&value);
        let at = at % bytes.len();
        bytes[at] = byte;
        feed_all(&bytes);
    }

    #[test]
    fn every_truncation_is_an_error(value in any_value()) {
        let bytes = encoded(&value);
        for end in 0..bytes.len() {
            assert!(decode::<Any>(&bytes[..end]).is_err(), "{end} of {}", bytes.len());
        }
    }

    #[test]
    fn every_addition_is_an_error(value in any_value(), more in 1usize..20) {
        let mut bytes = encoded(&value);
        bytes.resize(bytes.len() + more, 0);
        let message = failed::<Any>(&bytes);
        assert!(message.ends_with(&format!(": bytes left over at the end: {more}")), "{message}");
    }
}

#[test]
fn bad_values_are_named() {
    let name = "cannot decode `alloc::vec::Vec<u16>`: ";
    assert!(failed::<Vec<u16>>(&[0; 9]).starts_with(name));
    assert!(failed::<Vec<u16>>(&[0; 7]).starts_with(name));
    assert_eq!(
        failed::<u32>(&[1, 2]),
        "cannot decode `u32`: the input ends too soon: 1 x 4 bytes needed, 2 left"
    );
    assert_eq!(
        failed::<()>(&[1]),
        "cannot decode `()`: bytes left over at the end: 1"
    );
    assert!(failed::<bool>(&[2]).ends_with("a bool begins with the byte 2, not 0 or 1"));
    assert!(
        failed::<Option<u8>>(&[7, 0]).ends_with("an option begins with the byte 7, not 0 or 1")
    );
    assert!(failed::<char>(&0xd800u32.to_le_bytes()).ends_with("0xd800 is not a char"));
    assert!(failed::<char>(&0x11_0000u32.to_le_bytes()).ends_with("0x110000 is not a char"));
    let not_text = encoded(&vec![0xffu8]);
    assert!(failed::<String>(&not_text).contains("invalid utf-8"));
    assert!(failed::<Box<str>>(&not_text).contains("invalid utf-8"));
    assert!(failed::<Vec<bool>>(&encoded(&vec![9u8])).contains("a bool begins with"));
    assert!(failed::<Vec<char>>(&encoded(&vec![u32::MAX])).contains("is not a char"));
    assert!(failed::<Tree>(&[9, 0, 0, 0]).contains("variant index 0 <= i < 2"));
    assert!(failed::<std::num::NonZero<u8>>(&[0]).contains("NonZero"));
}

#[test]
fn huge_lengths_are_errors() {
    fn feed<T: DeserializeOwned + Debug + 'static>() {
        for length in [
            u64::MAX,
            u64::MAX / 2,
            1 << 63,
            1 << 61,
            (1 << 60) + 1,
            1 << 40,
        ] {
            let mut bytes = length.to_le_bytes().to_vec();
            failed::<T>(&bytes);
            bytes.extend([0; 100]);
            failed::<T>(&bytes);
        }
    }
    feed::<Vec<u8>>();
    feed::<Vec<u64>>();
    feed::<Vec<u128>>();
    feed::<Box<[f32]>>();
    feed::<String>();
    feed::<Vec<bool>>();
    feed::<Vec<[[u64; 32]; 32]>>();
    feed::<Vec<String>>();
    feed::<Vec<Vec<u8>>>();
    feed::<BTreeMap<u8, u8>>();
    feed::<HashMap<String, u64>>();
    feed::<HashSet<u64>>();
    feed::<std::collections::VecDeque<u16>>();
    feed::<std::ffi::CString>();
}

/// Takes no bytes, but a kilobyte of memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Heavy {
    #[serde(skip, default = "zeros")]
    memory: [u64; 128],
}

fn zeros() -> [u64; 128] {
    [0; 128]
}

#[test]
fn elements_without_bytes_are_limited() {
    let endless = u64::MAX.to_le_bytes();
    let limit = "in elements that take no bytes";
    assert!(failed::<Vec<()>>(&endless).contains(limit));
    assert!(failed::<Vec<Heavy>>(&endless).contains(limit));
    assert!(failed::<HashMap<(), Heavy>>(&endless).contains(limit));
    // All together, not each.
    let many = MAX_FREE / size_of::<Heavy>();
    decode::<Vec<Heavy>>(&(many as u64).to_le_bytes()).unwrap();
    let twice = encoded(&(many as u64 / 2 + 1, many as u64 / 2));
    assert!(failed::<(Vec<Heavy>, Vec<Heavy>)>(&twice).contains(limit));

    // The encoder sees the elements, not their memory.
    assert_eq!(encoded(&vec![Heavy { memory: zeros() }; many]).len(), 8);
    assert!(refused(&vec![(); MAX_FREE + 1]).contains(limit));
}

/// Large, and mostly not there.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Sparse {
    Nothing,
    Much([u64; 32]),
}

#[test]
fn memory_beyond_the_bytes_is_limited() {
    let limit = "far more memory than bytes";
    // What one byte, or the four of a variant, does not pay for.
    let option = size_of::<Option<[u64; 32]>>() - FACTOR;
    let variant = size_of::<Sparse>() - 4 * FACTOR;
    let options = |count: usize| [&count.to_le_bytes()[..], &vec![0; count]].concat();
    let variants = |count: usize| [&count.to_le_bytes()[..], &vec![0; 4 * count]].concat();

    decode::<Vec<Option<[u64; 32]>>>(&options(MAX_EXCESS / option)).unwrap();
    let too_many = options(MAX_EXCESS / option + 1);
    assert!(failed::<Vec<Option<[u64; 32]>>>(&too_many).contains(limit));
    // What stands inside of something is counted once, and what stands in a box as well.
    decode::<Vec<Sparse>>(&variants(MAX_EXCESS / variant)).unwrap();
    decode::<Vec<(u64, Vec<Sparse>)>>(
        &[
            &1_u64.to_le_bytes()[..],
            &[0; 8],
            &variants(MAX_EXCESS / variant),
        ]
        .concat(),
    )
    .unwrap();
    let too_many = variants(MAX_EXCESS / variant + 1);
    assert!(failed::<Vec<Sparse>>(&too_many).contains(limit));
    assert!(failed::<Vec<Box<Sparse>>>(&too_many).contains(limit));
    // All together, not each.
    let half = options(MAX_EXCESS / option / 2 + 1);
    type Two = (Vec<Option<[u64; 32]>>, Vec<Option<[u64; 32]>>);
    assert!(failed::<Two>(&[&half[..], &half].concat()).contains(limit));
    // What pays for itself is not counted.
    decode::<Vec<Option<u64>>>(&options(4 << 20)).unwrap();
    decode::<Vec<Option<String>>>(&options(1 << 20)).unwrap();
    decode::<Vec<String>>(&[&(1_u64 << 20).to_le_bytes()[..], &vec![0; 8 << 20]].concat()).unwrap();
    let full = vec![Sparse::Much([7; 32]); MAX_EXCESS / size_of::<Sparse>() + 1000];
    assert!(decode::<Vec<Sparse>>(&encoded(&full)).unwrap() == full);
}

thread_local! {
    /// The elements that visitors in this thread were told to reserve.
    static HINTED: Cell<usize> = const { Cell::new(0) };
}

/// A tree of sequences that counts the hints it gets.
#[derive(Debug)]
struct Hinted;

impl<'de> Deserialize<'de> for Hinted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Hinted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Hinted, A::Error> {
                HINTED.set(HINTED.get() + seq.size_hint().unwrap());
                while seq.next_element::<Hinted>()?.is_some() {}
                Ok(Hinted)
            }
        }
        deserializer.deserialize_seq(Count)
    }
}

#[test]
fn no_more_is_reserved_than_the_input_can_hold() {
    // A length that is true, and within it lengths that are not.
    for lengths in [
        vec![u64::MAX; 100],
        vec![200; 100],
        vec![3, 0, 0, u64::MAX, 7, 0],
    ] {
        HINTED.set(0);
        let bytes: Vec<u8> = lengths.iter().copied().flat_map(u64::to_le_bytes).collect();
        failed::<Hinted>(&bytes);
        assert!(
            HINTED.get() <= bytes.len(),
            "{} for {} bytes",
            HINTED.get(),
            bytes.len()
        );
    }
    // True lengths are hinted in full.
    HINTED.set(0);
    let bytes: Vec<u8> = [2u64, 1, 0, 2, 0, 0]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    decode::<Hinted>(&bytes).unwrap();
    assert_eq!(HINTED.get(), 5);
}

/// Reads one element, whatever the length.
#[derive(Debug)]
struct First;

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<First, A::Error> {
                seq.next_element::<u8>()?;
                Ok(First)
            }
        }
        deserializer.deserialize_seq(One)
    }
}

#[test]
fn elements_that_nobody_reads_are_an_error() {
    decode::<First>(&encoded(&vec![1u8])).unwrap();
    let message = failed::<First>(&encoded(&vec![1u8, 2, 3]));
    assert!(
        message.ends_with("that its type does not read: 2"),
        "{message}"
    );
}

#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
}

#[derive(Debug, Serialize, Deserialize)]
struct List {
    value: u64,
    next: Option<Box<List>>,
}

/// An enum whose frames in a debug build are large.
#[derive(Debug, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "that is what makes its frames large"
)]
enum Fat {
    End,
    Node {
        numbers: [u64; 32],
        name: String,
        text: String,
        list: Vec<u32>,
        next: Box<Fat>,
    },
    Pair(Box<Fat>, Box<Fat>, [u8; 32], Option<String>),
    Other {
        map: BTreeMap<String, String>,
        tuple: (u64, u64, u64),
        next: Box<Fat>,
    },
}

/// Does what a thread with the default stack can do.
fn in_small_stack(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(work)
        .unwrap()
        .join()
        .unwrap();
}

fn tree(depth: u32) -> Tree {
    (0..depth).fold(Tree::Leaf, |tree, _| Tree::Node(Box::new(tree)))
}

#[test]
fn depth_is_limited_alike_on_both_sides() {
    in_small_stack(|| {
        let bytes = encoded(&tree(MAX_DEPTH));
        decode::<Tree>(&bytes).unwrap();

        let limit = format!("more than {MAX_DEPTH} values inside each other");
        assert!(refused(&tree(MAX_DEPTH + 1)).contains(&limit));
        let one_more: Vec<u8> = [&1u32.to_le_bytes()[..], &bytes].concat();
        assert!(failed::<Tree>(&one_more).contains(&limit));
        let endless: Vec<u8> = 1u32.to_le_bytes().repeat(1 << 20);
        assert!(failed::<Tree>(&endless).contains(&limit));
    });
}

#[test]
fn depth_fits_a_small_stack_with_large_frames() {
    in_small_stack(|| {
        // A struct and an option for each.
        let list = (1..MAX_DEPTH / 2).fold(
            List {
                value: 0,
                next: None,
            },
            |list, _| List {
                value: 1,
                next: Some(Box::new(list)),
            },
        );
        decode::<List>(&encoded(&list)).unwrap();

        // One less, since the innermost holds an array.
        let fat = (1..MAX_DEPTH).fold(Fat::End, |next, turn| {
            let next = Box::new(next);
            match turn % 3 {
                0 => Fat::Node {
                    numbers: [1; 32],
                    name: String::new(),
                    text: String::new(),
                    list: Vec::new(),
                    next,
                },
                1 => Fat::Pair(next, Box::new(Fat::End), [0; 32], None),
                _ => Fat::Other {
                    map: BTreeMap::new(),
                    tuple: (1, 2, 3),
                    next,
                },
            }
        });
        let bytes = encoded(&fat);
        decode::<Fat>(&bytes).unwrap();
    });
}
