//! Which worker this process is.

use std::sync::{Arc, OnceLock, RwLock};

use super::cancel_flag::is_set_here;
use crate::broadcast;
use crate::panic::catch::record::{LastPanicSlot, leave_to};
use crate::panic::report::PanicReport;
use crate::process::worker_info::WorkerInfo;
use crate::shm::region::Region;
use crate::sync::atomic::Ordering;

/// What this process knows of itself as a worker. A worker that was forked inside another one
/// replaces what it inherited.
struct Myself {
    info: WorkerInfo,
    region: Arc<Region>,
}

fn myself() -> &'static RwLock<Option<Myself>> {
    static MYSELF: OnceLock<RwLock<Option<Myself>>> = OnceLock::new();
    MYSELF.get_or_init(RwLock::default)
}

/// The worker that this process is; `None` in the parent and everywhere else.
///
/// ```
/// # use procpool_core as procpool;
/// assert!(procpool::worker::current().is_none());
/// ```
#[must_use]
pub fn current() -> Option<WorkerInfo> {
    let myself = myself().read().unwrap_or_else(|poison| poison.into_inner());
    myself.as_ref().map(|myself| myself.info.clone())
}

/// Whether the running task was cancelled: a long task asks now and then, and stops early. What
/// it then returns, nobody sees.
///
/// `false` outside of a worker.
#[must_use]
pub fn is_cancelled() -> bool {
    if let Some(is_set) = is_set_here() {
        return is_set;
    }
    let myself = myself().read().unwrap_or_else(|poison| poison.into_inner());
    myself.as_ref().is_some_and(|myself| {
        let advice = &myself.region.words().advice;
        let cancelled = advice.cancelled.load(Ordering::Relaxed);
        cancelled != 0 && cancelled == myself.region.items_begun()
    })
}

/// A name for the item that runs; 0 outside of a worker.
fn running_item() -> u64 {
    let myself = myself().read().unwrap_or_else(|poison| poison.into_inner());
    myself.as_ref().map_or(0, |myself| {
        // A worker of this worker may have inherited what is named by this.
        u64::from(myself.info.pid()) << 32 | myself.region.items_begun() & u64::from(u32::MAX)
    })
}

/// Gives the region of the worker that this process is; not that of one which it is a mere copy of.
fn with_region(body: impl FnOnce(&Region)) {
    if let Ok(myself) = myself().try_read()
        && let Some(myself) = &*myself
        && myself.info.pid() == std::process::id()
    {
        body(&myself.region);
    }
}

/// The region of the worker that this process is.
pub(super) fn region() -> Option<Arc<Region>> {
    let myself = myself().read().unwrap_or_else(|poison| poison.into_inner());
    myself.as_ref().map(|myself| myself.region.clone())
}

/// The last panic of a worker, in its region.
struct InRegion;

impl LastPanicSlot for InRegion {
    fn item(&self) -> u64 {
        let mut item = 0;
        with_region(|region| item = region.items_begun());
        item
    }

    fn write(&self, item: u64, panic: &PanicReport) {
        with_region(|region| region.words().last_panic.write(item, panic));
    }

    fn clear(&self) {
        with_region(|region| region.words().last_panic.clear());
    }
}

/// This process is a worker from now on.
pub(super) fn become_worker(info: WorkerInfo, region: Arc<Region>) {
    if crate::sync::IS_MODEL {
        // The workers of a model are threads: none of them is the process.
        return;
    }
    leave_to(&InRegion);
    broadcast::name_items_by(running_item);
    *myself()
        .write()
        .unwrap_or_else(|poison| poison.into_inner()) = Some(Myself { info, region });
}
