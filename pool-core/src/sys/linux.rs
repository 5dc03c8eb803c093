//! Linux: sealed memory files, shared futexes, epoll, event descriptors, the monotonic clock.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create, readlink,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{MembarrierCommand, futex, membarrier};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::file_size::without_size_signal;
use super::refused::failed;
use super::waiting::{poll, wait_in_epoll};

/// What a thread is started by, for an error's text.
pub(crate) const THREAD_CALL: &str = "clone3 (a thread)";

/// The same descriptor under a number that is not one of the standard streams'. A program may have
/// closed one of those, and then a descriptor that is opened gets its number: what the program or
/// a task prints would go there.
///
/// # Errors
/// When there is none left.
pub fn off_standard(descriptor: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    let descriptor = descriptor.into();
    if descriptor.as_raw_fd() > 2 {
        return Ok(descriptor);
    }
    fcntl_dupfd_cloexec(&descriptor, 3).map_err(failed("fcntl(F_DUPFD_CLOEXEC)"))
}

/// Creates a zero-filled memory file whose size nobody can change any more: a process that
/// shrank it would make every other one that maps it die of SIGBUS.
pub(crate) fn memory_file(bytes: usize) -> io::Result<OwnedFd> {
    let file = memory_file_to_size("procpool")?;
    give_size(&file, bytes)?;
    fcntl_add_seals(&file, SealFlags::SEAL).map_err(failed("fcntl(F_ADD_SEALS)"))?;
    Ok(file)
}

/// Creates an empty memory file that can be sealed.
pub(super) fn memory_file_to_size(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    off_standard(memfd_create(name, flags).map_err(failed("memfd_create"))?)
}

/// Makes a memory file so large, for good. It must not be mapped before: a process of the same user
/// may have opened it by `/proc` already, and could cut it short.
///
/// # Errors
/// When the system refuses it, or another process has changed the size meanwhile.
pub(super) fn give_size(file: &OwnedFd, bytes: usize) -> io::Result<()> {
    let resize = || retry_on_intr(|| ftruncate(file, bytes as u64));
    without_size_signal(|| resize().map_err(failed("ftruncate")))?;
    fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW)
        .map_err(failed("fcntl(F_ADD_SEALS)"))?;
    has_size(file, bytes)
}

/// Checks the size of a memory file that nobody can change any more.
///
/// # Errors
/// When it is another one.
pub(super) fn has_size(file: &OwnedFd, bytes: usize) -> io::Result<()> {
    let stat = fstat(file).map_err(failed("fstat"))?;
    if stat.st_size.cast_unsigned() == bytes as u64 {
        Ok(())
    } else {
        Err(io::Error::other(
            "another process of this user has changed the size of shared memory while it was made",
        ))
    }
}

/// Maps a whole memory file, shared and writable.
pub(crate) fn map_shared(file: BorrowedFd<'_>) -> io::Result<(NonNull<u8>, usize)> {
    let bytes = fstat(file).map_err(failed("fstat"))?.st_size as usize;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
    let address = unsafe {
        mmap(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            file,
            0,
        )
        .map_err(failed("mmap"))?
    };
    let address = NonNull::new(address.cast()).expect("the kernel maps nothing at address zero");
    Ok((address, bytes))
}

/// Whether the process with this number is being taken down, or is dead: its memory goes before its
/// descriptors do, and both before anybody hears of its death.
pub(crate) fn is_leaving(pid: u32) -> bool {
    let program = readlink(format!("/proc/{pid}/exe"), Vec::new());
    matches!(program, Err(Errno::NOENT | Errno::SRCH))
}

/// Whether the process has ended of which this is a pidfd.
pub(crate) fn has_ended(process: BorrowedFd<'_>) -> io::Result<bool> {
    let mut watched = [PollFd::new(&process, PollFlags::IN)];
    let count = retry_on_intr(|| poll(&mut watched, Some(&Timespec::default())))?;
    Ok(count > 0)
}

/// Unmaps memory.
///
/// # Safety
/// `address..address + bytes` is a mapping of the caller's that nobody uses any more.
pub(crate) unsafe fn unmap(address: NonNull<u8>, bytes: usize) {
    // SAFETY: handed on to the caller. An error would mean that there was no such mapping.
    let unmapped = unsafe { munmap(address.as_ptr().cast(), bytes) };
    debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
}

/// From so many bytes on, memory that is going to be filled is asked for in huge pages.
const HUGE: usize = 2 << 20;

