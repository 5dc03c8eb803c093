//! Rubbish in the fork server's sockets: it costs the connection that it came over, and nothing
//! else.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use procpool_fork::{ForkLauncher, ForkServer};
use procpool_testing::procfs::{children, descriptors, is_alive};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::Scenario;
use crate::processes::{wait_for, watch};
use crate::rig::{launch, pool, round, server, standby, try_launch, try_reach, worker};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("rubbish ends the connection it came over", rubbish),
    (
        "what is too long is not taken for what it begins with",
        too_long,
    ),
    ("descriptors that nobody asked for are closed", unwanted),
    ("requests for what there is not are answered", unknown),
    ("a pool may go in the middle of its requests", hasty),
    ("rubbish on the main socket is ignored", main_socket),
];

/// The sockets of this process.
fn sockets() -> BTreeMap<u32, String> {
    let mut all = descriptors(std::process::id());
    all.retain(|_, target| target.starts_with("socket:"));
    all
}

/// The sockets that `open` opens, at this end.
fn opened<T>(open: impl FnOnce() -> T) -> (T, Vec<u32>) {
    let before = sockets();
    let value = open();
    let new = sockets().into_keys().filter(|it| !before.contains_key(it));
    (value, new.collect())
}

/// Takes in what the server sends unasked, of its standby: after that, to connect opens one
/// socket.
fn settle(server: &ForkServer) {
    standby(server);
    drop(server.connect().expect("the server runs"));
}

/// A server, a pool's connection, and the socket behind that.
fn connected() -> (ForkServer, ForkLauncher, u32) {
    let server = server();
    settle(&server);
    let (launcher, sockets) = opened(|| server.connect().expect("the server runs"));
    assert_eq!(sockets.len(), 1);
    (server, launcher, sockets[0])
}

