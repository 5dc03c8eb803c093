//! The worker whose records are taken in, and what it offers with them.

use std::io;

use crate::backend::launcher::WorkerHandle;
use crate::broadcast::SharedResult;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::process::worker_info::WorkerInfo;
use crate::shm::ring::Corrupt;
use crate::sys;
use crate::task::chunk::Chunk;

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Peer<'a> {
    pub(super) info: &'a WorkerInfo,
    /// `None`: it is dead.
    handle: Option<&'a dyn WorkerHandle>,
}

impl<'a> Peer<'a> {
    pub(super) fn alive(info: &'a WorkerInfo, handle: &'a dyn WorkerHandle) -> Self {
        let handle = Some(handle);
        Self { info, handle }
    }

    pub(super) fn dead(info: &'a WorkerInfo) -> Self {
        Self { info, handle: None }
    }

    /// Opens what the worker offers with an item's result, and gives it to the chunk. Says how many
    /// bytes of the record are the result, or why there is none. `None`: the worker is dead, and
    /// took it with it.
    pub(super) fn take_offering(
        self,
        record: &[u8],
        chunk: &mut Chunk,
    ) -> Result<Option<Result<usize, TaskError>>, Corrupt> {
        let offering = SharedResult::read(record).ok_or(Corrupt)?;
        if chunk.is_initializer {
            return Err(Corrupt);
        }
        let pid = self.info.pid();
        let opened = offering.open(pid);
        // A dying process loses its descriptors before it is dead.
        let is_leaving = opened.is_err() && sys::is_leaving(pid);
        // Only who is alive after all that had its number during that.
        let opened = match self.has_ended() {
            _ if is_leaving => return Ok(None),
            Ok(true) => return Ok(None),
            Ok(false) => opened,
            Err(error) => Err(format!("cannot ask whether the worker is alive: {error}")),
        };
        let entered = opened.and_then(|all| {
            all.into_iter()
                .try_for_each(|it| it.enter(chunk.offered_mut()).map(|_| ()))
        });
        Ok(Some(match entered {
            Ok(()) => Ok(offering.value),
            Err(message) => {
                let error = TaskError::new(TaskErrorKind::Decode, message);
                Err(error.with_worker(self.info.clone()))
            }
        }))
    }

    fn has_ended(self) -> io::Result<bool> {
        let process = self.handle.and_then(WorkerHandle::exit_fd);
        process.map_or(Ok(true), sys::has_ended)
    }
}
