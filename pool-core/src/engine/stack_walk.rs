//! Walks the stack of another process, of which there is a copy.
#![cfg_attr(
    not(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )),
    allow(dead_code, reason = "nobody walks stacks there")
)]

use crate::shm::region::Region;
use crate::sync::atomic::Ordering;

/// More frames than this are of no use to a reader.
const MAX_FRAMES: usize = 128;

/// What a worker has copied: it may be anything.
pub(super) struct Copied {
    code: u64,
    instruction: u64,
    stack: u64,
    frame: u64,
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    link: u64,
    words: Vec<u64>,
}

impl Copied {
    pub(super) fn of(region: &Region) -> Self {
        let told = &region.words().stack;
        let count = told.count.load(Ordering::Relaxed) as usize;
        let words = region.stack().iter().take(count);
        Self {
            code: told.code.load(Ordering::Relaxed),
            instruction: told.instruction.load(Ordering::Relaxed),
            stack: told.stack.load(Ordering::Relaxed),
            frame: told.frame.load(Ordering::Relaxed),
            link: told.link.load(Ordering::Relaxed),
            words: words.map(|word| word.load(Ordering::Relaxed)).collect(),
        }
    }

    /// Where the worker has the program's code.
    pub(super) fn code(&self) -> u64 {
        self.code
    }

    fn word(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.stack)?;
        let place = usize::try_from(offset / 8).ok()?;
        offset
            .is_multiple_of(8)
            .then(|| self.words.get(place).copied())?
    }
}

/// A place in the code of another process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) address: u64,
    /// Where this process has the same code; behind it, as return addresses are.
    pub(super) here: Option<u64>,
}

/// The frames of the stack, the innermost first, as far as the code is this process's as well.
/// `there` says where in the other process the code is that is at some address here.
///
/// The tables are ours; what they are asked about is not, and no more than numbers: what is read
/// lies in the copy, and each step is one of at most [`MAX_FRAMES`].
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(super) fn walk(copied: &Copied, there: impl Fn(u64) -> Option<u64>) -> Vec<Frame> {
    use std::sync::Arc;

    use framehop::{
        CacheNative, ExplicitModuleSectionInfo, MayAllocateDuringUnwind, Module, UnwindRegsNative,
        Unwinder, UnwinderNative,
    };

    let mut unwinder = UnwinderNative::<Arc<[u8]>, MayAllocateDuringUnwind>::new();
    let mut code = Vec::new();
    for object in crate::sys::loaded_objects() {
        let Some(start) = there(object.code.start) else {
            continue;
        };
        let moved = start.wrapping_sub(object.code.start);
        let Some(end) = start.checked_add(object.code.end - object.code.start) else {
            continue;
        };
        let section =
            |table: &crate::sys::Table| (Some(table.range.clone()), Some(table.bytes.clone()));
        let (eh_frame_svma, eh_frame) = section(&object.frames);
        let (eh_frame_hdr_svma, eh_frame_hdr) = section(&object.index);
        unwinder.add_module(Module::new(
            String::new(),
            start..end,
            object.base.wrapping_add(moved),
            ExplicitModuleSectionInfo {
                eh_frame_svma,
                eh_frame,
                eh_frame_hdr_svma,
                eh_frame_hdr,
                ..ExplicitModuleSectionInfo::default()
            },
        ));
        code.push((start..end, moved));
    }
    #[cfg(target_arch = "x86_64")]
    let registers = UnwindRegsNative::new(copied.instruction, copied.stack, copied.frame);
    #[cfg(target_arch = "aarch64")]
    let registers = UnwindRegsNative::new(copied.link, copied.stack, copied.frame);
    let mut frames = Vec::new();
    // Whatever it makes of them.
    crate::panic::catch::catch_and_discard(|| {
        let mut cache = CacheNative::<MayAllocateDuringUnwind>::new();
        let mut read = |address| copied.word(address).ok_or(());
        let mut walk = unwinder.iter_frames(copied.instruction, registers, &mut cache, &mut read);
        while let Ok(Some(frame)) = walk.next() {
            let address = frame.address_for_lookup();
            let known = code.iter().find(|(range, _)| range.contains(&address));
            let here = known.map(|(_, moved)| address.wrapping_sub(*moved).wrapping_add(1));
            frames.push(Frame { address, here });
            // Of code without tables one can only guess.
            if here.is_none() || frames.len() >= MAX_FRAMES {
                break;
            }
        }
    });
    frames
}

/// What a worker says of its registers and its stack.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    use std::sync::OnceLock;

    use super::{Copied, MAX_FRAMES, walk};
    use crate::fuzzing::Input;
    use crate::process::code::own_code;
    use crate::shm::region::{Region, RingSizes};
    use crate::sync::atomic::Ordering;

    /// Walks what an input says of a stack. Random numbers lead nowhere, so each may be meant as a
    /// place in the program's code or in the stack.
    ///
    /// # Panics
    /// When the walk does not keep to the copy or to the program's code, or is too long.
    pub fn stack(input: &[u8]) {
        static REGION: OnceLock<Region> = OnceLock::new();
        const START: u64 = 0x7ffd_0000_0000;
        let code = own_code();
        let code = code.start as u64..code.end as u64;
        let mut input = Input(input);
        let number = |input: &mut Input<'_>| {
            let kind = input.byte();
            match kind % 4 {
                0 => code.start + input.word() % (code.end - code.start),
                1 => START + input.word() % 0x1_0000,
                2 => u64::from(kind / 4),
                _ => input.word(),
            }
        };
        let region = REGION.get_or_init(|| {
            let created = Region::create(Region::bytes_for(RingSizes::both(4096)));
            created.expect("memory").0
        });
        let told = &region.words().stack;
        for word in [
            &told.instruction,
            &told.stack,
            &told.frame,
            &told.link,
            &told.code,
        ] {
            word.store(number(&mut input), Ordering::Relaxed);
        }
        told.count
            .store(number(&mut input) as u32, Ordering::Relaxed);
        let is_moved = input.byte() % 2 == 1;
        for word in region.stack() {
            if input.is_empty() {
                break;
            }
            word.store(number(&mut input), Ordering::Relaxed);
        }
        let copied = Copied::of(region);
        let moved = if is_moved { copied.code() } else { 0 };
        let frames = walk(&copied, |here| Some(here.wrapping_add(moved)));
        assert!(frames.len() <= MAX_FRAMES, "the walk has an end");
        for frame in &frames[..frames.len().saturating_sub(1)] {
            assert!(frame.here.is_some(), "nothing follows unknown code");
        }
    }
}

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub(super) fn walk(_: &Copied, _: impl Fn(u64) -> Option<u64>) -> Vec<Frame> {
    Vec::new()
}
