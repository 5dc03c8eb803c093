//! A call, as those who make chunks of its input know it.

use std::sync::Arc;

use crate::observe::call_span::Origin;
use crate::task::bytes::Bytes;
use crate::task::call_control::CallControl;
use crate::task::chunk::{Chunk, CompletionSink};
use crate::task::chunk_ext::ChunkExt;
use crate::task::context::Context;
use crate::task::encode::Items;
use crate::task::options::ValidatedOptions;
use crate::worker::function::FunctionId;

/// What the chunks of one call have in common.
pub(crate) struct CallSite {
    pub(crate) entry: FunctionId,
    pub(crate) options: ValidatedOptions,
    /// The span that the call was made in, if it matters.
    pub(crate) origin: Option<Arc<Origin>>,
    /// What the function gets with each item.
    pub(crate) context: Option<Arc<Context>>,
    /// When the call ends, and how.
    pub(crate) control: Option<Arc<CallControl>>,
}

impl CallSite {
    /// Room for encoded arguments.
    pub(crate) fn items(&self) -> Items {
        Items {
            is_timed: self.options.is_measured,
            ..Items::default()
        }
    }

    /// A chunk of this call.
    pub(crate) fn chunk(
        &self,
        first: usize,
        count: u32,
        items: Bytes,
        attended: bool,
        sink: Arc<dyn CompletionSink>,
    ) -> Chunk {
        let mut chunk = Chunk::new(self.entry, first, count, items, sink);
        chunk.timeout = self.options.timeout;
        chunk.retries = self.options.retries;
        chunk.attended = attended;
        chunk.ext = ChunkExt::of_call(
            self.options.is_measured,
            self.origin.as_ref(),
            self.context.as_ref(),
            self.control.as_ref(),
        );
        if self.options.counts_errors {
            chunk.ext.get_or_insert_default().counts_errors = true;
        }
        if let Some(target) = self.options.target {
            chunk.aim(target);
        }
        chunk
    }
}
