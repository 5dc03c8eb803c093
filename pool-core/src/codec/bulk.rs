//! Values whose memory already is their wire form, so that copying it encodes them.
//!
//! They are found by the type of the whole value. The bytes are those that serde would have led to,
//! so both ways lead to the same and either end may take the other one.

use std::alloc::{Layout, handle_alloc_error};
use std::any::{Any, TypeId};
use std::mem::{MaybeUninit, needs_drop};

use bytemuck::Pod;
use serde::de::DeserializeOwned;

use super::de::Decoder;
use super::error::CodecError;
use super::memory::{self, Memory};
use super::number::{for_each_number, same_type};

/// The bytes of the elements of a bulk value (a `Vec` or boxed slice of numbers, or a `String`),
/// where they lie; nothing for other types. [`bulk_parts`] adds the length that stands before them.
#[inline]
pub fn bulk_bytes<T: ?Sized + 'static>(value: &T) -> Option<&[u8]> {
    bulk_parts(value).map(|(_, bytes)| bytes)
}

/// The two parts that [`encode`](super::encode) would append for a bulk value, so that a large one
/// can be sent from where it lies: its length, then the bytes of its elements. Nothing for other
/// types.
#[inline]
pub fn bulk_parts<T: ?Sized + 'static>(value: &T) -> Option<([u8; 8], &[u8])> {
    // A hint for the compiler alone: most types need not be compared with every bulk type.
    if !const { needs_drop::<T>() } {
        return None;
    }
    macro_rules! try_type {
        ($bulk:ty) => {
            if let Some(value) = same_type::<T, $bulk>(value) {
                let prefix = (value.count() as u64).to_le_bytes();
                return Some((prefix, value.bytes()));
            }
        };
    }
    for_each_bulk!(try_type);
    None
}

/// Reads a bulk value; nothing is read for other types.
#[inline]
pub(super) fn read<T: 'static, const M: bool>(
    decoder: &mut Decoder<'_, M>,
) -> Result<Option<T>, CodecError> {
    let mut slot: Option<T> = None;
    if !const { needs_drop::<T>() } {
        return Ok(slot);
    }
    macro_rules! try_type {
        ($bulk:ty) => {
            if let Some(slot) = (&mut slot as &mut dyn Any).downcast_mut::<Option<$bulk>>() {
                *slot = Some(<$bulk as Bulk>::read(decoder)?);
            }
        };
    }
    for_each_bulk!(try_type);
    Ok(slot)
}

/// A type whose values move by copying memory.
trait Bulk: Send + Sync + Sized + 'static {
    /// How many elements there are, as the length on the wire says.
    fn count(&self) -> usize;

    /// The elements on the wire.
    fn bytes(&self) -> &[u8];

    fn read<const M: bool>(decoder: &mut Decoder<'_, M>) -> Result<Self, CodecError>;

    /// Makes a value of `count` elements whose bytes `fill` writes, all of them. `None`: these
    /// bytes make no value.
    fn receive(count: usize, fill: Fill<'_>) -> Option<Self>;

    /// Makes a value of memory that has the bytes of `count` elements, if it was meant for such.
    fn adopt(count: u64, memory: Memory) -> Result<Self, Memory>;
}

/// Writes every byte of the memory that it is given; the crate's own code does so.
type Fill<'a> = &'a mut dyn FnMut(&mut [MaybeUninit<u8>]);

/// Whether values of this type are bulk.
#[inline]
pub(crate) fn is_bulk<T: 'static>() -> bool {
    if !const { needs_drop::<T>() } {
        return false;
    }
    macro_rules! try_type {
        ($bulk:ty) => {
            if TypeId::of::<T>() == TypeId::of::<$bulk>() {
                return true;
            }
        };
    }
    for_each_bulk!(try_type);
    false
}

