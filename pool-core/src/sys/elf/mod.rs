//! The program and its libraries, where they are of the format ELF.

mod code;
mod identity;
mod object;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod tables;

pub(crate) use code::{other_image_of, other_image_with, own_image};
pub(crate) use identity::{build_content, build_identity};
pub use object::{interpreter, is_in_program};
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use tables::{Table, loaded_objects};
