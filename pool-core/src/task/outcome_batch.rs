//! Outcomes of neighbouring items that travel together.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::chunk_ext::ChunkExt;
use super::chunk_outcome::{ChunkOutcome, Outcomes, Records, split_record};
use super::outcome::Outcome;
use crate::broadcast::{BroadcastContent, Needs};
use crate::error::task_error::TaskError;
use crate::shm::buffer::Buffer;
use crate::shm::protocol;

/// A single value of up to so many bytes is moved into a record.
const COPIED: usize = 4096;

/// The [outcomes](Outcome) of some items of a call that follow each other, for pools elsewhere: of
/// many small results it costs a tenth of what they cost one by one.
///
/// It comes from [`EncodedChunk::batch_to`](crate::EncodedChunk::batch_to), travels as serde says,
/// and ends in [`Completion::complete_batch`](crate::Completion::complete_batch). What arrives is
/// checked as a single outcome is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Carried")]
pub struct OutcomeBatch {
    first: u64,
    count: u32,
    form: Form,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Form {
    /// Of each there is a value or an error, and nothing else is known: see
    /// [`Outcomes::Many`].
    Plain {
        /// How long all of them kept their worker, in nanoseconds.
        took_ns: u64,
        records: Bytes,
        errors: Vec<TaskError>,
    },
    Each(Vec<Outcome>),
}

/// The same before it is known whether it makes sense.
#[derive(Deserialize)]
struct Carried {
    first: u64,
    count: u32,
    form: Form,
}

impl TryFrom<Carried> for OutcomeBatch {
    type Error = &'static str;