/// Makes a bulk value of `count` elements where it is to stay: `fill` writes their bytes, all of
/// them. `None`: they make no value of this type.
///
/// The count is believed: this is for bytes from the parent.
pub(crate) fn receive<T: 'static>(count: usize, fill: Fill<'_>) -> Option<T> {
    let mut slot: Option<T> = None;
    macro_rules! try_type {
        ($bulk:ty) => {
            if let Some(slot) = (&mut slot as &mut dyn Any).downcast_mut::<Option<$bulk>>() {
                *slot = <$bulk as Bulk>::receive(count, fill);
                return take(slot);
            }
        };
    }
    /// The value, as what it is.
    fn take<U: 'static, T: 'static>(slot: &mut Option<U>) -> Option<T> {
        let slot: &mut dyn Any = slot;
        slot.downcast_mut::<Option<T>>()?.take()
    }
    for_each_bulk!(try_type);
    None
}

/// A large bulk value that is sent from where it lies.
pub(crate) struct Lent {
    /// The length that stands before the elements.
    pub(crate) prefix: [u8; 8],
    value: Box<dyn Elements>,
}

impl Lent {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.value.elements()
    }
}

/// The elements of a bulk value of some type.
trait Elements: Send + Sync {
    fn elements(&self) -> &[u8];
}

impl<B: Bulk> Elements for B {
    fn elements(&self) -> &[u8] {
        self.bytes()
    }
}

/// A bulk value of at least `large` bytes, to be sent from where it lies; any other comes back.
#[inline]
pub(crate) fn lend<T: 'static>(value: T, large: usize) -> Result<Lent, T> {
    let prefix = match bulk_parts(&value) {
        Some((prefix, bytes)) if bytes.len() >= large => prefix,
        _ => return Err(value),
    };
    let mut slot = Some(value);
    macro_rules! try_type {
        ($bulk:ty) => {
            let any: &mut dyn Any = &mut slot;
            if let Some(value) = any.downcast_mut::<Option<$bulk>>().and_then(Option::take) {
                let value = Box::new(value);
                return Ok(Lent { prefix, value });
            }
        };
    }
    for_each_bulk!(try_type);
    Err(slot.expect("no type above has taken it"))
}

/// Makes a value from the two parts of a bulk value, and from its memory where that can be.
///
/// # Errors
/// As [`decode`](super::decode).
pub(crate) fn decode_bulk<T: DeserializeOwned + 'static>(
    prefix: [u8; 8],
    memory: Memory,
) -> Result<T, CodecError> {
    let count = u64::from_le_bytes(prefix);
    let mut slot: Option<T> = None;
    macro_rules! try_type {
        ($bulk:ty) => {
            let any: &mut dyn Any = &mut slot;
            if let Some(place) = any.downcast_mut::<Option<$bulk>>() {
                match <$bulk as Bulk>::adopt(count, memory) {
                    Ok(value) => *place = Some(value),
                    Err(memory) => return decode_parts(prefix, &memory),
                }
                return Ok(slot.expect("it is of this type"));
            }
        };
    }
    for_each_bulk!(try_type);
    decode_parts(prefix, &memory)
}

/// The memory is not what the value needs: it is of another type, or what its worker says makes no
/// sense.
#[cold]
fn decode_parts<T: DeserializeOwned + 'static>(
    prefix: [u8; 8],
    memory: &Memory,
) -> Result<T, CodecError> {
    let parts = [&prefix, memory.as_slice()];
    let mut bytes = with_capacity(parts[0].len() + parts[1].len())?;
    bytes.extend_from_slice(parts[0]);
    bytes.extend_from_slice(parts[1]);
    super::decode(&bytes)
}

/// Calls a macro once for each bulk type.
macro_rules! for_each_bulk {
    ($with:ident) => {
        $with!(String);
        macro_rules! try_number {
            ($number:ty) => {
                $with!(Vec<$number>);
                $with!(Box<[$number]>);
            };
        }
        for_each_number!(try_number);
    };
}
use for_each_bulk;

/// An empty vector with room for this many numbers, which somebody else has asked for.
#[inline]
fn with_capacity<N: Pod>(count: usize) -> Result<Vec<N>, CodecError> {
    let mut numbers = Vec::new();
    match numbers.try_reserve_exact(count) {
        Ok(()) => Ok(numbers),
        Err(_) => Err(CodecError::no_memory((count * size_of::<N>()) as u64)),
    }
}

