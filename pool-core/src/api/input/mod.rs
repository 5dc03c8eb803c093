//! Input that may wait: it is read by a thread of its own, and a chunk that is still being filled
//! can be asked for by a worker that idles.

pub(crate) mod append_log;
pub(crate) mod call_site;
pub(crate) mod feed;
pub(crate) mod feeder;
mod flow;
pub(crate) mod open_chunk;
