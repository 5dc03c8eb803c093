//! Panics of tasks: caught, with what the panic hook knows of them, and not printed.
//!
//! The hook hears of every panic, also of those that a task catches itself, and it hears nothing of
//! what is thrown again (`resume_unwind`). So it finds out, for each panic, who is going to
//! catch it: see [`Course`]. A report is used only for the panic that it is of.

mod recent;
pub(crate) mod record;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use self::recent::Payload;
use super::backtrace::Backtrace;
use super::payload::text;
use super::unwind::{self, Handler};
use crate::panic::report::PanicReport;

thread_local! {
    /// Where in the stack of this thread the innermost [`panic_scope`] is: its panics are reported,
    /// not printed. 0: there is none.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
    /// The panics of this thread that are on their way to a [`catch`], the outermost first. There
    /// is more than one where a destructor, which runs for a panic, catches another one.
    static COMING: RefCell<Vec<Coming>> = const { RefCell::new(Vec::new()) };
}

/// A panic that is going to be caught by us.
struct Coming {
    /// The [`INSIDE`] in which it happened.
    inside: usize,
    payload: Payload,
    report: PanicReport,
}

fn reports(coming: &[Coming]) -> impl Iterator<Item = &PanicReport> {
    coming.iter().map(|it| &it.report)
}

/// What becomes of a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Somebody else catches it: the task, the library that it calls, the end of its thread.
    Elsewhere,
    /// The innermost [`catch`] of this thread catches it.
    Here,
    /// Nobody does: it ends the process.
    Abort,
}

/// Runs `body`; a panic in it is an error that carries message, location and backtrace.
///
/// The process's panic hook is asked only about panics outside of `catch`; the report reaches
/// the caller of the pool, and whether it is printed is up to them.
#[inline]
pub(crate) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, PanicReport> {
    catch_unwind(AssertUnwindSafe(|| panic_scope(body))).map_err(report_for)
}

/// Runs `body`, in which panics are reported and not printed. The catcher asks
/// [`report_for`].
///
/// It has a frame of its own, by whose place frames inside of it are distinguished from those
/// outside.
#[inline(never)]
pub(crate) fn panic_scope<T>(body: impl FnOnce() -> T) -> T {
    struct Before(usize);
    impl Drop for Before {
        #[inline]
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }
    let place = 0_u8;
    let place = std::hint::black_box(&raw const place).addr();
    let _before = Before(INSIDE.replace(place));
    body()
}

/// What is known of a panic in [`panic_scope`] that was caught with this payload.
#[cold]
pub(crate) fn report_for(payload: Box<dyn Any + Send>) -> PanicReport {
    let known = Payload::of(payload.as_ref());
    // What was inside of it is past. It may have come from another thread, or have been made by
    // hand.
    let report = take_arrived(known)
        .or_else(|| recent::find(known))
        .unwrap_or_default();
    let report = PanicReport {
        message: message(payload.as_ref()),
        ..report
    };
    drop_quietly(payload);
    report
}

/// The report on the panic with this payload, if it was on its way to the caller.
fn take_arrived(payload: Payload) -> Option<PanicReport> {
    let inside = INSIDE.get();
    let mut coming = COMING.take();
    let is_past = |it: &mut Coming| inside == 0 || it.inside < inside;
    let arrived: Vec<Coming> = coming.extract_if(.., is_past).collect();
    record::withdraw(reports(&coming));
    COMING.set(coming);
    let last = arrived.into_iter().next_back()?;
    (last.payload == payload).then_some(last.report)
}

/// Runs `body`, whose panics are of no interest.
pub(crate) fn catch_and_discard(body: impl FnOnce()) {
    let _ = catch(body);
}

/// A panic's payload may panic again when it is dropped.
pub(crate) fn drop_quietly(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| panic_scope(|| drop(payload)))) {
        take_arrived(Payload::of(again.as_ref()));
        // A payload whose destructor panics with such a payload, and so on: enough is enough.
        #[allow(clippy::mem_forget, clippy::disallowed_methods)]
        std::mem::forget(again);
    }
}

/// Whether this process is a worker.
static IS_WORKER: AtomicBool = AtomicBool::new(false);
/// In how many threads of another process a pool that has none of its own runs tasks.
static RUNNING_HERE: AtomicU32 = AtomicU32::new(0);

/// From now on whatever runs in this process belongs to tasks.
pub(crate) fn expect_tasks() {
    install_hook();
    IS_WORKER.store(true, Ordering::Relaxed);
}

