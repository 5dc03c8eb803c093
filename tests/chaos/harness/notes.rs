//! The file in which tasks write down that they run, and what they did: wherever they run, one can
//! look it up later. One write of twenty bytes at the end of a file is done or not done, whoever is
//! killed in it.
//!
//! Workers inherit the file. To open it, they would need a descriptor, a user who may, and a limit
//! that allows it; and a run that nobody could write down would be taken for none.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use nix::unistd::ForkResult;
use rustix::fs::{Mode, OFlags};

use super::effects::Harm;

/// Says where the file is,
pub(crate) const RUNS: &str = "CHAOS_RUNS";

/// and which descriptor it has.
pub(crate) const NOTES: &str = "CHAOS_NOTES";

/// In the environment of an agent and of its workers: its number.
pub(crate) const AGENT: &str = "CHAOS_AGENT";

/// Set in what is written down of effects, and not in numbers of items.
const EFFECT: u64 = 1 << 63;

/// Set in what is written down of items that go on.
const BEAT: u64 = 1 << 62;

/// Makes the file. Children inherit it.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::APPEND;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(file))
}

/// The value of [`NOTES`] for a file.
pub(crate) fn name(file: &File) -> String {
    file.as_raw_fd().to_string()
}

/// One note.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Note {
    what: u64,
    pub(crate) pid: u32,
    /// In milliseconds of the clock that all processes share.
    pub(crate) at: u32,
    /// The agent whose worker it was; 0: nobody's.
    pub(crate) agent: u32,
}

/// What a note says.
pub(crate) enum Said {
    /// The item of this number ran.
    Ran(u64),
    /// The item of this number was running.
    Beats(u64),
    /// Harm of this number took effect.
    Did(u64),
}

impl Note {
    pub(crate) const BYTES: usize = 20;

    /// `None`: it is cut off.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (what, rest) = bytes.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let agent = rest.try_into().ok()?;
        Some(Self {
            what: u64::from_le_bytes(*what),
            pid: u32::from_le_bytes(*pid),
            at: u32::from_le_bytes(*at),
            agent: u32::from_le_bytes(agent),
        })
    }

    pub(crate) fn said(self) -> Said {
        if self.what & EFFECT != 0 {
            Said::Did(self.what & !EFFECT)
        } else if self.what & BEAT != 0 {
            Said::Beats(self.what & !BEAT)
        } else {
            Said::Ran(self.what)
        }
    }
}

/// The time, as notes have it.
pub(crate) fn now() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec * 1000 + now.tv_nsec / 1_000_000) as u32
}

/// When that was so long ago.
pub(crate) fn ago(time: Duration) -> u32 {
    let time = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    now().saturating_sub(time)
}

/// This item runs.
pub(crate) fn run(id: u64) {
    write(id & !EFFECT & !BEAT);
}

/// This item still runs.
pub(crate) fn beat(id: u64) {
    write(id & !EFFECT | BEAT);
}

/// This harm took effect.
pub(crate) fn effect(harm: Harm) {
    write(harm.number() | EFFECT);
}

/// Closes every descriptor of this process but the standard streams and this file.
pub(crate) fn close_all_others() {
    let Some(file) = file() else { return };
    let number = file.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, number.wrapping_sub(1)), (number + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: their owners find that they are gone, which is the point.
            unsafe { nix::libc::close_range(first, last, 0) };
        }
    }
}

fn file() -> Option<BorrowedFd<'static>> {
    static FILE: OnceLock<Option<BorrowedFd<'static>>> = OnceLock::new();
    *FILE.get_or_init(|| {
        let number = std::env::var(NOTES).ok()?.parse().ok()?;
        // SAFETY: who has set the variable has left the file open at this number, and nobody
        // in these processes closes it.
        Some(unsafe { BorrowedFd::borrow_raw(number) })
    })
}

/// The agent whose worker this is.
fn agent() -> u32 {
    static AGENT_NUMBER: OnceLock<u32> = OnceLock::new();
    *AGENT_NUMBER.get_or_init(|| {
        let number = std::env::var(AGENT).ok();
        number.and_then(|it| it.parse().ok()).unwrap_or(0)
    })
}

fn write(what: u64) {
    let Some(file) = file() else { return };
    let mut note = [0; Note::BYTES];
    note[..8].copy_from_slice(&what.to_le_bytes());
    note[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    note[12..16].copy_from_slice(&now().to_le_bytes());
    note[16..].copy_from_slice(&agent().to_le_bytes());
    let written = rustix::io::retry_on_intr(|| rustix::io::write(file, &note));
    assert_eq!(written, Ok(note.len()), "the disk has room");
}

/// Forks a task's process. `None`: no process is to be had.
pub(crate) fn fork() -> Option<ForkResult> {
    // SAFETY: the copy sleeps, kills itself, or returns to the worker's loop, which leaves. What
    // it may print on the way, no other thread of the worker's does.
    unsafe { nix::unistd::fork() }.ok()
}
