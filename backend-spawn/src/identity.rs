//! Which build of which program this is.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::OnceLock;

/// A number that parent and worker share if they are the same build of the same program, so that
/// a function's place in the image means the same in both.
///
/// It is made of the executable's build identifier where the linker left one, of the file's
/// device, inode and size, and of the versions of this crate and of the protocol. Not a secret,
/// and no protection: a check against mistakes.
pub(crate) fn identity() -> u128 {
    static IDENTITY: OnceLock<u128> = OnceLock::new();
    *IDENTITY.get_or_init(|| {
        let mut hash = Fnv::default();
        hash.add(env!("CARGO_PKG_VERSION").as_bytes());
        hash.add(&pool_core::PROTOCOL_VERSION.to_le_bytes());
        // An executable may be one that cannot be read: what is left is still an identity.
        if let Ok(file) = std::fs::metadata(EXECUTABLE) {
            for number in [file.dev(), file.ino(), file.size()] {
                hash.add(&number.to_le_bytes());
            }
        }
        if let Some(id) = File::open(EXECUTABLE).ok().and_then(|file| build_id(&file)) {
            hash.add(&id);
        }
        hash.0
    })
}

/// This program's own file, even when it was renamed or deleted.
pub(crate) const EXECUTABLE: &str = "/proc/self/exe";

/// FNV-1a, with 128 bits.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    /// Adds a field, told apart from its neighbours by its length.
    fn add(&mut self, field: &[u8]) {
        self.add_bytes(&(field.len() as u64).to_le_bytes());
        self.add_bytes(field);
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
    }
}

/// How much of a file is looked at for its build identifier, in bytes: linkers put it in front.
const LOOKED_AT: u64 = 64 * 1024;

/// The GNU build identifier of a 64-bit ELF file of this machine's byte order, if it has one.
fn build_id(file: &File) -> Option<Vec<u8>> {
    let header: [u8; 64] = read(file, 0, 64)?.try_into().ok()?;
    let native = if cfg!(target_endian = "little") { 1 } else { 2 };
    if header[..6] != [0x7f, b'E', b'L', b'F', 2, native] {
        return None;
    }
    let segments = number(&header, 32, 8)?;
    let segment_bytes = number(&header, 54, 2)?;
    let count = number(&header, 56, 2)?;
    let table = read(file, segments, segment_bytes.checked_mul(count)?)?;
    table
        .chunks_exact(usize::try_from(segment_bytes).ok()?.max(1))
        .filter(|segment| number(segment, 0, 4) == Some(PT_NOTE))
        .find_map(|segment| {
            let notes = read(file, number(segment, 8, 8)?, number(segment, 32, 8)?)?;
            let alignment = number(segment, 48, 8)?;
            build_id_among(&notes, if alignment == 8 { 8 } else { 4 })
        })
}

const PT_NOTE: u64 = 4;
const NT_GNU_BUILD_ID: u64 = 3;

/// The build identifier among the notes of one segment.
fn build_id_among(mut notes: &[u8], alignment: usize) -> Option<Vec<u8>> {
    loop {
        let name_bytes = usize::try_from(number(notes, 0, 4)?).ok()?;
        let id_bytes = usize::try_from(number(notes, 4, 4)?).ok()?;
        let kind = number(notes, 8, 4)?;
        let after_name = 12_usize.checked_add(name_bytes)?;
        let id_start = after_name.checked_next_multiple_of(alignment)?;
        let id_end = id_start.checked_add(id_bytes)?;
        let name = notes.get(12..after_name)?;
        let id = notes.get(id_start..id_end)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Some(id.to_vec());
        }
        notes = notes.get(id_end.checked_next_multiple_of(alignment)?..)?;
    }
}

/// A number of `length` bytes in this machine's order.
fn number(bytes: &[u8], start: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(start..start.checked_add(length)?)?;
    let mut wide = [0; 8];
    if cfg!(target_endian = "little") {
        wide[..length].copy_from_slice(bytes);
    } else {
        wide[8 - length..].copy_from_slice(bytes);
    }
    Some(u64::from_ne_bytes(wide))
}

/// A part of a file, if it is a small one.
fn read(file: &File, start: u64, length: u64) -> Option<Vec<u8>> {
    if length > LOOKED_AT {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, start).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Fnv, build_id, build_id_among, identity};
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::Write;

    fn note(name: &[u8], kind: u32, id: &[u8], alignment: usize) -> Vec<u8> {
        let mut note = Vec::new();
        note.extend((name.len() as u32).to_ne_bytes());
        note.extend((id.len() as u32).to_ne_bytes());
        note.extend(kind.to_ne_bytes());
        note.extend(name);
        note.resize(note.len().next_multiple_of(alignment), 0);
        note.extend(id);
        note.resize(note.len().next_multiple_of(alignment), 0);
        note
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        for alignment in [4, 8] {
            let notes = [
                note(b"GNU\0", 5, &[7; 16], alignment),
                note(b"Other\0", 3, &[8; 3], alignment),
                note(b"GNU\0", 3, &[9; 20], alignment),
            ]
            .concat();
            assert_eq!(build_id_among(&notes, alignment), Some(vec![9; 20]));
        }
    }

    #[test]
    fn a_file_that_is_no_program_has_none() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        assert_eq!(build_id(&file), None);
        file.write_all(&[0x7f; 100]).expect("a write");
        assert_eq!(build_id(&file), None);
    }

    #[test]
    fn it_stays_the_same() {
        assert_eq!(identity(), identity());
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut hash = Fnv::default();
        hash.add_bytes(b"foobar");
        assert_eq!(hash.0, 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }

    #[test]
    fn this_program_can_be_read() {
        // Whether there is an identifier is the linker's choice; looking for it does no harm.
        let _ = build_id(&File::open(super::EXECUTABLE).expect("this program"));
    }

    proptest! {
        #[test]
        fn any_notes_are_survived(notes: Vec<u8>) {
            let _ = build_id_among(&notes, 4);
            let _ = build_id_among(&notes, 8);
        }

        #[test]
        fn any_program_is_survived(head in prop::collection::vec(any::<u8>(), 58), rest: Vec<u8>) {
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(&[0x7f, b'E', b'L', b'F', 2, 1]).expect("a write");
            file.write_all(&head).expect("a write");
            file.write_all(&rest).expect("a write");
            let _ = build_id(&file);
        }
    }
}
