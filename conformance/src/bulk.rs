//! Arguments and results that are far larger than the rings.

use std::sync::{Mutex, MutexGuard, PoisonError};

use procpool::Pool;

use crate::backends::{Builder, Processes};
use crate::trial::Test;
use crate::watchdog;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_hundred_mebibytes_each_way,
        many_large_items_at_the_same_time,
        large_values_of_other_types,
        a_hundred_mebibytes_each_way_through_the_smallest_ring,
        items_of_every_size_around_that_of_the_ring,
        a_gibibyte_each_way_through_a_small_ring,
    ]
}

const MEBIBYTE: usize = 1 << 20;

/// One of these tests at a time: together they need more memory than some machines have.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    watchdog::allow(4);
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes without a period that any buffer size divides.
fn bytes(count: usize) -> Vec<u8> {
    let mut bytes = Vec::from_iter(0..=250).repeat(count.div_ceil(251));
    bytes.truncate(count);
    bytes
}

fn backwards(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.reverse();
    bytes
}

/// An argument of 100 MiB, and as large a result, to the last byte.
fn a_hundred_mebibytes_each_way<S: Processes>() {
    let _alone = alone();
    let pool = S::pool(2);
    let sent = bytes(100 * MEBIBYTE);
    let expected = backwards(sent.clone());
    assert!(pool.apply(backwards, sent).unwrap() == expected);
}

/// Each worker gets large items while it still sends large results.
fn many_large_items_at_the_same_time<S: Processes>() {
    let _alone = alone();
    let pool = S::pool(2);
    let items = || (0..12).map(|item| bytes(MEBIBYTE + 1000 * item));
    let check = |results: Vec<Vec<u8>>| {
        assert_eq!(results.len(), 12);
        let expected = items().map(backwards);
        assert!(
            expected
                .zip(results)
                .all(|(expected, result)| expected == result)
        );
    };
    check(pool.map(backwards, items()).unwrap());
    check(pool.call(backwards).chunksize(6).map(items()).unwrap());
    check(pool.map_async(backwards, items()).get().unwrap());
    check(pool.imap(backwards, items()).map(Result::unwrap).collect());
}

/// Numbers, texts and lists of lists are as large as one likes.
fn large_values_of_other_types<S: Processes>() {
    type Table = (Vec<f64>, String, Vec<Vec<u32>>);
    let _alone = alone();
    let pool = S::pool(2);
    let table: Table = (
        (0..MEBIBYTE).map(|x| x as f64).collect(),
        "ß".repeat(MEBIBYTE),
        (0..300).map(|x| vec![x; 300]).collect(),
    );
    let result = pool.apply(|table: Table| table, table.clone());
    assert!(result.unwrap() == table);
}

/// 100 MiB through rings of 4 KiB, both ways at the same time: neither side waits for the other
/// forever.
fn a_hundred_mebibytes_each_way_through_the_smallest_ring<S: Processes>() {
    let _alone = alone();
    let pool = S::builder().processes(2).ring_capacity(4096).build();
    let half = 50 * MEBIBYTE;
    let results = pool
        .call(backwards)
        .chunksize(2)
        .map([bytes(half), bytes(half - 1)]);
    let results = results.unwrap();
    assert!(results[0] == backwards(bytes(half)));
    assert!(results[1] == backwards(bytes(half - 1)));
}

/// Every length around the sizes of the ring, of half of it and of twice as much: nothing hangs at
/// a border.
fn items_of_every_size_around_that_of_the_ring<S: Processes>() {
    let _alone = alone();
    let pool = S::builder().processes(1).ring_capacity(4096).build();
    let sizes = [2048_usize, 4096, 8192]
        .iter()
        .flat_map(|size| size - 40..size + 8);
    let sizes = Vec::from_iter(sizes);
    for chunk in [1, 7] {
        let items = sizes.iter().map(|size| bytes(*size));
        let results = pool.call(backwards).chunksize(chunk).map(items).unwrap();
        for (size, result) in sizes.iter().zip(results) {
            assert!(
                result == backwards(bytes(*size)),
                "{size} in chunks of {chunk}"
            );
        }
    }
    for size in sizes {
        assert!(pool.apply(backwards, bytes(size)).unwrap() == backwards(bytes(size)));
    }
}

/// 1 GiB there and 1 GiB back, one after the other, through rings of which it takes 16,384.
fn a_gibibyte_each_way_through_a_small_ring<S: Processes>() {
    const GIBIBYTE: usize = 1 << 30;
    let _alone = alone();
    let pool = S::builder().processes(1).ring_capacity(64 << 10).build();
    let check = |bytes: Vec<u8>| (bytes.len(), bytes.ends_with(b"the end!"));
    let sent = b"the end!".repeat(GIBIBYTE / 8);
    assert_eq!(pool.apply(check, sent).unwrap(), (GIBIBYTE, true));
    let result = pool.apply(|()| b"the end!".repeat(GIBIBYTE / 8), ());
    assert_eq!(check(result.unwrap()), (GIBIBYTE, true));
}
