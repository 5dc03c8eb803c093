//! Workers on other machines for `procpool`, reached over NATS: see the feature `cluster` of the
//! crate `procpool`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod agent;
mod agent_info;
mod builder;
mod client;
mod clock;
mod dispatcher;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod init;
mod intake;
mod link;
mod local;
mod message;
mod nats;
mod pool;
#[doc(hidden)]
pub mod programs;
#[cfg(test)]
mod simulation;

pub use agent_info::AgentInfo;
pub use builder::{ClusterPoolBuilder, Storage};
pub use init::init;
#[doc(hidden)]
pub use init::init_at_load;
pub use pool::ClusterPool;
