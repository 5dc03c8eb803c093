//! Descriptors that stand in encoded values, as this process has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message::Key;
use crate::codec::handle_context::Attachment;
use crate::sys::fd::OwnedFd;

/// A descriptor that stands in an encoded value. It is open until the last of these is gone.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) key: Key,
    pub(crate) file: Arc<OwnedFd>,
}

impl Attachment for Outgoing {
    fn height(&self) -> u32 {
        0
    }
}

/// Finds out in which of these items the descriptors stand, by their names, and takes those that do
/// stand in one, with the item's place. An item that is encoded has its descriptors listed before
/// it can be seen, so there may be others.
pub(crate) fn of_items<'a>(
    items: impl Iterator<Item = &'a [u8]>,
    descriptors: &mut Vec<Arc<Outgoing>>,
) -> Vec<(u32, Arc<Outgoing>)> {
    // A bit for each two bytes that a name may begin with.
    let mut starts = Box::new([0_u64; 1024]);
    let mut wanted: BTreeMap<u128, Arc<Outgoing>> = BTreeMap::new();
    for descriptor in descriptors.drain(..) {
        let [first, second, ..] = descriptor.key.0.to_le_bytes();
        let start = usize::from(u16::from_le_bytes([first, second]));
        starts[start / 64] |= 1 << (start % 64);
        wanted.insert(descriptor.key.0, descriptor);
    }
    let mut found = Vec::new();
    for (place, item) in (0..).zip(items) {
        for name in item.windows(16) {
            let start = usize::from(u16::from_le_bytes([name[0], name[1]]));
            if starts[start / 64] & (1 << (start % 64)) != 0
                && let Some(name) = name.first_chunk().copied()
                && let Some(descriptor) = wanted.remove(&u128::from_le_bytes(name))
            {
                found.push((place, descriptor));
            }
        }
        if wanted.is_empty() {
            break;
        }
    }
    descriptors.extend(wanted.into_values());
    found
}

/// Those of so many items from one on, with the places that these have among themselves.
pub(crate) fn in_places(
    descriptors: &[(u32, Arc<Outgoing>)],
    first: usize,
    count: usize,
) -> Vec<(u32, Arc<Outgoing>)> {
    let all = descriptors.iter().filter_map(|(place, descriptor)| {
        let place = (*place as usize).checked_sub(first)?;
        (place < count).then(|| (place as u32, descriptor.clone()))
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(id: u128) -> Arc<Outgoing> {
        let (read, _) = std::io::pipe().expect("descriptors");
        Arc::new(Outgoing {
            key: (id, 0),
            file: Arc::new(read.into()),
        })
    }

    #[test]
    fn each_descriptor_is_found_where_it_stands() {
        let ids: Vec<u128> = (1..6).map(|it| it << 77 | 0xabcd).collect();
        let item = |which: &[usize]| -> Vec<u8> {
            let names = which.iter().map(|it| ids[*it].to_le_bytes());
            names
                .flat_map(|name| [&[9; 5][..], &name].concat())
                .collect()
        };
        let items = [item(&[]), item(&[3, 1]), item(&[]), item(&[0])];
        let mut all: Vec<_> = ids.iter().map(|id| descriptor(*id)).collect();
        let found = of_items(items.iter().map(|it| &it[..]), &mut all);
        let found: Vec<_> = found.iter().map(|(at, it)| (*at, it.key.0)).collect();
        assert_eq!(found, [(1, ids[3]), (1, ids[1]), (3, ids[0])]);
        let left: Vec<_> = all.iter().map(|it| it.key.0).collect();
        assert_eq!(left, [ids[2], ids[4]]);
    }
}
