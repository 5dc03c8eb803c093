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

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::content_id::ContentId;
use super::error::BroadcastError;
use super::memory::{Name, SharedMemory};
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
    /// Of values that were encoded in this process, whose handles mean this memory.
    pub(crate) fn of(memory: &[Arc<SharedMemory>]) -> Self {
        let mut needs = Self::default();
        memory.iter().for_each(|memory| needs.add(memory));
        needs
    }

    /// Of the bytes of one value, in which there may be handles of any of this memory.
    pub(crate) fn of_value(bytes: &[u8], memory: &[Arc<SharedMemory>]) -> Self {
        let is_named = |it: &&Arc<SharedMemory>| !tickets(bytes, it.name()).is_empty();
        let named: Vec<_> = memory.iter().filter(is_named).cloned().collect();
        Self::of(&named)
    }

    fn add(&mut self, memory: &Arc<SharedMemory>) {
        if self.refs.iter().any(|it| it.name == memory.name()) {
            return;
        }
        memory.inner().iter().for_each(|inner| self.add(inner));
        self.refs.push(ContentRef::of(memory));
        self.memory.push(memory.clone());
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
        let is_missing = |it: &&ContentRef| self.find(it, other).is_none();
        let missing = self.refs.iter().filter(is_missing);
        missing.map(|it| it.content).collect()
    }

    /// Takes content that was brought. `false`: it is not what is needed.
    pub(crate) fn provide(&mut self, content: &BroadcastContent) -> bool {
        let id = content.id();
        let is_needed = self.refs.iter().any(|it| it.content == id);
        if is_needed && !self.memory.iter().any(|it| Arc::ptr_eq(it, &content.0)) {
            self.memory.push(content.0.clone());
        }
        is_needed
    }

    fn find(&self, wanted: &ContentRef, other: &Self) -> Option<Arc<SharedMemory>> {
        let has = |memory: &&Arc<SharedMemory>| memory.content_id() == wanted.content;
        if let Some(memory) = self.memory.iter().find(has) {
            return Some(memory.clone());
        }
        // What has left this process, and comes back.
        let is_original =
            |it: &&ContentRef| it.content == wanted.content || Some(it.content) == wanted.original;
        let original = other.refs.iter().find(is_original)?;
        let mut all = other.memory.iter();
        all.find(|it| it.name() == original.name).cloned()
    }

    /// Finds the memory for all references, here or among what `other` has.
    ///
    /// # Errors
    /// When there is none for one of them, or the system refuses it.
    pub(crate) fn resolve(&self, other: &Self) -> Result<Resolved, CodecError> {
        let mut resolved = Resolved::default();
        for wanted in &self.refs {
            let found = self.find(wanted, other).ok_or_else(|| {
                CodecError::new(format_args!(
                    "the value of a broadcast (content {}) was not brought with it",
                    wanted.content
                ))
            })?;
            let memory = resolved.rebased(found)?;
            resolved.memory.push((wanted.name, memory));
        }
        Ok(resolved)
    }
}

/// Which memory of this process tickets of these names are to mean.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    memory: Vec<(Name, Arc<SharedMemory>)>,
}

impl Resolved {
    /// The memory, or a copy of it in which tickets mean what they are to mean here.
    fn rebased(&self, memory: Arc<SharedMemory>) -> Result<Arc<SharedMemory>, CodecError> {
        let is_inside = |it: &&(Name, Arc<SharedMemory>)| {
            // Memory that was here before has its own names in it.
            it.1.name() != it.0
        };
        let others: Vec<_> = self.memory.iter().filter(is_inside).collect();
        if others.is_empty() || !memory.was_brought() {
            return Ok(memory);
        }
        let bytes = memory.bytes()?;
        let inner: Vec<_> = others
            .iter()
            .filter(|it| !tickets(bytes, it.0).is_empty())
            .map(|it| it.1.clone())
            .collect();
        if inner.is_empty() {
            return Ok(memory);
        }
        memory.rebased(inner, |bytes| self.rebase(bytes))
    }

    /// Makes all tickets in these bytes name memory of this process.
    pub(crate) fn rebase(&self, bytes: &mut [u8]) {
        for (name, memory) in &self.memory {
            if *name == memory.name() {
                continue;
            }
            let ticket = memory.ticket_head();
            for at in tickets(bytes, *name) {
                bytes[at..at + ticket.len()].copy_from_slice(&ticket);
            }
        }
    }

    /// The memory, which must live as long as the bytes.
    pub(crate) fn into_memory(self) -> Vec<Arc<SharedMemory>> {
        self.memory.into_iter().map(|it| it.1).collect()
    }
}

/// Where tickets with this name begin.
fn tickets(bytes: &[u8], name: Name) -> Vec<usize> {
    let (start, inode) = name.parts();
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = position(&bytes[from..], start[0]) {
        let at = from + at;
        let rest = &bytes[at..];
        if rest.starts_with(&start)
            && rest
                .get(Name::INODE_AT..)
                .is_some_and(|it| it.starts_with(&inode))
        {
            found.push(at);
            from = at + Name::INODE_AT + inode.len();
        } else {
            from = at + 1;
        }
    }
    found
}

fn position(bytes: &[u8], first: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == first)
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
        let sent = Needs::of(std::slice::from_ref(&memory));
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
        let sent = Needs::of(std::slice::from_ref(&outer));
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

    #[test]
    fn nothing_else_is_taken_for_a_ticket() {
        let memory = share(b"shared", Vec::new());
        let good = ticket(&memory);
        assert_eq!(tickets(&good, memory.name()), [0]);
        for at in (0..16).chain(24..32) {
            let mut other = good.clone();
            other[at] ^= 1;
            assert_eq!(tickets(&other, memory.name()), [0_usize; 0]);
        }
        for end in 0..32 {
            assert_eq!(tickets(&good[..end], memory.name()), [0_usize; 0]);
        }
        let twice = [&[7][..], &good, &good].concat();
        let second = 1 + good.len();
        assert_eq!(tickets(&twice, memory.name()), [1, second]);
    }
}
