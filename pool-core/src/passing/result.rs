//! What stands in the result of an item: the worker sends it before the record of the result, and
//! the parent takes it when it takes in that record. So it outlives the worker.

use std::io;
use std::sync::Arc;

use super::inbox::with_socket;
use super::message::{Kind, MAX_BYTES, Message};
use crate::sys;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};

/// Worker: sends the files of the result of the item with this number.
///
/// # Errors
/// When there is no room for now ([`is_congested`](sys::is_congested)), or no way.
pub(crate) fn send_result(number: u64, files: &[Arc<OwnedFd>]) -> io::Result<()> {
    let message = Message {
        kind: Kind::Result,
        number,
        keys: Vec::new(),
    };
    let files: Vec<_> = files.iter().map(|it| it.as_fd()).collect();
    with_socket(|socket| sys::send_packet(socket, &message.write(), &files))
}

/// What has come of a result.
pub(crate) enum ResultFiles {
    /// All of it.
    All(Vec<OwnedFd>),
    /// There are no descriptors left for all of it.
    Cut(Vec<OwnedFd>),
    /// Something else: the worker has not sent what it says.
    Violation(Vec<OwnedFd>),
}

/// Parent: takes the files of the result of the item with this number, of which the worker says
/// that there are so many. One packet is taken, whatever else there may be.
pub(crate) fn receive_result(socket: BorrowedFd<'_>, number: u64, count: usize) -> ResultFiles {
    let mut bytes = [0; MAX_BYTES];
    let Ok(Some(packet)) = sys::receive_packet(socket, &mut bytes) else {
        return ResultFiles::Violation(Vec::new());
    };
    let expected = Message {
        kind: Kind::Result,
        number,
        keys: Vec::new(),
    };
    let is_it = Message::read(&bytes[..packet.bytes]) == Some(expected);
    match packet.descriptors.len() {
        have if is_it && have == count && !packet.is_cut => ResultFiles::All(packet.descriptors),
        have if is_it && have < count && packet.is_cut => ResultFiles::Cut(packet.descriptors),
        _ => ResultFiles::Violation(packet.descriptors),
    }
}
