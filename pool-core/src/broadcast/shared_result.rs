//! Memory that a worker has made, and descriptors, which it gives to its parent with the result in
//! which there are handles of them.
//!
//! ```text
//! shared result = bytes of the encoded result, what is offered, its length (4 bytes)
//! ```
//!
//! The files themselves go by the socket, before the record; or, where there is none, the parent
//! opens the memory in the worker, by `/proc`.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::attachments::Attachments;
use super::memory::{SharedMemory, Ticket};
use crate::codec::{self, CodecError};
use crate::error::hint::hint;
use crate::passing::{MAX_DESCRIPTORS, close_elsewhere};
use crate::sys::fd::OwnedFd;
use crate::sys::{MAX_PASSED, NotSealed, Sealed};

const _: () = assert!(
    MAX_OFFERS + MAX_DESCRIPTORS <= MAX_PASSED,
    "they fit into one packet"
);

/// The most memory files that one result may bring. The parent opens all of them at once.
const MAX_OFFERS: usize = 64;

/// How many bytes a ticket takes, without those inside of it.
const TICKET_BYTES: usize = 40;

/// How many bytes the offer has at most.
const MAX_OFFER_BYTES: usize = 8 + MAX_OFFERS * TICKET_BYTES + 8 + MAX_DESCRIPTORS * 16 + 1;

/// How many bytes a shared result has at most beyond those of the result.
pub(crate) const MAX_OFFERED_BYTES: u64 = (MAX_OFFER_BYTES + 4) as u64;

/// What is said of the files of a result.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    tickets: Vec<Ticket>,
    /// The names of the descriptors that stand in the result.
    descriptors: Vec<u128>,
    /// The files come by the socket: those of the tickets, each before those inside of it, and then
    /// the descriptors.
    is_sent: bool,
}

/// Worker: what the parent has yet to get of what handles in a result mean.
pub(crate) struct ResultOffer {
    offer: Offer,
    /// In the order in which they are sent.
    pub(crate) files: Vec<Arc<OwnedFd>>,
}

impl ResultOffer {
    /// Adds it to the encoded result, when it is known whether the files were sent.
    ///
    /// # Errors
    /// When there are descriptors among them and they were not.
    pub(crate) fn write(mut self, is_sent: bool, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.offer.is_sent = is_sent;
        let start = out.len();
        codec::encode(&self.offer, out)?;
        let length = (out.len() - start) as u32;
        out.extend_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Whether the parent can have it without the files' being sent.
    pub(crate) fn is_memory(&self) -> bool {
        self.offer.descriptors.is_empty()
    }
}

/// Worker: what the parent has yet to get of what handles in a result mean. `None`: nothing, it has
/// all of it.
///
/// # Errors
/// When that is too much.
pub(crate) fn offer(attachments: &Attachments) -> Result<Option<ResultOffer>, CodecError> {
    let mut offers: Vec<&Arc<SharedMemory>> = Vec::new();
    let mut count = 0;
    for memory in attachments
        .memory()
        .iter()
        .filter(|it| !it.has_just_arrived())
    {
        if !offers.iter().any(|other| Arc::ptr_eq(other, memory)) {
            offers.push(memory);
            count = memory.offers().saturating_add(count);
            if count > MAX_OFFERS {
                return Err(CodecError::new(format_args!(
                    "more than {MAX_OFFERS} broadcasts of the worker's are in one result: each of \
                     them takes a descriptor in the parent; return one with all of it, or several \
                     results"
                )));
            }
        }
    }
    let descriptors = attachments.descriptors();
    if offers.is_empty() && descriptors.is_empty() {
        return Ok(None);
    }
    let mut files = Vec::new();
    offers.iter().for_each(|it| add_files(it, &mut files));
    files.extend(descriptors.iter().map(|it| it.file.clone()));
    let offer = Offer {
        tickets: offers.iter().map(|it| it.offer()).collect(),
        descriptors: descriptors.iter().map(|it| it.key.0).collect(),
        is_sent: false,
    };
    Ok(Some(ResultOffer { offer, files }))
}

/// Those of memory and of what is inside, in the order of its tickets.
fn add_files(memory: &SharedMemory, files: &mut Vec<Arc<OwnedFd>>) {
    files.push(memory.file().1);
    memory.inner().iter().for_each(|it| add_files(it, files));
}

/// Parent: what a worker offers.
pub(crate) struct SharedResult {
    offer: Offer,
    /// How many bytes of the record are the result.
    pub(crate) value: usize,
}

/// Memory that was opened in a worker. It is nobody's yet.
pub(crate) struct Opened<'a> {
    ticket: &'a Ticket,
    sealed: Sealed,
    inner: Vec<Self>,
}

