//! Where the stack of a thread is.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;

use nix::libc;
use nix::sys::pthread::pthread_self;
use nix::sys::resource::{Resource, getrlimit};

use super::bonds::own_tid;
use crate::sys::unix::own_pid;

/// The part of this thread's stack below an address; empty if it is not known where it ends.
pub(crate) fn stack_below(here: usize) -> Range<usize> {
    // As far as the system lets it grow, but for pages that guard it.
    let guard = 16 * rustix::param::page_size();
    let stack = main_stack(here).or_else(thread_stack).unwrap_or_default();
    if stack.contains(&here) {
        (stack.start + guard).min(here)..here
    } else {
        here..here
    }
}

/// The stack of the program's first thread, if this is it: by what the process knows of itself,
/// since the C library would read all of `/proc/self/maps`, in every worker that starts. `None`:
/// this is another thread, or its stack has no limit.
fn main_stack(here: usize) -> Option<Range<usize>> {
    let me = own_tid();
    let is_first = me != 0 && me == own_pid();
    // (rustix takes it for a call that cannot fail, and a sandbox may refuse it.)
    let (limit, _) = getrlimit(Resource::RLIMIT_STACK).ok()?;
    // The kernel puts the program's name at the very top of the stack, and a word after it.
    let name = rustix::param::linux_execfn();
    let end = name.as_ptr().addr() + name.to_bytes_with_nul().len() + size_of::<u64>();
    let top = end.next_multiple_of(rustix::param::page_size());
    let stack = top.checked_sub(usize::try_from(limit).ok()?)?..top;
    (is_first && stack.contains(&here)).then_some(stack)
}

/// The stack of this thread, as the C library knows it.
fn thread_stack() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut bytes) = (ptr::null_mut(), 0);
    // SAFETY: the attributes are made before they are read, and destroyed once.
    let known = unsafe {
        let attributes = attributes.as_mut_ptr();
        libc::pthread_getattr_np(pthread_self(), attributes) == 0 && {
            let known = libc::pthread_attr_getstack(attributes, &raw mut start, &raw mut bytes);
            libc::pthread_attr_destroy(attributes);
            known == 0
        }
    };
    known.then(|| start.addr()..start.addr().saturating_add(bytes))
}