/// Runs tasks in a process that is no worker.
pub(crate) fn with_tasks<T>(body: impl FnOnce() -> T) -> T {
    struct Less;
    impl Drop for Less {
        fn drop(&mut self) {
            RUNNING_HERE.fetch_sub(1, Ordering::Relaxed);
        }
    }
    install_hook();
    RUNNING_HERE.fetch_add(1, Ordering::Relaxed);
    let _less = Less;
    body()
}

/// Whether a panic on any thread may be thrown again in a task.
fn has_tasks() -> bool {
    IS_WORKER.load(Ordering::Relaxed) || RUNNING_HERE.load(Ordering::Relaxed) > 0
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
            let place = 0_u8;
            let hook = std::hint::black_box(&raw const place).addr();
            on_panic(info, &*previous, hook);
        }));
    });
}

/// `hook` is a place in the frame that the standard library has called.
fn on_panic(info: &PanicHookInfo<'_>, previous: &dyn Fn(&PanicHookInfo<'_>), hook: usize) {
    let inside = INSIDE.try_with(Cell::get).unwrap_or(0);
    if inside == 0 {
        previous(info);
        if !has_tasks() {
            return;
        }
    }
    let (course, backtrace) = course_of(info, inside, hook);
    let payload = Payload::of(info.payload());
    let report = PanicReport {
        message: String::new(),
        location: info.location().map(ToString::to_string),
        backtrace,
        thread: None,
    };
    match course {
        Course::Elsewhere => recent::remember(payload, report),
        Course::Here => {
            let report = PanicReport {
                message: message(info.payload()),
                ..report
            };
            // Where the thread has lost its data already, its end is near.
            let _ = COMING.try_with(|coming| {
                if let Ok(mut coming) = coming.try_borrow_mut() {
                    coming.push(Coming {
                        inside,
                        payload,
                        report,
                    });
                    // A destructor that runs for it may abort.
                    record::leave(reports(&coming), None);
                }
            });
        }
        Course::Abort => {
            let report = PanicReport {
                message: message(info.payload()),
                ..report
            };
            let coming = COMING.try_with(|coming| {
                let coming = coming.try_borrow();
                let coming = coming.as_deref().map_or(&[][..], Vec::as_slice);
                record::leave(reports(coming), Some(&report));
            });
            if coming.is_err() {
                record::leave([], Some(&report));
            }
            if inside != 0 {
                print_coming();
                previous(info);
            }
        }
    }
}

/// Prints what will not be reported any more, because the process ends.
fn print_coming() {
    let _ = COMING.try_with(|coming| {
        if let Ok(coming) = coming.try_borrow() {
            for Coming { report, .. } in &*coming {
                let place = report.location.as_deref().unwrap_or("an unknown place");
                eprintln!("a task panicked at {place}:\n{}", report.message);
            }
        }
    });
}

/// What becomes of a panic that the hook is called for, and where it was.
///
/// The unwinder goes through the same frames and looks into the same tables right afterwards.
fn course_of(info: &PanicHookInfo<'_>, inside: usize, hook: usize) -> (Course, Option<Backtrace>) {
    let mut backtrace = wants_backtrace().then(Backtrace::default);
    // If there is no handler at all, the unwinder gives up.
    let mut course = None;
    if is_abort(info) {
        course = Some(Course::Abort);
    }
    // The hook's own frames are not the panic's. Where a linker optimises the whole program, it
    // sees that the calls in them do not unwind, and their tables are those of what must not.
    let mut is_below = true;
    unwind::walk(|frame| {
        let is_hooks = is_below;
        is_below = is_below && frame.stack <= hook;
        let is_full = match &mut backtrace {
            Some(backtrace) => !backtrace.push(frame.address),
            None => true,
        };
        if course.is_none() && !is_hooks {
            course = match frame.handler {
                Handler::None => None,
                Handler::Catch if inside == 0 || frame.stack <= inside => Some(Course::Elsewhere),
                Handler::Catch => Some(Course::Here),
                Handler::Abort => Some(Course::Abort),
            };
        }
        course.is_none() || !is_full
    });
    (course.unwrap_or(Course::Abort), backtrace)
}

/// Whether this panic unwinds nothing. Of the single panic the standard library says that only to
/// code that prints what it knows.
fn is_abort(info: &PanicHookInfo<'_>) -> bool {
    cfg!(panic = "abort")
        || format!("{info:?}")
            .rsplit_once("can_unwind: ")
            .is_some_and(|(_, value)| value.starts_with("false"))
}

