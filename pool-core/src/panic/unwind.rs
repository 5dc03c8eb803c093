//! What the unwinder knows of the frames of this thread: where each one is, and whether it would
//! catch a panic.
//!
//! A panic hook does not learn whether its panic will be caught, and by what. The unwinder is about
//! to look for that in the tables of the code; the same question is asked of the same tables here.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::raw::c_int;

/// A frame of this thread's stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// The address at which it goes on.
    pub(super) address: usize,
    /// Where the code of its function begins.
    #[cfg_attr(
        not(unix),
        allow(dead_code, reason = "no worker dies of an allocation")
    )]
    pub(crate) function: usize,
    /// Where its part of the stack begins: what it has called lies below, and its own data above.
    pub(super) stack: usize,
    /// What a panic that comes to it would find.
    pub(super) handler: Handler,
}

/// What a panic finds in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handler {
    /// It goes on, perhaps after some destructors.
    None,
    /// It is caught.
    Catch,
    /// It ends the process: nothing may unwind out of here.
    Abort,
}

/// Visits the frames of this thread, the innermost first, until `visit` says `false` or there are
/// no more. `visit` must not panic.
#[inline(never)]
pub(crate) fn walk(mut visit: impl FnMut(Frame) -> bool) {
    let mut visit: &mut dyn FnMut(Frame) -> bool = &mut visit;
    // SAFETY: the unwinder calls `on_frame` only before it returns, with this argument, which is
    // the reference that is meant there.
    unsafe { _Unwind_Backtrace(on_frame, (&raw mut visit).cast()) };
}

/// An unwinder's frame.
#[repr(C)]
struct Context {
    _opaque: [u8; 0],
}

// The interface that the platform's unwinders have in common (the "C++ ABI: exception handling").
// The standard library links one of them. It is called as something that may unwind, although it
// does not: a call that cannot has no entry in the table of the caller, which is among the frames
// and would then be one that nothing may unwind out of.
unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut Context, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
}

unsafe extern "C" {
    fn _Unwind_GetIPInfo(context: *mut Context, is_exact: *mut c_int) -> usize;
    fn _Unwind_GetCFA(context: *mut Context) -> usize;
    fn _Unwind_GetLanguageSpecificData(context: *mut Context) -> *const u8;
    fn _Unwind_GetRegionStart(context: *mut Context) -> usize;
}

const GO_ON: c_int = 0;
const STOP: c_int = 5;

extern "C" fn on_frame(context: *mut Context, visit: *mut c_void) -> c_int {
    let mut is_exact = 0;
    // SAFETY: the unwinder calls this with a frame of its own, for the time of the call, and with
    // the reference of `walk`, which waits for us.
    let (address, stack, table, function, visit) = unsafe {
        (
            _Unwind_GetIPInfo(context, &raw mut is_exact),
            _Unwind_GetCFA(context),
            _Unwind_GetLanguageSpecificData(context),
            _Unwind_GetRegionStart(context),
            &mut *visit.cast::<&mut dyn FnMut(Frame) -> bool>(),
        )
    };
    // A return address is behind the call, which may have been the last instruction of a range.
    // Only where a signal came, it is the instruction itself.
    let at = address.saturating_sub(usize::from(is_exact == 0));
    let handler = if table.is_null() {
        Handler::None
    } else {
        // SAFETY: the table is that of the function which the frame is of. Compilers wrote it.
        look_up(unsafe { Reader::new(table) }, function, at)
    };
    let goes_on = visit(Frame {
        address,
        function,
        stack,
        handler,
    });
    if goes_on { GO_ON } else { STOP }
}

/// What a function's table says of an address in it. `function` is where its code begins.
fn look_up(mut table: Reader, function: usize, at: usize) -> Handler {
    const OMITTED: u8 = 0xff;
    if table.byte() != OMITTED {
        // Landing pads that are not counted from the function: no compiler of ours makes them.
        return Handler::None;
    }
    if table.byte() != OMITTED {
        table.unsigned();
    }
    let encoding = table.byte();
    let bytes = table.unsigned() as usize;
    // The entries, and behind them what they refer to.
    let mut actions = table.skip(bytes);
    while table.is_before(&actions) {
        let (Some(start), Some(length), Some(pad)) = (
            table.encoded(encoding),
            table.encoded(encoding),
            table.encoded(encoding),
        ) else {
            return Handler::None;
        };
        let action = table.unsigned() as usize;
        let start = function.wrapping_add(start);
        if at < start {
            break;
        }
        if at - start >= length {
            continue;
        }
        if pad == 0 || action == 0 {
            return Handler::None;
        }
        actions = actions.skip(action - 1);
        return match actions.signed() {
            0 => Handler::None,
            1.. => Handler::Catch,
            _ => Handler::Abort,
        };
    }
    // A call that the table does not have must not unwind.
    Handler::Abort
}

