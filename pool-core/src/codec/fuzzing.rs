//! Any bytes, as any type: an error or the value whose bytes they are.

use std::any::type_name;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::CodecError;
use super::limits::{FACTOR, MAX_EXCESS};
use super::{Memory, decode, decode_bulk, encode};
use crate::fuzzing::{Input, watched};
use crate::shm::protocol::Failure;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Number(u128),
    Pair(Box<Tree>, Box<Tree>),
    Node {
        name: String,
        children: Vec<Tree>,
        flag: Option<bool>,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    id: u64,
    sign: char,
    names: Vec<String>,
    inner: Inner,
    list: Option<Box<Record>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Inner(u8, i16, Option<Unit>, [u16; 3]);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

/// Decodes an input as the type that its first byte chooses.
///
/// # Panics
/// When a value comes out that encodes to other bytes.
pub fn values(input: &[u8]) {
    let mut input = Input(input);
    let choice = input.byte();
    let bytes = input.0;
    match choice % 40 {
        0 => exact::<bool>(bytes),
        1 => exact::<char>(bytes),
        2 => exact::<(u8, i8, u16, i16, u32, i32, u64, i64)>(bytes),
        3 => exact::<(u128, i128, usize, isize)>(bytes),
        4 => bits::<(f32, f64)>(bytes),
        5 => exact::<String>(bytes),
        6 => exact::<Box<str>>(bytes),
        7 => exact::<Option<Option<Option<u8>>>>(bytes),
        8 => exact::<Vec<u8>>(bytes),
        9 => exact::<Vec<i128>>(bytes),
        10 => bits::<Vec<f64>>(bytes),
        11 => exact::<Box<[u32]>>(bytes),
        12 => exact::<Vec<usize>>(bytes),
        13 => exact::<Vec<bool>>(bytes),
        14 => exact::<Vec<char>>(bytes),
        15 => exact::<Vec<String>>(bytes),
        16 => exact::<Vec<Vec<Vec<u16>>>>(bytes),
        17 => exact::<Vec<()>>(bytes),
        18 => exact::<Vec<Unit>>(bytes),
        19 => exact::<VecDeque<(u8, Option<String>)>>(bytes),
        20 => exact::<Result<Vec<u8>, String>>(bytes),
        21 => exact::<(u32, String, [bool; 3])>(bytes),
        22 => exact::<Tree>(bytes),
        23 => exact::<Record>(bytes),
        24 => exact::<Vec<Tree>>(bytes),
        25 => exact::<std::path::PathBuf>(bytes),
        26 => exact::<std::ffi::CString>(bytes),
        27 => exact::<Failure>(bytes),
        28 => exact::<Vec<[[u64; 8]; 8]>>(bytes),
        29 => exact::<std::num::NonZero<u16>>(bytes),
        30 => exact::<std::net::SocketAddr>(bytes),
        31 => loose::<BTreeMap<String, Tree>>(bytes),
        32 => loose::<HashMap<u8, Vec<i64>>>(bytes),
        33 => loose::<HashSet<Option<u8>>>(bytes),
        34 => loose::<BTreeSet<(char, u128)>>(bytes),
        35 => loose::<HashMap<(), String>>(bytes),
        36 => loose::<std::time::Duration>(bytes),
        37 => loose::<std::time::SystemTime>(bytes),
        38 => loose::<std::ops::Range<u32>>(bytes),
        _ => {
            // What the parent makes of a failure that a worker reports.
            let error = crate::task::chunk_outcome::reported(bytes);
            let _ = (error.to_string(), error.panic_location());
        }
    }
}

/// Decodes, and looks how much memory that takes.
fn decoded<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, peak) = watched::peak(|| decode::<T>(bytes));
    // What grows has its old and its new memory at the same time, both of them with room to spare;
    // maps have a little more. And serde makes room for as many elements as are announced, up to a
    // mebibyte for each sequence that it is in.
    let budget = 4 * (FACTOR * bytes.len() + MAX_EXCESS) + (4 << 20);
    assert!(
        peak <= budget,
        "{} bytes became {peak}: {}",
        bytes.len(),
        type_name::<T>()
    );
    value
}

/// For types that are the same if their bytes are.
fn exact<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(bytes: &[u8]) {
    let value = decoded::<T>(bytes);
    let Some((prefix, rest)) = bytes.split_first_chunk() else {
        return;
    };
    for element in [1, 2, 4, 8, 16] {
        let mut memory = Memory::new(element).expect("numbers are of that size");
        memory
            .extend(rest.len(), 0, |room| {
                for (to, from) in room.iter_mut().zip(rest) {
                    to.write(*from);
                }
            })
            .expect("there is memory");
        match (&value, decode_bulk::<T>(*prefix, memory)) {
            (Ok(value), Ok(owned)) => assert_eq!(*value, owned, "both ways to decode agree"),
            (Err(_), Err(_)) => {}
            (value, owned) => panic!("only one of {value:?} and {owned:?}"),
        }
    }
    if let Ok(value) = value {
        assert_encodes(&value, bytes);
    }
}

/// For numbers that may not be equal to themselves.
fn bits<T: Serialize + DeserializeOwned + 'static>(bytes: &[u8]) {
    if let Ok(value) = decoded::<T>(bytes) {
        assert_encodes(&value, bytes);
    }
}

/// For types with more than one order of elements, or more than one form of a value.
fn loose<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(bytes: &[u8]) {
    if let Ok(value) = decoded::<T>(bytes) {
        let mut again = Vec::new();
        encode(&value, &mut again).expect("what was decoded can be encoded");
        let back = decode::<T>(&again).expect("and decoded");
        assert_eq!(back, value);
    }
}

fn assert_encodes<T: Serialize + 'static>(value: &T, bytes: &[u8]) {
    let mut again = Vec::new();
    encode(value, &mut again).expect("what was decoded can be encoded");
    assert_eq!(again, bytes, "a value has one form");
}
