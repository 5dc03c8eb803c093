//! What Linux alone has: pidfds, `/proc`, sockets with packets that end, and what a process does to
//! itself to be a worker.

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
