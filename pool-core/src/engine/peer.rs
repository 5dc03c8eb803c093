//! The worker whose records are taken in, and what it offers with them.

use std::io;
use std::sync::Arc;

use super::worker_process::Process;
use crate::backend::launcher::WorkerHandle;
use crate::broadcast::{Belongings, SharedResult};
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::passing::{self, Arrived, ResultFiles};
use crate::process::worker_info::WorkerInfo;
use crate::shm::ring::Corrupt;
use crate::sys;
use crate::sys::fd::BorrowedFd;

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Peer<'a> {
    pub(super) info: &'a WorkerInfo,
    /// `None`: it is dead.
    handle: Option<&'a dyn WorkerHandle>,
    /// By which its files come, also after its death.
    socket: Option<BorrowedFd<'a>>,
}

impl<'a> Peer<'a> {
    pub(super) fn alive(info: &'a WorkerInfo, process: &'a Process) -> Self {
        Self {
            info,
            handle: Some(&*process.handle),
            socket: Some(process.tie.fd_socket()),
        }
    }

    pub(super) fn dead(info: &'a WorkerInfo, socket: Option<BorrowedFd<'a>>) -> Self {
        Self {
            info,
            handle: None,
            socket,
        }
    }

    /// Takes what the worker offers with an item's result, or with a value that the item has
    /// emitted. Says how many bytes of the record are the result, or why there is none. `None`: the
    /// worker is dead, and took it with it.
    pub(super) fn take_offering(
        self,
        record: &[u8],
        number: u64,
        belongings: &mut Belongings,
    ) -> Result<Option<Result<usize, TaskError>>, Corrupt> {
        let offering = SharedResult::read(record).ok_or(Corrupt)?;
        let taken = match offering.sent() {
            Some(count) => self.receive(&offering, number, count, belongings)?,
            None => match self.open(&offering, belongings) {
                Some(opened) => opened,
                None => return Ok(None),
            },
        };
        Ok(Some(match taken {
            Ok(()) => Ok(offering.value),
            Err(message) => {
                let error = TaskError::new(TaskErrorKind::Decode, message);
                Err(error.with_worker(self.info.clone()))
            }
        }))
    }

    /// Takes the files that have come before the record.
    fn receive(
        self,
        offering: &SharedResult,
        number: u64,
        count: usize,
        belongings: &mut Belongings,
    ) -> Result<Result<(), String>, Corrupt> {
        let socket = self.socket.ok_or(Corrupt)?;
        let files = match passing::receive_result(socket, number, count) {
            ResultFiles::All(files) => files,
            ResultFiles::Cut(files) => {
                passing::close_elsewhere(files);
                return Ok(Err(no_descriptors()));
            }
            ResultFiles::Violation(files) => {
                passing::close_elsewhere(files);
                return Err(Corrupt);
            }
        };
        let mut files = files.into_iter();
        let taken = offering.take(&mut files).and_then(|all| {
            all.into_iter()
                .try_for_each(|it| it.enter(&mut belongings.memory).map(|_| ()))
        });
        if taken.is_err() {
            passing::close_elsewhere(files);
            return Ok(taken);
        }
        for (id, file) in offering.descriptors().iter().zip(files) {
            match Arrived::received((*id, 0), file) {
                Ok(arrived) => belongings.descriptors.push(Arc::new(arrived)),
                Err(file) => {
                    // A name of another one's: names are random.
                    passing::close_elsewhere([file]);
                    return Err(Corrupt);
                }
            }
        }
        Ok(Ok(()))
    }

    /// Opens the memory in the worker. `None`: that is dead.
    fn open(
        self,
        offering: &SharedResult,
        belongings: &mut Belongings,
    ) -> Option<Result<(), String>> {
        let pid = self.info.pid();
        let opened = offering.open(pid);
        // A dying process loses its descriptors before it is dead.
        let is_leaving = opened.is_err() && sys::is_leaving(pid);
        // Only who is alive after all that had its number during that.
        let opened = match self.has_ended() {
            _ if is_leaving => return None,
            Ok(true) => return None,
            Ok(false) => opened,
            Err(error) => Err(format!("cannot ask whether the worker is alive: {error}")),
        };
        Some(opened.and_then(|all| {
            all.into_iter()
                .try_for_each(|it| it.enter(&mut belongings.memory).map(|_| ()))
        }))
    }

    fn has_ended(self) -> io::Result<bool> {
        let process = self.handle.and_then(WorkerHandle::exit_fd);
        process.map_or(Ok(true), sys::has_ended)
    }
}

#[cold]
fn no_descriptors() -> String {
    "there is no descriptor for the memory of a broadcast in the result, or for an Fd: Too many \
     open files; each takes one as long as there is a handle: let go of some, or raise the limit \
     of open files (ulimit -n), or return the value itself"
        .to_owned()
}