/// Sends a message over a socket of this process, with copies of these descriptors.
fn send(socket: u32, message: &[u8], given: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    // SAFETY: it is open: this process's own list says so, and its owner lives.
    let socket = unsafe { BorrowedFd::borrow_raw(socket.cast_signed()) };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !given.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(given)));
    }
    sendmsg(
        socket,
        &[IoSlice::new(message)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
}

/// A message of this kind for this launch.
fn message(kind: u8, launch: u64, rest: &[u8]) -> Vec<u8> {
    [&[kind][..], &launch.to_le_bytes(), rest].concat()
}

const LAUNCH: u8 = 1;
const REAP: u8 = 2;
const FORGET: u8 = 3;

/// Everything that is no request.
fn rubbish() {
    let (server, mut other) = pool();
    settle(&server);
    let (_other_worker, other_pid) = worker(&mut other, 1);
    let mut number = 2;
    let mut all: Vec<Vec<u8>> = vec![
        // What looks like the end.
        vec![],
        vec![REAP],
        vec![0xff; 24],
        vec![0; 9],
        message(REAP, 1, &[0]),
        message(FORGET, 1, &[0; 15]),
        message(LAUNCH, 1, &[0, 0xff, 0xfe]),
        message(LAUNCH, 1, &[0x80]),
        message(LAUNCH, 1, &[]),
        message(4, 1, &[]),
        message(255, 1, &[0; 15]),
        b"connect".to_vec(),
    ];
    all.extend((1..30).map(|length| vec![LAUNCH ^ 0x40; length]));
    for rubbish in all {
        let (mut launcher, sockets) = opened(|| server.connect().expect("the server runs"));
        let (_link, pid) = worker(&mut launcher, number);
        let death = watch(pid);
        send(sockets[0], &rubbish, &[]).expect("the server is there");
        // Its workers go with it.
        crate::processes::wait_readable(&death);
        // The next launch finds that out, and connects again.
        let again = try_launch(&mut launcher, number).and_then(try_reach);
        if let Err(error) = again {
            panic!("{rubbish:?}: {error}");
        }
        drop(launcher);
        number += 1;
    }
    assert!(is_alive(other_pid), "another pool's");
    round(&mut other, number);
    wait_for("the server reaps them", || {
        children(server.pid()) == [other_pid]
    });
}

/// A launch with a name that is longer than any.
fn too_long() {
    let (server, mut launcher, socket) = connected();
    let (link, pid) = worker(&mut launcher, 1);
    let death = watch(pid);
    send(socket, &message(LAUNCH, 7, b"\0aaaaaaaaaaaaaaaa"), &[]).expect("the server is there");
    crate::processes::wait_readable(&death);
    drop(link);
    drop(launcher);
    let mut launcher = server.connect().expect("the server runs");
    round(&mut launcher, 2);
}

/// With requests that want none, too many of them, and with rubbish.
fn unwanted() {
    let (server, mut launcher, socket) = connected();
    round(&mut launcher, 1);
    let before = descriptors(server.pid());
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    for count in [1, 2, 3, 10, 30] {
        let given = vec![writer.as_fd(); count];
        for _ in 0..20 {
            send(socket, &message(REAP, 1 << 40, &[]), &given).expect("the server is there");
            send(socket, &message(FORGET, 1 << 40, &[]), &given).expect("the server is there");
            if count != 2 {
                send(socket, &message(LAUNCH, 1 << 40, b"\0a"), &given).expect("it is there");
            }
            if count != 4 {
                send(socket, &message(LAUNCH, 1 << 40, b"\x03a"), &given).expect("it is there");
            }
        }
        // It takes the messages in order.
        round(&mut launcher, 2);
    }
    // A doorbell to nobody, and memory that is none.
    let null = std::fs::File::open("/dev/null").expect("there is one");
    for pair in [
        [writer.as_fd(), null.as_fd()],
        [null.as_fd(), null.as_fd()],
        [reader.as_fd(), writer.as_fd()],
    ] {
        send(socket, &message(LAUNCH, 1 << 41, b"\0a"), &pair).expect("the server is there");
    }
    round(&mut launcher, 3);
    assert_eq!(descriptors(server.pid()), before);
    assert_eq!(children(server.pid()), [] as [u32; 0]);

    send(socket, b"rubbish", &[writer.as_fd(); 2]).expect("the server is there");
    wait_for("the connection is closed", || {
        descriptors(server.pid()).len() == before.len() - 1
    });
}

/// Launches that there never were, or not over this connection.
fn unknown() {
    let (server, mut launcher, socket) = connected();
    let (_link, pid) = worker(&mut launcher, 1);
    let mut other = server.connect().expect("the server runs");
    let (_other_link, other_pid) = worker(&mut other, 1);
    for number in [1, 2, u64::MAX] {
        for _ in 0..20 {
            send(socket, &message(REAP, number << 8, &[]), &[]).expect("the server is there");
            send(socket, &message(FORGET, number << 8, &[]), &[]).expect("the server is there");
        }
        // The answers are read, and are for nobody.
        round(&mut launcher, 2);
    }
    assert!(is_alive(pid) && is_alive(other_pid));
}

/// Connections that end right after what they have asked for.
fn hasty() {
    let (server, mut stays) = pool();
    round(&mut stays, 1);
    let before = descriptors(server.pid());
    for turn in 0..100 {
        let mut launcher = server.connect().expect("the server runs");
        let links: Vec<_> = (0..turn % 3)
            .map(|number| launch(&mut launcher, number))
            .collect();
        if turn % 2 == 0 {
            drop(launcher);
            drop(links);
        } else {
            drop(links);
            drop(launcher);
        }
    }
    wait_for("the server reaps them", || {
        children(server.pid()).is_empty()
    });
    wait_for("and closes what it had", || {
        descriptors(server.pid()) == before
    });
    round(&mut stays, 2);
}

/// Where pools are connected, nothing is taken for a pool that is none.
fn main_socket() {
    // The second one is the tie.
    let (server, sockets) = opened(server);
    assert_eq!(sockets.len(), 2);
    let mut launcher = server.connect().expect("the server runs");
    round(&mut launcher, 1);
    let before = descriptors(server.pid());
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let null = std::fs::File::open("/dev/null").expect("there is one");
    for message in [&b"connect"[..], b"connec", b"connect!", &[0; 30], &[1; 9]] {
        for given in [
            &[][..],
            &[reader.as_fd()],
            &[null.as_fd()],
            &[writer.as_fd(), reader.as_fd()],
        ] {
            send(sockets[0], message, given).expect("the server is there");
        }
    }
    let mut launcher = server.connect().expect("the server runs");
    round(&mut launcher, 2);
    drop(launcher);
    wait_for("the server closes what it was given", || {
        descriptors(server.pid()) == before
    });
}
