//! Parts that each Unix has, where there is no Linux: a thread that waits for a child, packets
//! whose end nobody hears.

/// Whether workers start with another environment, rather than change their own: nobody can say
/// that no other thread reads that.
pub(crate) const CHANGES_ENVIRONMENT: bool = true;

mod loader;
mod sockets;
mod watch;
mod worker;

pub(crate) use loader::{executable, is_secure, own_file, program_of_loader};
pub(crate) use sockets::{message_sockets, receive, send_hello};
pub(in crate::sys) use watch::Watch;
pub(crate) use worker::{die_with_parent, name_process, random};
