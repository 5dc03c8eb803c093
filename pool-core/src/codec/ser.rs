//! From a value to bytes.

use std::fmt::{self, Write};

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::bulk;
use super::error::{Attempt, CodecError};
use super::handle_context::{Attachments, HANDLE_TYPE_NAME, encoding_handle};
use super::limits::{HANDLE_DEPTH, Limits, MAX_DEPTH, MAX_EXCESS};
use super::number::number_bytes;

/// Appends `value` to `out`.
///
/// # Errors
/// If the format cannot carry the value (see the module), or if its `Serialize` says so. `out` is
/// then as it was, and likewise when that `Serialize` panics.
#[inline]
pub fn encode<T>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>
where
    T: Serialize + ?Sized + 'static,
{
    append(value, out, None)
}

/// The same of what goes to another process: the memory that handles in it mean is added to
/// `attachments`, and must be kept until that process has read it.
///
/// # Errors
/// As [`encode`].
#[inline]
pub(crate) fn encode_attached<T>(
    value: &T,
    out: &mut Vec<u8>,
    attachments: &mut Attachments,
) -> Result<(), CodecError>
where
    T: Serialize + ?Sized + 'static,
{
    append(value, out, Some(attachments))
}

/// The same of what is put into shared memory; with how many values stand inside each other.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_shared<T>(
    value: &T,
    out: &mut Vec<u8>,
    attachments: &mut Attachments,
) -> Result<u32, CodecError>
where
    T: Serialize + ?Sized + 'static,
{
    // A handle of it must have a place where it can stand.
    append_within::<T, true>(MAX_DEPTH - HANDLE_DEPTH - 1, value, out, Some(attachments))
}

#[inline]
fn append<T>(
    value: &T,
    out: &mut Vec<u8>,
    attachments: Option<&mut Attachments>,
) -> Result<(), CodecError>
where
    T: Serialize + ?Sized + 'static,
{
    append_within::<T, false>(MAX_DEPTH, value, out, attachments).map(|_| ())
}

#[inline]
fn append_within<T, const M: bool>(
    depth: u32,
    value: &T,
    out: &mut Vec<u8>,
    attachments: Option<&mut Attachments>,
) -> Result<u32, CodecError>
where
    T: Serialize + ?Sized + 'static,
{
    if let Some(bytes) = number_bytes(value) {
        out.extend_from_slice(bytes);
        return Ok(0);
    }
    if let Some((prefix, bytes)) = bulk::bulk_parts(value) {
        out.reserve(prefix.len() + bytes.len());
        out.extend_from_slice(&prefix);
        out.extend_from_slice(bytes);
        return Ok(0);
    }
    let mut rewind = Rewind {
        start: out.len(),
        out,
        armed: true,
    };
    let mut encoder = Encoder::<'_, M> {
        out: rewind.out,
        limits: Limits::within(depth, MAX_EXCESS),
        attachments,
    };
    match value.serialize(&mut encoder) {
        Ok(()) => {
            let height = encoder.limits.height(depth);
            rewind.armed = false;
            Ok(height)
        }
        Err(error) => Err(error.at::<T>(Attempt::Encode)),
    }
}

/// Takes back what was appended, unless all went well.
struct Rewind<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    armed: bool,
}

impl Drop for Rewind<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.armed {
            self.out.truncate(self.start);
        }
    }
}

/// Writes a number as it is.
macro_rules! put_number {
    ($method:ident: $number:ty) => {
        #[inline]
        fn $method(self, value: $number) -> Result<(), CodecError> {
            self.put(value.to_le_bytes())
        }
    };
}

/// serde's way into the format, which measures how many values stand inside each other, or not.
struct Encoder<'a, const M: bool> {
    out: &'a mut Vec<u8>,
    limits: Limits<M>,
    /// Where the memory goes that must live as long as what is encoded; nowhere: it lives anyway.
    attachments: Option<&'a mut Attachments>,
}

