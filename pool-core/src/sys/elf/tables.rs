//! The tables for unwinding of the program and its libraries.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;

use super::object::{Object, addresses, for_each_object};

/// An object that is loaded, or was when it was looked at.
#[derive(Debug, Clone)]
pub(crate) struct LoadedObject {
    /// What was added to the addresses in its file.
    pub(crate) base: u64,
    /// Its code, where it is loaded.
    pub(crate) code: Range<u64>,
    /// `.eh_frame_hdr`, where the file has it.
    pub(crate) index: Table,
    /// `.eh_frame`, and perhaps more behind it, where the file has it.
    pub(crate) frames: Table,
}

/// A part of the file.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) range: Range<u64>,
    pub(crate) bytes: Arc<[u8]>,
}

/// The longest table that is copied.
const MAX_TABLE: u64 = 256 << 20;

type Known = HashMap<(u64, u64), LoadedObject>;

/// Tables are copied once. A library may be unloaded while its tables are being read.
static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// All objects that have tables; the main executable comes first.
pub(crate) fn loaded_objects() -> Vec<LoadedObject> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let mut objects = Vec::new();
    for_each_object(|object| objects.extend(look_at(object, known)));
    objects
}

fn look_at(object: &Object<'_>, known: &mut Known) -> Option<LoadedObject> {
    let (base, segments) = (object.base(), object.segments());
    let in_memory = |it: &libc::Elf64_Phdr| it.p_vaddr..it.p_vaddr.saturating_add(it.p_memsz);
    let code = segments
        .iter()
        .filter(|it| it.p_type == libc::PT_LOAD && it.p_flags & libc::PF_X != 0)
        .map(in_memory)
        .reduce(|all: Range<u64>, it| all.start.min(it.start)..all.end.max(it.end))?;
    let mut tables = segments
        .iter()
        .filter(|it| it.p_type == libc::PT_GNU_EH_FRAME);
    let index = addresses(tables.next()?);
    let key = (base, index.start ^ (index.end << 32) ^ name_hash(object));
    if let Some(object) = known.get(&key) {
        return Some(object.clone());
    }
    let index = copy(object, index)?;
    // Version, and how the place of `.eh_frame` is written: all linkers write it relative to
    // itself.
    let head: [u8; 8] = *index.bytes.first_chunk()?;
    if head[0] != 1 || head[1] != 0x1b {
        return None;
    }
    let distance = i32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let start = index
        .range
        .start
        .wrapping_add(4)
        .wrapping_add_signed(distance.into());
    let loaded = segments.iter().filter(|it| it.p_type == libc::PT_LOAD);
    let end = loaded.map(addresses).find(|it| it.contains(&start))?.end;
    let frames = copy(object, start..end)?;
    let seen = LoadedObject {
        base,
        code: base.wrapping_add(code.start)..base.wrapping_add(code.end),
        index,
        frames,
    };
    known.insert(key, seen.clone());
    Some(seen)
}

fn name_hash(object: &Object<'_>) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    object.name().hash(&mut hasher);
    hasher.finish()
}

/// Copies a part of an object.
fn copy(object: &Object<'_>, range: Range<u64>) -> Option<Table> {
    let bytes = object.bytes(range.clone())?;
    let is_table = !bytes.is_empty() && bytes.len() as u64 <= MAX_TABLE;
    is_table.then(|| Table {
        range,
        bytes: bytes.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_comes_first_and_has_tables() {
        let objects = loaded_objects();
        let here = the_program_comes_first_and_has_tables as fn() as usize as u64;
        assert!(objects[0].code.contains(&here));
        assert!(objects[0].frames.bytes.len() > 1000);
        assert!(objects.len() > 1, "the C library");
        let again = loaded_objects();
        assert!(Arc::ptr_eq(
            &objects[1].frames.bytes,
            &again[1].frames.bytes
        ));
    }
}
