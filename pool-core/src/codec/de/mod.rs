//! From bytes to a value.

mod access;

use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess,
    Visitor,
};

use self::access::{Elements, Fields};
use super::bulk;
use super::error::{Attempt, CodecError};
use super::limits::Limits;
use super::number::read_number;
use crate::codec::handle_context::{Arrival, HANDLE_TYPE_NAME, decoding_handle};

/// Makes a value from all of `bytes`, which may come from a process that went wrong.
///
/// # Errors
/// If the bytes are not those of a `T`, if there are too many of them, or if the format cannot
/// carry the type (see the module).
#[inline]
pub fn decode<T>(bytes: &[u8]) -> Result<T, CodecError>
where
    T: DeserializeOwned + 'static,
{
    take(Decoder::new(bytes))
}

/// The same of what came from the parent: handles of memory in it are believed.
///
/// # Errors
/// As [`decode`].
#[inline]
pub(crate) fn decode_argument<T>(bytes: &[u8]) -> Result<T, CodecError>
where
    T: DeserializeOwned + 'static,
{
    let mut decoder = Decoder::new(bytes);
    decoder.from_parent = true;
    take(decoder)
}

/// The same of what lies in shared memory, for which there is so much left of the limits. With it
/// comes how many values it has inside each other, and how much excess is left.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_shared<T>(
    bytes: &[u8],
    from_parent: bool,
    depth: u32,
    excess: usize,
) -> Result<(T, u32, usize), CodecError>
where
    T: DeserializeOwned + 'static,
{
    let mut decoder = Decoder::<true>::new(bytes);
    decoder.from_parent = from_parent;
    decoder.limits = Limits::within(depth, excess);
    let value = take_from(&mut decoder)?;
    let limits = &decoder.limits;
    Ok((value, limits.height(depth), limits.excess()))
}

#[inline]
fn take<T>(mut decoder: Decoder<'_, false>) -> Result<T, CodecError>
where
    T: DeserializeOwned + 'static,
{
    take_from(&mut decoder)
}

#[inline]
fn take_from<T, const M: bool>(decoder: &mut Decoder<'_, M>) -> Result<T, CodecError>
where
    T: DeserializeOwned + 'static,
{
    if let Some(number) = read_number(decoder.input) {
        return Ok(number);
    }
    let value = match bulk::read(decoder) {
        Ok(Some(value)) => Ok(value),
        Ok(None) if decoder.input.len() < PROBED => T::deserialize(&mut *decoder),
        Ok(None) => probe(decoder.input.len()).and_then(|()| T::deserialize(&mut *decoder)),
        Err(error) => Err(error),
    };
    match value.and_then(|value| decoder.finish().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => Err(error.at::<T>(Attempt::Decode)),
    }
}

/// From this many bytes on, it is looked whether there is memory for as many, before serde asks for
/// it and ends the process if there is none.
const PROBED: usize = 1 << 20;

#[cold]
fn probe(bytes: usize) -> Result<(), CodecError> {
    match Vec::<u8>::new().try_reserve_exact(bytes) {
        Ok(()) => Ok(()),
        Err(_) => Err(CodecError::no_memory(bytes as u64)),
    }
}

/// Reads a number as it is.
macro_rules! take_number {
    ($method:ident: $number:ty, $visit:ident) => {
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            visitor.$visit(<$number>::from_le_bytes(self.take()?))
        }
    };
}

/// serde's way out of the format, which measures how many values stand inside each other, or not.
pub(super) struct Decoder<'de, const M: bool> {
    /// What is left.
    input: &'de [u8],
    limits: Limits<M>,
    /// How many more elements containers may be asked to reserve.
    hints: usize,
    from_parent: bool,
}

impl<'de, const M: bool> Decoder<'de, M> {
    #[inline]
    pub(super) fn new(input: &'de [u8]) -> Self {
        Self {
            input,
            limits: Limits::new(),
            hints: input.len(),
            from_parent: false,
        }
    }

