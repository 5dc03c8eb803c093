//! How arguments and results become bytes and values again.
//!
//! A small serde format for two processes that run the same image: no names, no types and no
//! version in the bytes, every number at its full width. That makes a `u64` one store and one
//! load, which is what a task of a few nanoseconds can pay.
//!
//! | serde's data model | bytes |
//! |---|---|
//! | `bool`, `u8`, `i8` | one byte; a `bool` is 0 or 1 |
//! | `u16` to `u128`, `i16` to `i128`, `f32`, `f64` | little-endian, floats by their bits |
//! | `char` | its scalar value as a `u32` |
//! | string, bytes | length in bytes as a `u64`, then the bytes |
//! | sequence, map | number of elements or entries as a `u64`, then each in order |
//! | option | one byte, 0 or 1, then the value if 1 |
//! | enum | index of the variant as a `u32`, then what the variant holds |
//! | tuple, struct | the fields in order, and nothing else |
//! | unit, unit struct, newtype struct | nothing of their own |
//!
//! A whole argument or result that is a `String`, or a `Vec` or boxed slice of numbers, moves at
//! the speed of memory. Elsewhere each element goes through serde, at two or three nanoseconds, but
//! for strings and for bytes that are serialized as bytes (the crate `serde_bytes`).
//!
//! # What it refuses
//! Nothing in the bytes says what they are, so a type that asks (`deserialize_any` and the like:
//! `#[serde(flatten)]`, `#[serde(untagged)]`, `#[serde(tag = "..")]`, values of other formats) is
//! refused by the decoder; the encoder cannot distinguish it from others. A field that
//! `#[serde(skip_serializing_if)]` leaves out of a struct or of a struct variant is refused by the
//! encoder: the reader would take the next field for it. Both errors name the type and say the way
//! round.
//!
//! # What it cannot see
//! serde does not inform the format of these, so they must not be used: `skip_serializing_if` in a
//! *tuple* struct or variant; a field with `skip_serializing` but not `skip_deserializing`, or the
//! reverse; and `#[serde(skip)]` on a variant with others after it, since serde_derive numbers the
//! variants with it when writing and without it when reading.
//!
//! # Bytes from a process that went wrong
//! The decoder trusts nothing: every length is checked against what is left, every `bool`, `char`,
//! string and tag is validated, and bytes left over are an error. It never panics of its own, and
//! three limits keep it from taking the process down:
//! - depth: `MAX_DEPTH` values inside each other, since each takes stack; what stands in shared
//!   memory counts from where a handle of it stands;
//! - capacity: all that it ever asks containers to reserve is together no more elements than
//!   the input has bytes;
//! - elements without bytes: nothing in the input pays for the elements of a `Vec<()>`, so all of
//!   them together may take `MAX_FREE` bytes of memory, and at least one each;
//! - values that are larger in memory than on the wire, such as options of large types that hold
//!   nothing: the input pays for `FACTOR` times its bytes, and all that such values take beyond
//!   that may be `MAX_EXCESS` together.
//!
//! The encoder keeps the same limits, so that what cannot be decoded fails where it was made. Only
//! the memory of elements it does not see, since they are references there; it counts each element
//! without bytes as one byte.

mod bulk;
mod de;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
pub(crate) mod handle_context;
mod limits;
mod memory;
mod number;
mod ser;

#[cfg(test)]
mod tests;

/// Whether these bytes are those of an `Err`, given that they are of a `Result`.
pub(crate) fn is_err(bytes: &[u8]) -> bool {
    // The variant's index comes first.
    bytes.first_chunk() == Some(&1_u32.to_le_bytes())
}

pub(crate) use bulk::{
    Lent, as_bytes, as_numbers, as_numbers_mut, decode_bulk, is_bulk, lend, receive,
};
pub use bulk::{bulk_bytes, bulk_parts};
pub use de::decode;
pub(crate) use de::{decode_argument, decode_shared};
pub use error::CodecError;
pub(crate) use limits::{MAX_DEPTH, MAX_EXCESS};
#[cfg(any(fuzzing, test))]
pub(crate) use memory::AHEAD;
pub(crate) use memory::Memory;
pub(crate) use number::{MAX_NUMBER, number_bytes, number_size, read_number};
pub use ser::encode;
pub(crate) use ser::{encode_attached, encode_shared};
