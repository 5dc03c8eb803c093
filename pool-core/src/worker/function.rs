//! How a function is known in another process.
//!
//! For each function that is passed to a pool, the *object* that the crate is linked into (the main
//! executable, or a shared object such as a Python extension) has a constant, a [`Function`], which
//! points to the function's monomorphised entry. A call names its function by where that constant
//! lies, counted from the start of the object's code. Another process has the same object, wherever
//! the loader put it, so the same number means the same function there. That it is the same, each
//! worker proves before it is given a number: a region says of which
//! [build](crate::build_identity) its parent is.
//!
//! One process may have several objects with a copy of the crate in each, a program and its
//! plugins. Each copy has a [`SEAL`] of its own, and knows only the functions that point to it.
//!
//! Functions of other objects than the crate's (those of a program that has the crate by way of a
//! Rust `dylib`) are named by a tag of their object, which is made of its content, and the place in
//! it. A worker that has no object with that tag runs [`Missing`] in place of the function.
//!
//! A number from another process is checked before it means anything: it must lead to a constant
//! of an object that has the seal's address and the mark, which no other constant has.
//! Whoever forges a number can choose among the functions of calls of this copy of the crate, and
//! nothing else.
#![allow(unsafe_code)]

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use super::ChunkRun;
use super::arguments::Emits;
use super::name::name_of;
use crate::process::code::{other_image_of, other_image_with, own_image};
use crate::sys::{Image, OtherImage};

