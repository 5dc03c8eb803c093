//! The handle of a shared value.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use bytemuck::Pod;
use serde::de::{Error as _, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::BroadcastError;
use super::memory::{Reading, SharedMemory, Ticket};
use super::shareable::{IntoBroadcast, Shareable};
use crate::codec;
use crate::codec::handle_context::{self, HANDLE_TYPE_NAME};

/// A value that all workers share: an `Arc` that can be passed to other processes.
///
/// A large table, model or text that many tasks need is put into shared memory once, by
/// [`Pool::broadcast`](crate::Pool::broadcast), and a handle of it goes into each argument, alone
/// or inside of it. A large result that a task makes need not be copied either: the task shares it
/// and returns the handle. A handle is forty bytes long when it travels. It derefs to the value, in
/// the parent as in a worker.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Broadcast, Pool, SerialPool};
///
/// fn sum((table, from, to): (Broadcast<[f64]>, usize, usize)) -> f64 {
///     table[from..to].iter().sum()
/// }
///
/// let pool = SerialPool::new();
/// let table = pool.broadcast(vec![0.5; 1000])?;
/// let halves = [(table.clone(), 0, 500), (table, 500, 1000)];
/// assert_eq!(pool.map(sum, halves).unwrap(), [250.0, 250.0]);
/// # Ok::<(), procpool::BroadcastError>(())
/// ```
///
/// A task that returns numbers where it has written them, for the parent to read them there:
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Broadcast, Pool, SerialPool};
///
/// fn column(count: usize) -> Broadcast<[f64]> {
///     let fill = |numbers: &mut [f64]| numbers.fill(0.5);
///     Broadcast::filled(count, fill).expect("there is memory")
/// }
///
/// let pool = SerialPool::new();
/// let columns = pool.map(column, [1000, 2000]).unwrap();
/// assert_eq!(columns[1][1999], 0.5);
/// ```
///
/// # What is copied
/// | what is broadcast | the handle | the maker | the receiver of a handle |
/// |---|---|---|---|
/// | `Vec<f64>`, `&[u8]` and the like | `Broadcast<[f64]>` | copied once | read where it lies |
/// | [`filled`](Broadcast::filled) in place | `Broadcast<[f64]>` | not copied | read where it lies |
/// | `String`, `&str` | `Broadcast<str>` | copied once | checked once to be UTF-8, read where it lies |
/// | `&T` of any other type | `Broadcast<T>` | encoded once | decoded once, when the first handle comes |
///
/// A `&Vec<f64>` is a `&T` like any other; pass `&numbers[..]`.
///
/// A worker maps the memory when the first handle comes to it, also if thousands follow: the
/// memory is there once, however many workers read it. It is sealed: nobody can change it, also no
/// task that goes wrong. What a task returns, the parent maps when it reads the result.
///
/// # Lifetime
/// The memory is freed when the last handle is gone, in the parent and in the workers. Arguments
/// that are on their way count as handles of the parent until their result was read. What a worker
/// keeps mapped for the next task, it lets go when the parent's last handle goes, or, while it runs
/// a task, right after that; a handle that a task has put away keeps it. A worker that is started
/// later, in place of a lost one, opens the memory anew. The handle does not belong to the pool: it
/// is good for every pool of the process. What a worker has made outlives it, from the moment at
/// which its result has arrived. A process that is forked while there is a handle has a copy of
/// that, like of everything else: the fork server of a `ForkPool` that is built then keeps the
/// memory as long as it lives.
///
/// # Where it can go
/// Into arguments, also of an initializer; from a worker back to the parent in results, wherever it
/// was made it, and from there to other workers; from a worker to pools of its own. Anywhere else
/// (a file, a socket) its bytes would mean nothing, so serialising it with another serde format is
/// an error that says so.
///
/// One result can bring at most 64 that the parent does not have. More than that fails the task
/// with an error of kind [`Encode`](crate::TaskErrorKind::Encode): share all of it as one, or
/// return several results.
///
/// A value can have broadcasts inside, and these others: at most 32 inside each other. Values
/// inside each other are counted through all of them, as if they were one value, and at most 256
/// may be, each handle as eight of them; more is an error, where the value is shared as where it
/// arrives.
///
/// # How
/// The bytes lie in a memory file (`memfd_create`) that is sealed against writing and resizing. A
/// worker gets its descriptor by a socket, as it does that of an [`Fd`](crate::Fd), with the first
/// handle, and checks that it is sealed. So it needs no rights beside: it may have another user, or
/// be in a sandbox. What a worker returns, the parent gets in the same way, and believes as little
/// of it. A task that has closed that socket, with whatever else it did not know, leaves `/proc`
/// for that; where it may not be looked at either, or there is no descriptor left, the task ends
/// with an error of kind [`Decode`](crate::TaskErrorKind::Decode) that says what to do. Each
/// broadcast takes one file descriptor in the parent and in each worker that has it. The idea is
/// that of Spark's broadcast variables.
pub struct Broadcast<T: ?Sized> {
    memory: Arc<SharedMemory>,
    of: PhantomData<Box<T>>,
}

