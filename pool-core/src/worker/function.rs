//! How a function is known in another process.
//!
//! A call names its function by where the function's monomorphised entry lies in the main
//! executable, counted from the start of the executable's code. A worker runs the same
//! executable, wherever the loader put it, so the same number means the same function there. A
//! function from a shared library has no such number and is refused.
#![allow(unsafe_code)]

use std::any::type_name;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ChunkRun;
use crate::process::code::main_code;

/// A function that can be named to another process that runs this executable.
#[derive(Clone, Copy)]
pub struct FunctionId(&'static Function);

/// What an entry is: it runs all the items of a chunk.
pub(crate) type EntryFn = fn(&mut ChunkRun<'_>);

/// What this process knows of a function; a reference to it is all that a chunk carries.
struct Function {
    run: EntryFn,
    name: fn() -> &'static str,
}

impl Function {
    const fn of<F, A, R>() -> &'static Self
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        const {
            &Self {
                run: |chunk| {
                    // SAFETY: this id comes from `FunctionId::of`, whose caller in the
                    // pool was given a value, or from its number, by the contract of `resolve`.
                    let function = unsafe { zst_value::<F>() };
                    chunk.run_all::<F, A, R>(&function);
                },
                name: type_name::<F>,
            }
        }
    }
}

impl FunctionId {
    /// The entry of a function that takes `A` and gives `R`. It wants to see the function, for
    /// there are types without a value.
    ///
    /// # Errors
    /// [`NotInExecutable`] when the function is not part of the main executable.
    #[inline]
    pub fn of<F, A, R>(_function: &F) -> Result<Self, NotInExecutable>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let () = CapturesNothing::<F>::CHECK;
        let entry = Self(Function::of::<F, A, R>());
        if main_code().contains(&entry.address()) {
            Ok(entry)
        } else {
            Err(NotInExecutable {
                name: type_name::<F>(),
            })
        }
    }

    fn address(self) -> usize {
        self.0.run as usize
    }

    /// The number as it travels to the worker: the same in every process that runs this executable.
    pub(crate) fn number(self) -> u64 {
        (self.address() - main_code().start) as u64
    }

    /// The function in this process.
    pub(crate) fn function(self) -> EntryFn {
        self.0.run
    }

    /// The path of the function, or of the place where the closure is.
    pub(crate) fn name(self) -> &'static str {
        (self.0.name)()
    }

    /// The function with a number that came from the parent. `None`: there is no code at that
    /// place.
    ///
    /// The check of the range keeps a torn number from becoming a jump out of the program.
    ///
    /// # Safety
    /// The number comes from [`number`](Self::number) in a process that runs the same executable.
    pub(crate) unsafe fn resolve(number: u64) -> Option<EntryFn> {
        let code = main_code();
        let address = code.start.checked_add(usize::try_from(number).ok()?)?;
        if !code.contains(&address) {
            return None;
        }
        // SAFETY: by the contract, there is a function of this type at this address.
        Some(unsafe { std::mem::transmute::<*const (), EntryFn>(address as *const ()) })
    }

    /// A function that does nothing.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn of_nothing() -> Self {
        fn entry<F: Fn(()) + Stateless>(_: F) -> FunctionId {
            FunctionId(Function::of::<F, (), ()>())
        }
        entry(|()| ())
    }
}

impl PartialEq for FunctionId {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for FunctionId {}

impl Hash for FunctionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

impl fmt::Debug for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FunctionId").field(&self.name()).finish()
    }
}

/// A function that is not part of the main executable cannot be named to another process.
#[derive(Debug, Clone, Copy)]
pub struct NotInExecutable {
    name: &'static str,
}

impl fmt::Display for NotInExecutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the function {} lies outside the main executable (in a shared library?), where a \
             worker could not find it; call it from a function of the main executable and pass that",
            self.name
        )
    }
}

impl std::error::Error for NotInExecutable {}

