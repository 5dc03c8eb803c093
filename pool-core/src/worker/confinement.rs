//! The sandbox of this worker: what its settings have said is entered when its initializer, which
//! may need more, has ended.

use std::sync::{Mutex, PoisonError};

use procpool_sandbox::Sandbox;

use crate::sys;

static PREPARED: Mutex<Option<Sandbox>> = Mutex::new(None);

/// It is to be entered by [`enter`].
pub(super) fn prepare(sandbox: Sandbox) {
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
    let entered = prepared.enter();
    entered
        .err()
        .map(|error| format!("the worker cannot enter its sandbox: {error}"))
}
