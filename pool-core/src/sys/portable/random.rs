//! Random numbers of the system's device.

use std::fs::File;
use std::io::{self, Read};

use crate::sys::{now_ns, own_pid};

/// A number that no other process, and no other call, is given.
pub(crate) fn random_id() -> io::Result<u128> {
    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(u128::from_ne_bytes(id))
}

/// A number that is another one each time, as far as that can be had.
pub(crate) fn random_seed() -> u64 {
    let id = random_id().unwrap_or_else(|_| {
        // The clock goes on between any two calls; what follows spreads the difference.
        let differs = u128::from(now_ns()) << 32 | u128::from(own_pid());
        differs.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    });
    (id >> 64) as u64 ^ id as u64
}
