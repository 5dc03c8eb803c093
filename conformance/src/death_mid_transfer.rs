//! Workers that die while an argument or a result is half-way.

use std::time::Duration;

use procpool::Pool;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize, Serializer};

use crate::backends::Processes;
use crate::procfs::{signal, wait_until, workers};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_death_before_an_argument_is_taken,
        a_death_while_an_argument_is_half_way,
        a_death_while_a_result_is_half_way,
    ]
}

/// Far more than any ring holds.
const LARGE: usize = 100 << 20;

fn large() -> Vec<u8> {
    b"procpool".repeat(LARGE / 8)
}

fn measure(bytes: Vec<u8>) -> (usize, bool) {
    (bytes.len(), bytes.ends_with(b"procpool"))
}

/// The worker stops, 100 MiB are sent to it, of which a ring full arrives, and then it dies: the
/// task had not begun, and another worker runs it.
fn a_death_before_an_argument_is_taken<S: Processes>() {
    let pool = S::pool(1);
    let pid = workers(&pool)[0];
    signal(pid, Signal::STOP);
    let handle = pool.apply_async(measure, large());
    let behind = pool.apply_async(|x: u64| x, 7);
    assert!(!handle.is_ready());
    signal(pid, Signal::KILL);
    assert_eq!(handle.get().unwrap(), (LARGE, true));
    assert_eq!(behind.get().unwrap(), 7);
}

/// How many bytes of memory a process has of its own.
fn resident(pid: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4096
}

/// The worker dies when it has taken a part of 100 MiB: the task is lost, or it was just over; what
/// waits behind it gets its value.
fn a_death_while_an_argument_is_half_way<S: Processes>() {
    let pool = S::pool(1);
    let mut lost = 0;
    for _ in 0..5 {
        let pid = pool.apply(|()| std::process::id(), ()).unwrap();
        let before = resident(pid);
        let handle = pool.apply_async(measure, large());
        let behind = pool.apply_async(|x: u64| x, 7);
        wait_until(|| handle.is_ready() || resident(pid) > before + LARGE / 10);
        signal(pid, Signal::KILL);
        match handle.get() {
            Ok(result) => assert_eq!(result, (LARGE, true)),
            Err(error) => {
                assert_eq!(error.signal(), Some(Signal::KILL.as_raw()), "{error}");
                lost += 1;
            }
        }
        assert_eq!(behind.get().unwrap(), 7);
    }
    assert!(lost > 0, "none of them was half-way");
}

/// A result of 100 MiB whose process is killed so much later than it was encoded.
#[derive(Deserialize)]
struct Doomed(Vec<u8>, Option<Duration>);

impl Serialize for Doomed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(delay) = self.1 {
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                kill_process(getpid(), Signal::KILL).expect("one may kill oneself");
            });
        }
        (&self.0, self.1).serialize(serializer)
    }
}

/// The worker dies while it sends 100 MiB: the task is lost, or all of it had been sent; what
/// waits behind it gets its value.
fn a_death_while_a_result_is_half_way<S: Processes>() {
    let pool = S::pool(1);
    let mut lost = 0;
    for delay in [0, 1, 3, 10, 20, 30, 60] {
        let delay = Duration::from_millis(delay);
        let call = pool.apply_async(|delay| Doomed(large(), Some(delay)), delay);
        let behind = pool.call(|x: u64| x).retries(1).apply_async(7);
        match call.get() {
            Ok(Doomed(bytes, _)) => assert!(bytes == large()),
            Err(error) => {
                assert_eq!(error.signal(), Some(Signal::KILL.as_raw()), "{error}");
                lost += 1;
            }
        }
        assert_eq!(behind.get().unwrap(), 7);
    }
    assert!(lost > 0, "none of them was half-way");
}
