//! loom: the ring, with every read and write of its bytes checked for races.
//!
//! Caught when broken on purpose: a position published or given back with `Relaxed`, or read with
//! `Relaxed`; one byte more put in than are free; a small message put in without a look at what is
//! free.

use std::sync::Arc;

use super::explore;
use crate::shm::region::{Region, RingSizes};
use crate::shm::ring::{Consumer, Producer};
use crate::sync::thread;

/// How the consumer gets at bytes.
#[derive(Clone, Copy)]
enum Taking {
    Copying,
    Peeking,
    InPlace,
}

/// A stream through a ring that is smaller: it wraps around, and both sides wait for each other.
fn stream(capacity: usize, pieces: &'static [usize], taking: Taking) {
    explore(2, move || {
        let region = Region::for_model(Region::bytes_for(RingSizes::both(capacity)));
        let mut consumer = Consumer::requests(Arc::new(region.again()), RingSizes::both(capacity));
        let mut producer = Producer::requests(Arc::new(region), RingSizes::both(capacity));
        let total = pieces.iter().sum::<usize>();
        let bytes: Vec<u8> = (1..=total as u8).collect();
        let expected = bytes.clone();
        let sender = thread::Builder::new().spawn(move || {
            let mut rest = &bytes[..];
            for &piece in pieces {
                let (mut now, later) = rest.split_at(piece);
                rest = later;
                while !now.is_empty() {
                    let count = producer.put(now).expect("positions that can be");
                    now = &now[count..];
                    producer.publish();
                    if !now.is_empty() {
                        thread::spin_loop();
                    }
                }
            }
        });
        let mut got = Vec::new();
        while got.len() < total {
            let available = consumer.available().expect("positions that can be");
            match taking {
                Taking::Copying => consumer.take(available, &mut got),
                Taking::Peeking => {
                    let mut piece = vec![0; available];
                    consumer.peek(&mut piece);
                    consumer.skip(available);
                    got.extend(piece);
                }
                Taking::InPlace => {
                    let mut left = available;
                    while left > 0 {
                        // What is behind the end of the ring is another piece.
                        let count = (1..=left)
                            .rev()
                            .find(|&count| take_in_place(&mut consumer, count, &mut got));
                        left -= count.expect("one byte is always in one piece");
                    }
                }
            }
            if !consumer.release() {
                thread::spin_loop();
            }
        }
        sender.expect("a thread").join().expect("no panic");
        assert_eq!(got, expected);
    });
}

#[allow(unsafe_code)]
fn take_in_place(consumer: &mut Consumer, count: usize, into: &mut Vec<u8>) -> bool {
    // SAFETY: nothing is released before the copy.
    let bytes = unsafe { consumer.take_in_place(count) };
    bytes.map(|bytes| into.extend_from_slice(bytes)).is_some()
}

#[test]
fn a_stream_is_copied_out() {
    stream(4, &[3, 3], Taking::Copying);
}

#[test]
fn a_stream_is_looked_at_and_passed_over() {
    stream(4, &[6], Taking::Peeking);
}

#[test]
fn a_stream_is_taken_where_it_is() {
    stream(2, &[1, 2], Taking::InPlace);
}

/// Small messages have a way of their own in.
#[test]
fn small_messages_pass() {
    explore(3, || {
        let region = Region::for_model(Region::bytes_for(RingSizes::both(8)));
        let mut consumer = Consumer::requests(Arc::new(region.again()), RingSizes::both(8));
        let mut producer = Producer::requests(Arc::new(region), RingSizes::both(8));
        let sender = thread::Builder::new().spawn(move || {
            for word in [7, 8] {
                while !producer.put_small(word, &[1, 2, 3, 4]) {
                    producer.free().expect("positions that can be");
                    thread::spin_loop();
                }
                producer.publish();
            }
        });
        for word in [7, 8] {
            while consumer.available() != Ok(8) {
                thread::spin_loop();
            }
            assert_eq!(consumer.peek_word(), Some(word));
            consumer.skip(4);
            assert_eq!(consumer.peek_word(), Some(0x0403_0201));
            consumer.skip(4);
            assert!(consumer.release());
        }
        sender.expect("a thread").join().expect("no panic");
    });
}
