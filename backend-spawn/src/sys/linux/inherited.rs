//! A descriptor that a new process inherits besides its standard ones.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_setfd};

/// Lets the program that the command is going to execute have a descriptor under its number here. It must
/// stay open until then.
pub(crate) fn inherit(command: &mut Command, descriptor: BorrowedFd<'_>) {
    let number = descriptor.as_raw_fd();
    let inherit = move || {
        // SAFETY: the descriptor is open in the process that this one is a copy of.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        Ok(fcntl_setfd(descriptor, FdFlags::empty())?)
    };
    // SAFETY: in the copy, it makes one system call and nothing else.
    unsafe { command.pre_exec(inherit) };
}

/// Takes the pipe of this inode that the parent has left to this process under this number, if it has.
pub(crate) fn take_inherited(number: RawFd, inode: u64) -> Option<OwnedFd> {
    if number <= 2 {
        return None;
    }
    // SAFETY: only asked about; if there is no such descriptor, the answer is an error.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let is_it = fstat(descriptor).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && stat.st_ino == inode
    });
    if !is_it || fcntl_setfd(descriptor, FdFlags::CLOEXEC).is_err() {
        return None;
    }
    // SAFETY: it is open, and nobody else in this process knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