impl SharedResult {
    /// Takes a record apart. `None`: these bytes are no shared result.
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        let (rest, length) = record.split_last_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if length > MAX_OFFER_BYTES {
            return None;
        }
        let value = rest.len().checked_sub(length)?;
        let offer: Offer = codec::decode(&rest[value..]).ok()?;
        let descriptors = offer.descriptors.len();
        let memory = offer.count() - descriptors;
        let is_too_much = memory > MAX_OFFERS || descriptors > MAX_DESCRIPTORS;
        let is_nothing = memory == 0 && (descriptors == 0 || !offer.is_sent);
        (!is_too_much && !is_nothing).then_some(Self { offer, value })
    }

    /// How many files come by the socket. `None`: none, they are to be opened.
    pub(crate) fn sent(&self) -> Option<usize> {
        self.offer.is_sent.then(|| self.offer.count())
    }

    /// The names of the descriptors that stand in the result.
    pub(crate) fn descriptors(&self) -> &[u128] {
        &self.offer.descriptors
    }

    /// Takes the memory from files that have come, and leaves the others there.
    ///
    /// # Errors
    /// In words, when what has come is something else.
    pub(crate) fn take(
        &self,
        files: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Vec<Opened<'_>>, String> {
        take(&self.offer.tickets, files)
    }

    /// Opens all of it in the worker with this number. Nothing of the user's runs, also not when
    /// what was opened is dropped.
    ///
    /// # Errors
    /// In words, when that is not possible.
    pub(crate) fn open(&self, pid: u32) -> Result<Vec<Opened<'_>>, String> {
        open(&self.offer.tickets, pid)
    }
}

impl Offer {
    fn count(&self) -> usize {
        fn count(tickets: &[Ticket]) -> usize {
            tickets.iter().map(|it| 1 + count(&it.inner)).sum()
        }
        count(&self.tickets) + self.descriptors.len()
    }
}

#[cold]
fn not_memory() -> String {
    "what the worker offers as the memory of a broadcast in the result is none, or not sealed"
        .to_owned()
}

fn take<'a>(
    tickets: &'a [Ticket],
    files: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Vec<Opened<'a>>, String> {
    let take_one = |ticket: &'a Ticket| {
        let file = files.next().ok_or_else(not_memory)?;
        let sealed = Sealed::received(file, None).map_err(|error| match error {
            NotSealed::Other(file) => {
                close_elsewhere([file]);
                not_memory()
            }
            NotSealed::Refused(error) => error.to_string(),
        })?;
        Ok(Opened {
            ticket,
            sealed,
            inner: take(&ticket.inner, files)?,
        })
    };
    tickets.iter().map(take_one).collect()
}

fn open(tickets: &[Ticket], pid: u32) -> Result<Vec<Opened<'_>>, String> {
    let open_one = |ticket| {
        let sealed = Ticket::open_in(ticket, pid).map_err(|error| unreachable_memory(pid, &error));
        Ok(Opened {
            ticket,
            sealed: sealed?.ok_or_else(not_memory)?,
            inner: open(&ticket.inner, pid)?,
        })
    };
    tickets.iter().map(open_one).collect()
}

impl Opened<'_> {
    /// Makes it known in this process, where handles find it as long as `keep` has it and all that
    /// is inside of it.
    ///
    /// # Errors
    /// In words, when there is too much memory inside of memory.
    pub(crate) fn enter(
        self,
        keep: &mut Vec<Arc<SharedMemory>>,
    ) -> Result<Arc<SharedMemory>, String> {
        let inner: Result<Vec<_>, _> = self.inner.into_iter().map(|it| it.enter(keep)).collect();
        let memory = SharedMemory::adopt(self.ticket, self.sealed, inner?)?;
        keep.push(memory.clone());
        Ok(memory)
    }
}

