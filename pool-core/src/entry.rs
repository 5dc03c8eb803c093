//! How a function is known in another process.
//!
//! A call names its function by where the function's monomorphised entry lies in the main
//! executable, counted from the start of the executable's code. A worker runs the same
//! executable, wherever the loader put it, so the same number means the same function there. A
//! function from a shared library has no such number and is refused.
#![allow(unsafe_code)]

use std::any::type_name;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::worker::ChunkRun;

/// The number of a function, the same in every process that runs this executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry(u64);

/// What an entry is: it runs all the items of a chunk.
pub(crate) type EntryFn = fn(&mut ChunkRun<'_>);

impl Entry {
    /// The entry of a function that takes `A` and gives `R`.
    ///
    /// # Errors
    /// [`ForeignFunction`] when the function is not part of the main executable.
    #[inline]
    pub fn of<F, A, R>() -> Result<Self, ForeignFunction>
    where
        F: Fn(A) -> R + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let () = CapturesNothing::<F>::CHECK;
        let entry: EntryFn = |chunk| chunk.run_all::<F, A, R>(&conjure::<F>());
        let address = entry as usize;
        let code = main_code();
        if code.contains(&address) {
            Ok(Self((address - code.start) as u64))
        } else {
            Err(ForeignFunction {
                name: type_name::<F>(),
            })
        }
    }

    /// The number as it travels to the worker.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// The entry with this number; it came from the parent.
    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The function in this process. `None`: there is no code at that place.
    ///
    /// The number must come from [`Entry::of`] in a process that runs the same executable, which
    /// the bootstrap's build identity makes sure of; the check of the range keeps a torn number
    /// from becoming a jump out of the program.
    pub(crate) fn resolve(self) -> Option<EntryFn> {
        let code = main_code();
        let address = code.start.checked_add(usize::try_from(self.0).ok()?)?;
        if !code.contains(&address) {
            return None;
        }
        // SAFETY: the number was made by `of` from a function of this type in the same
        // executable (see above), so there is such a function at this address.
        Some(unsafe { std::mem::transmute::<*const (), EntryFn>(address as *const ()) })
    }
}

/// A function that is not part of the main executable cannot be named to another process.
#[derive(Debug, Clone, Copy)]
pub struct ForeignFunction {
    name: &'static str,
}

impl std::fmt::Display for ForeignFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the function {} lies outside the main executable (in a shared library?), where a \
             worker could not find it; call it from a function of the main executable and pass that",
            self.name
        )
    }
}

impl std::error::Error for ForeignFunction {}

/// Checks, when `F` is known, that a value of it is nothing but its type.
struct CapturesNothing<F>(PhantomData<F>);

impl<F> CapturesNothing<F> {
    const CHECK: () = assert!(
        size_of::<F>() == 0 && !std::mem::needs_drop::<F>(),
        "procpool: this function runs in another process, so it must be a function item or a closure \
         that captures nothing. \
         Pass what it captures as part of each argument instead: \
         `pool.map(|(x, k)| x * k, items.map(|x| (x, k)))`. \
         A function pointer (`fn(A) -> R`) does not work either: pass the function by its name."
    );
}

/// A value of a type that is nothing but its type.
fn conjure<F>() -> F {
    let () = CapturesNothing::<F>::CHECK;
    // SAFETY: `F` has no bytes (checked above, at compile time), so a read of it reads nothing;
    // and it has a value, for the caller of the pool had to pass one to name the type. It has no
    // destructor, so a second value of it does no harm.
    unsafe { std::ptr::dangling::<F>().read() }
}

/// Where the main executable's code is in this process.
pub(crate) fn main_code() -> &'static Range<usize> {
    // If the system does not say: then every function is refused, with a message. Pools have
    // asked before they were built.
    find_main_code().unwrap_or(&(0..0))
}

/// Finds out where the main executable's code is. That takes two descriptors, the first time.
pub(crate) fn find_main_code() -> io::Result<&'static Range<usize>> {
    static CODE: OnceLock<Range<usize>> = OnceLock::new();
    match CODE.get() {
        Some(code) => Ok(code),
        None => {
            let code = crate::sys::main_code()?;
            Ok(CODE.get_or_init(|| code))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(x: u64) -> u64 {
        x * 2
    }

    fn entry_of<F: Fn(u64) -> u64 + 'static>(_: F) -> Entry {
        Entry::of::<F, u64, u64>().expect("a function of this executable")
    }

    #[test]
    fn an_entry_resolves_to_itself() {
        let entry = entry_of(double);
        let resolved = Entry::from_number(entry.number()).resolve().expect("code");
        assert_eq!(
            resolved as usize - main_code().start,
            entry.number() as usize
        );
        assert_ne!(entry, entry_of(|x| x + 1));
    }

    #[test]
    fn a_number_outside_the_code_is_no_function() {
        let beyond = main_code().len() as u64;
        assert!(Entry::from_number(beyond).resolve().is_none());
        assert!(Entry::from_number(u64::MAX).resolve().is_none());
    }
}
