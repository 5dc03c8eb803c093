//! What a pool was built with.

use std::time::Duration;

use procpool_core::{BroadcastContent, Output};

use crate::message::{Blob, Printed, ToAgent};
use crate::programs::Manifest;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) agents_timeout: Duration,
    pub(crate) server_timeout: Duration,
    pub(crate) in_file: bool,
    /// `WorkerOptions`, encoded.
    pub(crate) options: Vec<u8>,
    pub(crate) contents: Vec<BroadcastContent>,
    pub(crate) url: String,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    /// This program, if it is published.
    pub(crate) program: Option<Manifest>,
}

impl Settings {
    /// What an agent is told first.
    pub(super) fn welcome(&self, epoch: u64, connection: u64) -> ToAgent {
        ToAgent::Welcome {
            epoch,
            connection,
            options: Blob(self.options.clone().into()),
            stdout: printed(&self.stdout),
            stderr: printed(&self.stderr),
        }
    }
}

fn printed(output: &Output) -> Printed {
    if output.wants_lines() {
        Printed::Sent
    } else if output.is_discarded() {
        Printed::Discarded
    } else {
        Printed::Inherited
    }
}
