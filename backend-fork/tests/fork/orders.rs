//! What the workers of these tests do: what a word in their region says.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;
use procpool_core::{ExitStatus, Region};
use procpool_fork::ForkServer;
use rustix::io::Errno;
use rustix::thread::futex;

use crate::processes::HANG;
use crate::rig;

/// Behind the page of words, where the request ring would be.
const OFFSET: usize = 4096;

/// An order to a worker.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Order {
    /// Return the argument from `serve`.
    Exit = 1,
    /// Ring the doorbell.
    Ring,
    /// `abort`.
    Abort,
    /// Write where no memory is.
    Fault,
    /// Overflow the stack.
    Overflow,
    /// Unwind out of `serve`.
    Panic,
    /// Start a process that sleeps, and report its identifier.
    StartProcess,
    /// Print the argument without a line's end.
    Print,
    /// Leave a thread behind that holds the lock of standard output.
    HoldStdout,
    /// Report 1 if a global server can be seen, and 2 if not.
    LookForGlobal,
    /// Start a fork server, and report the identifier of a worker of that.
    Nest,
    /// Report how a worker of a fork server that was started here has ended: its exit code.
    NestAndReap,
}

const ALL: [Order; 12] = [
    Order::Exit,
    Order::Ring,
    Order::Abort,
    Order::Fault,
    Order::Overflow,
    Order::Panic,
    Order::StartProcess,
    Order::Print,
    Order::HoldStdout,
    Order::LookForGlobal,
    Order::Nest,
    Order::NestAndReap,
];

/// The words by which the test and a worker talk.
#[repr(C)]
struct Words {
    /// An [`Order`], or 0 when the worker has done it.
    order: AtomicU32,
    argument: AtomicU32,
    report: AtomicU32,
}

/// Gives an order.
pub(crate) fn give(region: &Region, order: Order, argument: u32) {
    let words = words(region);
    words.argument.store(argument, Ordering::Relaxed);
    words.order.store(order as u32, Ordering::Release);
    let _ = futex::wake(&words.order, futex::Flags::empty(), 1);
}

/// Waits until the worker has done what it was ordered, and answers what it reports.
pub(crate) fn report(region: &Region) -> u32 {
    let words = words(region);
    loop {
        match words.order.load(Ordering::Acquire) {
            0 => return words.report.load(Ordering::Relaxed),
            order => {
                let waited = futex::wait(&words.order, futex::Flags::empty(), order, Some(&HANG));
                assert_ne!(waited, Err(Errno::TIMEDOUT), "the worker does not do it");
            }
        }
    }
}

/// The workers' life.
pub(crate) fn serve(region: Region, doorbell: OwnedFd) -> i32 {
    // What an order leaves for later: a nested pool must live on.
    let mut nests = Vec::new();
    loop {
        let words = words(&region);
        let order = words.order.load(Ordering::Acquire);
        let Some(order) = ALL.into_iter().find(|known| *known as u32 == order) else {
            let _ = futex::wait(&words.order, futex::Flags::empty(), 0, None);
            continue;
        };
        let argument = words.argument.load(Ordering::Relaxed);
        let mut report = 0;
        match order {
            Order::Exit => return argument as i32,
            Order::Ring => {
                rustix::io::write(&doorbell, &[1]).expect("a doorbell has room");
            }
            Order::Abort => std::process::abort(),
            Order::Fault => {
                // SAFETY: nothing is ever mapped in the lowest page, so this is not a write but a
                // signal, which ends the process.
                unsafe { std::ptr::write_volatile(8 as *mut u8, 0) };
            }
            Order::Overflow => report = overflow(argument).into(),
            Order::Panic => panic!("ordered"),
            Order::StartProcess => {
                let child = Command::new("sleep").arg("1000").spawn();
                report = child.expect("there is a `sleep`").id();
            }
            Order::Print => {
                print!("rust-{argument} ");
                // SAFETY: the format takes one unsigned number, and ends with a null byte.
                unsafe { libc::printf(c"c-%u ".as_ptr(), argument) };
            }
            Order::HoldStdout => {
                let (held, is_held) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    let _lock = std::io::stdout().lock();
                    let _ = held.send(());
                    loop {
                        std::thread::park();
                    }
                });
                is_held.recv().expect("the thread holds the lock");
            }
            Order::LookForGlobal => report = if ForkServer::global().is_some() { 1 } else { 2 },
            Order::Nest | Order::NestAndReap => {
                let server = ForkServer::start_serving(serve).expect("a worker has one thread");
                let mut launcher = server.connect().expect("the server runs");
                let mut worker = rig::reach(rig::launch(&mut launcher, 1));
                if let Order::NestAndReap = order {
                    give(&worker.region(), Order::Exit, argument);
                    match rig::reap(&launcher, &mut worker) {
                        ExitStatus::Code(code) => report = code as u32,
                        other => panic!("the nested worker {other}"),
                    }
                } else {
                    report = worker.pid().expect("a reached worker has one");
                    nests.push((worker, launcher));
                }
            }
        }
        words.report.store(report, Ordering::Relaxed);
        words.order.store(0, Ordering::Release);
        let _ = futex::wake(&words.order, futex::Flags::empty(), 1);
    }
}

#[expect(unconditional_recursion, reason = "that is the purpose")]
fn overflow(depth: u32) -> u8 {
    let space = std::hint::black_box([depth as u8; 4096]);
    overflow(depth + 1) + space[depth as usize % 4096]
}

fn words(region: &Region) -> &Words {
    // SAFETY: within the mapping, aligned, and any bits are valid in atomics.
    unsafe { region.address().add(OFFSET).cast().as_ref() }
}
