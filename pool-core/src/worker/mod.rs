//! The worker's side: what runs in the other process.

mod chunk;
mod copy;
mod corrupt;
mod current;
mod memory;
mod panic;
mod parent;
mod serve;
mod settings;
mod stack;
mod unwind;

pub(crate) use chunk::ChunkRun;
pub use current::{WorkerInfo, current, is_cancelled};
pub(crate) use current::{name, running_item};
pub(crate) use panic::{catch, quietly, report_for, reporting, with_tasks};
pub use parent::{bind_to_parent, settle};
pub use serve::{forward_events_to, serve};
pub use settings::Resource;
pub(crate) use settings::Settings;
