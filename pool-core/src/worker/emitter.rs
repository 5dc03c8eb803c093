//! What a function emits its values by.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::mem::transmute;
use std::ptr::NonNull;

use serde::{Deserialize, Serialize};

use super::refusal::{refuse, take_refusal};
use crate::broadcast::Attachments;
use crate::codec::{self, CodecError};
use crate::shm::protocol::{Failure, Stage};
use crate::value::portable::Portable;

/// Gives values to the caller while the task still runs: what a function gets that is called by
/// [`Call::stream`](crate::Call::stream). Values arrive one by one and in order, each as soon as it
/// was emitted.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Disconnected, Emitter, Pool, SerialPool};
///
/// /// Emits the prime factors of a number, and says how many there are.
/// fn factors(number: u64, out: &Emitter<u64>) -> Result<usize, Disconnected> {
///     let (mut left, mut count) = (number, 0);
///     for factor in 2.. {
///         while left % factor == 0 {
///             out.emit(factor)?;
///             left /= factor;
///             count += 1;
///         }
///         if left == 1 {
///             break;
///         }
///     }
///     Ok(count)
/// }
///
/// let pool = SerialPool::new();
/// let mut values = pool.call(factors).stream(60);
/// let found: Vec<u64> = values.by_ref().collect::<Result<_, _>>()?;
/// assert_eq!(found, [2, 2, 3, 5]);
/// assert_eq!(values.result()?, Ok(4));
/// # Ok::<(), procpool::TaskError>(())
/// ```
///
/// It belongs to the item and to the thread that runs it: it cannot be kept, nor be used by other
/// threads. Where these find the values, let them send them to the task's thread, by a channel.
pub struct Emitter<Y> {
    out: NonNull<dyn Emit>,
    /// How many values may be underway.
    buffer: u32,
    /// How many were emitted.
    emitted: Cell<u64>,
    /// Of the value that was emitted last.
    bytes: Cell<Vec<u8>>,
    values: PhantomData<fn(Y)>,
}

/// Where encoded values go.
pub(super) trait Emit {
    /// The most bytes that a value may have.
    fn max_bytes(&self) -> u64;

    /// Takes one more value of the running item, behind so many, as soon as fewer than `buffer` of
    /// these are underway. `false`: the caller wants none, or none any more.
    ///
    /// Nothing that could emit runs in it.
    fn emit(&mut self, bytes: &[u8], emitted: u64, buffer: u32) -> bool;

    /// The same of a value in which there are handles that mean these.
    fn emit_with(
        &mut self,
        bytes: &mut Vec<u8>,
        attachments: Attachments,
        emitted: u64,
        buffer: u32,
    ) -> Result<bool, CodecError>;
}

impl<Y> Emitter<Y> {
    /// Lends an emitter to `body`.
    pub(super) fn lend<R>(
        out: &mut (dyn Emit + '_),
        buffer: u32,
        body: impl FnOnce(&Self) -> R,
    ) -> R {
        let out = NonNull::from(out);
        // SAFETY: only the lifetime changes, of what is behind the pointer. The emitter does not
        // live longer: `body` sees a reference to it that ends before this returns, and can
        // neither clone nor move what is behind that. Nobody else uses `out` meanwhile, which is
        // borrowed.
        let out = unsafe { transmute::<NonNull<dyn Emit + '_>, NonNull<dyn Emit + 'static>>(out) };
        let result = body(&Self {
            out,
            buffer,
            emitted: Cell::new(0),
            bytes: Cell::default(),
            values: PhantomData,
        });
        // A task that has caught it goes on, and what it panics with later is something else.
        let _caught = take_refusal();
        result
    }
}

impl<Y: Portable> Emitter<Y> {
    /// Gives a value to the caller, who has it as soon as they ask for it.
    ///
    /// If the caller is slow, this waits: until fewer values are unread than
    /// [`buffer`](crate::Call::buffer) says. The wait counts as time that the task runs. It ends
    /// when the caller reads on, and with the task, whatever ends that.
    ///
    /// # Errors
    /// [`Disconnected`], when the caller wants no more: they have dropped the handle, or cancelled
    /// the call. The value is dropped. A task that goes on can emit no more.
    ///
    /// # Panics
    /// When the value cannot be encoded, has more bytes than
    /// [`max_result_bytes`](crate::PoolBuilder::max_result_bytes) allows, or has a
    /// [`Broadcast`](crate::Broadcast) or an [`Fd`](crate::Fd) in it that cannot be passed. The
    /// task then ends with an error of kind [`Encode`](crate::TaskErrorKind::Encode).
    pub fn emit(&self, value: Y) -> Result<(), Disconnected> {
        let mut bytes = self.bytes.take();
        bytes.clear();
        let mut attachments = Attachments::default();
        let encoded = codec::encode_attached(&value, &mut bytes, &mut attachments);
        // It and its destructor are the task's.
        drop(value);
        if let Err(error) = encoded {
            unfit(error);
        }
        // SAFETY: `lend` has borrowed it for as long as this lives. It is used here alone, by one
        // thread, since a pointer is not `Sync`; and not while it is used, for `Emit::emit` runs
        // nothing that could have this emitter.
        let out = unsafe { &mut *self.out.as_ptr() };
        if bytes.len() as u64 > out.max_bytes() {
            unfit(format_args!(
                "it has {} bytes, and a value may have {}: raise the limit \
                 (builder().max_result_bytes(..)), or emit it in parts",
                bytes.len(),
                out.max_bytes()
            ));
        }
        let emitted = self.emitted.get();
        let is_wanted = match attachments.is_empty() {
            true => out.emit(&bytes, emitted, self.buffer),
            false => out
                .emit_with(&mut bytes, attachments, emitted, self.buffer)
                .unwrap_or_else(|error| unfit(error)),
        };
        self.emitted.set(emitted + u64::from(is_wanted));
        self.bytes.set(bytes);
        is_wanted.then_some(()).ok_or(Disconnected)
    }
}

#[cold]
fn unfit(why: impl fmt::Display) -> ! {
    refuse(Failure::error(Stage::EncodeEmitted, why))
}

impl<Y> fmt::Debug for Emitter<Y> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter")
            .field("emitted", &self.emitted.get())
            .finish_non_exhaustive()
    }
}

/// The caller wants no more values: the error of [`Emitter::emit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Disconnected;

impl fmt::Display for Disconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller wants no more values")
    }
}

impl Error for Disconnected {}
