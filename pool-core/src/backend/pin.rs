//! Which processors workers are pinned to.

use rustix::thread::{CpuSet, sched_getaffinity};
use serde::{Deserialize, Serialize};

/// See [`PoolBuilder::pin_cpus`](crate::PoolBuilder::pin_cpus).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Pin {
    /// Those that the program may run on which builds the pool.
    Allowed,
    /// These.
    To(Vec<usize>),
}

impl Pin {
    /// The processors. The error says what to do.
    pub(super) fn check(self) -> Result<Vec<usize>, String> {
        match self {
            Self::Allowed => {
                let allowed = sched_getaffinity(None)
                    .map_err(|error| format!("pin_cpus: the system does not say which: {error}"))?;
                let cpus = 0..CpuSet::MAX_CPU;
                Ok(cpus.filter(|cpu| allowed.is_set(*cpu)).collect())
            }
            Self::To(cpus) => {
                if cpus.is_empty() {
                    return Err("pin_cpus_to: there is no processor in the list".into());
                }
                match cpus.iter().find(|cpu| **cpu >= CpuSet::MAX_CPU) {
                    Some(cpu) => Err(format!(
                        "pin_cpus_to: {cpu} is no processor: they are counted from 0, \
                         to {} at most",
                        CpuSet::MAX_CPU - 1
                    )),
                    None => Ok(cpus),
                }
            }
        }
    }
}