    fn try_from(carried: Carried) -> Result<Self, Self::Error> {
        let Carried { first, count, form } = carried;
        let is_range = usize::try_from(first).is_ok_and(|first| {
            let end = first.checked_add(count as usize);
            end.is_some_and(|end| isize::try_from(end).is_ok())
        });
        if count == 0 || !is_range {
            return Err("outcomes of no items, or of too many");
        }
        let is_whole = match &form {
            Form::Plain {
                records, errors, ..
            } => has_records(&records.as_slice(), count, errors),
            Form::Each(outcomes) => outcomes.len() == count as usize,
        };
        if !is_whole {
            return Err("not as many outcomes as it says");
        }
        Ok(Self { first, count, form })
    }
}

/// Whether there is a record for each item, and the error that it names.
fn has_records(records: &[u8], count: u32, errors: &[TaskError]) -> bool {
    let mut rest = records;
    for _ in 0..count {
        match split_record(rest, |place| (place < errors.len()).then_some(())) {
            Some((Ok(_) | Err(Some(())), after)) => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

/// The value that a single item has, if it has one.
fn single_value(records: &Bytes, count: u32) -> Option<Bytes> {
    let is_single = count == 1 && records.len() <= COPIED + protocol::MAX_HEAD;
    let records = is_single.then(|| records.as_slice())?;
    let (outcome, _) = split_record(&records, |_| Some(()))?;
    Some(Bytes::from(outcome.ok()?))
}

/// Whether nothing is known of these outcomes but what they are.
fn knows_no_more(ext: &Option<Box<ChunkExt>>, records: &[u8]) -> bool {
    let Some(ext) = ext else {
        return true;
    };
    let has_handles =
        |memory: &[_]| !memory.is_empty() && !Needs::of_value(records, memory).is_empty();
    ext.item_metrics.is_none()
        && ext.offered.descriptors.is_empty()
        && !has_handles(&ext.offered.memory)
        && !has_handles(&ext.attachments)
}

impl OutcomeBatch {
    /// Items that all fail with the same error.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn failed(indices: Range<usize>, error: TaskError) -> Self {
        assert!(!indices.is_empty(), "a batch has at least one item");
        let count = u32::try_from(indices.len()).expect("a chunk has no more items");
        Self::of(ChunkOutcome::failed(indices.start, count, error))
    }

    /// What became of items of a pool of this process.
    pub(crate) fn of(part: ChunkOutcome) -> Self {
        let (first, count) = (part.first as u64, part.count);
        let is_plain = match &part.outcomes {
            Outcomes::Many(many) => {
                has_records(&many.bytes, count, &many.errors)
                    && knows_no_more(&part.ext, &many.bytes)
            }
            Outcomes::All(_) => knows_no_more(&part.ext, &[]),
            Outcomes::One(Some(Ok(bytes))) => {
                bytes.len() <= COPIED && knows_no_more(&part.ext, &bytes.as_slice())
            }
            Outcomes::One(_) => false,
        };
        if !is_plain {
            let mut all = Vec::with_capacity(count as usize);
            part.into_each(|_, outcome| all.push(outcome));
            let form = Form::Each(all);
            return Self { first, count, form };
        }
        let outcomes = match part.outcomes {
            // The records of all name the same one.
            Outcomes::All(error) => Outcomes::with_errors(count, error),
            Outcomes::One(Some(Ok(bytes))) => {
                let mut record = Outcomes::Many(Box::default());
                record.push_value(&bytes.as_slice());
                record
            }
            others => others,
        };
        let Outcomes::Many(many) = outcomes else {
            unreachable!("it is plain");
        };
        let form = Form::Plain {
            took_ns: part.took_ns,
            records: many.bytes.into(),
            errors: many.errors,
        };
        Self { first, count, form }
    }

    /// The indices of the items in their call.
    #[must_use]
    pub fn indices(&self) -> Range<usize> {
        let first = self.first as usize;
        first..first + self.count as usize
    }

    /// How long all of them kept their worker; zero: that is not known.
    #[must_use]
    pub fn took(&self) -> Duration {
        match &self.form {
            Form::Plain { took_ns, .. } => Duration::from_nanos(*took_ns),
            Form::Each(outcomes) => outcomes.iter().map(Outcome::took).sum(),
        }
    }

    /// About how many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.form {
            Form::Plain { records, .. } => records.len(),
            Form::Each(outcomes) => outcomes.iter().map(Outcome::size).sum(),
        }
    }

    /// The errors of items that have failed; several may have the same one.
    pub fn errors(&self) -> impl Iterator<Item = &TaskError> {
        let (errors, outcomes) = match &self.form {
            Form::Plain { errors, .. } => (&errors[..], &[][..]),
            Form::Each(outcomes) => (&[][..], &outcomes[..]),
        };
        errors
            .iter()
            .chain(outcomes.iter().filter_map(Outcome::error))
    }

    /// The same of items that ran on the machine of this name, in whatever worker.
    #[must_use]
    pub fn with_machine(mut self, machine: &str) -> Self {
        match &mut self.form {
            Form::Plain { errors, .. } => {
                for error in errors {
                    *error = error.clone().with_machine(machine);
                }
            }
            Form::Each(outcomes) => {
                let all = std::mem::take(outcomes).into_iter();
                *outcomes = all.map(|it| it.with_machine(machine)).collect();
            }
        }
        self
    }

    /// See [`Outcome::contents`].
    #[must_use]
    pub fn contents(&self) -> Vec<BroadcastContent> {
        let all = self.each().iter();
        all.flat_map(Outcome::contents).collect()
    }

    /// See [`Outcome::provide`].
    pub fn provide(&mut self, content: &BroadcastContent) -> bool {
        let Form::Each(outcomes) = &mut self.form else {
            return false;
        };
        let provided = outcomes.iter_mut().map(|it| it.provide(content));
        provided.fold(false, |any, is_needed| any | is_needed)
    }

    /// Those outcomes of which something else may be known.
    pub(super) fn each(&self) -> &[Outcome] {
        match &self.form {
            Form::Plain { .. } => &[],
            Form::Each(outcomes) => outcomes,
        }
    }

    /// Each outcome with the index of its item.
    #[must_use]
    pub fn into_each(self) -> Vec<(usize, Outcome)> {
        let first = self.first as usize;
        match self.into_plain() {
            Ok(part) => {
                let mut all = Vec::with_capacity(part.count as usize);
                part.into_each(|index, outcome| all.push((index, outcome)));
                all
            }
            Err(outcomes) => (first..).zip(outcomes).collect(),
        }
    }

    /// What became of the items, if no more is known; and else each outcome.
    pub(super) fn into_plain(self) -> Result<ChunkOutcome, Vec<Outcome>> {
        match self.form {
            Form::Plain {
                took_ns,
                records,
                errors,
            } => Ok(ChunkOutcome {
                first: self.first as usize,
                count: self.count,
                took_ns,
                outcomes: match single_value(&records, self.count) {
                    Some(value) => Outcomes::One(Some(Ok(value))),
                    None => Outcomes::Many(Box::new(Records {
                        bytes: Buffer::from(records),
                        errors,
                    })),
                },
                ext: None,
            }),
            Form::Each(outcomes) => Err(outcomes),
        }
    }
}
