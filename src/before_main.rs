//! [`init`](crate::init) where there is no `main` to call it in.

/// Calls [`init`](crate::init) before `main`: for a test binary, whose `main` is the harness', and
/// for a library, whose users' `main` knows nothing of pools.
///
/// Say it once in the binary or the library, outside of all functions. It adds a function that the
/// loader runs before `main`. In a process that was started as a worker, that becomes the worker;
/// in one that was started as an agent, the agent.
///
/// With `fork_server`, it also starts a [fork server](crate#choosing-a-backend) for the whole
/// program, which each `ForkPool::builder()` uses from then on: there is one thread at that time,
/// as in none of a harness' tests later. The server is a process of its own, so a library should
/// not ask for it unless it needs a `ForkPool`. Without the feature `fork` it does nothing.
///
/// In a test file, or for unit tests in the crate's root under `#[cfg(test)]`:
///
#[cfg_attr(feature = "spawn", doc = "```no_run")]
#[cfg_attr(not(feature = "spawn"), doc = "```ignore")]
/// // tests/squares.rs
/// use procpool::{Pool, ProcessPool};
///
/// procpool::init_before_main!(fork_server);
///
/// #[test]
/// fn squares() {
///     let pool = ProcessPool::builder().processes(2).build().unwrap();
///     assert_eq!(pool.map(|x: u64| x * x, 0..4).unwrap(), [0, 1, 4, 9]);
/// }
/// # fn main() {}
/// ```
///
/// In a library:
///
#[cfg_attr(feature = "spawn", doc = "```no_run")]
#[cfg_attr(not(feature = "spawn"), doc = "```ignore")]
/// // src/lib.rs
/// use procpool::{Pool, ProcessPool};
///
/// procpool::init_before_main!();
///
/// /// Those who call this need not know that there are processes.
/// pub fn squares(numbers: Vec<u64>) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
///     let pool = ProcessPool::new()?;
///     Ok(pool.map(|x: u64| x * x, numbers)?)
/// }
/// # fn main() {}
/// ```
///
/// A program that has a `main` calls [`init`](crate::init) in it, where a reader sees it. Both do
/// no harm together.
///
/// In a shared object (a plugin, a Python extension) it makes a `SpawnPool` possible: its workers are
/// the program that has loaded the object, with the object loaded into it first, and that makes a
/// worker of it before the program begins. `docs/libraries.md` in the repository has the rest.
#[macro_export]
macro_rules! init_before_main {
    () => {
        $crate::init_before_main!(@with $crate::before_main::init);
    };
    (fork_server) => {
        $crate::init_before_main!(@with $crate::before_main::init_and_start_fork_server);
    };
    (@with $init:path) => {
        const _: () = {
            extern "C" fn before_main() {
                $init();
            }
            // What the loader finds in this section it calls before `main`, on the main thread.
            #[used]
            #[cfg_attr(
                all(unix, not(target_vendor = "apple")),
                unsafe(link_section = ".init_array")
            )]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
            #[cfg_attr(windows, unsafe(link_section = ".CRT$XCU"))]
            static BEFORE_MAIN: extern "C" fn() = before_main;
        };
    };
}

/// What [`init_before_main!`] runs.
#[doc(hidden)]
pub fn init() {
    #[cfg(feature = "spawn")]
    procpool_spawn::init_at_load();
    #[cfg(feature = "cluster")]
    procpool_cluster::init_at_load();
}

/// The same with `fork_server`.
#[doc(hidden)]
pub fn init_and_start_fork_server() {
    init();
    #[cfg(feature = "fork")]
    if let Ok(server) = crate::ForkServer::start() {
        // There is one already if the macro was said twice; that one is as good.
        let _ = server.set_global();
    }
}