/// A function that can be named to another process that runs this program, or has loaded this
/// shared object.
#[derive(Clone, Copy)]
pub struct FunctionId(&'static Function);

/// What an entry is: it runs all the items of a chunk.
pub(crate) type EntryFn = fn(&mut ChunkRun<'_>);

/// What this process knows of a function; a reference to it is all that a chunk carries.
#[repr(C)]
struct Function {
    /// What it is recognised by. In a copy of an object that is part of this one as mere data, or
    /// loaded a second time, the address would be another one.
    seal: &'static Seal,
    mark: [u64; 2],
    run: EntryFn,
    name: fn() -> &'static str,
    /// It is no function of the user's, but one that the crate has workers run.
    is_own: bool,
}

/// Something whose address only this program's own constants can have.
struct Seal(#[allow(dead_code, reason = "it is there for its address")] u64);

static SEAL: Seal = Seal(MARK[0]);

/// A number drawn by lot.
const MARK: [u64; 2] = [0x9c41_6df0_57a2_e38b, 0x2e7b_d815_c96f_043a];

impl Function {
    const fn of<F, A, R, const IS_OWN: bool>() -> &'static Self
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        const {
            &Self {
                seal: &SEAL,
                mark: MARK,
                run: |chunk| {
                    // SAFETY: this id comes from `FunctionId::of`, whose caller in the
                    // pool was given a value, or from its number. That leads to a constant that is
                    // there for a call of `FunctionId::of` alone.
                    let function = unsafe { zst_value::<F>() };
                    chunk.run_all::<F, A, R>(&function);
                },
                name: name_of::<F>,
                is_own: IS_OWN,
            }
        }
    }

    /// That of a function which emits values of the type `Y`.
    const fn of_stream<F, A, Y, R, K>() -> &'static Self
    where
        F: Emits<A, Y, R, K> + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        Y: 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        const {
            &Self {
                seal: &SEAL,
                mark: MARK,
                run: |chunk| {
                    // SAFETY: as in `of`; the constant is there for a call of
                    // `FunctionId::of_stream` alone.
                    let function = unsafe { zst_value::<F>() };
                    chunk.run_stream::<F, A, Y, R, K>(&function);
                },
                name: name_of::<F>,
                is_own: false,
            }
        }
    }
}

impl FunctionId {
    /// The entry of a function that takes `A` and gives `R`. It wants to see the function, for
    /// there are types without a value.
    ///
    /// # Errors
    /// [`NotInObject`] when the loader does not know the object that the function is in.
    #[inline]
    pub fn of<F, A, R>(_function: &F) -> Result<Self, NotInObject>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        Self::checked::<F, A, R, false>()
    }

    /// The same of a function of this crate's, which no chunk from elsewhere can name.
    pub(crate) fn of_own<F, A, R>(_function: &F) -> Result<Self, NotInObject>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        Self::checked::<F, A, R, true>()
    }

    #[inline]
    fn checked<F, A, R, const IS_OWN: bool>() -> Result<Self, NotInObject>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let () = CapturesNothing::<F>::CHECK;
        Self(Function::of::<F, A, R, IS_OWN>()).located()
    }

    /// The entry of a function that takes `A`, emits values of the type `Y` and gives `R`. An item
    /// of it is how many values may be underway, a `u32`, and the argument.
    pub(crate) fn of_stream<F, A, Y, R, K>(_function: &F) -> Result<Self, NotInObject>
    where
        F: Emits<A, Y, R, K> + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        Y: 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let () = CapturesNothing::<F>::CHECK;
        Self(Function::of_stream::<F, A, Y, R, K>()).located()
    }

    /// The same, if it is where another process finds it.
    #[inline]
    fn located(self) -> Result<Self, NotInObject> {
        if self.is_in(own_image()) || self.is_elsewhere() {
            Ok(self)
        } else {
            Err(NotInObject { name: self.name() })
        }
    }

    fn is_in(self, image: &Image) -> bool {
        let record = ptr::from_ref(self.0).addr();
        image.code.contains(&self.address()) && image.span.contains(&record)
    }

    /// Whether it is in an object for which there are numbers, and which is not the own one.
    #[cold]
    fn is_elsewhere(self) -> bool {
        let record = ptr::from_ref(self.0).addr();
        let other = other_image_with(record).filter(|it| self.is_in(&it.image));
        other.is_some_and(|it| number_elsewhere(it, record).is_some())
    }

    fn address(self) -> usize {
        self.0.run as usize
    }

    /// Its number, which is the same in every process that has this object: one with the same
    /// [`build_id`](crate::build_id).
    #[must_use]
    pub fn number(self) -> u64 {
        let record = ptr::from_ref(self.0).expose_provenance();
        let own = own_image();
        if own.span.contains(&record) {
            return record.wrapping_sub(own.code.start) as u64;
        }
        let other = other_image_with(record);
        // There is one, or there would be no value of this type; and this is no function's number.
        other
            .and_then(|it| number_elsewhere(it, record))
            .unwrap_or(0)
    }

    /// The function with this number. `None`: no call in this program is of a function with it.
    ///
    /// The number may come from anywhere. Under another [`build_id`](crate::build_id) it may be
    /// that of another function, or of none.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::resolve(number).filter(|it| !it.0.is_own)
    }

    /// The same for a worker, which also runs functions of this crate's.
    pub(crate) fn resolve(number: u64) -> Option<Self> {
        if is_elsewhere(number) {
            return Self::resolve_elsewhere(number);
        }
        let image = own_image();
        let address = image.code.start.wrapping_add(usize::try_from(number).ok()?);
        Self::at(address, image)
    }

    #[cold]
    fn resolve_elsewhere(number: u64) -> Option<Self> {
        let other = other_image_of(number << 2 >> (u64::BITS - OtherImage::TAG_BITS))?;
        let place = number & ((1 << PLACE_BITS) - 1);
        let distance = usize::try_from(place).ok()?.checked_mul(PLACE_UNIT)?;
        Self::at(other.image.span.start.checked_add(distance)?, &other.image)
    }

    /// The function whose constant is at this address, in this image of an object that is never
    /// unloaded. `None`: that is none of ours.
    fn at(address: usize, image: &Image) -> Option<Self> {
        let end = address.checked_add(size_of::<Function>())?;
        let is_inside = |range: &Range<usize>| range.start <= address && end <= range.end;
        if !address.is_multiple_of(align_of::<Function>()) || !image.constants.iter().any(is_inside)
        {
            return None;
        }
        let words = ptr::with_exposed_provenance::<u64>(address);
        // SAFETY: it is aligned, and as many bytes as a `Function` has are readable from there:
        // they lie in a segment of the object, which stays loaded. Nobody writes them (volatile,
        // since in a program that was linked without unwritable tables somebody might).
        let [seal, first, second] = [0, 1, 2].map(|at| unsafe { words.add(at).read_volatile() });
        if seal != ptr::from_ref(&SEAL).addr() as u64 || [first, second] != MARK {
            return None;
        }
        // SAFETY: only a `Function` has the address of the seal, which is private to this file,
        // with the mark behind it; and each of them is a constant of its object, which is never
        // unloaded.
        let function = unsafe { &*ptr::with_exposed_provenance::<Function>(address) };
        image
            .code
            .contains(&(function.run as usize))
            .then_some(Self(function))
    }

    /// What runs in place of the function with this number, if that is in an object that this
    /// process has not loaded.
    pub(crate) fn missing(number: u64) -> Option<Self> {
        fn entry<F: Fn(Missing) + Stateless>(_: F) -> FunctionId {
            FunctionId(Function::of::<F, Missing, (), true>())
        }
        is_elsewhere(number).then(|| entry(|_| ()))
    }

    /// The function in this process.
    pub(crate) fn function(self) -> EntryFn {
        self.0.run
    }

    /// The path of the function, or of the place where the closure is.
    #[must_use]
    pub fn name(self) -> &'static str {
        (self.0.name)()
    }

    /// A function that does nothing.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn of_nothing() -> Self {
        fn entry<F: Fn(()) + Stateless>(_: F) -> FunctionId {
            FunctionId(Function::of::<F, (), (), false>())
        }
        entry(|()| ())
    }
}

