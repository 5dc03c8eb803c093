//! Programs that come over the network: clients publish theirs, and an agent for any program
//! fetches and executes them. See `README.md`.

mod agent;
mod cache;
mod manifest;
mod process;
mod store;

pub use self::agent::{ProgramAgent, ProgramAgentOptions};
pub(crate) use self::manifest::Manifest;
pub(crate) use self::store::{publish, this_program};

/// Where clients say what their program is.
pub(crate) const PROGRAM: &str = "pp.program";
/// Where they are asked for that.
pub(crate) const ASK_PROGRAMS: &str = "pp.programs";
