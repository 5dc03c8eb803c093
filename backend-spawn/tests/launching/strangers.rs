//! Strangers at a worker's socket, and workers that say strange things in their doorbell.

use std::env;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use backend_spawn::SpawnPool;
use pool_core::{Advance, ExitStatus, PROTOCOL_VERSION};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};
use rustix::process::geteuid;
use rustix::thread::set_thread_res_uid;

use crate::failing::{find_socket, socket};
use crate::harness::{
    LONG, Scenario, assert_shares_region, failure, is_readable, launch, reach, reap, sleep,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("another_user_cannot_connect", another_user),
        Scenario::new("rubbish_at_the_socket_is_refused", rubbish),
        Scenario::new("a_silent_stranger_delays_until_the_limit", silent_stranger),
        Scenario::new("a_full_queue_does_not_block_the_parent", full_queue),
        Scenario::new("a_flood_of_strangers_ends_at_the_limit", flood),
        Scenario::new("a_hello_of_another_version", || says("version 4294967295"))
            .worker(|| hello(u32::MAX, std::process::id(), nonce(), "/")),
        Scenario::new("a_hello_of_another_process", || says("takes itself for 1;"))
            .worker(|| hello(PROTOCOL_VERSION, 1, nonce(), "/")),
        Scenario::new("a_hello_with_a_wrong_nonce", || says("a wrong nonce"))
            .worker(|| hello(PROTOCOL_VERSION, std::process::id(), 1, "/")),
        Scenario::new("a_hello_of_another_build", || says("another build"))
            .worker(|| hello(PROTOCOL_VERSION, std::process::id(), nonce(), "/")),
        Scenario::new("rubbish_in_the_doorbell", || says("that is no message"))
            .worker(|| write_to_bell(&[7; 4000])),
        Scenario::new("an_endless_message_in_the_doorbell", || {
            says("that is no message")
        })
        .worker(|| write_to_bell(b"\xf1pp\0\x03\xff\xff")),
        Scenario::new("half_a_hello", half_a_hello)
            .worker(|| write_to_bell(b"\xf1pp\0\x01\x40\0rest to follow")),
    ]
}

/// A socket that is connected to a worker's server. It does not wait.
fn stranger(server: &str) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(server)?)?;
    Ok(socket)
}

/// The folder keeps everybody else from the socket.
fn another_user() {
    let mut link = launch();
    let server = socket(&*link);
    let folder = Path::new(&server).parent().and_then(Path::parent);
    let folder = fs::metadata(folder.expect("a folder in a folder")).expect("it is there");
    assert_eq!(folder.permissions().mode() & 0o7777, 0o700);
    assert_eq!(folder.uid(), geteuid().as_raw());
    if geteuid().is_root() {
        // This thread alone, which keeps the group: that is no way in either.
        let refused = thread::spawn(move || {
            let nobody = rustix::process::Uid::from_raw(65534);
            set_thread_res_uid(nobody, nobody, nobody).expect("root may be anybody");
            stranger(&server).expect_err("nobody is let in")
        });
        assert_eq!(refused.join().expect("no panic"), Errno::ACCESS);
    }
    reach(&mut *link).expect("a worker");
    assert_shares_region(&*link);
}

