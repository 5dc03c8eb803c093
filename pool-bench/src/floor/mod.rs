//! Physical limits: what the machine needs for the same, with raw system calls and nothing of ours.
//!
//! Each floor is a contender, so it runs interleaved with all others and under the same load.

mod bound;
mod copy;
mod fork_exec;
#[cfg(feature = "cluster")]
mod nats;
mod other_side;
mod ping_pong;
mod shared;
mod starts;

pub use bound::Bound;
pub use copy::Copy;
pub use fork_exec::ForkExec;
#[cfg(feature = "cluster")]
pub use nats::{Nats, Route};
pub use other_side::OtherSide;
pub use ping_pong::{PingPong, Way};
pub use starts::{Starts, is_newborn, newborn};
