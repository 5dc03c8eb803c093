//! Panics of tasks: caught, with what the panic hook knows, and not printed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use crate::backtrace::Backtrace;
use crate::protocol::PanicReport;

thread_local! {
    /// How deep this thread is in [`catch`]: its panics are then reported, not printed.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
    static REPORT: RefCell<Option<PanicReport>> = const { RefCell::new(None) };
}

/// Runs `body`; a panic in it is an error that carries message, location and backtrace.
///
/// The process's panic hook is asked only about panics outside of `catch`; the report reaches
/// the caller of the pool, and whether it is printed is his business.
#[inline]
pub(crate) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, PanicReport> {
    reporting(|| caught(body))
}

/// Runs `body`, in which panics are reported and not printed.
#[inline]
pub(crate) fn reporting<T>(body: impl FnOnce() -> T) -> T {
    struct Deeper;
    impl Drop for Deeper {
        #[inline]
        fn drop(&mut self) {
            CATCHING.set(CATCHING.get() - 1);
        }
    }
    CATCHING.set(CATCHING.get() + 1);
    let _deeper = Deeper;
    body()
}

/// [`catch`] for many small bodies, inside of [`reporting`].
#[inline]
pub(crate) fn caught<T>(body: impl FnOnce() -> T) -> Result<T, PanicReport> {
    catch_unwind(AssertUnwindSafe(body)).map_err(report_for)
}

/// What is known of a panic that was caught, inside of [`reporting`], with this payload.
#[cold]
pub(crate) fn report_for(payload: Box<dyn Any + Send>) -> PanicReport {
    let report = REPORT.take().unwrap_or_else(|| PanicReport {
        message: message(payload.as_ref()),
        ..PanicReport::default()
    });
    drop_quietly(payload);
    report
}

/// Runs `body`, whose panics are of no interest.
pub(crate) fn quietly(body: impl FnOnce()) {
    let _ = catch(body);
}

/// A panic's payload may panic again when it is dropped.
fn drop_quietly(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // A payload whose destructor panics with such a payload, and so on: enough is enough.
        #[allow(clippy::mem_forget, clippy::disallowed_methods)]
        std::mem::forget(again);
    }
}

/// From now on panics inside [`catch`] are recorded with location and backtrace, and all others
/// go to the hook that was there before.
pub(crate) fn install_hook() {
    if crate::sync::IS_MODEL {
        // All threads of a model are one to the standard library, and its panics are for us.
        return;
    }
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.try_with(Cell::get).unwrap_or(0) == 0 {
                previous(info);
            } else {
                super::current::has_panicked();
                // The first panic is the cause; one during unwinding aborts anyway.
                let _ = REPORT.try_with(|report| {
                    if let Ok(mut report) = report.try_borrow_mut() {
                        *report = Some(report_of(info));
                    }
                });
            }
        }));
    });
}

fn report_of(info: &PanicHookInfo<'_>) -> PanicReport {
    PanicReport {
        message: message(info.payload()),
        location: info.location().map(ToString::to_string),
        backtrace: wants_backtrace().then(Backtrace::capture),
    }
}

/// Backtraces are taken unless they are switched off: to take one costs little (see
/// [`Backtrace`]), and a crash in another process may not come again.
fn wants_backtrace() -> bool {
    let setting =
        std::env::var_os("RUST_LIB_BACKTRACE").or_else(|| std::env::var_os("RUST_BACKTRACE"));
    setting.is_none_or(|value| value != "0")
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic whose payload is no text".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_reported_with_its_place() {
        install_hook();
        let line = line!() + 1;
        let report = catch(|| panic!("the number is {}", 7)).unwrap_err();
        assert_eq!(report.message, "the number is 7");
        let location = report.location.expect("a location");
        assert!(
            location.contains(&format!("panic.rs:{line}:")),
            "{location}"
        );
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_survived() {
        struct Spiteful;
        impl Drop for Spiteful {
            fn drop(&mut self) {
                panic!("not so fast");
            }
        }
        let report = catch(|| std::panic::panic_any(Spiteful)).unwrap_err();
        assert!(report.message.contains("no text"), "{}", report.message);
    }
}