/// A function that can run in another process: a function item, or a closure that captures nothing.
///
/// A worker makes the function from its type alone, so there must be nothing else to it. That is
/// checked in two steps, both at compile time. This trait stands for `Copy + Send + Sync +
/// 'static`, which every function item and every closure without captures is; it need not and
/// cannot be implemented. And when the call is compiled, the function must have no bytes.
///
/// # Captures without bytes
/// What has no bytes passes the second step, and some such values prove something: that they were
/// made on this thread, or that there is only one of them. `Copy`, `Send` and `Sync` refuse these.
/// One kind remains, which Rust cannot distinguish from a closure without captures: a `move`
/// closure can capture a token that is `Copy + Send + Sync` and proves that this *process* has done
/// something, for instance that it has initialised a library. The closure then has that token in
/// a process that may not have done so. A token that is trusted by `unsafe` code must therefore
/// not be captured: make it where it is used, in the task or in the
/// [initializer](crate::PoolBuilder::initializer). What is captured with bytes never compiles.
///
/// ```compile_fail,E0277
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// let prefix = String::from("no. ");
/// // The error says: pass what it captures as part of each argument instead.
/// SerialPool::new().map(move |n: u64| format!("{prefix}{n}"), 0..3);
/// ```
#[diagnostic::on_unimplemented(
    message = "the function runs in another process, so it must be a function item or a closure \
               that captures nothing",
    label = "this captures something, or may do so",
    note = "pass what it captures as part of each argument instead: \
            `pool.map(|(x, k)| x * k, items.map(|x| (x, k)))`",
    note = "a function must be `Copy + Send + Sync + 'static`, which all functions without captures are"
)]
pub trait Stateless: Copy + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<F: Copy + Send + Sync + 'static> Stateless for F {}

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
///
/// What Rust could say of a function and does not: that it captures nothing. `fn(A) -> R` as the
/// parameter's type would say so, since only such closures become one; but it would cost each item
/// a call that cannot be inlined, the functions' names in every report, and closures that call
/// another function without bytes (`move |x| f(x) + 1`), and a function pointer can be handed out
/// as a proof as well as any value.
///
/// # Safety
/// The caller of a pool has passed a value of `F`, in this process or in the parent that runs the
/// same executable.
unsafe fn zst_value<F: Stateless>() -> F {
    let () = CapturesNothing::<F>::CHECK;
    // SAFETY: `F` has no bytes (checked above, at compile time), so a read of it reads nothing.
    // It has a value, by the contract. In the process where that was passed, this is a copy of it
    // (`F: Copy`) on a thread that may have one (`F: Send`). In a worker it is what a copy of the
    // whole process would have: a value that means anything only by what it means to this process'
    // state is excluded by the rule in the documentation of `Stateless`.
    unsafe { std::ptr::dangling::<F>().read() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(x: u64) -> u64 {
        x * 2
    }

    fn entry_of<F: Fn(u64) -> u64 + Stateless>(function: F) -> FunctionId {
        FunctionId::of::<F, u64, u64>(&function).expect("a function of this executable")
    }

    #[test]
    fn an_entry_resolves_to_itself() {
        let entry = entry_of(double);
        // SAFETY: the number is from this very process.
        let resolved = unsafe { FunctionId::resolve(entry.number()) }.expect("code");
        assert_eq!(
            resolved as usize - main_code().start,
            entry.number() as usize
        );
        assert_ne!(entry, entry_of(|x| x + 1));
    }

    #[test]
    fn an_entry_knows_its_name() {
        assert!(entry_of(double).name().ends_with("tests::double"));
        let closure = entry_of(|x| x + 1);
        assert!(
            closure
                .name()
                .ends_with("an_entry_knows_its_name::{{closure}}")
        );
    }

    #[test]
    fn a_number_outside_the_code_is_no_function() {
        let beyond = main_code().len() as u64;
        for number in [beyond, u64::MAX] {
            // SAFETY: there is no code at either, so neither becomes a function.
            assert!(unsafe { FunctionId::resolve(number) }.is_none());
        }
    }
}
