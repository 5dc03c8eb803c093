//! What a function keeps in a worker from one item to the next.
//!
//! A state belongs to the thread that runs items, and is found by the type of the function that has
//! made it. In a worker there is one such thread. A pool that runs items in the threads of its
//! callers gives itself a [`Scope`], so that two such pools do not share states.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::arguments::{Arguments, TakesState};
use super::context::{self, Identity};
use crate::panic::catch::drop_quietly;

thread_local! {
    static STATES: States = const { States(RefCell::new(Vec::new())) };
    static SCOPE: Cell<u64> = const { Cell::new(0) };
    /// A maker has begun and not returned.
    static IS_MAKING: Cell<bool> = const { Cell::new(false) };
}

/// In the order in which they were made first.
struct States(RefCell<Vec<Entry>>);

struct Entry {
    key: Key,
    /// The context that it was made from, if it was made from one.
    of: Option<Identity>,
    /// `None` while a function has it, and when one has lost it by a panic.
    state: Option<Box<dyn Any>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    maker: TypeId,
    scope: u64,
}

/// Whose states are used: those of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope(u64);

impl Scope {
    /// One that there was not before. That of workers is none of these.
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs items in it.
    pub(crate) fn run<R>(self, body: impl FnOnce() -> R) -> R {
        struct Back(u64);
        impl Drop for Back {
            fn drop(&mut self) {
                SCOPE.set(self.0);
            }
        }
        let _back = Back(SCOPE.replace(self.0));
        body()
    }

    /// Drops this thread's states of it.
    pub(crate) fn drop_states(self) {
        // In the destructor of another thread-local there may be none any more.
        let _ = STATES.try_with(|states| states.drop_all(|key| key.scope == self.0));
    }
}

/// The same function with a state, which `make` makes before the first item.
pub(crate) fn stateful<F, G, S, In, R>(
    function: F,
    make: G,
) -> impl for<'e> Fn(In::Of<'e>) -> R + Copy + Send + Sync + 'static
where
    F: TakesState<S, In, R> + Copy + Send + Sync + 'static,
    G: Fn() -> S + Copy + Send + Sync + 'static,
    S: 'static,
    In: Arguments,
{
    move |arguments: In::Of<'_>| {
        let make = || making(make);
        with_state(None, TypeId::of::<G>(), make, |state| {
            function.call_with(state, arguments)
        })
    }
}

/// The same with a state that `make` makes of the call's context. It is made anew when a call with
/// another context comes.
pub(crate) fn stateful_from<F, G, C, S, In, R>(
    function: F,
    make: G,
) -> impl for<'e> Fn(In::Of<'e>) -> R + Copy + Send + Sync + 'static
where
    F: TakesState<S, In, R> + Copy + Send + Sync + 'static,
    G: Fn(&C) -> S + Copy + Send + Sync + 'static,
    C: Serialize + DeserializeOwned + Send + Sync + 'static,
    S: 'static,
    In: Arguments,
{
    move |arguments: In::Of<'_>| {
        let of = context::identity();
        let make = || {
            let context = context::current::<C>();
            making(|| make(&context))
        };
        with_state(of, TypeId::of::<G>(), make, |state| {
            function.call_with(state, arguments)
        })
    }
}

#[inline]
fn with_state<S: 'static, R>(
    of: Option<Identity>,
    maker: TypeId,
    make: impl FnOnce() -> S,
    function: impl FnOnce(&mut S) -> R,
) -> R {
    let scope = SCOPE.get();
    let key = Key { maker, scope };
    let mut state = STATES
        .with(|states| states.take(key, of.as_ref()))
        .unwrap_or_else(|| Box::new(make()));
    let kept = state.downcast_mut().expect("a maker makes one type");
    let result = function(kept);
    let replaced = STATES.with(|states| states.put(key, of, state));
    // The function has called itself, through a `SerialPool`.
    drop(replaced);
    result
}

fn making<S>(make: impl FnOnce() -> S) -> S {
    IS_MAKING.set(true);
    let state = make();
    IS_MAKING.set(false);
    state
}

/// Whether it was a maker that has just panicked.
pub(super) fn has_maker_panicked() -> bool {
    IS_MAKING.replace(false)
}

/// Drops the states of this thread, for the worker leaves in good order.
pub(super) fn drop_all() {
    STATES.with(|states| states.drop_all(|_| true));
}

