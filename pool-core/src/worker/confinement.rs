//! The sandbox of this worker: what its settings have said is entered when its initializer, which
//! may need more, has ended.
#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use procpool_sandbox::PreparedSandbox;

use super::current;
use super::signal_data::SignalData;
use crate::shm::region::Region;
use crate::sys;

static PREPARED: Mutex<Option<PreparedSandbox>> = Mutex::new(None);

static TOLD: SignalData<Told> = SignalData::new();

/// Who is told of what the sandbox refuses.
struct Told {
    region: Arc<Region>,
    pid: u32,
}

/// It is to be entered by [`enter`].
pub(super) fn prepare(sandbox: PreparedSandbox) {
    *PREPARED.lock().unwrap_or_else(PoisonError::into_inner) = Some(sandbox);
}

/// Enters what was prepared, if anything was. Says why that has failed.
pub(super) fn enter() -> Option<String> {
    let prepared = PREPARED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let prepared = prepared?;
    sys::keep_status();
    if let Some(region) = current::region() {
        let pid = sys::own_pid();
        TOLD.set(Told { region, pid });
    }
    // SAFETY: `tell` writes into atomics, and asks for a number that no sandbox hides.
    let entered = unsafe { prepared.enter_telling(tell) };
    entered
        .err()
        .map(|error| format!("the worker cannot enter its sandbox: {error}"))
}

/// In a handler of signals.
fn tell(number: u32) {
    // A forked copy of the worker has our handler, and its refusals are its own.
    if let Some(told) = TOLD.get().filter(|it| it.pid == sys::own_pid()) {
        told.region.leave_refused_call(number);
    }
}
