//! How workers look from outside: what the kernel says of them, and their stacks.

use std::fs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::stack_walk::{Copied, walk};
use crate::observe::dump::{KernelState, WorkerDump};
use crate::panic::backtrace::Functions;
use crate::process::code::own_code;
use crate::shm::region::Region;
use crate::sys;

/// How long a worker has to say where it is.
const PATIENCE_NS: u64 = 200_000_000;

/// Fills in what is to be seen of workers that run something. It takes no lock of the pool's; who
/// dies meanwhile has nothing to tell.
pub(super) fn look_at(workers: &mut [WorkerDump], regions: &[Option<Arc<Region>>]) {
    // First the kernel's word, before the question disturbs.
    for worker in &mut *workers {
        worker.kernel = worker
            .info
            .as_ref()
            .and_then(|info| kernel_state(info.pid()));
    }
    let answers = answers(workers, regions);
    for (worker, answer) in workers.iter_mut().zip(answers) {
        if let (Some(info), Some(copied)) = (&worker.info, answer) {
            worker.stack = Some(read_stack(info.pid(), &copied));
        }
    }
}

/// What the workers that run something have copied of their stacks, as far as they answer.
fn answers(workers: &[WorkerDump], regions: &[Option<Arc<Region>>]) -> Vec<Option<Copied>> {
    // A worker has room for one answer at a time. The lock ends before names are looked up: that
    // may take a second, and other dumps should not wait for it.
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let questions = workers.iter().zip(regions).map(|(worker, region)| {
        let pid = worker.info.as_ref()?.pid();
        let region = region.as_deref()?;
        Some((ask(pid, region)?, region))
    });
    let questions: Vec<Option<(u32, &Region)>> = questions.collect();
    let give_up = sys::now_ns() + PATIENCE_NS;
    let answers = questions.into_iter().map(|question| {
        let (asked, region) = question?;
        is_answered(region, asked, give_up).then(|| Copied::of(region))
    });
    answers.collect()
}

/// Waits until a worker has answered, and says whether it has.
fn is_answered(region: &Region, asked: u32, give_up: u64) -> bool {
    let word = &region.words().stack.answered;
    loop {
        let answered = word.load(Ordering::Acquire);
        let left = give_up.saturating_sub(sys::now_ns());
        if answered == asked || left == 0 {
            return answered == asked;
        }
        sys::wait_for_change(word, answered, Duration::from_nanos(left));
    }
}

/// Asks a worker where it is, and says what it will answer with.
fn ask(pid: u32, region: &Region) -> Option<u32> {
    let asked = region.words().stack.asked.fetch_add(1, Ordering::AcqRel);
    sys::send_signal(pid, sys::Signal::URG).then(|| asked.wrapping_add(1))
}

/// Where a worker is, by the registers and the piece of its stack that it has copied, with names.
/// They are the worker's word, and may be anything.
fn read_stack(pid: u32, copied: &Copied) -> String {
    let folder = sys::in_proc(pid).unwrap_or_default();
    let theirs = Maps::of(&format!("{folder}/maps"));
    let mine = Maps::of("/proc/self/maps");
    let code = copied.code();
    let ours = own_code();
    // Where something that is in this process at an address is in the worker.
    let there = |here: u64| {
        let offset = here.wrapping_sub(ours.start as u64);
        if offset < ours.len() as u64 {
            return Some(code.wrapping_add(offset));
        }
        let (file, at) = mine.find(here)?;
        theirs.position(file, at)
    };
    let mut functions = Functions::default();
    for frame in walk(copied, there) {
        let is_known = frame
            .here
            .is_some_and(|here| functions.describe(here as usize));
        if !is_known {
            let position = theirs.find(frame.address);
            let file = position.map_or("unknown code", |(file, _)| file);
            functions.push_unknown(format!("<in {file}>"));
        }
    }
    functions.end_at_pool();
    functions.to_string()
}

