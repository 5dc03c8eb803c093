//! What the loader knows of the executable, or the shared object, that has this crate's code, which
//! distinguishes one build from another.

use nix::libc;

use super::object::{Object, own_object};
use crate::sys::hash::Hash;

/// A number that two processes share if they run the same build of the same program, wherever the
/// loader has put it: made of its segments, of the notes in it, among which linkers put a
/// build identifier, and without such a one of the table of where its functions begin. Nothing
/// outside of the process is asked.
pub(crate) fn build_identity(protocol: u32) -> u128 {
    let mut hash = Hash::new();
    hash.add(env!("CARGO_PKG_VERSION").as_bytes());
    hash.add_word(protocol.into());
    if let Some(own) = own_object() {
        add_object(&mut hash, &own.object);
    }
    hash.0
}

/// The same of another object than the one that has this crate's code.
pub(crate) fn identity_of(object: &Object<'_>) -> u128 {
    let mut hash = Hash::new();
    add_object(&mut hash, object);
    hash.0
}

fn add_object(hash: &mut Hash, object: &Object<'_>) {
    for it in object.segments() {
        hash.add_word(u64::from(it.p_type) << 32 | u64::from(it.p_flags));
        for number in [it.p_vaddr, it.p_filesz, it.p_memsz] {
            hash.add_word(number);
        }
    }
    object
        .content(libc::PT_NOTE)
        .for_each(|notes| hash.add(notes));
    if !object.content(libc::PT_NOTE).any(has_build_id) {
        let tables = object.content(libc::PT_GNU_EH_FRAME);
        tables.for_each(|table| hash.add(table));
    }
}

/// A number that two processes share if they run the same build of the same program: the same, but
/// made of all that is loaded from the file and cannot be written where the linker has put no
/// build identifier, which is a hash of that. Then it takes a moment.
pub(crate) fn build_content(protocol: u32) -> u128 {
    let mut hash = Hash(build_identity(protocol));
    if let Some(own) = own_object()
        && !own.object.content(libc::PT_NOTE).any(has_build_id)
    {
        let loaded = own.object.content(libc::PT_LOAD);
        loaded.for_each(|bytes| hash.add(bytes));
    }
    hash.0
}

/// Whether there is a GNU build identifier among the notes of one segment.
fn has_build_id(mut notes: &[u8]) -> bool {
    const NT_GNU_BUILD_ID: u32 = 3;
    while let Some((head, rest)) = notes.split_first_chunk::<12>() {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| head[at + byte]));
        let [name, value] = [word(0), word(4)].map(|bytes| bytes as usize);
        if word(8) == NT_GNU_BUILD_ID && rest.starts_with(b"GNU\0") && name == 4 && value > 0 {
            return true;
        }
        // Names and values are filled up to words; segments with other rules hold other notes.
        let next = name.next_multiple_of(4) + value.next_multiple_of(4);
        notes = rest.get(next..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_build_is_the_same() {
        let here = build_identity(1);
        assert_eq!(here, build_identity(1));
        assert_ne!(here, Hash::new().0);
        assert_eq!(build_content(1), build_content(1));
        assert_ne!(build_content(1), build_content(2));
    }

    #[test]
    fn a_build_identifier_is_found_behind_other_notes() {
        let note = |name: &[u8], kind: u32, value: &[u8]| {
            let mut note = Vec::new();
            for number in [name.len() as u32, value.len() as u32, kind] {
                note.extend(number.to_le_bytes());
            }
            for part in [name, value] {
                note.extend(part);
                note.resize(note.len().next_multiple_of(4), 0);
            }
            note
        };
        let others = [note(b"GNU\0", 1, &[7; 16]), note(b"Other\0", 3, &[8; 3])].concat();
        assert!(!has_build_id(&others));
        let all = [&others[..], &note(b"GNU\0", 3, &[9; 20])].concat();
        assert!(has_build_id(&all));
        for end in 0..others.len() {
            assert!(!has_build_id(&all[..end]));
        }
    }
}
