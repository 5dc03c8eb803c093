//! What the system lets a process have, and how it ends one.

use crate::sys::errno::Errno;

/// What there can be a limit of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Nofile,
}

pub(crate) fn set_limit(
    _of: Limit,
    _current: Option<u64>,
    _maximum: Option<u64>,
) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

pub(crate) fn be_nicer(_by: i32) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// A signal, by the number that it has in Linux.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signal(i32);

impl Signal {
    pub(crate) const ABORT: Self = Self(6);
    pub(crate) const KILL: Self = Self(9);
    pub(crate) const URG: Self = Self(23);
    pub(crate) const SYS: Self = Self(31);

    pub(crate) const fn as_raw(self) -> i32 {
        self.0
    }
}

pub(crate) fn send_signal(_pid: u32, _signal: Signal) -> bool {
    false
}

pub(crate) fn signal_name(_signal: i32) -> Option<&'static str> {
    None
}
