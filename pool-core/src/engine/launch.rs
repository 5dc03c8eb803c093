//! A launch that is due.

use std::sync::Arc;

use super::slot_id::SlotId;
use crate::backend::launcher::{LaunchSpec, Outlets};
use crate::shm::region::RingSizes;
use crate::sys;
use crate::sys::fd::OwnedFd;
use crate::worker::EnvironmentChanges;

/// A launch that is due.
#[derive(Debug)]
pub(super) struct Due {
    /// What it is for.
    pub(super) slot: SlotId,
    pub(super) number: u32,
    pub(super) generation: u32,
    pub(super) rings: RingSizes,
    pub(super) environment: Arc<EnvironmentChanges>,
}

impl Due {
    /// What the launcher is given; with the worker's end of its tie.
    pub(super) fn spec(&self, outlets: Outlets, tie: OwnedFd) -> LaunchSpec {
        LaunchSpec {
            number: self.number,
            generation: self.generation,
            seed: sys::random_seed(),
            rings: self.rings,
            environment: self.environment.clone(),
            outlets,
            tie: Arc::new(tie),
        }
    }
}