impl<'a, const M: bool> Encoder<'a, M> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), CodecError> {
        self.out.extend_from_slice(&bytes);
        Ok(())
    }

    #[inline]
    fn put_length(&mut self, length: usize) {
        self.out.extend_from_slice(&(length as u64).to_le_bytes());
    }

    /// Writes the length once it is known, eight bytes at `at` being reserved for it.
    #[inline]
    fn patch_length(&mut self, at: usize, length: usize) {
        self.out[at..at + 8].copy_from_slice(&(length as u64).to_le_bytes());
    }

    #[inline]
    fn inside<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.limits.enter()?;
        value.serialize(&mut *self)?;
        self.limits.leave();
        Ok(())
    }

    /// A handle of shared memory, which is to live.
    #[cold]
    fn handle<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        let before = self.limits.clone();
        let (encoded, memory) = encoding_handle(|| self.inside(value));
        encoded?;
        // The levels of the ticket are not those of the value.
        self.limits = before;
        if let Some(memory) = &memory {
            self.limits.enter()?;
            self.limits.pass_handle(memory.height(), MAX_EXCESS)?;
            self.limits.leave();
        }
        if let (Some(attachments), Some(memory)) = (&mut self.attachments, memory) {
            attachments.attach(memory)?;
        }
        Ok(())
    }

    /// Goes into a tuple or struct.
    #[inline]
    fn fields(&mut self, owner: &'static str) -> Result<Fields<'_, 'a, M>, CodecError> {
        self.limits.enter()?;
        Ok(Fields {
            encoder: self,
            owner,
        })
    }

    /// Goes into a sequence or map. Its length follows when all elements are there: an announced
    /// one may be missing, and need not be believed.
    #[inline]
    fn elements(&mut self) -> Result<Elements<'_, 'a, M>, CodecError> {
        self.limits.enter()?;
        let length_at = self.out.len();
        self.put_length(0);
        let entry_at = self.out.len();
        Ok(Elements {
            encoder: self,
            length_at,
            entry_at,
            count: 0,
        })
    }
}

