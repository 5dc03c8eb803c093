//! What a function takes behind its context or its state: an argument, or an argument and an
//! emitter. So one `context` and one `state` are for both.

use std::marker::PhantomData;

use super::emitter::Emitter;

/// What a function takes behind its context or its state: [`Argument`] or [`AndEmitter`]. The
/// compiler sees which from the function.
pub trait Arguments {
    /// As they are passed.
    type Of<'e>;
    /// What a call of such a function gives, if one of a function of the argument alone gives `M`.
    type Mode<M>;
}

/// An argument alone.
#[derive(Debug)]
pub struct Argument<A>(PhantomData<fn(A)>);

impl<A> Arguments for Argument<A> {
    type Of<'e> = A;
    type Mode<M> = M;
}

/// An argument, and what values are emitted by.
#[derive(Debug)]
pub struct AndEmitter<A, Y>(PhantomData<fn(A, Y)>);

impl<A, Y: 'static> Arguments for AndEmitter<A, Y> {
    type Of<'e> = (A, &'e Emitter<Y>);
    type Mode<M> = Emitting<M>;
}

/// Values, and then a result: what a call gives whose function has an emitter behind its context
/// or its state. [`stream`](crate::Call::stream) is its verb.
#[derive(Debug)]
pub struct Emitting<M>(PhantomData<fn() -> M>);

/// A function that takes a context, and behind it what `In` says: a `Fn(&C, A) -> R`, or a
/// `Fn(&C, A, &Emitter<Y>) -> R`. It need not and cannot be implemented.
///
/// ```compile_fail,E0277
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// // The error says: the function cannot be called with a context of the type `String`.
/// SerialPool::new().call(|k: &u64, x: u64| k * x).context(String::new());
/// ```
///
/// ```compile_fail,E0599
/// # use procpool_core as procpool;
/// use procpool::{Emitter, Pool, SerialPool};
///
/// // The error says: there is no `map` for a call that is `Emitting`.
/// let call = SerialPool::new().call(|k: &u64, x: u64, out: &Emitter<u64>| k * x);
/// call.context(3).map([1, 2]);
/// ```
#[diagnostic::on_unimplemented(
    message = "the function cannot be called with a context of the type `{C}`",
    label = "it takes something else",
    note = "it must be a `Fn(&{C}, A) -> R`; or, for `stream`, a \
            `Fn(&{C}, A, &Emitter<Y>) -> R`"
)]
pub trait TakesContext<C, In: Arguments, R> {
    #[doc(hidden)]
    fn call_with(&self, context: &C, arguments: In::Of<'_>) -> R;
}

#[diagnostic::do_not_recommend]
impl<F, C, A, R> TakesContext<C, Argument<A>, R> for F
where
    F: Fn(&C, A) -> R,
{
    #[inline(always)]
    fn call_with(&self, context: &C, argument: A) -> R {
        self(context, argument)
    }
}

#[diagnostic::do_not_recommend]
impl<F, C, A, Y, R> TakesContext<C, AndEmitter<A, Y>, R> for F
where
    F: Fn(&C, A, &Emitter<Y>) -> R,
    Y: 'static,
{
    fn call_with(&self, context: &C, (argument, out): (A, &Emitter<Y>)) -> R {
        self(context, argument, out)
    }
}

/// A function that takes a state, and behind it what `In` says: a `Fn(&mut S, A) -> R`, or a
/// `Fn(&mut S, A, &Emitter<Y>) -> R`. It need not and cannot be implemented.
///
/// ```compile_fail,E0277
/// # use procpool_core as procpool;
/// use procpool::{Emitter, Pool, SerialPool};
///
/// // The error says: it must be a `Fn(&mut u64, A, &Emitter<Y>) -> R`.
/// let call = SerialPool::new().call(|out: &Emitter<u64>, state: &mut u64, x: u64| x);
/// call.state(|| 0_u64);
/// ```
#[diagnostic::on_unimplemented(
    message = "the function cannot be called with a state of the type `{S}`",
    label = "it takes something else",
    note = "it must be a `Fn(&mut {S}, A) -> R`; or, for `stream`, a \
            `Fn(&mut {S}, A, &Emitter<Y>) -> R`"
)]
pub trait TakesState<S, In: Arguments, R> {
    #[doc(hidden)]
    fn call_with(&self, state: &mut S, arguments: In::Of<'_>) -> R;
}

#[diagnostic::do_not_recommend]
impl<F, S, A, R> TakesState<S, Argument<A>, R> for F
where
    F: Fn(&mut S, A) -> R,
{
    #[inline(always)]
    fn call_with(&self, state: &mut S, argument: A) -> R {
        self(state, argument)
    }
}

#[diagnostic::do_not_recommend]
impl<F, S, A, Y, R> TakesState<S, AndEmitter<A, Y>, R> for F
where
    F: Fn(&mut S, A, &Emitter<Y>) -> R,
    Y: 'static,
{
    fn call_with(&self, state: &mut S, (argument, out): (A, &Emitter<Y>)) -> R {
        self(state, argument, out)
    }
}

/// A function that emits values; `K` says how it takes the emitter.
pub(crate) trait Emits<A, Y, R, K> {
    fn call(&self, argument: A, out: &Emitter<Y>) -> R;
}

/// Behind the argument: the user's own.
pub(crate) enum Behind {}

impl<F, A, Y, R> Emits<A, Y, R, Behind> for F
where
    F: Fn(A, &Emitter<Y>) -> R,
{
    fn call(&self, argument: A, out: &Emitter<Y>) -> R {
        self(argument, out)
    }
}

/// With the argument, as [`AndEmitter`] is passed: one that was given a context or a state.
pub(crate) enum Within {}

impl<F, A, Y, R> Emits<A, Y, R, Within> for F
where
    F: Fn((A, &Emitter<Y>)) -> R,
{
    fn call(&self, argument: A, out: &Emitter<Y>) -> R {
        self((argument, out))
    }
}