/// Says that this memory is going to be filled: the kernel may take it from huge pages, as far as
/// it holds whole ones, instead of finding and clearing each page of four kilobytes when it is
/// first touched.
pub(crate) fn expect_use<T>(room: &mut [MaybeUninit<T>]) {
    let bytes = size_of_val(room);
    if bytes < HUGE {
        return;
    }
    let page = rustix::param::page_size();
    let start = room.as_mut_ptr().cast::<u8>();
    let skip = start.align_offset(page);
    let whole = bytes.saturating_sub(skip) / page * page;
    // SAFETY: whole pages inside of memory that the caller has for itself; their content stays
    // what it is. (A kernel without huge pages refuses, and that is all the same.)
    let _ = unsafe {
        let start = start.add(skip.min(bytes));
        madvise(start.cast(), whole, Advice::LinuxHugepage)
    };
}

/// Sleeps while `*word == expected`, until [`futex_wake`]. Returns early for signals.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32) {
    // Every error (the value differs, a signal came) means the same to the caller: look again.
    let _ = futex::wait(word, futex::Flags::empty(), expected, None);
}

/// Wakes the one sleeper on `word`, in whatever process.
pub(crate) fn futex_wake(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

/// Two words that are each 0 in a process that was just forked, until it sets them.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ForkMarks {
    /// 1 in this process, once it was asked for.
    pub(crate) process: AtomicU32,
    /// 1 in a worker that serves.
    pub(crate) worker: AtomicU32,
}

/// See [`ForkMarks`]. `None`: this kernel does not clear memory in a fork.
pub(crate) fn fork_marks() -> Option<&'static ForkMarks> {
    static MARKS: OnceLock<Option<&'static ForkMarks>> = OnceLock::new();
    *MARKS.get_or_init(|| {
        let page = rustix::param::page_size();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let mapped =
            unsafe { mmap_anonymous(std::ptr::null_mut(), page, protection, MapFlags::PRIVATE) };
        let address = mapped.ok()?;
        // SAFETY: it is the mapping made above, in which nothing is kept but the marks.
        if unsafe { madvise(address, page, Advice::LinuxWipeOnFork) }.is_err() {
            // SAFETY: nobody knows of the mapping.
            let _ = unsafe { munmap(address, page) };
            return None;
        }
        // SAFETY: the mapping is large enough, aligned to a page, zero-filled, and never unmapped.
        let marks = unsafe { &*address.cast::<ForkMarks>() };
        marks.process.store(1, Ordering::Relaxed);
        Some(marks)
    })
}

/// Ends this process at once: no `atexit` functions, no destructors.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: always sound; nothing of this process runs afterwards.
    unsafe { libc::_exit(code) }
}

/// Whether [`barrier_everywhere`] works here. It may not in an old kernel or in a sandbox.
pub(crate) fn has_barriers() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| membarrier(MembarrierCommand::GlobalExpedited).is_ok())
}

/// Executes a memory barrier on every thread that runs now in a process that accepts that, and
/// in this one.
pub(crate) fn barrier_everywhere() {
    fence(Ordering::SeqCst);
    if has_barriers() && membarrier(MembarrierCommand::GlobalExpedited).is_err() {
        // The kernel is out of memory, or a sandbox was put up in the meantime. What is left is
        // time: a store that a processor has executed is seen by all within nanoseconds.
        let start = Instant::now();
        while start.elapsed() < DRAIN {
            std::hint::spin_loop();
        }
        fence(Ordering::SeqCst);
    }
}

/// How long a store may take, by far, from its execution until every processor sees it.
const DRAIN: Duration = Duration::from_micros(100);

/// Whether this process accepts the barriers of its own threads.
static OWN_BARRIERS: OnceLock<bool> = OnceLock::new();

/// Accepts [`barrier_here`] in this process, if that can be had. The first time takes the kernel
/// ten milliseconds or more, unless the process has one thread.
pub(crate) fn accept_own_barriers() {
    OWN_BARRIERS.get_or_init(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok());
}

/// Whether [`barrier_here`] reaches the other threads.
pub(crate) fn has_own_barriers() -> bool {
    OWN_BARRIERS.get().copied().unwrap_or(false)
}

/// Executes a memory barrier on every thread of this process that runs now, if it accepts that,
/// and in any case in this one.
pub(crate) fn barrier_here() {
    fence(Ordering::SeqCst);
    if has_own_barriers() && membarrier(MembarrierCommand::PrivateExpedited).is_err() {
        // As in `barrier_everywhere`.
        let start = Instant::now();
        while start.elapsed() < DRAIN {
            std::hint::spin_loop();
        }
        fence(Ordering::SeqCst);
    }
}

