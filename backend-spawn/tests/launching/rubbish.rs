//! Workers that say strange things in their doorbell or for a hello.

use std::env;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use procpool_core::{PROTOCOL_VERSION, Readiness};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::harness::{Scenario, failure, is_readable, launch, reach, sleep};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_hello_of_another_version", || says("version 300 of"))
            .worker(|| say_hello(&hello(300, std::process::id(), nonce()))),
        Scenario::new("a_hello_of_another_process", || says("takes itself for 1;"))
            .worker(|| say_hello(&hello(PROTOCOL_VERSION, 1, nonce()))),
        Scenario::new("a_hello_with_a_wrong_nonce", || says("a wrong nonce"))
            .worker(|| say_hello(&hello(PROTOCOL_VERSION, std::process::id(), [1; 16]))),
        Scenario::new("a_hello_of_another_build", || says("another build"))
            .worker(|| say_hello(&hello(PROTOCOL_VERSION, std::process::id(), nonce()))),
        Scenario::new("no_hello", || says("did not say hello")).worker(ready),
        Scenario::new("a_hello_without_a_length", || says("is no message"))
            .worker(|| say_hello(&[7; 3])),
        Scenario::new("a_hello_that_says_it_is_longer", || says("is no message"))
            .worker(|| say_hello(&message(&[2, 1], 18, 1 << 60))),
        Scenario::new("a_hello_that_says_it_comes_in_pieces", || {
            says("is no message")
        })
        .worker(|| say_hello(&message(&[2, 1], 19, 2))),
        Scenario::new("a_hello_that_is_cut", || says("is no message"))
            .worker(|| say_hello(&message(&[2, 1], 18, 2))),
        Scenario::new("text_for_a_hello", || says("is no message"))
            .worker(|| say_hello(&message(b"hello there", 27, 11))),
        Scenario::new("the_memory_cannot_be_cut_short", cannot_be_cut).worker(cut_memory),
        Scenario::new("rubbish_in_the_doorbell", || says("that is no message"))
            .worker(|| write_to_bell(&[7; 4000])),
        Scenario::new("an_endless_message_in_the_doorbell", || {
            says("that is no message")
        })
        .worker(|| write_to_bell(b"\xf1pp\0\x02\xff\xff")),
        Scenario::new("half_a_message_in_the_doorbell", half_a_message)
            .worker(|| write_to_bell(b"\xf1pp\0\x02\x40\0rest to follow")),
    ]
}

fn says(part: &str) {
    let error = failure().to_string();
    assert!(error.contains(part), "{error}");
}

fn half_a_message() {
    let mut link = launch();
    assert!(is_readable(link.doorbell(), crate::harness::LONG));
    assert_eq!(link.poll_ready().expect("no error"), Readiness::Pending);
    assert!(!is_readable(link.doorbell(), Duration::ZERO));
}

/// What a worker has of the region, it has before anything of this program runs; so have those
/// that look into the parent or the worker at any time.
fn cut_memory() {
    let memory = inherited(4);
    for bytes in [0, 1, 1 << 30] {
        let refused = rustix::fs::ftruncate(memory, bytes).expect_err("it is sealed");
        assert_eq!(refused, Errno::PERM);
    }
}

fn cannot_be_cut() {
    reach(&mut *launch()).expect("a worker that could not");
}

fn write_to_bell(bytes: &[u8]) {
    rustix::io::write(rustix::stdio::stdin(), bytes).expect("a doorbell");
    sleep();
}

fn ready() {
    write_to_bell(b"\xf1pp\0\x01\0\0");
}

/// A field of what the parent has put into the environment.
fn field(index: usize) -> String {
    let called = env::var("PROCPOOL_WORKER").expect("this is a worker");
    called.split(':').nth(index).expect("a field").to_owned()
}

/// The descriptor in a field.
fn inherited(index: usize) -> BorrowedFd<'static> {
    let field = field(index);
    let (number, _) = field.split_once('/').expect("a number");
    // SAFETY: the parent has left it to this process.
    #[allow(unsafe_code)]
    unsafe {
        BorrowedFd::borrow_raw(number.parse().expect("a number"))
    }
}

fn nonce() -> [u8; 16] {
    let nonce = u128::from_str_radix(&field(3), 16).expect("a nonce");
    nonce.to_le_bytes()
}

/// A message as ipc-channel sends it, with the lengths that it is to say.
fn message(content: &[u8], whole: u64, length: u64) -> Vec<u8> {
    [&whole.to_ne_bytes()[..], &length.to_ne_bytes(), content].concat()
}

/// A hello of a build of which the number is 5.
fn hello(version: u32, pid: u32, nonce: [u8; 16]) -> Vec<u8> {
    let content = [
        &version.to_le_bytes()[..],
        &pid.to_le_bytes(),
        &nonce,
        &5_u128.to_le_bytes(),
    ]
    .concat();
    let length = content.len() as u64;
    message(&content, 16 + length, length)
}

/// Sends these bytes to where the parent expects a hello, and says that this worker is ready.
fn say_hello(bytes: &[u8]) {
    send(inherited(5), bytes, SendFlags::NOSIGNAL).expect("the parent has it open");
    ready();
}
