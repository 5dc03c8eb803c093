//! A call, as those who make chunks of its input know it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::api::retry::{RetryPolicy, RetrySink};
use crate::task::bytes::Bytes;
use crate::task::chunk::Chunk;
use crate::task::chunk_ext::{ChunkExt, call_name};
use crate::task::chunk_outcome::CompletionSink;
use crate::task::encode::Items;
use crate::task::options::ValidatedOptions;
use crate::worker::function::FunctionId;

/// What the chunks of one call have in common.
pub(crate) struct CallSite {
    pub(crate) entry: FunctionId,
    pub(crate) options: ValidatedOptions,
    /// What each of them has that ordinary ones are without, but for what is measured.
    pub(crate) ext: Option<Box<ChunkExt>>,
    /// How its items are tried again, if they are.
    pub(crate) retry: Option<Arc<RetryPolicy>>,
}

impl CallSite {
    /// Room for encoded arguments.
    pub(crate) fn items(&self) -> Items {
        Items {
            is_timed: self.options.is_measured,
            ..Items::default()
        }
    }

    /// What the call is called.
    pub(crate) fn name(&self) -> Cow<'static, str> {
        call_name(self.entry, self.ext.as_deref())
    }

    /// A chunk of this call.
    #[inline]
    pub(crate) fn chunk(
        &self,
        first: usize,
        count: u32,
        items: Bytes,
        attended: bool,
        sink: Arc<dyn CompletionSink>,
    ) -> Chunk {
        let sink = match &self.retry {
            None => sink,
            Some(policy) => Arc::new(RetrySink {
                policy: policy.clone(),
                sink,
            }),
        };
        let mut chunk = Chunk::new(self.entry, first, count, items, sink);
        chunk.timeout = self.options.timeout;
        if self.retry.is_none() {
            chunk.retries = self.options.retries;
        }
        chunk.attended = attended;
        chunk.ext = self.ext.clone();
        if self.options.is_measured {
            chunk.measure();
        }
        chunk
    }
}
