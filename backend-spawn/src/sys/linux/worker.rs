//! What a process asks about itself and does to itself to become a worker.

use std::ffi::{CString, OsStr};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use procpool_core::{failed, starter};
use rustix::process::set_parent_process_death_signal;
use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // The older way to the same numbers.
            Err(errno) => {
                let device = std::fs::File::open("/dev/urandom");
                let read = device.and_then(|mut device| device.read_exact(&mut bytes));
                read.map_err(|_| failed("getrandom")(errno))?;
                break;
            }
        }
    }
    Ok(bytes)
}

/// Makes this process be killed when the thread that started it ends. `false`: it has already.
pub(crate) fn die_with_parent() -> io::Result<bool> {
    let before = starter();
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(starter() == before)
}

/// Names the process after its program: an executed `/proc/self/exe` is called `exe` in listings.
pub(crate) fn name_process(program: &OsStr) {
    let name = Path::new(program).file_name().unwrap_or(program);
    if let Ok(name) = CString::new(name.as_bytes())
        && !name.is_empty()
    {
        let _ = rustix::thread::set_name(&name);
    }
}
