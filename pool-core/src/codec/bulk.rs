//! Values whose memory already is their wire form, so that copying it encodes them.
//!
//! They are found by the type of the whole value. The bytes are those that serde would have led to,
//! so both ways lead to the same and either end may take the other one.
#![allow(unsafe_code)]

use std::any::{Any, TypeId};
use std::mem::needs_drop;
use std::ptr;

use super::de::Decoder;
use super::error::CodecError;

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
pub(super) fn read<T: 'static>(decoder: &mut Decoder<'_>) -> Result<Option<T>, CodecError> {
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

/// The reference, if both types are one.
#[inline]
fn same_type<T: ?Sized + 'static, U: 'static>(value: &T) -> Option<&U> {
    if TypeId::of::<T>() != TypeId::of::<U>() {
        return None;
    }
    // SAFETY: the two types are the same type, and the reference keeps its lifetime.
    Some(unsafe { &*ptr::from_ref(value).cast::<U>() })
}

/// A type whose values move by copying memory.
trait Bulk: Sized + 'static {
    /// How many elements there are, as the length on the wire says.
    fn count(&self) -> usize;

    /// The elements on the wire.
    fn bytes(&self) -> &[u8];

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, CodecError>;
}

/// A number that is the same in memory as on the wire.
///
/// # Safety
/// There must be no padding in it, every pattern of bits must be a value, and its bytes in memory
/// must be those that the codec writes for it.
unsafe trait Number: Copy + 'static {}

macro_rules! numbers {
    ($($number:ty),*) => {
        // SAFETY: plain numbers, of one byte or on a target whose memory is little-endian.
        $(unsafe impl Number for $number {})*
    };
}

numbers!(u8, i8);
#[cfg(target_endian = "little")]
numbers!(u16, u32, u64, u128, i16, i32, i64, i128, f32, f64);
// serde writes them as `u64` and `i64`.
#[cfg(all(target_endian = "little", target_pointer_width = "64"))]
numbers!(usize, isize);

/// Calls a macro once for each bulk type.
macro_rules! for_each_bulk {
    ($with:ident) => {
        $with!(String);
        for_each_bulk!($with: u8, i8);
        #[cfg(target_endian = "little")]
        {
            for_each_bulk!($with: u16, u32, u64, u128, i16, i32, i64, i128, f32, f64);
        }
        #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
        {
            for_each_bulk!($with: usize, isize);
        }
    };
    ($with:ident: $($number:ty),*) => {
        $(
            $with!(Vec<$number>);
            $with!(Box<[$number]>);
        )*
    };
}
use for_each_bulk;

impl<N: Number> Bulk for Vec<N> {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        as_bytes(self)
    }

    #[inline]
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        let count = decoder.take_length()?;
        let bytes = decoder.take_elements(count, size_of::<N>())?;
        let mut numbers = Self::with_capacity(count);
        // SAFETY: there is room for `count` numbers, which are `bytes.len()` bytes; the new memory
        // overlaps nothing; and whatever the bytes are, they make numbers (see `Number`).
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), numbers.as_mut_ptr().cast(), bytes.len());
            numbers.set_len(count);
        }
        Ok(numbers)
    }
}

impl<N: Number> Bulk for Box<[N]> {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        as_bytes(self)
    }

    #[inline]
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        <Vec<N> as Bulk>::read(decoder).map(Vec::into_boxed_slice)
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
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.take_str().map(str::to_owned)
    }
}

#[inline]
fn as_bytes<N: Number>(numbers: &[N]) -> &[u8] {
    // SAFETY: the memory is that of the slice, each byte of it is initialised (see `Number`), and
    // the reference keeps its lifetime.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::{any, proptest};
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};

    use super::super::{decode, encode};
    use super::{bulk_bytes, bulk_parts};

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
