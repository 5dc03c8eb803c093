//! Pools under a test harness, whose `main` is not ours.

/// Lets the tests of this binary use pools, under plain `cargo test` and under nextest.
///
/// To be said once in each test binary, at the top of the file (for unit tests: in the crate's
/// root, under `#[cfg(test)]`). It adds a function that the loader runs before `main`: in a process
/// that is started as a worker it becomes the worker; otherwise it starts a process-wide fork
/// server while there is only one thread, which `ForkPool::builder()` then uses.
///
#[cfg_attr(feature = "spawn", doc = "```no_run")]
#[cfg_attr(not(feature = "spawn"), doc = "```ignore")]
/// // tests/squares.rs
/// use procpool::{Pool, ProcessPool};
///
/// procpool::test_support!();
///
/// #[test]
/// fn squares() {
///     let pool = ProcessPool::builder().processes(2).build().unwrap();
///     assert_eq!(pool.map(|x: u64| x * x, 0..4).unwrap(), [0, 1, 4, 9]);
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! test_support {
    () => {
        const _: () = {
            extern "C" fn before_main() {
                $crate::test_support::before_main();
            }
            // What the loader finds in this section it calls before `main`, on the main thread.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static BEFORE_MAIN: extern "C" fn() = before_main;
        };
    };
}

/// What [`test_support!`] runs.
#[doc(hidden)]
pub fn before_main() {
    crate::init();
    #[cfg(feature = "fork")]
    if let Ok(server) = crate::ForkServer::start() {
        // There is one already if the macro was said twice; that one is as good.
        let _ = server.set_global();
    }
}
