//! A clone of a pool is the same pool: the last one that is dropped terminates it.
#![allow(clippy::disallowed_methods, reason = "tests sleep")]
#![cfg(all(feature = "fork", feature = "spawn"))]

use std::rc::Rc;
use std::thread;
use std::time::Duration;

use procpool::{AnyPool, ForkPool, Pool, SerialPool, SpawnPool};

procpool::init_before_main!(fork_server);

fn pools() -> [AnyPool; 3] {
    [
        SerialPool::new().into(),
        ForkPool::builder().processes(1).build().unwrap().into(),
        SpawnPool::builder().processes(1).build().unwrap().into(),
    ]
}

#[test]
fn a_pool_goes_on_until_its_last_clone_is_dropped() {
    for pool in pools() {
        let clone = Rc::new(pool.clone());
        drop(pool);
        assert_eq!(clone.apply(|x: u64| x + 1, 1).unwrap(), 2);
        clone.close();
    }
}

#[test]
fn the_last_clone_terminates() {
    let pool = ForkPool::builder().processes(1).build().unwrap();
    let other = pool.clone();
    let handle = pool.apply_async(|()| thread::sleep(Duration::from_secs(600)), ());
    drop(pool);
    assert!(!handle.is_ready());
    drop(other);
    assert!(handle.get().unwrap_err().is_cancelled());
}
