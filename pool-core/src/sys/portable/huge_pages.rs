//! Memory in pages of whatever size.

use std::mem::MaybeUninit;

/// Says that this memory is going to be filled. Nobody hears it.
pub(crate) fn expect_use<T>(_room: &mut [MaybeUninit<T>]) {}
