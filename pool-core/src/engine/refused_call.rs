//! A system call that a worker's sandbox has refused, as the worker says: it may lie.

use std::borrow::Cow;

/// The last one of a worker that has died of it, by its number, if it could say that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FatalCall(pub(super) Option<u32>);

impl FatalCall {
    pub(super) fn name(self) -> Option<Cow<'static, str>> {
        self.0.map(name)
    }
}

/// The name of the system call of this number.
pub(super) fn name(number: u32) -> Cow<'static, str> {
    #[cfg(feature = "sandbox")]
    if let Some(name) = procpool_sandbox::syscall_name(number) {
        return name.into();
    }
    format!("number {number}").into()
}