/// The files that a process has mapped as code.
struct Maps(Vec<Map>);

struct Map {
    start: u64,
    end: u64,
    offset: u64,
    file: String,
}

impl Maps {
    fn of(path: &str) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        Self(text.lines().filter_map(Map::read).collect())
    }

    /// The file that an address is in, and where in the file.
    fn find(&self, address: u64) -> Option<(&str, u64)> {
        let map = self
            .0
            .iter()
            .find(|it| (it.start..it.end).contains(&address))?;
        Some((&map.file, address - map.start + map.offset))
    }

    /// Where a place in a file is mapped.
    fn position(&self, file: &str, at: u64) -> Option<u64> {
        let map = self.0.iter().find(|it| {
            it.file == file && (it.offset..it.offset + (it.end - it.start)).contains(&at)
        })?;
        Some(at - map.offset + map.start)
    }
}

impl Map {
    /// Reads `start-end r-xp offset device inode   file`.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let is_code = words.next()?.contains('x');
        let number = |text| u64::from_str_radix(text, 16).ok();
        let offset = number(words.next()?)?;
        let file = words.nth(2)?;
        is_code.then_some(Self {
            start: number(start)?,
            end: number(end)?,
            offset,
            file: file.to_owned(),
        })
    }
}

/// What the kernel says of a process's main thread, as far as it lets us see.
fn kernel_state(pid: u32) -> Option<KernelState> {
    let folder = sys::in_proc(pid)?;
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok();
    let status = read("status")?;
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))?;
    let waits_in = read("wchan").filter(|name| !name.is_empty() && name != "0");
    let call = read("syscall").and_then(|line| line.split_whitespace().next()?.parse().ok());
    Some(KernelState {
        state: state.trim().to_owned(),
        waits_in,
        system_call: call,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::region::RingSizes;

    #[test]
    #[cfg_attr(procpool_portable, ignore = "there is no `/proc` to look into")]
    fn this_process_can_be_looked_at() {
        let state = kernel_state(std::process::id()).expect("it is alive");
        assert!(!state.state.is_empty());
        assert_eq!(kernel_state(0), None);
    }

    #[test]
    fn code_is_found_in_files() {
        let maps = Maps::of("/proc/self/maps");
        let here = own_code().start as u64;
        let (file, at) = maps.find(here).expect("this code is mapped");
        assert_eq!(maps.position(file, at), Some(here));
        assert!(maps.find(0).is_none() && maps.position("no such file", 0).is_none());
    }

    /// Whatever a worker says of its stack, there is an end to it.
    #[test]
    fn a_stack_of_nonsense_is_survived() {
        let (region, _file) =
            Region::create(Region::bytes_for(RingSizes::both(4096))).expect("memory");
        let told = &region.words().stack;
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            state >> 17
        };
        let code = own_code();
        for round in 0..200 {
            told.count.store(u32::MAX, Ordering::Relaxed);
            told.code.store(code.start as u64, Ordering::Relaxed);
            let somewhere = |number: u64| code.start as u64 + number % code.len() as u64;
            let start = if round % 2 == 0 {
                0x7000_0000
            } else {
                random()
            };
            for (word, value) in [
                (&told.instruction, somewhere(random())),
                (&told.stack, start),
                (&told.frame, start.wrapping_add(random() % 4096)),
                (&told.link, random()),
            ] {
                word.store(value, Ordering::Relaxed);
            }
            for word in region.stack() {
                let value = match random() % 3 {
                    0 => somewhere(random()),
                    1 => start.wrapping_add(random() % 65536),
                    _ => random(),
                };
                word.store(value, Ordering::Relaxed);
            }
            let frames = walk(&Copied::of(&region), Some);
            assert!(frames.len() <= 128);
        }
        told.code.store(u64::MAX - 1, Ordering::Relaxed);
        let text = read_stack(std::process::id(), &Copied::of(&region));
        assert!(text.lines().count() < 1000, "{text}");
    }
}
