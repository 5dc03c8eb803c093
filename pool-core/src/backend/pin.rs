//! Which processors workers are pinned to.

use serde::{Deserialize, Serialize};

use crate::sys::{MOST_PROCESSORS, allowed_processors};

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
            Self::Allowed => allowed_processors()
                .map_err(|error| format!("pin_cpus: the system does not say which: {error}")),
            Self::To(cpus) => {
                if cpus.is_empty() {
                    return Err("pin_cpus_to: there is no processor in the list".into());
                }
                match cpus.iter().find(|cpu| **cpu >= MOST_PROCESSORS) {
                    Some(cpu) => Err(format!(
                        "pin_cpus_to: {cpu} is no processor: they are counted from 0, \
                         to {} at most",
                        MOST_PROCESSORS - 1
                    )),
                    None => Ok(cpus),
                }
            }
        }
    }
}
