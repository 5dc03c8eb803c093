//! Linux: pipes and pidfds, `/proc`, and what a process does to itself to be a worker.

mod bell;
mod inherited;
mod memory;
mod orphan;
mod process;
mod worker;

pub(crate) use bell::{inode, make_bell, stdin_is_bell, take_stdin, write_to_stdin};
pub(crate) use inherited::{inherit, take_inherited};
pub(crate) use memory::{own_descriptors, release_pages, spare_descriptors, spare_memory};
pub(crate) use orphan::Vigil;
pub(crate) use process::Process;
pub(crate) use worker::{
    ignore_signals_of_output, name_process, parent, random, remove_variable, unblock_signals,
    with_variable,
};