/// Backtraces are taken unless they are switched off: to take one costs little (see
/// [`Backtrace`]), and a crash in another process may not come again.
fn wants_backtrace() -> bool {
    let setting =
        std::env::var_os("RUST_LIB_BACKTRACE").or_else(|| std::env::var_os("RUST_BACKTRACE"));
    setting.is_none_or(|value| value != "0")
}

fn message(payload: &(dyn Any + Send)) -> String {
    text(payload).map_or_else(
        || "a panic whose payload is no text".to_owned(),
        ToOwned::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use std::panic::{panic_any, resume_unwind};
    use std::thread;

    use super::*;

    /// What is reported of a panic in a task.
    fn reported(task: impl FnOnce()) -> PanicReport {
        with_tasks(|| catch(task)).unwrap_err()
    }

    /// The place of a panic that is `lines` lines behind this.
    macro_rules! behind {
        ($lines:expr) => {
            format!("{}:{}:", file!(), line!() + $lines)
        };
    }

    fn assert_at(report: &PanicReport, place: &str) {
        let location = report.location.as_deref().expect("a place");
        assert!(location.starts_with(place), "{location} is not {place}");
    }

    #[test]
    fn a_panic_is_reported_with_its_place() {
        let place = behind!(1);
        let report = reported(|| panic!("the number is {}", 7));
        assert_eq!(report.message, "the number is 7");
        assert_at(&report, &place);
        assert!(report.backtrace.is_some() || !wants_backtrace());
        let place = behind!(1);
        let report = reported(|| panic_any(7));
        assert!(report.message.contains("no text"), "{}", report.message);
        assert_at(&report, &place);
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_survived() {
        struct Spiteful;
        impl Drop for Spiteful {
            fn drop(&mut self) {
                panic!("not so fast");
            }
        }
        let report = reported(|| panic_any(Spiteful));
        assert!(report.message.contains("no text"), "{}", report.message);
        assert!(COMING.take().is_empty());
    }

    /// One that was caught says nothing of those that come later, whatever they are.
    #[test]
    fn a_caught_panic_leaves_nothing() {
        let caught = |x: u8| {
            assert!(catch_unwind(|| panic!("caught {x}")).is_err());
            assert!(catch_unwind(|| panic!("caught")).is_err());
            assert!(catch_unwind(|| panic_any(x)).is_err());
        };
        let report = reported(|| {
            caught(1);
            resume_unwind(Box::new("by hand"));
        });
        let by_hand = PanicReport {
            message: "by hand".to_owned(),
            ..PanicReport::default()
        };
        assert_eq!(report, by_hand);
        let report = reported(|| {
            caught(2);
            resume_unwind(Box::new(2_u8));
        });
        assert_eq!((report.location, report.backtrace), (None, None));
        let place = behind!(3);
        let report = reported(|| {
            caught(3);
            panic_any(3_u8);
        });
        assert_at(&report, &place);
    }

    /// Code that catches a panic and throws it again has not panicked.
    #[test]
    fn a_panic_that_is_thrown_again_keeps_its_place() {
        let number = std::hint::black_box(5);
        let place = behind!(2);
        let report = reported(|| {
            let payload = catch_unwind(|| panic!("the first of {number}"));
            assert!(catch_unwind(|| panic!("another one of {number}")).is_err());
            resume_unwind(payload.unwrap_err());
        });
        assert_eq!(report.message, "the first of 5");
        assert_at(&report, &place);
    }

    /// Nor has code that waits for a thread that panicked.
    #[test]
    fn a_panic_of_another_thread_has_its_place() {
        let number = std::hint::black_box(5);
        let place = behind!(2);
        let report = reported(|| {
            let helper = thread::spawn(move || panic!("row {number}"));
            resume_unwind(helper.join().unwrap_err());
        });
        assert_eq!(report.message, "row 5");
        assert_at(&report, &place);
    }

    struct OnDrop<F: FnMut()>(F);
    impl<F: FnMut()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    /// Destructors that run for a panic may run tasks in turn, and may catch panics.
    #[test]
    fn a_panic_outlives_those_in_destructors() {
        let place = behind!(6);
        let report = reported(|| {
            let _value = OnDrop(|| {
                assert!(catch_unwind(|| panic!("caught")).is_err());
                assert_eq!(catch(|| panic!("inner")).unwrap_err().message, "inner");
            });
            panic!("outer");
        });
        assert_eq!(report.message, "outer");
        assert_at(&report, &place);
    }

    #[test]
    fn panics_that_unwind_nothing_are_told_from_others() {
        let report = reported(|| panic!("can_unwind: false"));
        assert_eq!(report.message, "can_unwind: false");
    }
}
