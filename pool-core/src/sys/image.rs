//! What the loader knows of the main executable that distinguishes one build from another.
#![allow(unsafe_code)]

use nix::libc;

/// FNV-1a with 128 bits, over words instead of bytes.
pub(crate) struct Hash(pub(crate) u128);

impl Hash {
    pub(crate) const fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    pub(super) fn add_word(&mut self, word: u64) {
        const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
        self.0 = (self.0 ^ u128::from(word)).wrapping_mul(PRIME);
    }

    /// Adds a field, separated from its neighbours by its length.
    pub(crate) fn add(&mut self, field: &[u8]) {
        self.add_word(field.len() as u64);
        for bytes in field.chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.add_word(u64::from_le_bytes(word));
        }
    }
}

/// A number that two processes share if they run the same build of the same program, wherever the
/// loader has put it: made of its segments, of the notes in it, among which linkers put a
/// build identifier, and without such a one of the table of where its functions begin. Nothing
/// outside of the process is asked.
pub(crate) fn build_identity(protocol: u32) -> u128 {
    let mut hash = Hash::new();
    hash.add(env!("CARGO_PKG_VERSION").as_bytes());
    hash.add_word(protocol.into());
    // SAFETY: the callback is given the hash above, which outlives the call, and does not panic.
    unsafe { libc::dl_iterate_phdr(Some(add_image), (&raw mut hash).cast()) };
    hash.0
}

/// A number that two processes share if they run the same build of the same program: the same, but
/// made of all that is loaded from the file and cannot be written where the linker has put no
/// build identifier, which is a hash of that. Then it takes a moment.
pub(crate) fn build_content(protocol: u32) -> u128 {
    let mut hash = Hash(build_identity(protocol));
    // SAFETY: the callback is given the hash above, which outlives the call, and does not panic.
    unsafe { libc::dl_iterate_phdr(Some(add_content), (&raw mut hash).cast()) };
    hash.0
}

/// Adds what an object has loaded to the `Hash` behind `hash`, and asks for no other: the first one
/// is the main executable.
///
/// # Safety
/// Of `dl_iterate_phdr`: `object` describes a loaded object, and `hash` was given with it.
unsafe extern "C" fn add_content(
    object: *mut libc::dl_phdr_info,
    _bytes: usize,
    hash: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader calls this with a valid description, and `build_content` with a `Hash`
    // that nobody else uses meanwhile.
    let (object, hash) = unsafe { (&*object, &mut *hash.cast::<Hash>()) };
    if object.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: that is where the loader has this many program headers, for as long as the object
    // is loaded, and the main executable always is.
    let segments =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    if !content(object, segments, libc::PT_NOTE).any(has_build_id) {
        content(object, segments, libc::PT_LOAD).for_each(|bytes| hash.add(bytes));
    }
    1
}

/// Adds an object to the `Hash` behind `hash`, and asks for no other: the first one is the main
/// executable.
///
/// # Safety
/// Of `dl_iterate_phdr`: `object` describes a loaded object, and `hash` was given with it.
unsafe extern "C" fn add_image(
    object: *mut libc::dl_phdr_info,
    _bytes: usize,
    hash: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader calls this with a valid description, and `build_identity` with a `Hash`
    // that nobody else uses meanwhile.
    let (object, hash) = unsafe { (&*object, &mut *hash.cast::<Hash>()) };
    if object.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: that is where the loader has this many program headers, for as long as the object
    // is loaded, and the main executable always is.
    let segments =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    for it in segments {
        hash.add_word(u64::from(it.p_type) << 32 | u64::from(it.p_flags));
        for number in [it.p_vaddr, it.p_filesz, it.p_memsz] {
            hash.add_word(number);
        }
    }
    let mut has_id = false;
    for notes in content(object, segments, libc::PT_NOTE) {
        has_id |= has_build_id(notes);
        hash.add(notes);
    }
    if !has_id {
        content(object, segments, libc::PT_GNU_EH_FRAME).for_each(|table| hash.add(table));
    }
    1
}

/// The bytes of all segments of this kind, as far as they are loaded from the file, readable and
/// not writable. The object is the main executable, which stays where it is, and these are its
/// segments.
fn content(
    object: &libc::dl_phdr_info,
    segments: &[libc::Elf64_Phdr],
    kind: u32,
) -> impl Iterator<Item = &'static [u8]> {
    let is_content = move |it: &&libc::Elf64_Phdr| it.p_type == kind && is_mapped(it, segments);
    segments.iter().filter(is_content).map(|it| {
        let start = (object.dlpi_addr as usize).wrapping_add(it.p_vaddr as usize);
        // SAFETY: it lies in a segment that is loaded from the file, readable and not writable, and
        // the main executable stays where it is.
        unsafe { std::slice::from_raw_parts(start as *const u8, it.p_filesz as usize) }
    })
}

/// Whether all bytes of `part` lie in the bytes of the file that one read-only segment is loaded
/// from.
fn is_mapped(part: &libc::Elf64_Phdr, segments: &[libc::Elf64_Phdr]) -> bool {
    segments.iter().any(|it| {
        let rights = it.p_flags & (libc::PF_R | libc::PF_W);
        let start = part.p_vaddr.checked_sub(it.p_vaddr);
        it.p_type == libc::PT_LOAD
            && rights == libc::PF_R
            && start
                .and_then(|start| start.checked_add(part.p_filesz))
                .is_some_and(|end| end <= it.p_filesz)
    })
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

    #[test]
    fn every_word_counts() {
        let of = |field: &[u8]| {
            let mut hash = Hash::new();
            hash.add(field);
            hash.0
        };
        let field: Vec<u8> = (0..100).collect();
        for at in 0..field.len() {
            let mut other = field.clone();
            other[at] ^= 1;
            assert_ne!(of(&field), of(&other));
            assert_ne!(of(&field), of(&field[..at]));
        }
    }
}
