//! What a hostile task can lay its hands on: the memory and the doorbell that its worker shares
//! with the pool. All of it by way of `/proc`, so that nothing here is unsafe for the test itself.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// The words of the region, by their place in bytes: see `pool-core/src/shm/region.rs`.
pub(crate) const REQUEST_HEAD: u64 = 256;
pub(crate) const RESPONSE_TAIL: u64 = 384;
pub(crate) const RESPONSE_HEAD: u64 = 512;
/// This many words, in an order that the compiler chooses.
pub(crate) const PROGRESS: [u64; 6] = [640, 648, 656, 664, 672, 680];
/// All of them have their places below this.
const WORDS: u64 = 1920;
/// The rings begin here; both have the same size.
pub(crate) const RINGS: u64 = 4096 + 65536;

/// The region of this worker.
pub(crate) struct Memory {
    file: File,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

impl Memory {
    /// # Panics
    /// Where there is none: then the test is about nothing.
    pub(crate) fn find() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").expect("there is a /proc");
        let line = maps
            .lines()
            .find(|line| line.contains("rw-s") && line.contains("memfd:"))
            .expect("a worker has a region");
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/proc/self/mem");
        Self {
            file: file.expect("its own memory"),
            start,
            bytes: end - start,
        }
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.start + at).unwrap();
    }

    pub(crate) fn set(&self, word: u64, value: u64) {
        self.write(word, &value.to_le_bytes());
    }

    pub(crate) fn get(&self, word: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file
            .read_exact_at(&mut bytes, self.start + word)
            .unwrap();
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn fill(&self, random: &mut Random) {
        let mut rubbish = Vec::new();
        while (rubbish.len() as u64) < self.bytes {
            rubbish.extend(random.next().to_le_bytes());
        }
        self.write(0, &rubbish);
    }

    /// The word that says how many items have begun, in a worker that runs its first.
    pub(crate) fn begun_of_first(&self) -> u64 {
        let word = PROGRESS.into_iter().find(|word| self.get(*word) == 1);
        word.expect("this is the first item")
    }

    /// Puts anything into any word.
    pub(crate) fn play(&self, random: &mut Random) {
        let word = random.next() % (WORDS / 8) * 8;
        let value = match random.next() % 4 {
            0 => random.next(),
            1 => random.next() % 4096,
            2 => self.get(word).wrapping_add(random.next() % 65),
            _ => self.get(word).wrapping_sub(random.next() % 65),
        };
        self.set(word, value);
    }
}

/// Numbers that a seed brings about.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

/// A second writing end of this worker's doorbell: the pipe that does not block.
pub(crate) fn doorbell() -> File {
    const NONBLOCK: i32 = 0o4000;
    let descriptors = fs::read_dir("/proc/self/fd").expect("there is a /proc");
    let number = descriptors
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|number| {
            let target = fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
            let info = info.unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
            target.to_string_lossy().starts_with("pipe:")
                && flags.is_some_and(|flags| flags & NONBLOCK != 0 && flags & 3 == 1)
        })
        .expect("a worker has a doorbell");
    OpenOptions::new()
        .write(true)
        .custom_flags(NONBLOCK)
        .open(format!("/proc/self/fd/{number}"))
        .expect("it can be opened once more")
}
