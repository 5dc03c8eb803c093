//! Random numbers of the kernel.

use std::fs::File;
use std::io::{self, Read};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::sys::refused::failed;
use crate::sys::unix::now_ns;

/// A number that no other process, and no other call, is given.
pub(crate) fn random_id() -> io::Result<u128> {
    let mut id = [0; 16];
    let mut filled = 0;
    while filled < id.len() {
        match getrandom(&mut id[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => {
                // The older way to the same numbers.
                let device = File::open("/dev/urandom");
                let read = device.and_then(|mut device| device.read_exact(&mut id));
                read.map_err(|_| failed("getrandom")(errno))?;
                break;
            }
        }
    }
    Ok(u128::from_ne_bytes(id))
}

/// A number that is another one each time, as far as that can be had.
pub(crate) fn random_seed() -> u64 {
    let id = random_id().unwrap_or_else(|_| {
        // A sandbox. The clock goes on between any two calls; what follows spreads the difference.
        let differs = u128::from(now_ns()) << 32 | u128::from(std::process::id());
        differs.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    });
    (id >> 64) as u64 ^ id as u64
}
