//! Closing what somebody else has opened.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use nix::libc;

/// Closes all descriptors above the standard streams but these. Where the system forbids it (a
/// seccomp filter, say), what is left stays open.
///
/// # Safety
/// This process is a copy that never again uses what stands for any other descriptor, nor drops it.
pub(crate) unsafe fn close_all_but(keep: &mut [RawFd]) {
    for (first, last) in gaps(keep) {
        // SAFETY: it takes three numbers. What they mean to others is the caller's business.
        let _ = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// The ranges of numbers above those of the standard streams that lie between these.
fn gaps(keep: &mut [RawFd]) -> impl Iterator<Item = (RawFd, RawFd)> {
    keep.sort_unstable();
    let kept = keep.iter().copied().filter(|kept| *kept > 2);
    let firsts = std::iter::once(3).chain(kept.clone().map(|kept| kept + 1));
    let lasts = kept.map(|kept| kept - 1).chain([RawFd::MAX]);
    firsts.zip(lasts).filter(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_closed() {
        let between = |keep: &[RawFd]| Vec::from_iter(gaps(&mut keep.to_vec()));
        assert_eq!(between(&[]), [(3, RawFd::MAX)]);
        assert_eq!(between(&[3, 1, 4]), [(5, RawFd::MAX)]);
        let two = [(3, 6), (8, 8), (10, RawFd::MAX)];
        assert_eq!(between(&[9, 2, 7, 7]), two);
    }
}
