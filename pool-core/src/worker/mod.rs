//! The worker's side: what runs in the other process.

pub(crate) mod arguments;
pub(crate) mod cancel_flag;
mod channel;
#[cfg(feature = "sandbox")]
mod confinement;
pub(crate) mod context;
mod copy;
pub(crate) mod corrupt;
pub(crate) mod current;
#[cfg(not(unix))]
mod elsewhere;
pub(crate) mod emitter;
pub(crate) mod environment;
mod fork_hooks;
pub(crate) mod function;
mod inherited;
pub(crate) mod initializer;
pub(crate) mod item_timer;
#[cfg(unix)]
mod last_allocation;
#[cfg(unix)]
mod memory;
mod name;
mod parent;
mod refusal;
pub(crate) mod ringer;
mod run;
pub(crate) mod serve;
mod settings;
#[cfg(unix)]
mod signal_data;
#[cfg(unix)]
mod stack;
pub(crate) mod state;
mod warm_up;

#[cfg(not(unix))]
use self::elsewhere::{last_allocation, memory, stack};
pub use crate::process::worker_info::WorkerInfo;
pub use current::{current, is_cancelled};
pub use environment::EnvironmentChanges;
#[doc(hidden)]
pub use fork_hooks::{ForkHook, keep_fork_hooks};
pub use inherited::inherit;
pub use parent::{bind_to_parent, prepare_process};
pub(crate) use run::{ChunkRun, TakeValue};
pub use serve::{forward_events_to, serve};
pub use settings::Resource;
pub(crate) use settings::Settings;
#[doc(hidden)]
pub use warm_up::warm_up;
