//! The program and its libraries as they are loaded into this process, and their tables for
//! unwinding.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CStr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;

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
    let mut found = (Vec::new(), known.take().unwrap_or_default());
    // SAFETY: the callback is given `found`, which outlives the call, and does not panic.
    unsafe { libc::dl_iterate_phdr(Some(add_object), (&raw mut found).cast()) };
    let (objects, seen) = found;
    *known = Some(seen);
    objects
}

/// # Safety
/// Of `dl_iterate_phdr`: `object` describes a loaded object, and `found` was given with it.
unsafe extern "C" fn add_object(
    object: *mut libc::dl_phdr_info,
    _bytes: usize,
    found: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader calls this with a valid description, and `loaded_objects` with this type.
    let (object, (objects, known)) = unsafe {
        let found = &mut *found.cast::<(Vec<LoadedObject>, Known)>();
        (&*object, found)
    };
    // SAFETY: there are this many program headers as long as the object is loaded, which it is
    // during the call, for the loader holds its lock.
    if let Some(seen) = unsafe { look_at(object, known) } {
        objects.push(seen);
    }
    0
}

/// # Safety
/// The object is loaded during the call.
unsafe fn look_at(object: &libc::dl_phdr_info, known: &mut Known) -> Option<LoadedObject> {
    if object.dlpi_phdr.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for the object.
    let segments =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let base = object.dlpi_addr;
    let range = |it: &libc::Elf64_Phdr| it.p_vaddr..it.p_vaddr.saturating_add(it.p_memsz);
    let code = segments
        .iter()
        .filter(|it| it.p_type == libc::PT_LOAD && it.p_flags & libc::PF_X != 0)
        .map(range)
        .reduce(|all: Range<u64>, it| all.start.min(it.start)..all.end.max(it.end))?;
    let index = range(
        segments
            .iter()
            .find(|it| it.p_type == libc::PT_GNU_EH_FRAME)?,
    );
    let key = (base, index.start ^ (index.end << 32) ^ name_hash(object));
    if let Some(object) = known.get(&key) {
        return Some(object.clone());
    }
    // SAFETY: it is a segment of a loaded object.
    let index = unsafe { copy(base, index)? };
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
    let end = loaded.map(range).find(|it| it.contains(&start))?.end;
    // SAFETY: it is a part of a segment of a loaded object.
    let frames = unsafe { copy(base, start..end)? };
    let seen = LoadedObject {
        base,
        code: base.wrapping_add(code.start)..base.wrapping_add(code.end),
        index,
        frames,
    };
    known.insert(key, seen.clone());
    Some(seen)
}

fn name_hash(object: &libc::dl_phdr_info) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    if !object.dlpi_name.is_null() {
        // SAFETY: the loader has the object's name there.
        unsafe { CStr::from_ptr(object.dlpi_name) }.hash(&mut hasher);
    }
    hasher.finish()
}

/// Copies a part of an object.
///
/// # Safety
/// The part is loaded, readable, and stays so during the call.
unsafe fn copy(base: u64, range: Range<u64>) -> Option<Table> {
    let bytes = range.end.checked_sub(range.start)?;
    if bytes == 0 || bytes > MAX_TABLE {
        return None;
    }
    let start = std::ptr::with_exposed_provenance::<u8>(base.wrapping_add(range.start) as usize);
    // SAFETY: the caller vouches for it.
    let loaded = unsafe { std::slice::from_raw_parts(start, bytes as usize) };
    Some(Table {
        range,
        bytes: loaded.into(),
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