impl<T: Shareable + ?Sized> Broadcast<T> {
    /// The same as [`Pool::broadcast`](crate::Pool::broadcast), for when there is no pool yet: for
    /// the argument of an initializer, say.
    ///
    /// # Errors
    /// When the value cannot be serialised, or the system is out of memory or descriptors.
    pub fn new<V: IntoBroadcast<Shared = T>>(value: V) -> Result<Self, BroadcastError> {
        Ok(Self::of(value.as_shared().share()?))
    }

    fn of(memory: Arc<SharedMemory>) -> Self {
        Self {
            memory,
            of: PhantomData,
        }
    }

    /// How many bytes of shared memory it takes.
    #[must_use]
    pub fn shared_bytes(&self) -> usize {
        self.memory.len()
    }
}

impl<N: Pod + Send + Sync> Broadcast<[N]> {
    /// Shares `count` numbers that `fill` writes where they are to stay, so that not even the
    /// parent copies them. They are zero before.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::Broadcast;
    ///
    /// let squares = Broadcast::filled(1000, |squares: &mut [u64]| {
    ///     for (x, square) in (0..).zip(squares) {
    ///         *square = x * x;
    ///     }
    /// })?;
    /// assert_eq!(squares[12], 144);
    /// # Ok::<(), procpool::BroadcastError>(())
    /// ```
    ///
    /// # Errors
    /// When the system is out of memory, address space or descriptors; or when the process was
    /// forked while `fill` ran, for then somebody else could still write.
    pub fn filled(count: usize, fill: impl FnOnce(&mut [N])) -> Result<Self, BroadcastError> {
        let too_many = || io::Error::from(io::ErrorKind::OutOfMemory);
        count
            .checked_mul(size_of::<N>())
            .ok_or_else(too_many)
            .and_then(|bytes| {
                SharedMemory::filled::<N>(bytes, |bytes| {
                    // A mapping begins with a page, and is as long as was asked for.
                    fill(codec::as_numbers_mut(bytes).unwrap_or_default());
                })
            })
            .map(Self::of)
            .map_err(|error| BroadcastError::refused(&error))
    }
}

impl<T: Shareable + ?Sized> Deref for Broadcast<T> {
    type Target = T;

    /// # Panics
    /// When the value's type does not deserialise what it has serialised, in the process that has
    /// made the broadcast; elsewhere the handle would not have come to be.
    fn deref(&self) -> &T {
        match T::find(&self.memory, Reading::Here) {
            Ok(value) => value,
            Err(error) => panic!("the broadcast value cannot be read back: {error}"),
        }
    }
}

impl<T: Shareable + ?Sized> AsRef<T> for Broadcast<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized> Clone for Broadcast<T> {
    fn clone(&self) -> Self {
        Self {
            memory: self.memory.clone(),
            of: PhantomData,
        }
    }
}

impl<T: ?Sized> fmt::Debug for Broadcast<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast")
            .field("shared_bytes", &self.memory.len())
            .finish_non_exhaustive()
    }
}

const NOT_TO_ANYWHERE: &str = "a Broadcast is a handle of this process's memory, and goes only to \
     a pool's workers and back, in arguments and results; serialise the value that it derefs to";

impl<T: ?Sized> Serialize for Broadcast<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(HANDLE_TYPE_NAME, &Leaving(&self.memory))
    }
}

struct Leaving<'a>(&'a Arc<SharedMemory>);

impl Serialize for Leaving<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !handle_context::leave(self.0.clone()) {
            return Err(S::Error::custom(NOT_TO_ANYWHERE));
        }
        self.0.ticket().serialize(serializer)
    }
}

impl<'de, T: Shareable + ?Sized> Deserialize<'de> for Broadcast<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Arriving<T: ?Sized>(PhantomData<Box<T>>);

        impl<'de, T: Shareable + ?Sized> Visitor<'de> for Arriving<T> {
            type Value = Broadcast<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a Broadcast from a pool's parent")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Broadcast<T>, D::Error> {
                let arrival =
                    handle_context::arrival().ok_or_else(|| D::Error::custom(NOT_TO_ANYWHERE))?;
                let ticket = Ticket::deserialize(deserializer)?;
                let memory = SharedMemory::claim(&ticket, arrival.from_parent)
                    .and_then(|memory| memory.can_be::<T>().map(|()| memory))
                    .map_err(D::Error::custom)?;
                // Now, where an error is the task's and a panic is caught.
                T::find(&memory, Reading::Arriving(arrival)).map_err(D::Error::custom)?;
                Ok(Broadcast::of(memory))
            }
        }

        deserializer.deserialize_newtype_struct(HANDLE_TYPE_NAME, Arriving(PhantomData))
    }
}

const _: () = {
    const fn assert<T: Send + Sync + Unpin>() {}
    assert::<Broadcast<[f64]>>();
    assert::<Broadcast<str>>();
    assert::<Broadcast<Vec<String>>>();
};
