//! What each Unix has, Linux as well: pipes, descriptors that are inherited, children.

mod doorbell;
mod inherited;
mod process;

pub(crate) use doorbell::{make_doorbell, stdin_is_doorbell, take_stdin, write_to_stdin};
#[cfg(all(target_os = "linux", not(procpool_portable)))]
pub(in crate::sys) use inherited::ask;
pub(crate) use inherited::{announce, duplicate, inode, is_opened_here, take_inherited};
pub(crate) use process::Process;
