//! The clock that leases are told by.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the machine was started, also that which it has slept.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Waits until then. `None`: for ever.
pub(crate) async fn sleep_until(when: Option<Duration>) {
    match when {
        None => std::future::pending().await,
        Some(when) => tokio::time::sleep(when.saturating_sub(now())).await,
    }
}

/// A number that nobody else has.
pub(crate) fn draw_number() -> u64 {
    let mut bytes = [0; 8];
    loop {
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(8) => return u64::from_ne_bytes(bytes),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Where a sandbox refuses it: who we are and when must do.
            Err(_) => {
                let pid = std::process::id();
                return now().as_nanos() as u64 ^ (u64::from(pid) << 32);
            }
        }
    }
}