/// Accepts the barriers of other processes. `false`: that cannot be had.
pub(crate) fn accept_barriers() -> bool {
    membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// A number that no other process, and no other call, is given.
pub(crate) fn random_id() -> io::Result<u128> {
    let mut id = [0; 16];
    let mut filled = 0;
    while filled < id.len() {
        match getrandom(&mut id[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => {
                // The older way to the same numbers.
                let device = File::open("/dev/urandom");
                let read = device.and_then(|mut device| device.read_exact(&mut id));
                read.map_err(|_| failed("getrandom")(errno))?;
                break;
            }
        }
    }
    Ok(u128::from_ne_bytes(id))
}

/// A number that is another one each time, as far as that can be had.
pub(crate) fn random_seed() -> u64 {
    let id = random_id().unwrap_or_else(|_| {
        // A sandbox. The clock goes on between any two calls; what follows spreads the difference.
        let differs = u128::from(now_ns()) << 32 | u128::from(std::process::id());
        differs.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    });
    (id >> 64) as u64 ^ id as u64
}

/// Nanoseconds on the monotonic clock, the same in every process of this machine.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Sleeps until a word is not what is expected any more, or that is over. Not for models.
pub(crate) fn wait_for_change(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = Timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    // Whatever it says: the caller looks again.
    let _ = futex::wait(word, futex::Flags::empty(), expected, Some(&timeout));
}

/// Sleeps for about so long, without anything that a sandbox refuses which lets threads live.
pub(crate) fn nap(time: Duration) {
    wait_for_change(&AtomicU32::new(0), 0, time);
}

/// Wakes whoever waits for a change of this word; a signal handler may do that.
pub(crate) fn tell_of_change(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

/// Whose processor time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuClock {
    /// That of all threads of this process.
    Process,
    /// That of this thread alone.
    Thread,
}

/// Processor time in nanoseconds.
pub(crate) fn cpu_ns(clock: CpuClock) -> u64 {
    let time = clock_gettime(match clock {
        CpuClock::Process => ClockId::ProcessCPUTime,
        CpuClock::Thread => ClockId::ThreadCPUTime,
    });
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The most bytes of memory that this process ever had resident.
pub(crate) fn peak_rss() -> u64 {
    // The cheap answer counts what this process was before it executed this program, which for a
    // worker that was spawned is its parent. Only what exceeds that is its own.
    static INHERITED: OnceLock<u64> = OnceLock::new();
    let usage = getrusage(UsageWho::RUSAGE_SELF).map(|usage| usage.max_rss());
    let seen = usage.map_or(0, |kib| kib.unsigned_abs() * 1024);
    let inherited = *INHERITED.get_or_init(|| if high_water() < seen { seen } else { 0 });
    if seen > inherited { seen } else { high_water() }
}

/// How many bytes of memory a process has resident.
pub(crate) fn rss(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The same by a slower way that counts this program alone; 0 where there is no `/proc`.
fn high_water() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// The time that deadlines are told in.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// An epoll instance. Level-triggered; `token` comes back with the readiness.
#[derive(Debug)]
pub(crate) struct Poller(OwnedFd);

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC);
        let poller = Self(off_standard(instance.map_err(failed("epoll_create1"))?)?);
        // Whether one can wait is known here, where there is somebody to be told that one cannot.
        poller.wait(&mut Vec::new(), Some(Duration::ZERO))?;
        Ok(poller)
    }

    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.0, source, data, epoll::EventFlags::IN).map_err(failed("epoll_ctl"))
    }

    pub(crate) fn delete(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, source)?)
    }

    /// Waits until a source is readable (or hung up) and puts the tokens into `ready`, which is
    /// left empty when the time is over or a signal came.
    pub(crate) fn wait(&self, ready: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().min(i32::MAX as u64) as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        wait_in_epoll(self.0.as_fd(), ready, timeout.as_ref())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A flag that a thread in a [`Poller`] can wait for.
#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(failed("eventfd2"))?;
        Ok(Self(off_standard(event)?))
    }

    pub(crate) fn set(&self) {
        // If it is refused both ways, there is nothing left but the timers of whoever sleeps.
        let _ = write_to_wake(self.0.as_fd(), &1_u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        // Nothing to read means that it was not set.
        let _ = read_away(self.0.as_fd(), &mut [0; 8]);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Writes one byte to a doorbell. A full pipe means that it rings already; a closed one, that
/// nobody listens any more. `false`: it cannot be rung.
pub(crate) fn ring_doorbell(doorbell: BorrowedFd<'_>) -> bool {
    matches!(write_to_wake(doorbell, &[1]), Ok(()) | Err(Errno::PIPE))
}

/// Empties a doorbell. `false`: its other end is closed, or it cannot be emptied, so that it would
/// ring for ever.
pub(crate) fn silence_doorbell(doorbell: BorrowedFd<'_>) -> bool {
    matches!(
        read_away(doorbell, &mut [0; 64]),
        Ok(1..) | Err(Errno::AGAIN)
    )
}

/// Writes a few bytes, for somebody to wake who may sleep without an end. What is full will wake
/// it. An error that such a descriptor never has (a sandbox, a fault that is injected) may be that
/// of one system call and not of another.
fn write_to_wake(to: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<()> {
    let written = match retry_on_intr(|| rustix::io::write(to, bytes)) {
        Ok(_) | Err(Errno::AGAIN) => return Ok(()),
        Err(Errno::PIPE) => return Err(Errno::PIPE),
        Err(_) => retry_on_intr(|| rustix::io::writev(to, &[IoSlice::new(bytes)])),
    };
    match written {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Reads what woke somebody, so that it does not do so again.
fn read_away(from: BorrowedFd<'_>, into: &mut [u8]) -> rustix::io::Result<usize> {
    match retry_on_intr(|| rustix::io::read(from, &mut *into)) {
        Err(errno) if errno != Errno::AGAIN => {
            retry_on_intr(|| rustix::io::readv(from, &mut [IoSliceMut::new(into)]))
        }
        read => read,
    }
}

/// The address range of the main executable's code: its executable segments.
///
/// The dynamic loader is asked, and not `/proc/self`: that is closed to a process that has
/// changed its user, whose file may not be read, or that has made itself undumpable; and it may
/// not be mounted at all.
pub(crate) fn main_code() -> io::Result<std::ops::Range<usize>> {
    let mut code: Option<std::ops::Range<usize>> = None;
    // SAFETY: the callback is given the `code` above, which outlives the call, and does not panic.
    unsafe { libc::dl_iterate_phdr(Some(add_code), (&raw mut code).cast()) };
    code.ok_or_else(|| io::Error::other("the loader does not say where the program's code is"))
}

/// Puts the range of an object's code into the `Option<Range<usize>>` that `found` points to, and
/// asks for no other object: the first one is the main executable.
///
/// # Safety
/// Of `dl_iterate_phdr`: `object` describes a loaded object, and `found` was given with it.
unsafe extern "C" fn add_code(
    object: *mut libc::dl_phdr_info,
    _bytes: usize,
    found: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader calls this with a valid description, and `main_code` with an `Option`
    // that nobody else uses meanwhile.
    let (object, found) = unsafe {
        (
            &*object,
            &mut *found.cast::<Option<std::ops::Range<usize>>>(),
        )
    };
    if object.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: that is where the loader has this many program headers, for as long as the object
    // is loaded, and the main executable always is.
    let segments =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let page = rustix::param::page_size();
    for segment in segments {
        if segment.p_type != libc::PT_LOAD || segment.p_flags & libc::PF_X == 0 {
            continue;
        }
        let start = (object.dlpi_addr as usize).wrapping_add(segment.p_vaddr as usize);
        let end = start.wrapping_add(segment.p_memsz as usize);
        // As it is mapped: whole pages.
        let (start, end) = (start / page * page, end.next_multiple_of(page));
        *found = Some(match found.take() {
            Some(all) => all.start.min(start)..all.end.max(end),
            None => start..end,
        });
    }
    1
}

#[cfg(test)]
mod tests {
    use super::main_code;

    #[test]
    fn the_code_is_where_the_kernel_has_mapped_it() {
        let code = main_code().expect("the loader knows");
        assert!(code.contains(&(main_code as fn() -> _ as usize)));
        // Nothing of another file is in between.
        let maps = std::fs::read_to_string("/proc/self/maps").expect("there is a /proc");
        let program = std::env::current_exe().expect("this program");
        let executable: Vec<std::ops::Range<usize>> = maps
            .lines()
            .filter(|line| line.ends_with(program.to_str().expect("text")))
            .filter(|line| line.contains(" r-xp "))
            .map(|line| {
                let (range, _) = line.split_once(' ').expect("fields");
                let (start, end) = range.split_once('-').expect("a range");
                let address = |text| usize::from_str_radix(text, 16).expect("an address");
                address(start)..address(end)
            })
            .collect();
        let first = executable.first().expect("this program has code").start;
        let last = executable.last().expect("this program has code").end;
        assert_eq!(code, first..last);
    }
}
