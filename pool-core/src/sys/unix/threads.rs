//! What threads are called.
#![allow(unsafe_code)]

/// The name of this thread as the system has it, which knows all threads, also where this one has
/// lost its data already: 15 bytes at most on Linux. A thread without a name of its own has that of
/// the thread which started it.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub(crate) fn thread_name() -> String {
    use std::ffi::CStr;

    use nix::libc;
    use nix::sys::pthread::pthread_self;

    let mut name = [0 as libc::c_char; 64];
    // SAFETY: there is room for so many bytes.
    let got = unsafe { libc::pthread_getname_np(pthread_self(), name.as_mut_ptr(), name.len()) };
    if got != 0 {
        return String::new();
    }
    // SAFETY: the name that was written ends in a zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_string_lossy().into_owned()
}

/// No thread has a name.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(crate) fn thread_name() -> String {
    String::new()
}