impl<N: Pod + Send + Sync> Bulk for Vec<N> {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        as_bytes(self)
    }

    #[inline]
    fn read<const M: bool>(decoder: &mut Decoder<'_, M>) -> Result<Self, CodecError> {
        let count = decoder.take_length()?;
        let bytes = decoder.take_elements(count, size_of::<N>())?;
        memory::numbers_of(bytes).map_err(|_| CodecError::no_memory(bytes.len() as u64))
    }

    fn receive(count: usize, fill: Fill<'_>) -> Option<Self> {
        let mut numbers = Self::new();
        let bytes = count.checked_mul(size_of::<N>())?;
        if memory::extend(&mut numbers, 0, bytes, bytes, true, fill).is_err() {
            handle_alloc_error(Layout::array::<N>(count).ok()?);
        }
        Some(numbers)
    }

    fn adopt(count: u64, memory: Memory) -> Result<Self, Memory> {
        memory.into_numbers(count)
    }
}

impl<N: Pod + Send + Sync> Bulk for Box<[N]> {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        as_bytes(self)
    }

    #[inline]
    fn read<const M: bool>(decoder: &mut Decoder<'_, M>) -> Result<Self, CodecError> {
        <Vec<N> as Bulk>::read(decoder).map(Vec::into_boxed_slice)
    }

    fn receive(count: usize, fill: Fill<'_>) -> Option<Self> {
        <Vec<N> as Bulk>::receive(count, fill).map(Vec::into_boxed_slice)
    }

    fn adopt(count: u64, memory: Memory) -> Result<Self, Memory> {
        memory.into_numbers(count).map(Vec::into_boxed_slice)
    }
}

impl Bulk for String {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    #[inline]
    fn read<const M: bool>(decoder: &mut Decoder<'_, M>) -> Result<Self, CodecError> {
        let text = decoder.take_str()?;
        let mut copy = Self::new();
        match copy.try_reserve_exact(text.len()) {
            Ok(()) => copy.push_str(text),
            Err(_) => return Err(CodecError::no_memory(text.len() as u64)),
        }
        Ok(copy)
    }

    fn receive(count: usize, fill: Fill<'_>) -> Option<Self> {
        Self::from_utf8(<Vec<u8> as Bulk>::receive(count, fill)?).ok()
    }

    fn adopt(count: u64, memory: Memory) -> Result<Self, Memory> {
        Self::from_utf8(memory.into_numbers(count)?).map_err(|error| error.into_bytes().into())
    }
}

/// The numbers that the bytes make where they lie. `None`: they lie wrong for that, or one is not
/// whole.
#[inline]
pub(crate) fn as_numbers<N: Pod>(bytes: &[u8]) -> Option<&[N]> {
    const { assert!(size_of::<N>() > 0, "nobody could count them") };
    bytemuck::try_cast_slice(bytes).ok()
}

/// The same to be changed.
#[inline]
pub(crate) fn as_numbers_mut<N: Pod>(bytes: &mut [u8]) -> Option<&mut [N]> {
    const { assert!(size_of::<N>() > 0, "nobody could count them") };
    bytemuck::try_cast_slice_mut(bytes).ok()
}

/// The memory of the numbers.
#[inline]
pub(crate) fn as_bytes<N: Pod>(numbers: &[N]) -> &[u8] {
    bytemuck::cast_slice(numbers)
}

#[cfg(test)]
mod tests {
    use std::any::type_name;
    use std::cell::Cell;
    use std::fmt::Debug;