/// The argument of a function that is not there: no bytes are one.
#[derive(Serialize)]
enum Missing {}

impl<'de> Deserialize<'de> for Missing {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(
            "the function is in a shared object that this worker has not loaded: load it before \
             the fork server starts, in the initializer, or as a dependency of the program",
        ))
    }
}

/// Which numbers are of functions in other objects: those that begin with these two bits. (Of a
/// distance in the own object, the first two bits are equal.) The object's tag follows, and the
/// place in it.
const ELSEWHERE: u64 = 0b01 << 62;
const PLACE_BITS: u32 = u64::BITS - 2 - OtherImage::TAG_BITS;
/// Places are counted in these.
const PLACE_UNIT: usize = align_of::<Function>();

fn is_elsewhere(number: u64) -> bool {
    number >> 62 == ELSEWHERE >> 62
}

/// The number of the function whose constant is at this address of another object. `None`: it is
/// too far from its beginning.
fn number_elsewhere(other: &OtherImage, record: usize) -> Option<u64> {
    let place = record.checked_sub(other.image.span.start)? / PLACE_UNIT;
    let place = u64::try_from(place).ok()?;
    (place >> PLACE_BITS == 0).then_some(ELSEWHERE | other.tag << PLACE_BITS | place)
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

/// A function in an object that the loader does not know cannot be named to another process.
#[derive(Debug, Clone, Copy)]
pub struct NotInObject {
    name: &'static str,
}

impl fmt::Display for NotInObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the function {} is in no object that the loader knows, so a worker could not find it",
            self.name
        )
    }
}

impl std::error::Error for NotInObject {}

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
/// // The error says: give it what it captures as the context of the call.
/// SerialPool::new().map(move |n: u64| format!("{prefix}{n}"), 0..3);
/// ```
#[diagnostic::on_unimplemented(
    message = "the function runs in another process, so it must be a function item or a closure \
               that captures nothing",
    label = "this captures something, or may do so",
    note = "give it what it captures as the context of the call: \
            `pool.call(|k: &u64, x: u64| x * k).context(k).map(items)`",
    note = "a function must be `Copy + Send + Sync + 'static`, which all functions without \
            captures are"
)]
pub trait Stateless: Copy + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<F: Copy + Send + Sync + 'static> Stateless for F {}

/// For public methods: the compiler then names the line that calls them.
pub const fn assert_captures_nothing<F>() {
    CapturesNothing::<F>::CHECK
}

/// Checks, when `F` is known, that a value of it is nothing but its type.
struct CapturesNothing<F>(PhantomData<F>);

