//! From a process that has a region to a worker, and out of it again.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::channel::WorkerChannel;
use super::corrupt::EXIT_CORRUPT;
use super::ringer::Ringer;
use super::{current, parent, stack};
use crate::panic::catch as panic;
use crate::passing;
use crate::process::worker_info::WorkerInfo;
use crate::shm::region::Region;
use crate::sync::atomic::Ordering;
use crate::sys::fd::OwnedFd;

/// Serves as a worker until the parent says that it is enough, and returns the exit code to
/// leave the process with.
///
/// To be called by a backend, in the worker process, on the thread that tasks are to run on, as
/// soon as it has the region and the writing end of the doorbell. It never unwinds. It does not
/// return while the parent has work or may have; a parent that dies ends the process by the
/// parent-death signal that the backend has asked for.
///
/// What lies in the region is trusted: which function to call, and that the bytes of its argument
/// do not change while they are read. A region that another program has prepared, or another build
/// of this one, is noticed and refused with an exit code of its own, as far as
/// [`build_identity`](crate::shm::build_identity::build_identity) can tell them apart.
///
/// ```compile_fail,E0133
/// # fn backend(region: procpool_core::Region, doorbell: std::os::fd::OwnedFd) -> i32 {
/// // Not without `unsafe`: any writer of the region says what is called.
/// procpool_core::worker::serve(region, doorbell)
/// # }
/// ```
///
/// # Safety
/// - The region was prepared by [`LaunchSpec::prepare`](crate::LaunchSpec::prepare) in the parent
///   of this process, which has the same code.
/// - From then on nobody has written into it but the engine that the parent's
///   [`WorkerHandle`](crate::WorkerHandle) gives it to, and nobody else does while this runs.
/// - It is served once, here.
#[must_use]
pub unsafe fn serve(region: Region, doorbell: OwnedFd) -> i32 {
    let ringer = Ringer::new(parent::take_bell(), doorbell);
    let socket = parent::take_fd_socket();
    if let Some(heard) = parent::take_wakeup() {
        region.wake_by(heard);
    }
    // SAFETY: that is this function's own contract.
    unsafe { serve_and_ring(region, ringer, socket) }
}

/// See [`serve`].
///
/// # Safety
/// That of [`serve`].
pub(crate) unsafe fn serve_and_ring(
    region: Region,
    ringer: Ringer,
    socket: Option<OwnedFd>,
) -> i32 {
    let region = Arc::new(region);
    if let Some(socket) = socket {
        let region = region.clone();
        passing::open_inbox(socket, move || region.items_begun());
    }
    let Ok(rings) = region.capacities() else {
        return EXIT_CORRUPT;
    };
    panic::expect_tasks();
    stack::answer_questions(&region);
    let identity = &region.words().identity;
    current::become_worker(
        WorkerInfo::new(
            identity.number.load(Ordering::Relaxed),
            identity.generation.load(Ordering::Relaxed),
            std::process::id(),
        )
        .with_seed(identity.seed.load(Ordering::Relaxed)),
        region.clone(),
    );
    #[cfg(feature = "tracing")]
    let _forwarding = crate::observe::events::forward(&region);
    let mut channel = WorkerChannel::new(region, ringer, rings);
    let code = channel.serve();
    if !crate::sync::IS_MODEL {
        // The process leaves now. A task may have closed the doorbell, and then its number is
        // nobody's, or that of a file of the task's.
        let _leaves = ManuallyDrop::new(channel);
    }
    code
}

/// Where this worker's events go: the writing end of a pipe that does not block. To be called by a
/// backend before [`serve`]. Without the feature `tracing`, the pipe is closed.
pub fn forward_events_to(pipe: OwnedFd) {
    #[cfg(feature = "tracing")]
    crate::observe::events::set_channel(pipe);
    #[cfg(not(feature = "tracing"))]
    drop(pipe);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_of_another_build_is_not_served() {
        let spec = crate::LaunchSpec::for_tests(1, 4096);
        let (region, _file) = Region::create(spec.region_bytes()).expect("memory");
        spec.prepare(&region);
        region.pretend_another_build();
        let (_hear, ring) = std::io::pipe().expect("descriptors");
        // SAFETY: it is refused before anything in it is looked at.
        assert_eq!(unsafe { serve(region, ring.into()) }, EXIT_CORRUPT);
    }
}
