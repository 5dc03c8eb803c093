//! What a comparison leaves behind: the form of the JSON file.

use serde::{Deserialize, Serialize};

use crate::contender::Role;
use crate::machine::Machine;
use crate::statistics::Summary;
use crate::target::Verdict;
use crate::workload::Unit;

/// Counts changes of the form.
pub const SCHEMA: u32 = 1;

/// One run of `compare`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// Where it ran.
    pub machine: Machine,
    /// How many rounds it was asked for.
    pub rounds: usize,
    /// How many workers the pools had where nothing else is said.
    pub workers: usize,
    /// Whether it was a quick run, whose numbers are for orientation only.
    pub quick: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was wanted and how near it came.
    pub targets: Vec<Verdict>,
    /// Who or what could not be measured, and why.
    pub notes: Vec<String>,
    /// All measurements.
    pub records: Vec<Record>,
}

/// One contender at one workload, or at one point of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The key of the workload or curve.
    pub workload: String,
    /// For curves: how many, how large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Who.
    pub contender: String,
    /// As what.
    pub role: Role,
    /// What the samples are.
    pub unit: Unit,
    /// How many items each sample is the mean of.
    pub n: u64,
    /// One per round.
    pub samples: Vec<f64>,
    /// The same in five numbers.
    #[serde(flatten)]
    pub summary: Summary,
}

impl Report {
    /// The record of this contender at this workload.
    #[must_use]
    pub fn find(&self, workload: &str, contender: &str) -> Option<&Record> {
        find(&self.records, workload, contender)
    }
}

/// The record of this contender at this workload.
#[must_use]
pub fn find<'a>(records: &'a [Record], workload: &str, contender: &str) -> Option<&'a Record> {
    records.iter().find(|record| {
        record.workload == workload && record.contender == contender && record.size.is_none()
    })
}
