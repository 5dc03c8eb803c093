//! Shared values that go where no memory can be shared: to another machine.
//!
//! Encoded, a handle is a *ticket*, which names the memory that the handle means and says where the
//! encoding process has it. In another machine it leads nowhere. So with the encoded items there
//! are [`ContentRef`]s, which say what content the memory has that a ticket names. The receiver
//! puts that content into memory of its own, unless it has it, and then [`rebase`] makes each
//! ticket name that.
//!
//! A name is a random number and an inode, so that no other bytes are taken for a ticket. Whoever
//! forges items can make nothing but tickets of what was brought for them: the bytes are decoded
//! with all checks afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::content_id::ContentId;
use super::error::BroadcastError;
use super::memory::{Name, SharedMemory, TICKET_HEAD};
use crate::codec::CodecError;

/// The bytes of a value that was broadcast, in memory that stays as long as this: what goes to
/// another machine, once for all chunks and calls, or was brought from one. Cheap to clone.
#[derive(Clone)]
pub struct BroadcastContent(Arc<SharedMemory>);

impl BroadcastContent {
    /// What was brought: it is copied into memory that can be shared with other processes.
    ///
    /// # Errors
    /// When the system is out of memory or descriptors.
    pub fn new(bytes: &[u8]) -> Result<Self, BroadcastError> {
        let memory = SharedMemory::brought(bytes, Vec::new(), None);
        memory
            .map(Self)
            .map_err(|error| BroadcastError::refused(&error))
    }

    /// What it is called.
    #[must_use]
    pub fn id(&self) -> ContentId {
        self.0.content_id()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // They were mapped when the memory was made, or else a handle of it would not be here.
        self.0.bytes().unwrap_or_default()
    }
}

impl fmt::Debug for BroadcastContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastContent")
            .field("id", &self.id())
            .field("bytes", &self.bytes().len())
            .finish()
    }
}

/// What content the memory has that tickets with this name mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContentRef {
    name: Name,
    content: ContentId,
    /// What the content was before the tickets in it were rebased, if they were.
    original: Option<ContentId>,
}

impl ContentRef {
    /// Of this memory.
    fn of(memory: &SharedMemory) -> Self {
        Self {
            name: memory.name(),
            content: memory.content_id(),
            original: memory.original(),
        }
    }
}

/// References to what encoded values need, what that needs in turn standing first; and the memory,
/// as far as it is there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Needs {
    refs: Vec<ContentRef>,
    /// Memory of this process: what the references are of, or what was brought for them.
    #[serde(skip)]
    memory: Vec<Arc<SharedMemory>>,
}

impl Needs {
    /// Of values that were encoded in this process, in which there may be handles of any of this
    /// memory.
    pub(crate) fn of_value(bytes: &[u8], memory: &[Arc<SharedMemory>]) -> Self {
        Self::of_values([bytes], memory)
    }

    /// The same of values that lie apart.
    pub(crate) fn of_values<const N: usize>(
        values: [&[u8]; N],
        memory: &[Arc<SharedMemory>],
    ) -> Self {
        let mut index = Index::default();
        for (place, memory) in memory.iter().enumerate() {
            index.add(memory.name(), place);
        }
        let tickets = values.iter().flat_map(|bytes| index.tickets(bytes));
        let named: BTreeSet<usize> = tickets.map(|it| it.place).collect();
        let mut needs = Needing::default();
        named.iter().for_each(|place| needs.add(&memory[*place]));
        needs.all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    /// What is there of the content.
    pub(crate) fn contents(&self) -> Vec<BroadcastContent> {
        let all = self.memory.iter().cloned();
        all.map(BroadcastContent).collect()
    }

    /// What is not there, neither here nor among what `other` has.
    pub(crate) fn missing(&self, other: &Self) -> Vec<ContentId> {
        if self.refs.is_empty() {
            return Vec::new();
        }
        let (here, there) = (self.by_content(), other.by_content());
        let is_missing = |it: &&ContentRef| it.find(&here, &there).is_none();
        let missing = self.refs.iter().filter(is_missing).map(|it| it.content);
        BTreeSet::from_iter(missing).into_iter().collect()
    }

    /// Takes content that was brought. `false`: it is not what is needed.
    pub(crate) fn provide(&mut self, content: &BroadcastContent) -> bool {
        let id = content.id();
        let is_needed = self.refs.iter().any(|it| it.content == id);
        if is_needed && !self.memory.iter().any(|it| it.content_id() == id) {
            self.memory.push(content.0.clone());
        }
        is_needed
    }

    fn by_content(&self) -> ByContent<'_> {
        let all = self.memory.iter();
        all.map(|memory| (memory.content_id(), memory)).collect()
    }

