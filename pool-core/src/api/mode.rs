//! What a call gives: outcomes alone, or with metrics.

use serde::de::DeserializeOwned;

use super::decode::{Collect, ItemOutcome};
use super::handle::{Collector, FromOutcome, ResultCell, SingleResult};
use super::measured::Measured;
use crate::error::task_error::TaskError;

/// What a [`Call`](crate::Call) gives: [`Plain`] results, or results [`WithMetrics`].
pub trait Mode {
    /// The outcome of one item.
    type Outcome<R: DeserializeOwned + 'static>: ItemOutcome + FromOutcome<Self::Cell>;
    /// The outcome of a `map`.
    type Outcomes<R: DeserializeOwned + 'static>: Collect;
    /// Where the outcome of a single task arrives.
    type Cell: ResultCell;
}

/// Results alone: what a call gives unless it is [`measured`](crate::Call::measured).
#[derive(Debug)]
pub enum Plain {}

impl Mode for Plain {
    type Outcome<R: DeserializeOwned + 'static> = Result<R, TaskError>;
    type Outcomes<R: DeserializeOwned + 'static> = Result<Vec<R>, TaskError>;
    type Cell = SingleResult;
}

/// Each result with its metrics: what a [`measured`](crate::Call::measured) call gives.
#[derive(Debug)]
pub enum WithMetrics {}

impl Mode for WithMetrics {
    type Outcome<R: DeserializeOwned + 'static> = Measured<R>;
    type Outcomes<R: DeserializeOwned + 'static> = Vec<Measured<R>>;
    type Cell = Collector;
}