impl States {
    /// The state, unless it is of another context: then that is dropped.
    fn take(&self, key: Key, of: Option<&Identity>) -> Option<Box<dyn Any>> {
        let mut entries = self.0.borrow_mut();
        let entry = entries.iter_mut().find(|entry| entry.key == key)?;
        let state = entry.state.take();
        if entry.of.as_ref() == of {
            return state;
        }
        // The user's destructor may use states itself.
        drop(entries);
        drop(state);
        None
    }

    fn put(&self, key: Key, of: Option<Identity>, state: Box<dyn Any>) -> Option<Box<dyn Any>> {
        let mut entries = self.0.borrow_mut();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) {
            entry.of = of;
            return entry.state.replace(state);
        }
        let state = Some(state);
        entries.push(Entry { key, of, state });
        None
    }

    /// What was made last may refer to what was there before, so it goes first. A destructor may
    /// panic, and may use states itself.
    fn drop_all(&self, which: impl Fn(Key) -> bool) {
        loop {
            let mut entries = self.0.borrow_mut();
            let Some(last) = entries.iter().rposition(|entry| which(entry.key)) else {
                break;
            };
            let entry = entries.remove(last);
            drop(entries);
            // The hook prints it: no caller would hear of it.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(entry))) {
                drop_quietly(payload);
            }
        }
    }
}

/// The thread ends.
impl Drop for States {
    fn drop(&mut self) {
        self.drop_all(|_| true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static DROPPED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    struct Noisy(&'static str, u64);

    impl Drop for Noisy {
        fn drop(&mut self) {
            // At the end of the thread it may be gone.
            let _ = DROPPED.try_with(|dropped| dropped.borrow_mut().push(self.0));
            assert_ne!(self.0, "second", "it panics when it is dropped");
        }
    }

    fn first() -> Noisy {
        Noisy("first", 0)
    }

    fn second() -> Noisy {
        Noisy("second", 0)
    }

    fn third() -> Noisy {
        Noisy("third", 0)
    }

    fn count(state: &mut Noisy, by: u64) -> u64 {
        state.1 += by;
        state.1
    }

    #[test]
    fn each_maker_has_its_own_and_the_last_goes_first() {
        let (one, two, three) = (
            stateful(count, first),
            stateful(count, second),
            stateful(count, third),
        );
        assert_eq!((one(1), two(5), one(1), three(9), two(5)), (1, 5, 2, 9, 10));
        drop_all();
        assert_eq!(DROPPED.take(), ["third", "second", "first"]);
        assert_eq!(one(1), 1, "it is made again");
    }

    #[test]
    fn scopes_share_nothing() {
        let counting = stateful(count, first);
        let (one, two) = (Scope::new(), Scope::new());
        assert_eq!(one.run(|| counting(1)), 1);
        assert_eq!(two.run(|| counting(1)), 1);
        assert_eq!(one.run(|| counting(1)), 2);
        assert_eq!(counting(1), 1);
        one.drop_states();
        assert_eq!(DROPPED.take(), ["first"]);
        assert_eq!(two.run(|| counting(1)), 2);
    }

    #[test]
    fn a_panic_loses_the_state() {
        fn wrong(state: &mut Noisy, by: u64) -> u64 {
            state.1 += by;
            assert_ne!(state.1, 2, "it is two");
            state.1
        }
        let counting = stateful(wrong, first);
        assert_eq!(counting(1), 1);
        let panicked = std::panic::catch_unwind(|| counting(1));
        assert!(panicked.is_err() && !has_maker_panicked());
        assert_eq!(counting(1), 1, "it is made again");
    }

    #[test]
    fn a_maker_that_panics_is_known() {
        let never = stateful(count, || -> Noisy { panic!("no") });
        for _ in 0..2 {
            let panicked = std::panic::catch_unwind(|| never(1));
            assert!(panicked.is_err() && has_maker_panicked());
            assert!(!has_maker_panicked(), "it is said once");
        }
    }

    #[test]
    fn a_function_may_run_inside_itself() {
        fn nested(state: &mut Noisy, depth: u64) -> u64 {
            state.1 += 1;
            if depth > 0 {
                stateful(nested, first)(depth - 1);
            }
            state.1
        }
        assert_eq!(stateful(nested, first)(3), 1);
        assert_eq!(stateful(nested, first)(0), 2, "the outermost stays");
    }
}
