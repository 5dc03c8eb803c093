//! shuttle: workers that come and go, in whole pools.

use std::time::Duration;

use super::explore;
use super::launcher::{Processes, config, pool};
use super::pool::{awake, check_fates, counted, join, runs, spawn};
use crate::api::pool::Pool;
use crate::sync::Life;
use crate::sync::thread;

/// Work goes on, each item is run once, whatever size the pool has or is to have.
#[test]
fn a_pool_is_resized_while_it_works() {
    explore(|| {
        let (_engine, pool) = pool(config(2), &Processes::default());
        let resizing = spawn(&pool, |pool| {
            for size in [1, 3, 2] {
                pool.resize(size).expect("it is open");
                thread::spin_loop();
            }
        });
        let values = pool.call(counted).chunksize(1).map(0..5).expect("values");
        assert_eq!(values, [1000, 1001, 1002, 1003, 1004]);
        join([resizing]);
        pool.close();
        pool.join().expect("it is closed");
        assert!((0..5).all(|item| runs(item) == 1));
        awake();
    });
}

/// Holders, successors and draining are killed, and the pool is resized.
#[test]
fn workers_are_killed_while_they_are_replaced() {
    explore(|| {
        let processes = Processes::default();
        let mut config = config(2);
        config.workers.set_max_tasks_per_child(1);
        let (_engine, pool) = pool(config, &processes);
        let killer = thread::Builder::new().spawn(move || {
            for _ in 0..3 {
                processes.kill_one();
                thread::spin_loop();
            }
        });
        let resizing = spawn(&pool, |pool| {
            pool.resize(1).expect("it is open");
            pool.resize(2).expect("it is open");
        });
        check_fates(&pool, 0);
        join([killer.expect("a thread"), resizing]);
        pool.close();
        pool.join().expect("it is closed");
    });
}

/// While one worker is busy for long, the other one goes for want of work, and comes back.
#[test]
fn an_idle_worker_goes_and_comes_back() {
    fn slow(item: u32) -> u32 {
        if item == 1 {
            Life::sleep_away();
        }
        counted(item)
    }
    explore(|| {
        let mut config = config(2);
        config.lifecycle.set_idle_timeout(Duration::from_millis(1));
        let (_engine, pool) = pool(config, &Processes::default());
        let call = pool.call(slow).timeout(Duration::from_millis(5));
        call.apply(1).expect_err("it sleeps");
        let values = pool.call(slow).chunksize(1).map(2..6).expect("values");
        assert_eq!(values, [1002, 1003, 1004, 1005]);
        pool.close();
        pool.join().expect("it is closed");
        assert!((2..6).all(|item| runs(item) == 1));
    });
}

/// Workers that are too old are replaced one after the other, and nothing is lost.
#[test]
fn old_workers_are_replaced_while_they_work() {
    explore(|| {
        let mut config = config(1);
        config.workers.set_max_age(Duration::from_micros(10));
        let (_engine, pool) = pool(config, &Processes::default());
        let values = pool.call(counted).chunksize(1).map(0..4).expect("values");
        assert_eq!(values, [1000, 1001, 1002, 1003]);
        assert_eq!(pool.apply(counted, 4).expect("a value"), 1004);
        assert!((0..5).all(|item| runs(item) == 1));
    });
}
