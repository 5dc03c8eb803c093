//! Linux: pipes, sockets and pidfds, `/proc`, and what a process does to itself to be a worker.

mod doorbell;
mod exit_info;
mod inherited;
mod loader;
mod process;
mod socket;
mod worker;

pub(crate) use doorbell::{make_doorbell, stdin_is_doorbell, take_stdin, write_to_stdin};
pub(crate) use inherited::{announce, inode, is_opened_here, take_inherited};
pub(crate) use loader::{is_secure, own_file, program_of_loader};
pub(crate) use process::Process;
pub(crate) use socket::{
    duplicate, has_message, message_sockets, most_descriptors, receive, replace, send_back,
};
pub(crate) use worker::{die_with_parent, name_process, random};
