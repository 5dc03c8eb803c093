//! What must live as long as an encoded value: shared memory, and descriptors.

use std::any::Any;
use std::sync::{Arc, Weak};

use super::memory::SharedMemory;
use crate::codec::CodecError;
use crate::codec::handle_context::{Attach, Attachment};
use crate::passing::{Arrived, Key, MAX_DESCRIPTORS, Outgoing, arrived_here};
use crate::sys::fd::OwnedFd;

/// What handles in encoded values mean. Most values have none, and carry a pointer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attachments(Option<Box<Attached>>);

#[derive(Debug, Clone, Default)]
struct Attached {
    memory: Vec<Arc<SharedMemory>>,
    descriptors: Vec<Arc<Outgoing>>,
    /// How many of these stand in values that were encoded before.
    before: usize,
}

impl Attachments {
    /// This memory alone.
    pub(crate) fn of_memory(memory: Vec<Arc<SharedMemory>>) -> Self {
        Self((!memory.is_empty()).then(|| {
            Box::new(Attached {
                memory,
                ..Attached::default()
            })
        }))
    }

    /// What comes from now on stands in another value.
    #[inline]
    pub(crate) fn begin_value(&mut self) {
        if let Some(attached) = &mut self.0 {
            attached.before = attached.descriptors.len();
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn memory(&self) -> &[Arc<SharedMemory>] {
        self.0.as_ref().map_or(&[], |it| &it.memory)
    }

    pub(crate) fn into_memory(self) -> Vec<Arc<SharedMemory>> {
        self.0.map_or_else(Vec::new, |it| it.memory)
    }

    pub(crate) fn descriptors(&self) -> &[Arc<Outgoing>] {
        self.0.as_ref().map_or(&[], |it| &it.descriptors)
    }

    /// Takes the descriptors out for which `take` has a use, which leaves the others.
    pub(crate) fn take_descriptors<T: Default>(
        &mut self,
        take: impl FnOnce(&mut Vec<Arc<Outgoing>>) -> T,
    ) -> T {
        let descriptors = self.0.as_mut().map(|it| &mut it.descriptors);
        let some = descriptors.filter(|it| !it.is_empty());
        some.map_or_else(T::default, take)
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    pub(crate) fn append(&mut self, other: &mut Self) {
        if let Some(mut other) = other.0.take() {
            let attached = self.0.get_or_insert_default();
            attached.memory.append(&mut other.memory);
            attached.descriptors.append(&mut other.descriptors);
        }
    }
}

impl Attach for Attachments {
    fn attach(&mut self, attachment: Arc<dyn Attachment>) -> Result<(), CodecError> {
        let attached = self.0.get_or_insert_default();
        let attachment: Arc<dyn Any + Send + Sync> = attachment;
        match attachment.downcast::<SharedMemory>() {
            Ok(memory) => {
                // Most often it is the same again.
                let mut last = attached.memory.iter().rev().take(8);
                if !last.any(|other| Arc::ptr_eq(other, &memory)) {
                    attached.memory.push(memory);
                }
            }
            // All other handles are of descriptors.
            Err(other) => {
                if attached.descriptors.len() - attached.before == MAX_DESCRIPTORS {
                    return Err(CodecError::new(format_args!(
                        "more than {MAX_DESCRIPTORS} descriptors in one argument or result: pass \
                         some of them with another task"
                    )));
                }
                attached.descriptors.extend(other.downcast::<Outgoing>());
            }
        }
        Ok(())
    }
}

/// What handles in a result mean, as the process has it that decodes the result.
#[derive(Debug, Clone, Default)]
pub(crate) struct Belongings {
    pub(crate) memory: Vec<Arc<SharedMemory>>,
    pub(crate) descriptors: Vec<Arc<Arrived>>,
}

impl Belongings {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.descriptors.is_empty()
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.memory.extend(other.memory);
        self.descriptors.extend(other.descriptors);
    }
}

/// What a result has that was encoded in this very process.
impl From<Attachments> for Belongings {
    fn from(attachments: Attachments) -> Self {
        Self {
            descriptors: arrived_here(attachments.descriptors()),
            memory: attachments.into_memory(),
        }
    }
}

/// What a process needs to have this memory and all that is inside of it, the innermost first: the
/// name, the file, and by what it is known whether it was freed.
pub(crate) fn files_of(
    memory: &[Arc<SharedMemory>],
) -> Vec<(Key, Arc<OwnedFd>, Weak<dyn Any + Send + Sync>)> {
    let mut files = Vec::new();
    add_files(memory, &mut files);
    files
}

fn add_files(
    memory: &[Arc<SharedMemory>],
    files: &mut Vec<(Key, Arc<OwnedFd>, Weak<dyn Any + Send + Sync>)>,
) {
    for memory in memory {
        add_files(memory.inner(), files);
        let (key, file) = memory.file();
        let alive: Weak<SharedMemory> = Arc::downgrade(memory);
        files.push((key, file, alive));
    }
}
