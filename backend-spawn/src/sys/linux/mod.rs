//! What Linux alone has: pidfds, `/proc`, sockets with packets that end, and what a process does to
//! itself to be a worker.

/// Whether workers start with another environment, rather than change their own. What the loader
/// reads there is to stay: a program may need it that is to have an empty one.
pub(crate) const CHANGES_ENVIRONMENT: bool = false;

mod exit_info;
mod ipc_sockets;
mod loader;
mod watch;
mod worker;

pub(crate) use ipc_sockets::{
    has_message, message_sockets, most_descriptors, receive, replace, send_back,
};
pub(crate) use loader::{executable, is_secure, own_file, program_of_loader};
pub(in crate::sys) use watch::Watch;
pub(crate) use worker::{die_with_parent, name_process, random};
