//! What is asked and said of processes and processors, of which there is this one.

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::thread;
use std::time::Duration;

use super::clock::now_ns;
use super::fd::{AsFd, BorrowedFd, OwnedFd};
use super::missing::missing;
use crate::sys::errno::Errno;

/// What a thread is started by, for an error's text.
pub(crate) const THREAD_CALL: &str = "CreateThread";

/// No processor has this number or a higher one.
pub(crate) const MOST_PROCESSORS: usize = 1024;

/// This process.
#[must_use]
pub fn own_pid() -> u32 {
    std::process::id()
}

/// The process that has started this one: nobody says.
#[must_use]
pub fn starter() -> u32 {
    0
}

/// Ends this process.
pub fn leave(code: i32) -> ! {
    std::process::exit(code)
}

/// There are no signals.
pub fn reset_signals() {}

/// There are no signals.
pub fn ignore_signals_of_files() {}

/// There is nobody who could signal.
///
/// # Errors
/// Never.
pub fn be_signalled_by(end: BorrowedFd<'_>, _signal: i32) -> io::Result<()> {
    end.never()
}

/// No process can be tied to this one.
///
/// # Errors
/// Always.
pub fn tie_process(_pid: u32) -> io::Result<OwnedFd> {
    Err(missing("a tie"))
}

/// Changes no variable of the environment.
///
/// # Errors
/// Never.
pub fn change_environment(_changes: &[(OsString, Option<OsString>)]) -> io::Result<bool> {
    Ok(false)
}

pub(crate) fn die_with_starter() {}

pub(crate) fn raise_oom_score(_by: i32) {}

pub(crate) fn is_dumpable() -> bool {
    true
}

pub(crate) fn set_dumpable(is_dumpable: bool) -> io::Result<()> {
    match is_dumpable {
        true => Ok(()),
        false => Err(missing("protection from other processes")),
    }
}

pub(crate) fn has_ended(process: BorrowedFd<'_>) -> io::Result<bool> {
    process.never()
}

pub(crate) fn is_leaving(_pid: u32) -> bool {
    false
}

pub(crate) fn in_proc(_pid: u32) -> Option<String> {
    None
}

pub(crate) fn without_size_signal<T>(grow: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    grow()
}

pub(crate) fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

pub(crate) fn pipe_size(pipe: impl AsFd) -> Option<usize> {
    pipe.as_fd().never()
}

pub(crate) fn allowed_processors() -> io::Result<Vec<usize>> {
    Err(missing("a choice of processors"))
}

pub(crate) fn run_on(_processors: &[usize]) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

pub(crate) fn memory_counts_from_here() {}

pub(crate) fn peak_rss() -> u64 {
    0
}

pub(crate) fn rss(_pid: u32) -> Option<u64> {
    None
}

pub(crate) fn cpu_time(_pid: u32) -> Option<Duration> {
    None
}

pub(crate) fn expect_use<T>(_room: &mut [MaybeUninit<T>]) {}

/// Two words that are each 0 in a process that was just forked: none ever is.
#[derive(Debug)]
pub(crate) struct ForkMarks {
    pub(crate) process: AtomicU32,
    pub(crate) worker: AtomicU32,
}

pub(crate) fn fork_marks() -> Option<&'static ForkMarks> {
    static MARKS: ForkMarks = ForkMarks {
        process: AtomicU32::new(1),
        worker: AtomicU32::new(0),
    };
    Some(&MARKS)
}

/// A number that no other process, and no other call, is given: the standard library's keys are
/// random.
pub(crate) fn random_id() -> io::Result<u128> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let half = |part: u8| u128::from(RandomState::new().hash_one((call, part, now_ns())));
    Ok(half(0) << 64 | half(1))
}

pub(crate) fn random_seed() -> u64 {
    RandomState::new().hash_one(now_ns())
}

pub(crate) fn has_barriers() -> bool {
    false
}

pub(crate) fn barrier_everywhere() {
    fence(Ordering::SeqCst);
}

pub(crate) fn accept_barriers() -> bool {
    false
}

pub(crate) fn accept_own_barriers() {}

pub(crate) fn has_own_barriers() -> bool {
    false
}

pub(crate) fn barrier_here() {
    fence(Ordering::SeqCst);
}