    /// Finds the memory for all references, here or among what `other` has.
    ///
    /// # Errors
    /// When there is none for one of them, or the system refuses it.
    pub(crate) fn resolve(&self, other: &Self) -> Result<Resolved, CodecError> {
        let (here, there) = (self.by_content(), other.by_content());
        let mut resolved = Resolved::default();
        // There may be any number of names for the same.
        let mut known: BTreeMap<*const SharedMemory, usize> = BTreeMap::new();
        for wanted in &self.refs {
            let found = wanted.find(&here, &there).ok_or_else(|| {
                CodecError::new(format_args!(
                    "the value of a broadcast (content {}) was not brought with it",
                    wanted.content
                ))
            })?;
            let place = match known.get(&Arc::as_ptr(found)) {
                Some(place) => *place,
                None => {
                    let memory = resolved.rebased(found)?;
                    resolved.memory.push(memory);
                    let place = resolved.memory.len() - 1;
                    known.insert(Arc::as_ptr(found), place);
                    place
                }
            };
            resolved.index.add(wanted.name, place);
        }
        Ok(resolved)
    }
}

/// Memory by what it has in it.
type ByContent<'a> = BTreeMap<ContentId, &'a Arc<SharedMemory>>;

impl ContentRef {
    fn find<'a>(
        &self,
        here: &ByContent<'a>,
        there: &ByContent<'a>,
    ) -> Option<&'a Arc<SharedMemory>> {
        // What has left that process, and comes back, may be called by what it was.
        let original = || there.get(&self.original?);
        let found = here.get(&self.content).or_else(|| there.get(&self.content));
        found.or_else(original).copied()
    }
}

/// Needs that grow.
#[derive(Default)]
struct Needing {
    all: Needs,
    names: BTreeSet<Name>,
}

impl Needing {
    /// Adds memory, behind what is inside of it.
    fn add(&mut self, memory: &Arc<SharedMemory>) {
        if self.names.insert(memory.name()) {
            memory.inner().iter().for_each(|inner| self.add(inner));
            self.all.refs.push(ContentRef::of(memory));
            self.all.memory.push(memory.clone());
        }
    }
}

/// Which memory of this process tickets are to mean.
#[derive(Default)]
pub(crate) struct Resolved {
    memory: Vec<Arc<SharedMemory>>,
    /// The place of the memory for each name.
    index: Index,
}

impl Resolved {
    /// The memory, or a copy of it in which tickets mean what they are to mean here.
    fn rebased(&self, memory: &Arc<SharedMemory>) -> Result<Arc<SharedMemory>, CodecError> {
        // Memory that was here before has its own names in it.
        if !memory.was_brought() || self.memory.is_empty() {
            return Ok(memory.clone());
        }
        let named = self.index.tickets(memory.bytes()?);
        let inner: BTreeSet<usize> = named.map(|it| it.place).collect();
        if inner.is_empty() {
            return Ok(memory.clone());
        }
        let inner = inner.iter().map(|place| self.memory[*place].clone());
        memory.rebased(inner.collect(), |bytes| self.rebase(bytes))
    }