/// A place in a function's table (its "language-specific data area", in the format of GCC and
/// LLVM), read from there on.
struct Reader(*const u8);

impl Reader {
    /// # Safety
    /// It is the beginning of such a table, as a compiler has written it, which stays there for as
    /// long as it is read. Such a table ends where its format says it does, and nowhere else: what
    /// is read must be what the format has next.
    unsafe fn new(table: *const u8) -> Self {
        Self(table)
    }

    fn byte(&mut self) -> u8 {
        // SAFETY: the format has a byte here, as whoever made this promised.
        let byte = unsafe { *self.0 };
        self.0 = self.0.wrapping_add(1);
        byte
    }

    /// The place behind so many bytes.
    fn skip(&self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    fn is_before(&self, other: &Self) -> bool {
        self.0 < other.0
    }

    fn bytes<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        std::array::from_fn(|_| self.byte())
    }

    /// A number of seven bits to a byte.
    fn unsigned(&mut self) -> u64 {
        self.groups().0
    }

    /// The same, with a sign.
    fn signed(&mut self) -> i64 {
        let (value, bits) = self.groups();
        let unused = 64_u32.saturating_sub(bits);
        (value << unused).cast_signed() >> unused
    }

    /// The value, and how many bits it was written with. Its last byte says that it is one.
    fn groups(&mut self) -> (u64, u32) {
        let (mut value, mut bits) = (0_u64, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f).checked_shl(bits).unwrap_or(0);
            bits += 7;
            if byte & 0x80 == 0 {
                return (value, bits);
            }
        }
    }

    /// A number in one of the ways that a table may be written in; `None`: another one.
    fn encoded(&mut self, encoding: u8) -> Option<usize> {
        Some(match encoding {
            0x00 => usize::from_ne_bytes(self.bytes()),
            0x01 => self.unsigned() as usize,
            0x02 => u16::from_ne_bytes(self.bytes()).into(),
            0x03 => u32::from_ne_bytes(self.bytes()) as usize,
            0x04 => u64::from_ne_bytes(self.bytes()) as usize,
            0x09 => self.signed().cast_unsigned() as usize,
            0x0b => i32::from_ne_bytes(self.bytes()) as usize,
            0x0c => i64::from_ne_bytes(self.bytes()) as usize,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Whether a panic here would be caught, as the tables say, in a frame below this address.
    #[inline(never)]
    fn first_handler() -> Option<(Handler, usize)> {
        let mut found = None;
        walk(|frame| {
            if frame.handler != Handler::None {
                found = Some((frame.handler, frame.stack));
            }
            found.is_none()
        });
        found
    }

    #[inline(never)]
    fn mark() -> usize {
        let here = 0_u8;
        std::hint::black_box(&raw const here).addr()
    }

    #[test]
    fn a_catch_is_seen_where_it_is() {
        let outer = first_handler().expect("the harness catches panics");
        assert_eq!(outer.0, Handler::Catch);
        let inner = catch_unwind(AssertUnwindSafe(|| {
            let found = first_handler().expect("this one");
            // It uses the stack, so that it has a frame of its own.
            (found, mark())
        }));
        let ((handler, stack), below) = inner.unwrap();
        assert_eq!(handler, Handler::Catch);
        assert!(below < stack && stack < outer.1, "{stack:x} {outer:x?}");
    }

    struct OnDrop<F: FnMut()>(F);
    impl<F: FnMut()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    /// Values that are to be dropped are no handlers.
    #[test]
    fn destructors_do_not_catch() {
        let outer = first_handler();
        let _value = OnDrop(|| {
            std::hint::black_box(0);
        });
        assert_eq!(first_handler(), outer);
    }

    #[test]
    fn what_must_not_unwind_ends_it() {
        extern "C" fn callback(found: &mut Option<Handler>) {
            *found = first_handler().map(|(handler, _)| handler);
            std::hint::black_box(found);
        }
        let mut found = None;
        callback(&mut found);
        assert_eq!(found, Some(Handler::Abort));
    }

    /// While a panic unwinds, another one would end the process where the destructor ends.
    #[test]
    fn a_destructor_that_runs_for_a_panic_ends_it() {
        let mut found = None;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _value = OnDrop(|| found = first_handler());
            std::panic::resume_unwind(Box::new(0));
        }));
        assert!(caught.is_err());
        assert_eq!(found.map(|(handler, _)| handler), Some(Handler::Abort));
    }
}
