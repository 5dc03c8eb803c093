//! What must live as long as an encoded value: shared memory, and descriptors.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use super::memory::SharedMemory;
use crate::codec::CodecError;
use crate::codec::handle_context::{Attach, Attachment};
use crate::passing::{Arrived, Key, MAX_DESCRIPTORS, Outgoing, arrived_here};

/// What handles in encoded values mean. Most values have none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attachments {
    pub(crate) memory: Vec<Arc<SharedMemory>>,
    pub(crate) descriptors: Vec<Arc<Outgoing>>,
    /// How many of these stand in values that were encoded before.
    before: usize,
}

impl Attachments {
    /// What comes from now on stands in another value.
    #[inline]
    pub(crate) fn begin_value(&mut self) {
        self.before = self.descriptors.len();
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.descriptors.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.memory.clear();
        self.descriptors.clear();
        self.before = 0;
    }

    pub(crate) fn append(&mut self, other: &mut Self) {
        self.memory.append(&mut other.memory);
        self.descriptors.append(&mut other.descriptors);
    }
}

impl Attach for Attachments {
    fn attach(&mut self, attachment: Arc<dyn Attachment>) -> Result<(), CodecError> {
        let attachment: Arc<dyn Any + Send + Sync> = attachment;
        match attachment.downcast::<SharedMemory>() {
            Ok(memory) => {
                // Most often it is the same again.
                let mut last = self.memory.iter().rev().take(8);
                if !last.any(|other| Arc::ptr_eq(other, &memory)) {
                    self.memory.push(memory);
                }
            }
            // All other handles are of descriptors.
            Err(other) => {
                if self.descriptors.len() - self.before == MAX_DESCRIPTORS {
                    return Err(CodecError::new(format_args!(
                        "more than {MAX_DESCRIPTORS} descriptors in one argument or result: pass \
                         some of them with another task"
                    )));
                }
                self.descriptors.extend(other.downcast::<Outgoing>());
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
            descriptors: arrived_here(&attachments.descriptors),
            memory: attachments.memory,
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
