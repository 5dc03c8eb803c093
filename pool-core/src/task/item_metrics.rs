//! What is known of items that are measured.

use std::borrow::Cow;

use super::traced::Traced;
use crate::error::task_error::TaskError;
use crate::observe::item_run::Run;
use crate::observe::task_metrics::TaskMetrics;
use crate::observe::trace::Event;
use crate::process::worker_info::WorkerInfo;
use crate::shm::item_timing::ItemTiming;
use crate::sys;

/// What is known of the items of one measured chunk, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct ItemMetrics {
    /// When this attempt was submitted, in nanoseconds of the monotonic clock; 0: not known.
    pub(crate) submitted: u64,
    /// How many workers have died under the item.
    losses: u32,
    arguments: Vec<Argument>,
    /// What the worker says of the item whose result comes next.
    pending: Option<ItemTiming>,
    /// Of the first items, as far as a worker was at them.
    runs: Vec<Run>,
    /// Where to report them, if they are traced.
    pub(crate) traced: Option<Traced>,
    /// They are measured for that alone.
    pub(crate) is_for_trace: bool,
}

/// What was noted of an item when it was encoded.
#[derive(Debug, Clone, Copy)]
struct Argument {
    encode_ns: u64,
    bytes: u64,
}

impl ItemMetrics {
    /// Of a chunk of which the caller wants metrics, and which is about to be submitted.
    pub(crate) fn measured() -> Self {
        Self::since(sys::now_ns())
    }

    /// Of a chunk that was submitted then; 0: that is not known.
    pub(crate) fn since(submitted: u64) -> Self {
        Self {
            submitted,
            ..Self::default()
        }
    }

    /// Notes an item that was encoded. To be called once for each, in order.
    pub(crate) fn encoded(&mut self, bytes: u64, encode_ns: u64) {
        self.arguments.push(Argument { encode_ns, bytes });
    }

    /// The worker says this of the item whose result comes next. `false`: it has said so before.
    pub(crate) fn expect(&mut self, measure: ItemTiming) -> bool {
        self.pending.replace(measure).is_none()
    }

    /// An item has ended, after what [`expect`](Self::expect) got. `false`: nothing was said.
    pub(crate) fn ended(&mut self, worker: Option<&WorkerInfo>, result_bytes: u64) -> bool {
        let Some(measure) = self.pending.take() else {
            return false;
        };
        self.runs.push(Run {
            worker: worker.cloned(),
            measure,
            is_whole: true,
            result_bytes,
        });
        true
    }

    /// The worker has died under the next item, which had begun then, if that is known.
    pub(crate) fn lost(&mut self, worker: &WorkerInfo, begun: Option<u64>, now: u64) {
        self.pending = None;
        let begun = begun.filter(|begun| (self.submitted..=now).contains(begun));
        self.runs.push(Run {
            worker: Some(worker.clone()),
            measure: ItemTiming {
                begun: begun.unwrap_or(0),
                run: begun.map_or(0, |begun| now - begun),
                ..ItemTiming::default()
            },
            is_whole: false,
            result_bytes: 0,
        });
    }

    /// The item that was lost is submitted again.
    pub(crate) fn again(&mut self, now: u64) {
        self.runs.clear();
        self.losses += 1;
        self.submitted = now;
    }

    /// The item_metrics of the items from `at` on, of which there is no word of a worker yet.
    pub(crate) fn split_off(&mut self, at: u32) -> Self {
        let at = (at as usize).min(self.arguments.len());
        Self {
            submitted: self.submitted,
            losses: self.losses,
            arguments: self.arguments.split_off(at),
            pending: None,
            runs: Vec::new(),
            traced: self.traced.clone(),
            is_for_trace: self.is_for_trace,
        }
    }

    /// The same of some of the items, which ran like this after this many more workers had died
    /// under each.
    pub(crate) fn part(&self, from: usize, count: usize, losses: u32, runs: Vec<Run>) -> Self {
        let to = self.arguments.len().min(from + count);
        Self {
            submitted: self.submitted,
            losses: self.losses.saturating_add(losses),
            arguments: self.arguments.get(from..to).unwrap_or_default().to_vec(),
            pending: None,
            runs,
            traced: self.traced.clone(),
            is_for_trace: self.is_for_trace,
        }
    }

    /// The same of some of the items.
    pub(crate) fn slice(&self, from: usize, count: usize) -> Self {
        let to = self.runs.len().min(from + count);
        let runs = self.runs.get(from..to).unwrap_or_default().to_vec();
        self.part(from, count, 0, runs)
    }

    /// Of the item at this place, which is tried once more and is submitted for that then.
    pub(crate) fn of_retry(&self, place: usize, submitted: u64) -> Self {
        Self {
            submitted,
            ..self.part(place, 1, 1, Vec::new())
        }
    }

    /// How many workers have died under each item.
    pub(crate) fn losses(&self) -> u32 {
        self.losses
    }

    /// Takes what is known of the runs of the first items.
    pub(crate) fn take_runs(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.runs)
    }

    /// What a trace says of the item at this place.
    pub(crate) fn event(
        &self,
        call: Cow<'static, str>,
        place: usize,
        index: usize,
        error: Option<TaskError>,
        now: u64,
    ) -> Event {
        let run = self.runs.get(place).cloned();
        let argument = self.arguments.get(place);
        Event::Item {
            call,
            index,
            error,
            submitted: self.submitted,
            attempt: self.losses.saturating_add(run.is_some().into()),
            argument_bytes: argument.map_or(0, |argument| argument.bytes),
            run,
            at: now,
        }
    }

    /// The metrics of the item at this place.
    pub(crate) fn task_metrics(&self, place: usize) -> TaskMetrics {
        let mut metrics = TaskMetrics {
            attempt: self.losses,
            ..TaskMetrics::default()
        };
        if let Some(argument) = self.arguments.get(place) {
            metrics.encode = nanos(argument.encode_ns);
            metrics.argument_bytes = argument.bytes;
        }
        let Some(run) = self.runs.get(place) else {
            return metrics;
        };
        metrics.attempt = metrics.attempt.saturating_add(1);
        metrics.add(run, self.submitted);
        metrics
    }
}

fn nanos(ns: u64) -> std::time::Duration {
    std::time::Duration::from_nanos(ns)
}