    use proptest::prelude::{any, proptest};
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};

    use super::super::{decode, encode};
    use super::{CodecError, decode_bulk};
    use super::{Memory, bulk_bytes, bulk_parts, is_bulk, lend, receive};
    use crate::fuzzing::watched::without_more_than;

    /// The same bytes by way of serde, since this is not a bulk type.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Plain<T>(T);

    fn encoded<T: Serialize + 'static>(value: &T) -> Vec<u8> {
        let mut out = vec![0xee];
        encode(value, &mut out).unwrap();
        assert_eq!(out.remove(0), 0xee);
        out
    }

    fn assert_both_ways_agree<T>(value: T)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
    {
        let (prefix, bytes) = bulk_parts(&value).unwrap();
        assert_eq!(bulk_bytes(&value), Some(bytes));
        let copied = encoded(&value);
        assert_eq!([&prefix, bytes].concat(), copied);

        let plain = Plain(value);
        assert_eq!(bulk_bytes(&plain), None);
        assert_eq!(encoded(&plain), copied);

        assert_eq!(decode::<T>(&copied).unwrap(), plain.0);
        assert_eq!(decode::<Plain<T>>(&copied).unwrap(), plain);
        for end in 0..copied.len() {
            assert!(decode::<T>(&copied[..end]).is_err());
        }
        assert!(decode::<T>(&[&copied[..], &[0]].concat()).is_err());
    }

    macro_rules! both_ways_agree {
        ($($test:ident: $number:ty),*) => {
            proptest! {$(
                #[test]
                fn $test(numbers in any::<Vec<$number>>()) {
                    assert_both_ways_agree::<Box<[$number]>>(numbers.clone().into());
                    assert_both_ways_agree(numbers);
                }
            )*}
        };
    }

    both_ways_agree!(u8_both_ways: u8, i8_both_ways: i8);
    #[cfg(target_endian = "little")]
    both_ways_agree!(
        u16_both_ways: u16,
        u32_both_ways: u32,
        u64_both_ways: u64,
        u128_both_ways: u128,
        i16_both_ways: i16,
        i32_both_ways: i32,
        i64_both_ways: i64,
        i128_both_ways: i128,
        f32_both_ways: f32,
        f64_both_ways: f64
    );
    #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
    both_ways_agree!(usize_both_ways: usize, isize_both_ways: isize);

    proptest! {
        #[test]
        fn strings_both_ways(text in any::<String>()) {
            assert_both_ways_agree(text);
        }
    }

    /// Its length is somebody else's choice: that there is no memory ends nobody.
    #[test]
    fn a_value_without_memory_is_an_error() {
        const LARGEST: usize = 1 << 20;

        fn assert_refused<T>(value: T)
        where
            T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
        {
            let bytes = encoded(&value);
            // The only element of a vector of options.
            let option = [&1_u64.to_le_bytes()[..], &[1], &bytes].concat();
            let refuse = |decode: &dyn Fn() -> Result<(), CodecError>| {
                let error = without_more_than(LARGEST, decode).unwrap_err();
                assert!(error.to_string().contains("no memory"), "{error}");
            };
            refuse(&|| decode::<T>(&bytes).map(drop));
            refuse(&|| decode::<Plain<T>>(&bytes).map(drop));
            refuse(&|| decode::<Vec<Option<T>>>(&option).map(drop));
            assert_eq!(decode::<T>(&bytes).unwrap(), value);
            // What arrived is there already, but has to be copied if it was meant for others.
            let (prefix, rest) = bytes.split_first_chunk().unwrap();
            let memory = Cell::new(Some(Memory::from(rest.to_vec())));
            let adopt = || decode_bulk::<T>(*prefix, memory.take().unwrap()).map(drop);
            let is_copied = type_name::<T>().contains("u64");
            if is_copied {
                refuse(&adopt);
            } else {
                without_more_than(LARGEST, adopt).unwrap();
            }
        }

        assert_refused(vec![7_u8; LARGEST + 1]);
        assert_refused(vec![7_u64; LARGEST / 8 + 1]);
        assert_refused(vec![7_u64; LARGEST / 8 + 1].into_boxed_slice());
        assert_refused("w".repeat(LARGEST + 1));
    }

    #[test]
    fn a_lent_value_arrives_where_it_stays() {
        fn there_and_back<T: Clone + PartialEq + Debug + 'static>(value: T) {
            assert!(is_bulk::<T>());
            let (_, copy) = bulk_parts(&value).unwrap();
            let copy = copy.to_vec();
            let Ok(lent) = lend(value.clone(), copy.len()) else {
                panic!("large enough");
            };
            assert_eq!(lent.bytes(), copy);
            let count = u64::from_le_bytes(lent.prefix) as usize;
            let received = receive::<T>(count, &mut |room| {
                assert_eq!(room.len(), copy.len());
                for (to, from) in room.iter_mut().zip(&copy) {
                    to.write(*from);
                }
            });
            assert_eq!(received.as_ref(), Some(&value));
            assert_eq!(lend(value.clone(), copy.len() + 1).err(), Some(value));
        }
        there_and_back(vec![1_u8, 2, 3]);
        there_and_back(vec![1.5_f64, -2.0]);
        there_and_back(String::from("grüße"));
        there_and_back(vec![7_u64; 3].into_boxed_slice());
        assert!(!is_bulk::<Vec<bool>>() && !is_bulk::<u64>());
        assert!(lend(vec![true], 0).is_err());
    }

    #[test]
    fn the_memory_becomes_the_value() {
        fn parts<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, CodecError> {
            let (prefix, rest) = bytes.split_first_chunk().unwrap();
            decode_bulk(*prefix, rest.to_vec().into())
        }
        let encoded_bytes = encoded(&vec![5_u8; 100]);
        assert_eq!(parts::<Vec<u8>>(&encoded_bytes).unwrap(), [5; 100]);
        assert_eq!(parts::<Box<[i8]>>(&encoded_bytes).unwrap()[..], [5; 100]);
        assert!(parts::<Vec<u8>>(&encoded_bytes[..50]).is_err());
        assert!(parts::<Vec<u64>>(&encoded_bytes).is_err());
        assert_eq!(
            parts::<String>(&encoded(&"grüße".to_owned())).unwrap(),
            "grüße"
        );
        assert!(parts::<String>(&encoded(&vec![0xFF_u8; 3])).is_err());
        let numbers = vec![1.5_f64, -2.0, 7.0];
        assert_eq!(parts::<Vec<f64>>(&encoded(&numbers)).unwrap(), numbers);
        assert!(parts::<Vec<f64>>(&[0xFF; 16]).is_err());
        let words = vec!["a".to_owned(), "bc".to_owned()];
        assert_eq!(parts::<Vec<String>>(&encoded(&words)).unwrap(), words);
    }

    #[test]
    fn not_a_number_keeps_its_bits() {
        let numbers = vec![
            f64::from_bits(0x7ff8_dead_beef_0001),
            f64::from_bits(0xfff0_0000_0000_0001),
        ];
        let back: Vec<f64> = decode(&encoded(&numbers)).unwrap();
        assert!(
            numbers
                .iter()
                .zip(&back)
                .all(|(sent, got)| sent.to_bits() == got.to_bits())
        );
    }

    #[test]
    fn what_lies_in_memory_is_lent() {
        let numbers = vec![1u32, 2];
        let bytes = bulk_bytes(&numbers).unwrap();
        assert_eq!(bytes.as_ptr(), numbers.as_ptr().cast());
        assert_eq!(bulk_bytes(&Vec::<u64>::new()), Some(&[][..]));
    }

    #[test]
    fn other_types_are_left_to_serde() {
        assert_eq!(bulk_bytes(&7u64), None);
        assert_eq!(bulk_bytes("text"), None);
        assert_eq!(bulk_bytes(&[1u8, 2][..]), None);
        // Not every byte is one of these.
        assert_eq!(bulk_bytes(&vec![true]), None);
        assert_eq!(bulk_bytes(&vec!['a']), None);
        assert_eq!(bulk_bytes(&vec![vec![1u8]]), None);
        assert_eq!(bulk_bytes(&(vec![1u8],)), None);
        assert_eq!(bulk_bytes(&Some(vec![1u8])), None);
    }
}