impl<F> CapturesNothing<F> {
    const CHECK: () = assert!(
        size_of::<F>() == 0 && !std::mem::needs_drop::<F>(),
        "procpool: this function runs in another process, so it must be a function item or a \
         closure that captures nothing. \
         Give it what it captures as the context of the call: \
         `pool.call(|k: &u64, x: u64| x * k).context(k).map(items)`. \
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
/// The caller of a pool has passed a value of `F`, in this process or in the parent that has the
/// same object.
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
    use crate::process::code::own_code;

    fn double(x: u64) -> u64 {
        x * 2
    }

    fn entry_of<F: Fn(u64) -> u64 + Stateless>(function: F) -> FunctionId {
        FunctionId::of::<F, u64, u64>(&function).expect("a function of this program")
    }

    #[test]
    fn a_number_means_its_function() {
        let entry = entry_of(double);
        let found = FunctionId::from_number(entry.number()).expect("its own number");
        assert_eq!(found, entry);
        assert!(found.name().ends_with("tests::double"));
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

    /// Numbers of code, of other constants, of variables, of nothing, and beside the right one.
    #[test]
    fn a_number_that_is_no_functions_is_refused() {
        let entry = entry_of(double);
        let start = own_code().start;
        for number in [
            0,
            1,
            u64::MAX,
            own_code().len() as u64,
            entry.address() as u64,
        ] {
            assert_eq!(FunctionId::from_number(number), None, "{number}");
        }
        static VARIABLE: std::sync::Mutex<[u64; 5]> = std::sync::Mutex::new([0; 5]);
        let places = [
            entry.address(),
            ptr::from_ref(&SEAL).addr(),
            ptr::from_ref("text").addr(),
            ptr::from_ref(&VARIABLE).addr(),
        ];
        for place in places {
            let number = place.wrapping_sub(start) as u64;
            assert_eq!(FunctionId::from_number(number), None, "{number}");
        }
        for beside in 1..=64 {
            for number in [entry.number() - beside, entry.number() + beside] {
                let found = FunctionId::from_number(number);
                // The table of another function may lie there.
                assert!(found.is_none_or(|it| it != entry), "{number}");
            }
        }
    }

    /// Every word of the executable is tried: only what calls in it are of is found.
    #[test]
    fn nothing_of_the_executable_is_mistaken_for_a_function() {
        let entry = entry_of(double);
        let start = own_code().start;
        let mut found = Vec::new();
        for range in &own_image().constants {
            for place in range.clone().step_by(8) {
                found.extend(FunctionId::from_number(place.wrapping_sub(start) as u64));
            }
        }
        assert!(found.contains(&entry));
        for function in &found {
            assert!(own_code().contains(&function.address()));
            assert!(!function.name().is_empty());
        }
    }

    /// As a program has it whose functions are in another object than the crate.
    #[test]
    fn a_function_elsewhere_has_a_number() {
        let entry = entry_of(double);
        let record = ptr::from_ref(entry.0).expose_provenance();
        // Its own object is one that has it, too.
        let object = other_image_with(record).expect("this program");
        let number = number_elsewhere(object, record).expect("it is near");
        assert!(is_elsewhere(number) && !is_elsewhere(entry.number()));
        assert_eq!(FunctionId::from_number(number), Some(entry));
        assert!(entry.is_elsewhere());
        // Of another object, or beside it in this one, nothing is found.
        for wrong in [
            1 << PLACE_BITS,
            1 << (PLACE_BITS + 20),
            1,
            1 << (PLACE_BITS - 1),
        ] {
            let found = FunctionId::from_number(number ^ wrong);
            assert!(found.is_none_or(|it| it != entry), "{wrong:x}");
        }
        assert_eq!(FunctionId::from_number(ELSEWHERE), None);
        assert_eq!(FunctionId::from_number(ELSEWHERE | (ELSEWHERE - 1)), None);
        assert!(FunctionId::missing(ELSEWHERE).is_some());
        assert!(FunctionId::missing(entry.number()).is_none());
        // What is far from the beginning of its object has none.
        let far = object.image.span.start + (PLACE_UNIT << PLACE_BITS);
        assert_eq!(number_elsewhere(object, far), None);
        assert!(number_elsewhere(object, far - PLACE_UNIT).is_some());
    }

    /// A worker's settings are no task.
    #[test]
    fn what_the_crate_has_workers_run_is_no_function_of_a_call() {
        let own = crate::worker::Settings::entry().expect("it is of this executable");
        assert_eq!(FunctionId::resolve(own.number()), Some(own));
        assert_eq!(FunctionId::from_number(own.number()), None);
    }

    /// What looks like one, but for the address of the seal.
    #[test]
    fn a_copy_of_a_table_is_no_function() {
        static FALSE: Seal = Seal(1);
        static FORGED: Function = Function {
            seal: &FALSE,
            mark: MARK,
            run: |_| unreachable!("nobody calls it"),
            name: || "forged",
            is_own: false,
        };
        let place = ptr::from_ref(&FORGED).addr();
        let number = place.wrapping_sub(own_code().start) as u64;
        assert_eq!(FunctionId::from_number(number), None);
    }
}
