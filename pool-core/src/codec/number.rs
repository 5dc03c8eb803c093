//! Plain numbers: one that is an argument or a result alone goes past serde.
//!
//! The bytes are those that serde would have led to, so both ways lead to the same.
#![allow(unsafe_code)]

use std::any::{Any, TypeId};
use std::mem::needs_drop;
use std::ptr;

/// Calls a macro once for each type of number: an integer of a fixed size, `f32` or `f64`, and
/// where they have 64 bits `usize` and `isize`. It is the same in memory as on the wire.
macro_rules! for_each_number {
    ($with:ident) => {
        for_each_number!($with: u8, i8);
        #[cfg(target_endian = "little")]
        for_each_number!($with: u16, u32, u64, u128, i16, i32, i64, i128, f32, f64);
        // serde writes them as `u64` and `i64`.
        #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
        for_each_number!($with: usize, isize);
    };
    ($with:ident: $($number:ty),*) => {
        $( $with!($number); )*
    };
}
pub(super) use for_each_number;

/// The most bytes that a number has.
pub(crate) const MAX_NUMBER: usize = 16;

/// Whether this is a type of numbers. The compiler knows the answer.
#[inline]
fn is_number<T: ?Sized + 'static>() -> bool {
    if const { needs_drop::<T>() } {
        return false;
    }
    macro_rules! try_type {
        ($number:ty) => {
            if TypeId::of::<T>() == TypeId::of::<$number>() {
                return true;
            }
        };
    }
    for_each_number!(try_type);
    false
}

/// How many bytes a number of this type has; nothing for other types.
#[inline]
pub(crate) fn number_size<T: 'static>() -> Option<usize> {
    is_number::<T>().then_some(size_of::<T>())
}

/// The reference, if both types are one. (`dyn Any` would do that for sized types alone.)
#[inline]
pub(super) fn same_type<T: ?Sized + 'static, U: 'static>(value: &T) -> Option<&U> {
    if TypeId::of::<T>() != TypeId::of::<U>() {
        return None;
    }
    // SAFETY: the two types are the same type, and the reference keeps its lifetime.
    Some(unsafe { &*ptr::from_ref(value).cast::<U>() })
}

/// The bytes that [`encode`](super::encode) appends for a number; nothing for other types.
#[inline]
pub(crate) fn number_bytes<T: ?Sized + 'static>(value: &T) -> Option<&[u8]> {
    if const { needs_drop::<T>() } {
        return None;
    }
    macro_rules! try_type {
        ($number:ty) => {
            if let Some(number) = same_type::<T, $number>(value) {
                return Some(bytemuck::bytes_of(number));
            }
        };
    }
    for_each_number!(try_type);
    None
}

/// The number that these bytes are; nothing for other types, and if there are too few or too many.
#[inline]
pub(crate) fn read_number<T: 'static>(bytes: &[u8]) -> Option<T> {
    let mut slot: Option<T> = None;
    if const { needs_drop::<T>() } {
        return slot;
    }
    macro_rules! try_type {
        ($number:ty) => {
            if let Some(slot) = (&mut slot as &mut dyn Any).downcast_mut::<Option<$number>>() {
                *slot = bytemuck::try_pod_read_unaligned(bytes).ok();
            }
        };
    }
    for_each_number!(try_type);
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    /// Reads like a number, and goes through serde since it is none.
    #[derive(Serialize, serde::Deserialize)]
    struct Wrapped<T>(T);

    fn both_ways<T>(value: T)
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + Copy + 'static,
    {
        let mut past_serde = Vec::new();
        super::super::encode(&value, &mut past_serde).unwrap();
        let mut through_serde = Vec::new();
        super::super::encode(&Wrapped(value), &mut through_serde).unwrap();
        assert_eq!(number_bytes(&value), Some(&past_serde[..]));
        assert_eq!(past_serde, through_serde);
        assert_eq!(super::super::decode::<T>(&through_serde).unwrap(), value);
        let wrapped: Wrapped<T> = super::super::decode(&past_serde).unwrap();
        assert_eq!(wrapped.0, value);
        past_serde.push(0);
        assert!(super::super::decode::<T>(&past_serde).is_err());
        assert!(super::super::decode::<T>(&past_serde[2..]).is_err());
    }

    #[test]
    fn numbers_are_the_same_past_serde_and_through_it() {
        macro_rules! check {
            ($number:ty) => {
                both_ways(<$number>::MIN);
                both_ways(7 as $number);
                both_ways(<$number>::MAX);
                assert!(size_of::<$number>() <= MAX_NUMBER);
            };
        }
        for_each_number!(check);
    }

    #[test]
    fn other_types_are_no_numbers() {
        assert!(number_bytes(&true).is_none() && number_bytes(&'x').is_none());
        assert!(number_bytes(&Wrapped(7_u64)).is_none() && number_bytes(&(1_u8,)).is_none());
        assert!(read_number::<bool>(&[1]).is_none());
    }
}
