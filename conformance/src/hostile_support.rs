//! What a hostile task can lay its hands on: the memory that its worker shares with the pool, which
//! it finds by way of `/proc`, and the bell that it rings.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

use rustix::fs::fstat;
use rustix::net::SocketType;

use crate::procfs;

/// The words of the region, by their place in bytes: see `pool-core/src/shm/region.rs`.
pub(crate) const REQUEST_HEAD: u64 = 256;
pub(crate) const RESPONSE_TAIL: u64 = 384;
pub(crate) const RESPONSE_HEAD: u64 = 512;
/// This many words, in an order that the compiler chooses.
pub(crate) const PROGRESS: [u64; 6] = [640, 648, 656, 664, 672, 680];
/// The number of an item, and how many of its values were consumed.
pub(crate) const CONSUMED: u64 = 1280;
/// All of them have their places below this.
const WORDS: u64 = 4096;
/// The rings begin here; both have the same size.
pub(crate) const RINGS: u64 = 4096 + 65536;

/// The region of this worker.
pub(crate) struct Memory {
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
            .find(|line| line.contains("rw-s") && procfs::is_pools_memory(line))
            .expect("a worker has a region");
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        Self {
            start,
            bytes: end - start,
        }
    }

    /// How large each of the two rings is: a power of two. The memory may be longer than both.
    pub(crate) fn ring(&self) -> u64 {
        1 << ((self.bytes - RINGS) / 2).ilog2()
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= self.bytes, "it is the region's");
        for (place, byte) in bytes.iter().enumerate() {
            // SAFETY: it is mapped and writable as long as the worker lives. What lies there, the
            // worker and its parent read and write at any time: that is what the test is about.
            unsafe { self.place(at).add(place).write_volatile(*byte) };
        }
    }

    fn place(&self, at: u64) -> *mut u8 {
        ptr::with_exposed_provenance_mut((self.start + at) as usize)
    }

    pub(crate) fn set(&self, word: u64, value: u64) {
        assert!(
            word + 8 <= self.bytes && word.is_multiple_of(8),
            "it is a word of the region's"
        );
        // SAFETY: as above; all of it at once.
        unsafe { self.place(word).cast::<u64>().write_volatile(value) };
    }

    pub(crate) fn get(&self, word: u64) -> u64 {
        assert!(
            word + 8 <= self.bytes && word.is_multiple_of(8),
            "it is a word of the region's"
        );
        // SAFETY: as above.
        unsafe { self.place(word).cast::<u64>().read_volatile() }
    }

    pub(crate) fn fill(&self, random: &mut Random) {
        let mut rubbish = Vec::new();
        while (rubbish.len() as u64) < self.bytes {
            rubbish.extend(random.next().to_le_bytes());
        }
        self.write(0, &rubbish);
    }

    /// The word that says how many items have begun, in a worker that runs its first: its settings
    /// and its initializer count there, too.
    pub(crate) fn begun_of_first(&self) -> u64 {
        let is_small = |word: &u64| (1..=3).contains(&self.get(*word));
        let word = PROGRESS.into_iter().find(is_small);
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

/// The worker's end of the socket by which descriptors go.
pub(crate) fn fd_socket() -> BorrowedFd<'static> {
    // The second kind is for systems that do not have the first one.
    let of_packets = [SocketType::SEQPACKET, SocketType::DGRAM];
    let mut sockets = sockets(|kind| of_packets.contains(&kind));
    sockets.next().expect("a worker has one")
}

/// The worker's sockets of this kind.
fn sockets(is_kind: impl Fn(SocketType) -> bool) -> impl Iterator<Item = BorrowedFd<'static>> {
    let all = procfs::descriptors(std::process::id()).into_iter();
    let sockets = all.filter(|(_, target)| target.starts_with("socket:"));
    sockets.filter_map(move |(number, _)| {
        // SAFETY: it is open, and stays so: it is the worker's.
        let socket = unsafe { BorrowedFd::borrow_raw(number.cast_signed()) };
        let kind = rustix::net::sockopt::socket_type(socket);
        kind.is_ok_and(&is_kind).then_some(socket)
    })
}

/// What this worker rings, so that its parent looks; and what else it has of the kind, which does
/// not mind.
pub(crate) struct Bells(Vec<RawFd>);

impl Bells {
    /// `None`: there are none any more.
    pub(crate) fn find() -> Option<Self> {
        if cfg!(any(procpool_portable, not(target_os = "linux"))) {
            return Self::socket();
        }
        let descriptors = procfs::descriptors(std::process::id()).into_iter();
        let events = descriptors.filter(|(_, target)| target == "anon_inode:[eventfd]");
        let bells: Vec<_> = events.map(|(number, _)| number as RawFd).collect();
        (!bells.is_empty()).then_some(Self(bells))
    }

    /// Of a worker's sockets, the bell is the first one.
    fn socket() -> Option<Self> {
        static BELL: OnceLock<(RawFd, Option<u64>)> = OnceLock::new();
        let inode = |socket: BorrowedFd<'_>| fstat(socket).ok().map(|stat| stat.st_ino);
        let (number, its_inode) = BELL.get_or_init(|| {
            let mut streams = sockets(|kind| kind == SocketType::STREAM);
            let bell = streams.next().expect("a worker has one");
            (bell.as_raw_fd(), inode(bell))
        });
        // SAFETY: nothing is done with it but to ask what it is: it may be closed by now.
        let now = inode(unsafe { BorrowedFd::borrow_raw(*number) });
        (now == *its_inode).then(|| Self(vec![*number]))
    }

    fn each(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // SAFETY: they are the worker's as long as it serves.
        self.0
            .iter()
            .map(|number| unsafe { BorrowedFd::borrow_raw(*number) })
    }

    pub(crate) fn ring(&self) {
        self.add(&1_u64.to_ne_bytes());
    }

    /// Whatever these bytes mean.
    pub(crate) fn add(&self, bytes: &[u8]) {
        for bell in self.each() {
            let _ = rustix::io::write(bell, bytes);
        }
    }

    pub(crate) fn close(self) {
        for bell in self.0 {
            // SAFETY: their owner finds that they are gone, which is the point.
            unsafe { rustix::io::close(bell) };
        }
    }

    /// Takes back whatever was rung.
    pub(crate) fn silence(&self) {
        for bell in self.each() {
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
    }
}

/// A descriptor that newer kernels pass to no other process. `None`: there is none here.
pub(crate) fn io_uring() -> Option<OwnedFd> {
    use nix::libc;
    // `struct io_uring_params`.
    let mut parameters = [0_u8; 120];
    // SAFETY: the kernel writes into the parameters alone, which are as long as it says.
    let number = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    let number = RawFd::try_from(number).ok().filter(|it| *it >= 0)?;
    // SAFETY: it is a new one, and nobody's else.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
