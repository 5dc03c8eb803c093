//! The functions that are called, with their arguments and what they must answer.

use procpool::TaskError;
use rustix::process::{Resource, getrlimit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::action::{self, Deed};
use super::load::{Load, Trap};

/// One item of a call.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Its number in the whole run; 0 if nobody counts its runs.
    pub(crate) id: u64,
    /// Its place in its call.
    pub(crate) index: usize,
    pub(crate) deed: Deed,
    /// How many bytes it carries there,
    pub(crate) bytes: usize,
    /// and back.
    pub(crate) reply_bytes: usize,
}

/// A function with its types.
pub(crate) trait Job: 'static {
    type Argument: Serialize + DeserializeOwned + Send + 'static;
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    const NAME: &str;
    /// Whether it does deeds; other jobs are harmless.
    const HAS_DEEDS: bool;

    /// The function.
    fn run(argument: Self::Argument) -> Self::Answer;

    /// The argument of an item.
    fn argument(item: &Item) -> Self::Argument;

    /// Whether this is the item's answer, in a pool whose initializer leaves this token.
    fn check(item: &Item, answer: &Self::Answer, token: u64) -> Result<(), String>;

    /// Which item this answers, where the answer says so.
    fn index(answer: &Self::Answer) -> Option<usize>;

    /// What went wrong in a pool of the item's own.
    fn nested_failure(_: &Self::Answer) -> Option<NestedFailure<'_>> {
        None
    }
}

/// A pool of an item's own that has failed.
pub(crate) struct NestedFailure<'a> {
    pub(crate) why: &'a str,
    /// Whose pool it was.
    pub(crate) pid: u32,
    /// How many descriptors that worker may have.
    pub(crate) descriptors: Option<u64>,
}

/// What became of an item.
pub(crate) type Outcome<J> = Result<<J as Job>::Answer, TaskError>;

/// Does deeds, and carries bytes both ways.
pub(crate) struct Work;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    id: u64,
    index: usize,
    deed: Deed,
    trap: Trap,
    reply_bytes: usize,
    load: Load,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    id: u64,
    index: usize,
    is_intact: bool,
    bytes: usize,
    token: u64,
    nested: Result<(), NestedError>,
    trap: Trap,
    load: Load,
}

#[derive(Debug, Serialize, Deserialize)]
struct NestedError {
    why: String,
    pid: u32,
    descriptors: Option<u64>,
}

impl From<String> for NestedError {
    fn from(why: String) -> Self {
        Self {
            why,
            pid: std::process::id(),
            descriptors: getrlimit(Resource::Nofile).current,
        }
    }
}

impl Job for Work {
    type Argument = Order;
    type Answer = Done;
    const NAME: &str = "work";
    const HAS_DEEDS: bool = true;

    fn run(order: Order) -> Done {
        action::note_run(order.id);
        let nested = order.deed.done(order.id);
        Done {
            id: order.id,
            index: order.index,
            is_intact: order.load == Load::of(order.id, order.load.0.len()),
            bytes: order.load.0.len(),
            token: action::token(),
            nested: nested.map_err(NestedError::from),
            trap: order.deed.answer(),
            load: Load::of(!order.id, order.reply_bytes),
        }
    }

    fn argument(item: &Item) -> Order {
        Order {
            id: item.id,
            index: item.index,
            deed: item.deed,
            trap: item.deed.argument(),
            reply_bytes: item.reply_bytes,
            load: Load::of(item.id, item.bytes),
        }
    }

    fn check(item: &Item, done: &Done, token: u64) -> Result<(), String> {
        if (done.id, done.index) != (item.id, item.index) {
            return Err(format!(
                "the answer is that of item {} ({})",
                done.index, done.id
            ));
        }
        if done.token != token {
            return Err(format!("the token was {} and not {token}", done.token));
        }
        if !done.is_intact || done.bytes != item.bytes {
            return Err("other bytes arrived than were sent".into());
        }
        if done.load != Load::of(!item.id, item.reply_bytes) {
            return Err("other bytes came back than were sent".into());
        }
        Ok(())
    }

    fn index(done: &Done) -> Option<usize> {
        Some(done.index)
    }

    fn nested_failure(done: &Done) -> Option<NestedFailure<'_>> {
        let error = done.nested.as_ref().err()?;
        Some(NestedFailure {
            why: &error.why,
            pid: error.pid,
            descriptors: error.descriptors,
        })
    }
}

/// A vector of bytes as a whole argument and a whole result, which go their own way.
pub(crate) struct Bulk;

impl Job for Bulk {
    type Argument = Vec<u8>;
    type Answer = Vec<u8>;
    const NAME: &str = "bulk";
    const HAS_DEEDS: bool = false;

    fn run(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.reverse();
        bytes
    }

    fn argument(item: &Item) -> Vec<u8> {
        Load::of(item.index as u64, item.bytes).0
    }

    fn check(item: &Item, answer: &Vec<u8>, _: u64) -> Result<(), String> {
        if *answer == Self::run(Self::argument(item)) {
            Ok(())
        } else {
            Err("the bytes that came back are wrong".into())
        }
    }

    fn index(_: &Vec<u8>) -> Option<usize> {
        None
    }
}

/// Next to nothing, many times.
pub(crate) struct Quick;

impl Job for Quick {
    type Argument = u64;
    type Answer = u64;
    const NAME: &str = "quick";
    const HAS_DEEDS: bool = false;

    fn run(x: u64) -> u64 {
        x * 3
    }

    fn argument(item: &Item) -> u64 {
        item.index as u64
    }

    fn check(item: &Item, answer: &u64, _: u64) -> Result<(), String> {
        if *answer == item.index as u64 * 3 {
            Ok(())
        } else {
            Err(format!("the answer is {answer}"))
        }
    }

    fn index(answer: &u64) -> Option<usize> {
        Some((*answer / 3) as usize)
    }
}

/// Nothing at all.
pub(crate) struct Unit;

impl Job for Unit {
    type Argument = ();
    type Answer = ();
    const NAME: &str = "unit";
    const HAS_DEEDS: bool = false;

    fn run((): ()) {}

    fn argument(_: &Item) {}

    fn check(_: &Item, (): &(), _: u64) -> Result<(), String> {
        Ok(())
    }

    fn index((): &()) -> Option<usize> {
        None
    }
}
