//! A whole cluster on this machine: its server, and who runs it.

mod server;
mod server_log;
mod server_program;

#[allow(unused_imports, reason = "it is being built")]
pub(crate) use server::{Options, Server};