    /// Makes all tickets in these bytes name memory of this process.
    pub(crate) fn rebase(&self, bytes: &mut [u8]) {
        let tickets: Vec<Ticket> = self.index.tickets(bytes).collect();
        for ticket in tickets {
            let head = self.memory[ticket.place].ticket_head();
            bytes[ticket.at..ticket.at + head.len()].copy_from_slice(&head);
        }
    }

    /// The memory, which must live as long as the bytes.
    pub(crate) fn into_memory(self) -> Vec<Arc<SharedMemory>> {
        self.memory
    }
}

/// Finds tickets, of any number of names, in one pass.
struct Index {
    /// A bit for each two bytes that a name may begin with.
    starts: Box<[u64; 1024]>,
    places: BTreeMap<Name, usize>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            starts: Box::new([0; 1024]),
            places: BTreeMap::new(),
        }
    }
}

/// A ticket among bytes.
struct Ticket {
    at: usize,
    /// What the [`Index`] has for its name.
    place: usize,
}

impl Index {
    fn add(&mut self, name: Name, place: usize) {
        let [first, second, ..] = name.start();
        let start = usize::from(u16::from_le_bytes([first, second]));
        self.starts[start / 64] |= 1 << (start % 64);
        self.places.insert(name, place);
    }

    /// The tickets in these bytes, in their order. They do not overlap.
    fn tickets(&self, bytes: &[u8]) -> impl Iterator<Item = Ticket> {
        let mut next = 0;
        std::iter::from_fn(move || {
            while let Some([first, second]) = bytes.get(next..)?.first_chunk() {
                let at = next;
                let start = usize::from(u16::from_le_bytes([*first, *second]));
                next += 1;
                if self.starts[start / 64] & (1 << (start % 64)) != 0
                    && let Some(name) = Name::read(&bytes[at..])
                    && let Some(place) = self.places.get(&name)
                {
                    next = at + TICKET_HEAD;
                    return Some(Ticket { at, place: *place });
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use super::super::memory::Shared;
    use super::*;
    use crate::codec;

    fn share(bytes: &[u8], inner: Vec<Arc<SharedMemory>>) -> Arc<SharedMemory> {
        let shared = Shared {
            of: TypeId::of::<()>(),
            height: 0,
        };
        SharedMemory::new(bytes, inner, shared).expect("memory")
    }

    fn ticket(memory: &SharedMemory) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode(&memory.ticket(), &mut bytes).expect("it can be encoded");
        bytes
    }

    /// The same as another machine gets it.
    fn travelled(needs: &Needs) -> Needs {
        let mut bytes = Vec::new();
        codec::encode(needs, &mut bytes).expect("it can be encoded");
        codec::decode(&bytes).expect("it can be decoded")
    }

    #[test]
    fn a_ticket_means_what_was_brought() {
        let memory = share(b"shared", Vec::new());
        let items = [b"before".to_vec(), ticket(&memory), b"after".to_vec()].concat();
        let sent = Needs::of_value(&items, std::slice::from_ref(&memory));
        let mut needs = travelled(&sent);
        let none = Needs::default();
        let id = ContentId::of(b"shared");
        assert_eq!(needs.missing(&none), [id]);
        assert!(needs.resolve(&none).is_err());
        let other = BroadcastContent::new(b"another").expect("memory");
        assert!(!needs.provide(&other));
        let content = BroadcastContent::new(sent.contents()[0].bytes()).expect("memory");
        assert_eq!(content.id(), id);
        assert!(needs.provide(&content) && needs.missing(&none).is_empty());
        let resolved = needs.resolve(&none).expect("all is there");
        let mut rebased = items.clone();
        resolved.rebase(&mut rebased);
        let expected = [b"before".to_vec(), ticket(&content.0), b"after".to_vec()].concat();
        assert_eq!(rebased, expected);
        // And back again, where it came from: that has it.
        let answer = travelled(&Needs::of_value(&rebased, &resolved.into_memory()));
        assert!(answer.missing(&sent).is_empty());
        let resolved = answer.resolve(&sent).expect("it is here");
        resolved.rebase(&mut rebased);
        assert_eq!(rebased, items);
        assert!(Arc::ptr_eq(&resolved.into_memory()[0], &memory));
    }

    #[test]
    fn what_is_inside_is_rebased_as_well() {
        let inside = share(b"inside", Vec::new());
        let outer = share(&ticket(&inside), vec![inside.clone()]);
        let items = ticket(&outer);
        let sent = Needs::of_value(&items, std::slice::from_ref(&outer));
        let mut needs = travelled(&sent);
        for content in sent.contents() {
            let content = BroadcastContent::new(content.bytes()).expect("memory");
            assert!(needs.provide(&content));
        }
        let none = Needs::default();
        let resolved = needs.resolve(&none).expect("all is there");
        let mut rebased = items.clone();
        resolved.rebase(&mut rebased);
        let memory = resolved.into_memory();
        assert_eq!(memory.len(), 2);
        assert_eq!(rebased, ticket(&memory[1]));
        assert_eq!(memory[1].bytes().expect("mapped"), ticket(&memory[0]));
        // The copy is made once.
        let again = needs.resolve(&none).expect("all is there").into_memory();
        assert!(Arc::ptr_eq(&again[1], &memory[1]));
        // It comes back as what it was.
        let answer = travelled(&Needs::of_value(&rebased, &memory));
        let resolved = answer.resolve(&sent).expect("it is here");
        resolved.rebase(&mut rebased);
        assert_eq!(rebased, items);
    }

    /// What is not in the items need not travel with them.
    #[test]
    fn only_what_is_there_is_needed() {
        let memory: Vec<_> = (0..100_u8).map(|it| share(&[it], Vec::new())).collect();
        let items = [ticket(&memory[70]), ticket(&memory[7]), ticket(&memory[70])].concat();
        let needs = Needs::of_value(&items, &memory);
        let contents: Vec<ContentId> = needs.contents().iter().map(|it| it.id()).collect();
        assert_eq!(contents, [ContentId::of(&[7]), ContentId::of(&[70])]);
    }

    /// A machine that gives one value ten thousand names has it looked at once.
    #[test]
    fn many_names_of_the_same_are_the_same() {
        let memory = share(b"shared", Vec::new());
        let sent = Needs::of_value(&ticket(&memory), std::slice::from_ref(&memory));
        let mut forged = travelled(&sent);
        let name = |it: u64| ContentRef {
            name: Name::read(&[[7; 24].as_slice(), &it.to_le_bytes()].concat()).expect("a name"),
            ..forged.refs[0].clone()
        };
        forged.refs = (0..10_000).map(name).collect();
        let resolved = forged.resolve(&sent).expect("all of it is there");
        assert_eq!(resolved.into_memory().len(), 1);
        assert_eq!(forged.missing(&Needs::default()).len(), 1);
    }

    #[test]
    fn nothing_else_is_taken_for_a_ticket() {
        let memory = share(b"shared", Vec::new());
        let mut index = Index::default();
        index.add(memory.name(), 0);
        let tickets = |bytes: &[u8]| index.tickets(bytes).map(|it| it.at).collect::<Vec<_>>();
        let good = ticket(&memory);
        assert_eq!(tickets(&good), [0]);
        for at in (0..16).chain(24..32) {
            let mut other = good.clone();
            other[at] ^= 1;
            assert_eq!(tickets(&other), [0_usize; 0]);
        }
        for end in 0..32 {
            assert_eq!(tickets(&good[..end]), [0_usize; 0]);
        }
        let twice = [&[7][..], &good, &good].concat();
        assert_eq!(tickets(&twice), [1, 1 + good.len()]);
    }
}