    /// Fails if something is left.
    #[inline]
    pub(super) fn finish(&self) -> Result<(), CodecError> {
        match self.input.len() {
            0 => Ok(()),
            left => Err(left_over(left)),
        }
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        match self.input.split_first_chunk() {
            Some((bytes, rest)) => {
                self.input = rest;
                Ok(*bytes)
            }
            None => Err(too_short(1, N, self.input.len())),
        }
    }

    #[inline]
    pub(super) fn take_length(&mut self) -> Result<usize, CodecError> {
        let length = u64::from_le_bytes(self.take()?);
        usize::try_from(length).map_err(|_| too_short(length, 1, self.input.len()))
    }

    /// The bytes of `count` elements of `size` bytes.
    #[inline]
    pub(super) fn take_elements(
        &mut self,
        count: usize,
        size: usize,
    ) -> Result<&'de [u8], CodecError> {
        match count
            .checked_mul(size)
            .and_then(|bytes| self.input.split_at_checked(bytes))
        {
            Some((bytes, rest)) => {
                self.input = rest;
                Ok(bytes)
            }
            None => Err(too_short(count as u64, size, self.input.len())),
        }
    }

    #[inline]
    fn take_bytes(&mut self) -> Result<&'de [u8], CodecError> {
        let length = self.take_length()?;
        self.take_elements(length, 1)
    }

    #[inline]
    pub(super) fn take_str(&mut self) -> Result<&'de str, CodecError> {
        std::str::from_utf8(self.take_bytes()?).map_err(CodecError::new)
    }

    /// Reads a byte that says yes or no.
    #[inline]
    fn take_flag(&mut self, of: &str) -> Result<bool, CodecError> {
        match self.take()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(bad_flag(of, other)),
        }
    }

    #[inline]
    fn inside<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        self.limits.enter()?;
        let value = read(self)?;
        self.limits.leave();
        Ok(value)
    }

    /// A handle of shared memory.
    #[cold]
    fn handle<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, CodecError> {
        let arrival = Arrival {
            from_parent: self.from_parent,
            depth: self.limits.behind_handle()?,
            excess: self.limits.excess(),
        };
        let limits = self.limits.clone();
        let (value, height, excess) =
            decoding_handle(arrival, || visitor.visit_newtype_struct(&mut *self));
        let value = value?;
        // The levels of the ticket are not those of the value.
        self.limits = limits;
        self.limits.pass_handle(height, excess)?;
        Ok(value)
    }

    /// Goes into a tuple or struct. `count` may be more than the visitor asks for, since
    /// serde_derive counts the aliases of fields.
    #[inline]
    fn fields<V: Visitor<'de>>(
        &mut self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        // Straight on, with one place for the value: each level of a deep one is in here.
        let (left, before) = (self.input.len(), self.limits.excess());
        self.limits.enter()?;
        let value = visitor.visit_seq(Fields {
            decoder: self,
            left: count,
        });
        if value.is_ok() {
            self.limits.leave();
            self.weigh_boxed::<V::Value>(left, before)?;
        }
        value
    }

    /// Counts the memory of a value that may lie in a box of its own, and of which `left` and
    /// `before` is what was left before it.
    #[inline]
    fn weigh_boxed<T>(&mut self, left: usize, before: usize) -> Result<(), CodecError> {
        if const { size_of::<T>() <= LIGHT } {
            return Ok(());
        }
        let used = left - self.input.len();
        self.limits.weigh(size_of::<T>(), used, before)
    }

    /// Goes into a sequence or map.
    #[inline]
    fn elements<T>(
        &mut self,
        read: impl FnOnce(&mut Elements<'_, 'de, M>) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        self.inside(|decoder| {
            let left = decoder.take_length()?;
            let hint = left.min(decoder.hints).min(decoder.input.len());
            decoder.hints -= hint;
            let entry_at = decoder.input.len();
            let mut elements = Elements {
                decoder,
                left,
                hint,
                entry_at,
            };
            let value = read(&mut elements)?;
            match elements.left {
                0 => Ok(value),
                left => Err(unread(left)),
            }
        })
    }
}