#[cold]
fn unreachable_memory(pid: u32, error: &io::Error) -> String {
    let hint = hint(error);
    if hint.is_empty() {
        format!(
            "cannot open the memory of a broadcast in the result by /proc/{pid}/fd: {error}; that \
             needs a /proc that shows the worker (hidepid), and a worker of the same user that is \
             dumpable (PR_SET_DUMPABLE; one that has changed its user is not); without them return \
             the value itself"
        )
    } else {
        format!(
            "there is no descriptor for the memory of a broadcast in the result: {error}; each \
             takes one as long as there is a handle: let go of some, or raise the limit of open \
             files (ulimit -n), or return the value itself"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use super::super::memory::Shared;
    use super::*;
    use crate::codec::handle_context::Attach;

    fn share(inner: Vec<Arc<SharedMemory>>) -> Arc<SharedMemory> {
        let shared = Shared {
            of: TypeId::of::<()>(),
            height: 0,
        };
        SharedMemory::new(b"shared", inner, shared).expect("memory")
    }

    fn attached(memory: &[Arc<SharedMemory>]) -> Attachments {
        let mut attachments = Attachments::default();
        for memory in memory {
            attachments.attach(memory.clone()).expect("memory");
        }
        attachments
    }

    /// What `memory` offers behind a result of five bytes.
    fn record(memory: &[Arc<SharedMemory>]) -> Vec<u8> {
        let mut record = b"value".to_vec();
        let offer = offer(&attached(memory)).expect("not too much");
        let offer = offer.expect("the parent has none of it");
        offer.write(false, &mut record).expect("it is memory");
        record
    }

    #[test]
    #[cfg_attr(procpool_portable, ignore = "there is no `/proc` to look into")]
    fn what_is_offered_comes_out_again() {
        let (first, second) = (share(Vec::new()), share(Vec::new()));
        let outer = share(vec![first.clone(), second.clone()]);
        let record = record(&[first.clone(), outer.clone(), first.clone()]);
        let offering = SharedResult::read(&record).expect("an offering");
        assert_eq!(offering.value, 5);
        let mut kept = Vec::new();
        let opened = offering.open(std::process::id()).expect("it is there");
        for opened in opened {
            opened.enter(&mut kept).expect("not too much");
        }
        // Once more as they are inside, and all of them were known here.
        let expected = [&first, &first, &second, &outer];
        assert_eq!(kept.len(), expected.len());
        let mut both = kept.iter().zip(expected);
        assert!(both.all(|(one, other)| Arc::ptr_eq(one, other)));
    }

    #[test]
    fn a_ticket_is_as_long_as_it_is_thought_to_be() {
        let many: Vec<_> = (0..MAX_OFFERS).map(|_| share(Vec::new())).collect();
        assert_eq!(
            record(&many).len(),
            5 + 8 + MAX_OFFERS * TICKET_BYTES + 8 + 1 + 4,
            "the largest that is read"
        );
        SharedResult::read(&record(&many)).expect("the largest");
    }

    #[test]
    fn too_much_is_refused() {
        let inside: Vec<_> = (0..MAX_OFFERS).map(|_| share(Vec::new())).collect();
        let error = offer(&attached(&[share(inside)])).err().expect("too much");
        assert!(error.to_string().contains("64 broadcasts"), "{error}");
    }

    #[test]
    fn nothing_is_offered_for_nothing() {
        assert!(offer(&attached(&[])).expect("nothing").is_none());
    }

    #[test]
    fn rubbish_is_no_offering() {
        let good = record(&[share(Vec::new())]);
        for at in 5..good.len() {
            // All that are cut short.
            assert!(SharedResult::read(&good[..at]).is_none());
        }
        let none = [&[0; 17][..], &17_u32.to_le_bytes()].concat();
        assert!(
            SharedResult::read(&none).is_none(),
            "an offering of nothing"
        );
        let mut long = good;
        long.extend(u32::MAX.to_le_bytes());
        assert!(SharedResult::read(&long).is_none());
        assert!(SharedResult::read(&vec![0; 1 << 20]).is_none());
    }

    #[test]
    fn what_is_not_there_cannot_be_opened() {
        let memory = share(Vec::new());
        let record = record(std::slice::from_ref(&memory));
        let offering = SharedResult::read(&record).expect("an offering");
        drop(memory);
        assert!(offering.open(std::process::id()).is_err());
        let error = offering.open(u32::MAX).err().expect("no such process");
        assert!(error.contains("return the value itself"), "{error}");
    }
}