impl<'e, 'a, const M: bool> Serializer for &'e mut Encoder<'a, M> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Elements<'e, 'a, M>;
    type SerializeTuple = Fields<'e, 'a, M>;
    type SerializeTupleStruct = Fields<'e, 'a, M>;
    type SerializeTupleVariant = Fields<'e, 'a, M>;
    type SerializeMap = Elements<'e, 'a, M>;
    type SerializeStruct = Fields<'e, 'a, M>;
    type SerializeStructVariant = Fields<'e, 'a, M>;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        self.put([u8::from(value)])
    }

    put_number!(serialize_i8: i8);
    put_number!(serialize_i16: i16);
    put_number!(serialize_i32: i32);
    put_number!(serialize_i64: i64);
    put_number!(serialize_i128: i128);
    put_number!(serialize_u8: u8);
    put_number!(serialize_u16: u16);
    put_number!(serialize_u32: u32);
    put_number!(serialize_u64: u64);
    put_number!(serialize_u128: u128);
    put_number!(serialize_f32: f32);
    put_number!(serialize_f64: f64);

    #[inline]
    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        self.put(u32::from(value).to_le_bytes())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        self.out.reserve(8 + value.len());
        self.put_length(value.len());
        self.out.extend_from_slice(value);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), CodecError> {
        self.put([0])
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        self.put([1])?;
        self.inside(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), CodecError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), CodecError> {
        self.put(index.to_le_bytes())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        if name == HANDLE_TYPE_NAME {
            return self.handle(value);
        }
        self.inside(value)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.put(index.to_le_bytes())?;
        self.inside(value)
    }

    #[inline]
    fn serialize_seq(self, _: Option<usize>) -> Result<Elements<'e, 'a, M>, CodecError> {
        self.elements()
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Fields<'e, 'a, M>, CodecError> {
        self.fields("a tuple")
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Fields<'e, 'a, M>, CodecError> {
        self.fields(name)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Fields<'e, 'a, M>, CodecError> {
        self.put(index.to_le_bytes())?;
        self.fields(name)
    }

    #[inline]
    fn serialize_map(self, _: Option<usize>) -> Result<Elements<'e, 'a, M>, CodecError> {
        self.elements()
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Fields<'e, 'a, M>, CodecError> {
        self.fields(name)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields<'e, 'a, M>, CodecError> {
        self.put(index.to_le_bytes())?;
        self.fields(variant)
    }

    #[inline]
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        let length_at = self.out.len();
        self.put_length(0);
        let start = self.out.len();
        if write!(Text(self.out), "{value}").is_err() {
            return Err(CodecError::new("the `Display` of a value in it failed"));
        }
        self.patch_length(length_at, self.out.len() - start);
        Ok(())
    }
}

/// Where a `Display` writes to.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The fields of a tuple or struct, which need no length.
struct Fields<'e, 'a, const M: bool> {
    encoder: &'e mut Encoder<'a, M>,
    /// The struct or variant, for errors.
    owner: &'static str,
}

impl<const M: bool> Fields<'_, '_, M> {
    #[inline]
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        value.serialize(&mut *self.encoder)
    }

    #[inline]
    fn finish(self) -> Result<(), CodecError> {
        self.encoder.limits.leave();
        Ok(())
    }
}

/// The elements of a sequence or the entries of a map, which are counted.
struct Elements<'e, 'a, const M: bool> {
    encoder: &'e mut Encoder<'a, M>,
    /// Where the length goes.
    length_at: usize,
    /// Where the current entry of a map begins.
    entry_at: usize,
    count: usize,
}

impl<const M: bool> Elements<'_, '_, M> {
    /// Writes an element or key.
    #[inline]
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.count += 1;
        self.entry_at = self.encoder.out.len();
        self.put_more(value)
    }

    /// Writes the rest of the entry.
    #[inline]
    fn put_more<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        value.serialize(&mut *self.encoder)?;
        if self.encoder.out.len() == self.entry_at {
            // The value may be a reference, so its size would say nothing.
            self.encoder.limits.charge(1)?;
        }
        Ok(())
    }

    #[inline]
    fn finish(self) -> Result<(), CodecError> {
        self.encoder.patch_length(self.length_at, self.count);
        self.encoder.limits.leave();
        Ok(())
    }
}

impl<const M: bool> SerializeTuple for Fields<'_, '_, M> {
    type Ok = ();
    type Error = CodecError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.put(value)
    }

    #[inline]
    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl<const M: bool> SerializeTupleStruct for Fields<'_, '_, M> {
    type Ok = ();
    type Error = CodecError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.put(value)
    }

    #[inline]
    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl<const M: bool> SerializeTupleVariant for Fields<'_, '_, M> {
    type Ok = ();
    type Error = CodecError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.put(value)
    }

    #[inline]
    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl<const M: bool> SerializeSeq for Elements<'_, '_, M> {
    type Ok = ();
    type Error = CodecError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.put(value)
    }

    #[inline]
    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl<const M: bool> SerializeMap for Elements<'_, '_, M> {
    type Ok = ();
    type Error = CodecError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        self.put(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.put_more(value)
    }

    #[inline]
    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl<const M: bool> SerializeStruct for Fields<'_, '_, M> {
    type Ok = ();
    type Error = CodecError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.put(value)
    }

    /// serde_derive calls this for what `skip_serializing_if` leaves out.
    #[inline]
    fn skip_field(&mut self, field: &'static str) -> Result<(), CodecError> {
        Err(CodecError::skipped_field(self.owner, field))
    }

    #[inline]
    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl<const M: bool> SerializeStructVariant for Fields<'_, '_, M> {
    type Ok = ();
    type Error = CodecError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.put(value)
    }

    /// serde_derive calls this for what `skip_serializing_if` leaves out.
    #[inline]
    fn skip_field(&mut self, field: &'static str) -> Result<(), CodecError> {
        Err(CodecError::skipped_field(self.owner, field))
    }

    #[inline]
    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}