impl<'de, const M: bool> Deserializer<'de> for &mut Decoder<'de, M> {
    type Error = CodecError;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        Err(CodecError::not_self_describing(&visitor))
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        Err(CodecError::not_self_describing(&visitor))
    }

    #[inline]
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        Err(CodecError::not_self_describing(&visitor))
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_bool(self.take_flag("a bool")?)
    }

    take_number!(deserialize_i8: i8, visit_i8);
    take_number!(deserialize_i16: i16, visit_i16);
    take_number!(deserialize_i32: i32, visit_i32);
    take_number!(deserialize_i64: i64, visit_i64);
    take_number!(deserialize_i128: i128, visit_i128);
    take_number!(deserialize_u8: u8, visit_u8);
    take_number!(deserialize_u16: u16, visit_u16);
    take_number!(deserialize_u32: u32, visit_u32);
    take_number!(deserialize_u64: u64, visit_u64);
    take_number!(deserialize_u128: u128, visit_u128);
    take_number!(deserialize_f32: f32, visit_f32);
    take_number!(deserialize_f64: f64, visit_f64);

    #[inline]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let scalar = u32::from_le_bytes(self.take()?);
        match char::from_u32(scalar) {
            Some(value) => visitor.visit_char(value),
            None => Err(bad_char(scalar)),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.take_str()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_bytes(self.take_bytes()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if self.take_flag("an option")? {
            self.inside(|decoder| visitor.visit_some(decoder))
        } else {
            visitor.visit_none()
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if name == HANDLE_TYPE_NAME {
            return self.inside(|decoder| decoder.handle(visitor));
        }
        self.inside(|decoder| visitor.visit_newtype_struct(decoder))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.elements(|elements| visitor.visit_seq(elements))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.fields(count, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.fields(count, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.elements(|elements| visitor.visit_map(elements))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.fields(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let (left, before) = (self.input.len(), self.limits.excess());
        let value = visitor.visit_enum(&mut *self);
        if value.is_ok() {
            self.weigh_boxed::<V::Value>(left, before)?;
        }
        value
    }
}

/// Values of this many bytes may lie in a box of their own without being counted.
const LIGHT: usize = 64;

/// An enum: the index of the variant, then the variant.
impl<'de, const M: bool> EnumAccess<'de> for &mut Decoder<'de, M> {
    type Error = CodecError;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), CodecError> {
        let index: U32Deserializer<CodecError> =
            u32::from_le_bytes(self.take()?).into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

/// What a variant holds. As in the encoder, a variant that holds nothing adds no depth.
impl<'de, const M: bool> VariantAccess<'de> for &mut Decoder<'de, M> {
    type Error = CodecError;

    #[inline]
    fn unit_variant(self) -> Result<(), CodecError> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, CodecError> {
        self.inside(|decoder| seed.deserialize(decoder))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(
        self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.fields(count, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.fields(fields.len(), visitor)
    }
}

#[cold]
fn too_short(count: u64, size: usize, left: usize) -> CodecError {
    CodecError::new(format_args!(
        "the input ends too soon: {count} x {size} bytes needed, {left} left"
    ))
}

#[cold]
fn left_over(left: usize) -> CodecError {
    CodecError::new(format_args!("bytes left over at the end: {left}"))
}

#[cold]
fn unread(left: usize) -> CodecError {
    CodecError::new(format_args!(
        "elements of a sequence or map that its type does not read: {left}"
    ))
}

#[cold]
fn bad_flag(of: &str, byte: u8) -> CodecError {
    CodecError::new(format_args!("{of} begins with the byte {byte}, not 0 or 1"))
}

#[cold]
fn bad_char(scalar: u32) -> CodecError {
    CodecError::new(format_args!("{scalar:#x} is not a char"))
}
