//! What the codec promises, seen from outside.

mod hostile;
mod model;
mod refused;
mod round_trip;
mod wire;

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CodecError, decode, encode};

fn encoded<T: Serialize + ?Sized + 'static>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out).unwrap();
    out
}

fn refused<T: Serialize + ?Sized + 'static>(value: &T) -> String {
    let mut out = vec![1, 2, 3];
    let error = encode(value, &mut out).unwrap_err();
    assert_eq!(
        out,
        [1, 2, 3],
        "what was there before stays, and nothing else"
    );
    error.to_string()
}

fn failed<T: DeserializeOwned + Debug + 'static>(bytes: &[u8]) -> String {
    decode::<T>(bytes).unwrap_err().to_string()
}

fn assert_round_trip<T>(value: T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    let back: Result<T, CodecError> = decode(&encoded(&value));
    assert_eq!(back.unwrap(), value);
}
