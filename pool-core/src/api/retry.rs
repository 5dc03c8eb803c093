//! Items that are tried again.
//!
//! The chunks of a call with retries have a [`RetrySink`] in front of who waits for their outcomes:
//! it decides which of them stay, and makes chunks of the items whose outcome does not. Whether
//! that is asked by the engine, which then hands such chunks out in time, or by a pool of the
//! program's own, is the same here.

use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::codec;
use crate::error::task_error::TaskError;
use crate::panic::catch::catch;
use crate::shm::protocol;
use crate::sys;
use crate::task::call_control::nanoseconds;
use crate::task::call_id::CallId;
use crate::task::chunk::Chunk;
use crate::task::chunk_ext::{ChunkExt, Retry};
use crate::task::chunk_outcome::{Again, ChunkOutcome, CompletionSink, Decided, Outcomes};
use crate::task::executor::Executor;
use crate::task::options::Timeout;
use crate::task::retry_rules::RetryRules;
use crate::worker::function::FunctionId;

/// How the items of a call are tried again.
pub(crate) struct RetryPolicy {
    pub(crate) executor: Weak<dyn Executor>,
    pub(crate) entry: FunctionId,
    pub(crate) timeout: Option<Timeout>,
    /// How often each item.
    pub(crate) retries: u32,
    pub(crate) rules: RetryRules,
}

impl RetryPolicy {
    /// What chunks of the call have for it.
    pub(crate) fn retry(&self) -> Box<Retry> {
        Box::new(Retry {
            left: self.retries,
            judges_values: self.rules.retry_errors.is_some(),
            ..Retry::default()
        })
    }

    /// Whether an item with this outcome is to be tried again. A function of the user's that panics
    /// has said no.
    fn is_reason(&self, outcome: Result<&[u8], TaskError>) -> bool {
        let says_so = match outcome {
            Ok(bytes) => match &self.rules.retry_errors {
                Some(judge) if codec::is_err(bytes) => catch(|| judge(bytes)),
                _ => return false,
            },
            Err(error) if !error.kind().may_be_retried() => return false,
            Err(error) => match &self.rules.retry_if {
                Some(judge) => catch(|| judge(&error)),
                None => return error.kind().is_retried(),
            },
        };
        says_so.unwrap_or(false)
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct RetrySink {
    pub(crate) policy: Arc<RetryPolicy>,
    /// Where outcomes go that stay.
    pub(crate) sink: Arc<dyn CompletionSink>,
}

impl CompletionSink for RetrySink {
    fn call(&self) -> CallId {
        self.sink.call()
    }

    fn complete(&self, mut part: ChunkOutcome) {
        if let Some(ext) = &mut part.ext {
            ext.retry = None;
        }
        self.sink.complete(part);
    }

    fn is_abandoned(&self) -> bool {
        self.sink.is_abandoned()
    }

    fn decide(&self, mut part: ChunkOutcome) -> Decided {
        let again = self.again(&mut part);
        let ended = if again.is_empty() {
            vec![part]
        } else {
            without(&part, &again)
        };
        Decided { ended, again }
    }

    fn resubmit(&self, again: Again) {
        let chunk = Chunk::again(again, Arc::new(self.clone()));
        // The drop of a chunk says that the pool has dropped it.
        if let Some(executor) = self.policy.executor.upgrade() {
            executor.resubmit(chunk);
        }
    }
}

impl RetrySink {
    /// The items that are tried again.
    fn again(&self, part: &mut ChunkOutcome) -> Vec<Again> {
        let mut again = Vec::new();
        let Some(retry) = part.ext.as_mut().and_then(|ext| ext.retry.take()) else {
            return again;
        };
        // The part is judged without it, and the next attempt has it.
        let Some(ext) = part.ext.clone() else {
            return again;
        };
        if ext.emissions.as_ref().is_some_and(|it| it.has_any()) {
            // The caller has some of its values.
            return again;
        }
        // Without a pool there is nobody to run it.
        let has_pool = self.policy.executor.strong_count() > 0;
        if retry.left == 0 || !has_pool || self.is_abandoned() {
            return again;
        }
        let ext = ChunkExt {
            retry: Some(Box::new(Retry {
                items: Default::default(),
                ..*retry
            })),
            ..*ext
        };
        let number = self.policy.retries.saturating_sub(retry.left) + 1;
        let deadline = ext.control.as_ref().and_then(|it| it.deadline);
        let is_single = self.call().is_single();
        let items = retry.items.as_slice();
        let mut rest = &items[..];
        part.visit(part.first, |index, outcome| {
            let (item, after) = protocol::split_items(rest, 1);
            rest = after;
            let outcome = match outcome {
                Err(error) if !is_single => Err(error.at_index(index)),
                outcome => outcome,
            };
            if !self.policy.is_reason(outcome) {
                return;
            }
            let now = sys::now_ns();
            let delay = self.policy.rules.backoff.map(|it| it.draw(number));
            let delay = delay.filter(|delay| !delay.is_zero());
            let due = delay.map_or(0, |delay| now + nanoseconds(delay));
            if deadline.is_some_and(|deadline| deadline <= due.max(now)) {
                // There would be no time for it.
                return;
            }
            again.push(Again {
                entry: self.policy.entry,
                first: index,
                items: if part.count == 1 {
                    retry.items.clone()
                } else {
                    item.into()
                },
                timeout: self.policy.timeout,
                attended: retry.attended,
                ext: ext.of_retry(index - part.first, now, due),
            });
        });
        again
    }
}

/// The outcomes of the other items.
fn without(part: &ChunkOutcome, again: &[Again]) -> Vec<ChunkOutcome> {
    let end = part.first + part.count as usize;
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut next = part.first;
    for stop in again.iter().map(|it| it.first).chain([end]) {
        if next < stop {
            runs.push(next..stop);
        }
        next = stop + 1;
    }
    let outcomes = runs
        .iter()
        .map(|run| Outcomes::with_capacity(run.len() as u32));
    let mut outcomes: Vec<Outcomes> = outcomes.collect();
    let mut at = 0;
    part.visit(part.first, |index, outcome| {
        while runs.get(at).is_some_and(|run| run.end <= index) {
            at += 1;
        }
        if let Some(outcomes) = outcomes.get_mut(at)
            && runs[at].contains(&index)
        {
            match outcome {
                Ok(bytes) => outcomes.push_value(bytes),
                Err(error) => outcomes.push_error(error),
            }
        }
    });
    let parts = runs.into_iter().zip(outcomes).map(|(run, outcomes)| {
        let from = run.start - part.first;
        let ext = part.ext.as_ref();
        ChunkOutcome {
            first: run.start,
            count: run.len() as u32,
            took_ns: part.took_ns / u64::from(part.count.max(1)) * run.len() as u64,
            outcomes,
            ext: ext.map(|ext| Box::new(ext.of_final(from, run.len()))),
        }
    });
    parts.collect()
}
