//! What few chunks have.

use std::sync::Arc;

use crate::broadcast::SharedMemory;
use crate::ledger::Ledger;

/// A part of a chunk that ordinary tasks are without, so that they do not pay for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extras {
    /// What is known of items that are measured.
    pub(crate) ledger: Option<Ledger>,
    /// The memory that handles in the items mean. It lives as long as the chunk, and then as long
    /// as the results, in which there may be such handles again.
    pub(crate) attachments: Vec<Arc<SharedMemory>>,
}

impl Extras {
    /// Of a call that asks for receipts.
    pub(crate) fn with_receipts() -> Box<Self> {
        Box::new(Self {
            ledger: Some(Ledger::for_receipts()),
            ..Self::default()
        })
    }

    /// Those of the items from `at` on; the ones before keep the rest.
    pub(crate) fn split_off(&mut self, at: u32) -> Self {
        Self {
            ledger: self.ledger.as_mut().map(|ledger| ledger.split_off(at)),
            attachments: self.attachments.clone(),
        }
    }
}