/// Short, long, with lengths that are true or not: each costs one server, and the launch goes on.
fn rubbish() {
    let whole = |rest: &[u8]| {
        let length = (16 + rest.len() as u64).to_le_bytes();
        let total = (rest.len() as u64).to_le_bytes();
        [&length[..], &total, rest].concat()
    };
    let messages: Vec<Vec<u8>> = vec![
        vec![0],
        8_u64.to_le_bytes().to_vec(),
        vec![0xff; 16],
        vec![0xff; 1000],
        [&24_u64.to_le_bytes()[..], &u64::MAX.to_le_bytes(), &[1; 8]].concat(),
        whole(&[]),
        whole(&[0xff; 40]),
        // A nonce, and memory of which there is none.
        whole(&[&[1; 16][..], &[0]].concat()),
        whole(&[0; 17]),
    ];
    for message in messages {
        let mut link = launch();
        let server = socket(&*link);
        {
            // The worker may not listen yet.
            let stranger = loop {
                match stranger(&server) {
                    Ok(stranger) => break stranger,
                    Err(Errno::CONNREFUSED) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            send(&stranger, &message, SendFlags::NOSIGNAL).expect("it is short");
        }
        reach(&mut *link).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        assert_shares_region(&*link);
    }
}

/// Whoever may connect, the same user, can keep a worker waiting, but no longer than a launch may take;
/// and the parent waits for nothing.
fn silent_stranger() {
    let held = thread::spawn(|| {
        loop {
            if let Some(server) = find_socket()
                && let Ok(stranger) = stranger(&server)
            {
                break stranger;
            }
        }
    });
    let limit = Duration::from_secs(2);
    let built = SpawnPool::builder().processes(1).launch_timeout(limit);
    // The parent may have been first.
    if let Err(error) = built.build() {
        assert!(error.to_string().contains("within 2s"), "{error}");
    }
    drop(held.join().expect("no panic"));
    let pool = SpawnPool::builder().processes(1).build();
    drop(pool.expect("the stranger is gone"));
}

/// The parent wants to connect when there is no room in the worker's queue. It does not wait for that; and
/// when the strangers are gone, the launch succeeds.
fn full_queue() {
    let mut link = launch();
    let server = socket(&*link);
    // The worker accepts the first one and waits for what it says.
    let mut strangers = Vec::new();
    loop {
        match stranger(&server) {
            Ok(stranger) => strangers.push(stranger),
            Err(Errno::AGAIN) if is_accepting(&strangers) => break,
            Err(Errno::AGAIN | Errno::CONNREFUSED) => {}
            Err(error) => panic!("{error}"),
        }
    }
    for _ in 0..3 {
        assert_eq!(link.advance().expect("no error"), Advance::Pending);
    }
    drop(strangers);
    reach(&mut *link).expect("a worker");
    assert_shares_region(&*link);
    // Whoever waited in vain has ended.
    while fs::read_dir("/proc/self/task").expect("threads").count() > 1 {
        thread::yield_now();
    }
}

/// Whether there are more strangers than the queue has room for: then one was accepted.
fn is_accepting(strangers: &[OwnedFd]) -> bool {
    strangers.len() > 11
}

/// So many strangers that the parent hardly comes through.
fn flood() {
    for _ in 0..3 {
        thread::spawn(|| {
            let mut held = Vec::new();
            loop {
                if let Some(server) = find_socket()
                    && let Ok(stranger) = stranger(&server)
                {
                    held.push(stranger);
                    if held.len() > 30 {
                        held.clear();
                    }
                }
            }
        });
    }
    let limit = Duration::from_secs(1);
    for _ in 0..3 {
        // It comes through, or it does not: it ends in time, and this test with it.
        let built = SpawnPool::builder().processes(2).launch_timeout(limit);
        if let Err(error) = built.build() {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// What the worker's environment says.
fn nonce() -> u128 {
    let summons = env::var("PROCPOOL_WORKER").expect("this is a worker");
    let nonce = summons.rsplit(':').next().expect("a last field");
    u128::from_str_radix(nonce, 16).expect("a number")
}

/// Says hello, as a `main` could that means harm, and goes no further.
fn hello(version: u32, pid: u32, nonce: u128, server: &str) {
    let mut body = Vec::new();
    body.extend(version.to_le_bytes());
    body.extend(pid.to_le_bytes());
    body.extend(nonce.to_le_bytes());
    // Of no build.
    body.extend([0; 16]);
    body.extend(server.as_bytes());
    let length = u16::try_from(body.len()).expect("short").to_le_bytes();
    write_to_bell(&[b"\xf1pp\0\x01", &length[..], &body].concat());
}

fn write_to_bell(bytes: &[u8]) {
    let mut bell = fs::File::from(rustix::io::dup(rustix::stdio::stdin()).expect("a doorbell"));
    bell.write_all(bytes).expect("it is read or has room");
    sleep();
}

/// The launch fails with these words.
fn says(words: &str) {
    let error = failure();
    assert!(error.to_string().contains(words), "{error}");
    assert!(!error.is_missing_init(), "{error}");
}

fn half_a_hello() {
    let mut link = launch();
    assert!(is_readable(link.bell(), LONG));
    for _ in 0..3 {
        assert_eq!(link.advance().expect("no error"), Advance::Pending);
    }
    link.kill();
    assert_eq!(reap(&mut *link), ExitStatus::Signal(9));
}
