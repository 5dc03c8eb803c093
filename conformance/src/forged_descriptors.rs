//! What a worker sends beside its ring that means harm: it costs its own result, and nothing of it
//! stays with the parent.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use procpool::{Broadcast, Emitter, Fd, Pool, Stateless, TaskError, TaskErrorKind};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::backends::Processes;
use crate::forged_results::{ALL, answer, assert_refused, offer, outcome, record, sealed};
use crate::hostile_support::fd_socket;
use crate::procfs::{descriptors, wait_until, workers};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        an_honest_forgery_is_taken,
        of_another_item,
        fewer_than_it_says,
        more_than_it_says,
        none_at_all,
        what_is_no_memory,
        memory_that_can_change,
        a_name_that_is_in_use,
        of_an_emitted_value,
        packets_of_rubbish,
        a_thousand_descriptors_take_none_of_the_parents,
        a_flood_costs_its_own_results,
    ]
}

/// The kind of a packet that has what stands in a result: see `pool-core/src/passing/message.rs`.
const RESULT: u32 = 4;
/// In which byte of a record's head which bit says that it is a value that the task has emitted.
const EMITTED: (usize, u8) = (11, 1 << 6);
/// The number of a worker's first item.
const FIRST: u64 = 1;

/// Sends a packet; says whether there was room for it.
fn send(bytes: &[u8], files: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(files.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(files)));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(
        fd_socket(),
        &[io::IoSlice::new(bytes)],
        &mut ancillary,
        flags,
    )
    .is_ok()
}

fn head(number: u64) -> Vec<u8> {
    let mut head = RESULT.to_le_bytes().to_vec();
    head.extend(0_u32.to_le_bytes());
    head.extend(number.to_le_bytes());
    head
}

/// The reading ends of new pipes.
fn files(count: usize) -> Vec<OwnedFd> {
    let pipes = (0..count).map(|_| io::pipe().expect("descriptors").0.into());
    pipes.collect()
}

/// The record of a vector of descriptors with these names, so many of which are said to be sent.
fn vector(names: &[u128]) -> Vec<u8> {
    let mut result = (names.len() as u64).to_le_bytes().to_vec();
    let names: Vec<u128> = names.iter().map(|name| own(*name)).collect();
    result.extend(names.iter().flat_map(|name| name.to_le_bytes()));
    record(&[result, offer(&[], [0; 8], &names, true)].concat())
}

/// A name that no other worker's has: one parent has those of several tests at the same time.
fn own(name: u128) -> u128 {
    u128::from(std::process::id()) << 64 | name
}

/// Sends these files for this item, and answers that they are those with these names.
fn forge(number: u64, count: usize, names: &[u128]) -> ! {
    let files = files(count);
    let borrowed: Vec<_> = files.iter().map(|it| it.as_fd()).collect();
    assert!(send(&head(number), &borrowed));
    answer(&vector(names))
}

fn assert_violation<R>(outcome: Result<R, TaskError>) {
    let error = outcome.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert!(error.to_string().contains("rubbish"), "{error}");
}

/// The same of a worker that the parent kills for it.
fn violation<S: Processes>(task: impl Fn(()) -> Vec<Fd> + Stateless) {
    let pool = S::pool(1);
    let before = open_here();
    assert_violation(pool.apply(task, ()));
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    let next = pool.apply(|()| Fd::from(io::pipe().expect("descriptors").0), ());
    drop(next.unwrap());
    // Those of other tests come and go.
    wait_until(|| open_here() <= before + 200);
}

fn open_here() -> usize {
    descriptors(std::process::id()).len()
}

/// Or the others would be refused for another reason than they should.
fn an_honest_forgery_is_taken<S: Processes>() {
    let taken = outcome::<S, _, _, Vec<Fd>>(|()| forge(FIRST, 2, &[3, 4]), ());
    for fd in taken.unwrap() {
        let mut pipe = io::PipeReader::from(fd.into_owned());
        assert_eq!(pipe.read(&mut [0]).expect("a pipe"), 0);
    }
}

fn of_another_item<S: Processes>() {
    violation::<S>(|()| forge(FIRST + 1, 2, &[5, 6]));
    violation::<S>(|()| forge(0, 2, &[5, 6]));
}

fn fewer_than_it_says<S: Processes>() {
    violation::<S>(|()| forge(FIRST, 1, &[7, 8]));
}

fn more_than_it_says<S: Processes>() {
    violation::<S>(|()| forge(FIRST, 250, &[9]));
}

fn none_at_all<S: Processes>() {
    violation::<S>(|()| answer(&vector(&[10])));
    violation::<S>(|()| forge(FIRST, 0, &[10]));
}

/// In the place of memory, whatever it is.
fn what_is_no_memory<S: Processes>() {
    let forge = |()| -> Broadcast<[u8]> {
        let files = files(1);
        send_memory(files[0].as_fd())
    };
    assert_refused(outcome::<S, _, _, Broadcast<[u8]>>(forge, ()), "not sealed");
    let forge = |()| -> Broadcast<[u8]> {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("descriptors");
        send_memory(one.as_fd())
    };
    assert_refused(outcome::<S, _, _, Broadcast<[u8]>>(forge, ()), "not sealed");
}

fn memory_that_can_change<S: Processes>() {
    let forge = |()| -> Broadcast<[u8]> {
        let file = sealed(b"loose", rustix::fs::SealFlags::WRITE);
        send_memory(file.as_fd())
    };
    assert_refused(outcome::<S, _, _, Broadcast<[u8]>>(forge, ()), "not sealed");
    // Or it would be refused for another reason.
    let honest = |()| -> Broadcast<[u8]> {
        let file = sealed(b"tight", ALL);
        send_memory(file.as_fd())
    };
    let taken = outcome::<S, _, _, Broadcast<[u8]>>(honest, ());
    assert_eq!(*taken.unwrap(), *b"tight");
}

/// Sends this as memory, and answers with a handle of it.
fn send_memory(file: BorrowedFd<'_>) -> ! {
    let inode = rustix::fs::fstat(file).expect("it is open").st_ino;
    let mut ticket = own(11).to_le_bytes().to_vec();
    ticket.extend([0; 8]);
    ticket.extend(inode.to_le_bytes());
    ticket.extend([0; 8]);
    assert!(send(&head(FIRST), &[file]));
    let offer = offer(&ticket, 1_u64.to_le_bytes(), &[], true);
    answer(&record(&[ticket, offer].concat()))
}

fn a_name_that_is_in_use<S: Processes>() {
    violation::<S>(|()| forge(FIRST, 2, &[12, 12]));
}

/// The parent takes no packet for it that is not what the record says.
fn of_an_emitted_value<S: Processes>() {
    let forge = |sent: usize, _: &Emitter<Vec<Fd>>| -> u8 {
        let files = files(sent);
        let borrowed: Vec<_> = files.iter().map(|it| it.as_fd()).collect();
        assert!(send(&head(FIRST), &borrowed));
        let mut record = vector(&[17, 18]);
        record[EMITTED.0] |= EMITTED.1;
        answer(&record)
    };
    for (sent, taken) in [(2, 1), (1, 0), (0, 0), (3, 0)] {
        let pool = S::pool(1);
        let mut values = pool.call(forge).stream(sent);
        // What follows is no outcome, so that an honest one fails as well, but later.
        let mut come = 0;
        let error = values.by_ref().find_map(|value| {
            come += usize::from(value.is_ok());
            value.err()
        });
        assert_eq!(come, taken, "{sent}: {error:?}");
        assert_violation(values.result());
        assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    }
}

fn packets_of_rubbish<S: Processes>() {
    violation::<S>(|()| {
        assert!(send(&[255; 100], &[]));
        answer(&vector(&[13]))
    });
    violation::<S>(|()| {
        let files = files(3);
        let borrowed: Vec<_> = files.iter().map(|it| it.as_fd()).collect();
        assert!(send(&[0; 100_000], &borrowed));
        answer(&vector(&[14, 15, 16]))
    });
}

/// Nobody takes them.
fn a_thousand_descriptors_take_none_of_the_parents<S: Processes>() {
    let flood = |()| {
        let files = files(250);
        let borrowed: Vec<_> = files.iter().map(|it| it.as_fd()).collect();
        (0..4).all(|_| send(&head(FIRST), &borrowed))
    };
    let pool = S::pool(1);
    let worker = workers(&pool)[0];
    let before = open_here();
    assert!(pool.apply(flood, ()).unwrap());
    for x in 0..10 {
        assert_eq!(pool.apply(|x: u64| x + 1, x).unwrap(), x + 1);
    }
    assert!(open_here() < before + 500, "descriptors have come");
    assert_eq!(workers(&pool), [worker], "it is nothing that others notice");
    // They stand before its next result that has some: that is none of its item.
    let next = pool.apply(|()| Fd::from(io::pipe().expect("descriptors").0), ());
    assert_violation(next);
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
}

/// There is no room in its socket, ever.
fn a_flood_costs_its_own_results<S: Processes>() {
    let flood = |()| {
        let files = files(1);
        let mut sent = 0;
        while send(&head(FIRST), &[files[0].as_fd()]) {
            sent += 1;
        }
        sent
    };
    let pool = S::pool(1);
    assert!(pool.apply(flood, ()).unwrap() > 50);
    let error = pool.apply(|()| Fd::from(io::pipe().expect("descriptors").0), ());
    let error = error.unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Encode, "{error}");
    assert!(error.to_string().contains("cannot be sent"), "{error}");
    // Memory can be had otherwise.
    let shared = pool.apply(|()| Broadcast::new("shared").expect("memory"), ());
    assert_eq!(&*shared.unwrap(), "shared");
    let emit = |text: String, out: &Emitter<Broadcast<str>>| {
        out.emit(Broadcast::new(&*text).expect("memory")).is_ok()
    };
    let mut values = pool.call(emit).stream("emitted".into());
    assert_eq!(&*values.next().unwrap().unwrap(), "emitted");
    assert_eq!(values.result(), Ok(true));
}
