//! What a worker offers that means harm: it costs its own result, and its parent does nothing to
//! what is offered.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use procpool::{Broadcast, Pool, Stateless, TaskError, TaskErrorKind};
use rustix::fs::{
    CWD, MemfdFlags, Mode, SealFlags, fcntl_add_seals, ftruncate, inotify, memfd_create, mkfifoat,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::backends::{Builder, Processes};
use crate::broadcast::{holdings, inode_of};
use crate::file_barrier::{self, Gate};
use crate::hostile_support::{Bells, Memory, PROGRESS, RESPONSE_TAIL, RINGS};
use crate::procfs::{is_alive, wait_until, workers};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        an_honest_forgery_is_taken,
        a_pipe_is_not_opened,
        a_descriptor_that_is_closed,
        a_descriptor_that_is_something_else_by_now,
        memory_that_can_change,
        memory_of_somebody_else,
        a_handle_of_what_was_not_offered,
        offers_that_make_no_sense,
        what_was_staged_by_who_died_is_lost,
        a_handle_that_is_inside_of_itself,
        handles_inside_each_other_are_not_too_deep,
        offers_inside_each_other_are_not_too_many,
        a_handle_that_lies_about_its_type,
        a_result_beyond_the_limit_is_refused_at_its_head,
    ]
}

/// A file as a worker may offer it.
#[derive(Debug, Clone, Copy)]
struct Offer {
    pid: u32,
    descriptor: i32,
    inode: u64,
}

impl Offer {
    fn of(file: &impl AsRawFd) -> Self {
        let descriptor = file.as_raw_fd();
        let link = format!("/proc/self/fd/{descriptor}");
        Self {
            pid: std::process::id(),
            descriptor,
            inode: fs::metadata(link).expect("it is open").ino(),
        }
    }

    /// As a handle of it travels: see `pool-core/src/broadcast`.
    fn ticket(self) -> Vec<u8> {
        self.ticket_with(&[])
    }

    /// The same, with the tickets of what is inside.
    fn ticket_with(self, inner: &[Vec<u8>]) -> Vec<u8> {
        let mut ticket = 7_u128.to_le_bytes().to_vec();
        ticket.extend(self.pid.to_le_bytes());
        ticket.extend(self.descriptor.to_le_bytes());
        ticket.extend(self.inode.to_le_bytes());
        ticket.extend((inner.len() as u64).to_le_bytes());
        ticket.extend(inner.concat());
        ticket
    }

    /// A result that is a handle of it, and what is offered with that.
    fn record(self) -> Vec<u8> {
        offering(&self.ticket(), &[self.ticket()])
    }
}

/// The record of an encoded result, with which this is offered.
fn offering(result: &[u8], tickets: &[Vec<u8>]) -> Vec<u8> {
    let count = (tickets.len() as u64).to_le_bytes();
    record(&[result, &offer(&tickets.concat(), count, &[], false)].concat())
}

/// What is said behind a result: these tickets, these names of descriptors, and whether the files
/// were sent.
pub(crate) fn offer(tickets: &[u8], count: [u8; 8], names: &[u128], is_sent: bool) -> Vec<u8> {
    let mut offer = [&count[..], tickets].concat();
    offer.extend((names.len() as u64).to_le_bytes());
    offer.extend(names.iter().flat_map(|name| name.to_le_bytes()));
    offer.push(is_sent.into());
    let length = (offer.len() as u32).to_le_bytes();
    offer.extend(length);
    offer
}

/// The head that says that something is offered, and the rest.
pub(crate) fn record(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u64 | 1 << 63;
    [
        &(u32::MAX << 2).to_le_bytes()[..],
        &length.to_le_bytes(),
        bytes,
    ]
    .concat()
}

/// Puts bytes into the ring, where the parent finds them, and says where they end.
fn put(bytes: &[u8]) -> u64 {
    let memory = Memory::find();
    let capacity = memory.ring();
    let tail = memory.get(RESPONSE_TAIL);
    let (before, after) = bytes.split_at(bytes.len().min((capacity - tail % capacity) as usize));
    memory.write(RINGS + capacity + tail % capacity, before);
    memory.write(RINGS + capacity, after);
    tail + bytes.len() as u64
}

/// Answers with a forged record, and then with the time that ends its frame, as if it were done.
pub(crate) fn answer(record: &[u8]) -> ! {
    let time = [&(8_u32 << 2 | 2).to_le_bytes()[..], &[0; 8]].concat();
    let end = put(&[record, &time].concat());
    Memory::find().set(RESPONSE_TAIL, end);
    Bells::find().expect("a bell").ring();
    loop {
        std::thread::park();
    }
}

/// What becomes of a task that answers so, in a pool that is as good as before afterwards.
pub(crate) fn outcome<S, F, A, R>(task: F, argument: A) -> Result<R, TaskError>
where
    S: Processes,
    F: Fn(A) -> R + Stateless,
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    let pool = S::pool(2);
    let gate = Gate::new();
    let bystander = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
    let busy = gate.wait_for(1)[0];
    let rogue = workers(&pool).into_iter().find(|pid| *pid != busy).unwrap();
    let outcome = pool.apply(task, argument);
    // It takes nothing more.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(rogue.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    wait_until(|| !is_alive(rogue));
    gate.open();
    bystander.get().unwrap();
    let bytes = |x: u8| Broadcast::new(vec![x; 10]).unwrap();
    for (x, shared) in (0..).zip(pool.map(bytes, 0..20).unwrap()) {
        assert_eq!(*shared, [x; 10]);
    }
    outcome
}

pub(crate) fn assert_refused<R>(outcome: Result<R, TaskError>, words: &str) {
    let error = outcome.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// Memory as the pool would have made it.
pub(crate) fn sealed(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let file = unsealed();
    seal(&file, bytes, seals);
    file
}

fn unsealed() -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    memfd_create("procpool-shared", flags).unwrap()
}

fn seal(file: &OwnedFd, bytes: &[u8], seals: SealFlags) {
    rustix::io::write(file, bytes).unwrap();
    fcntl_add_seals(file, seals).unwrap();
}

pub(crate) const ALL: SealFlags = SealFlags::WRITE
    .union(SealFlags::GROW)
    .union(SealFlags::SHRINK)
    .union(SealFlags::SEAL);

/// Or the others would be refused for another reason than they should.
fn an_honest_forgery_is_taken<S: Processes>() {
    let forge = |()| {
        let file = sealed(b"honest", ALL);
        answer(&Offer::of(&file).record())
    };
    assert_eq!(
        *outcome::<S, _, _, Broadcast<[u8]>>(forge, ()).unwrap(),
        *b"honest"
    );
}

/// To open it would tell who waits for that, or block.
fn a_pipe_is_not_opened<S: Processes>() {
    fn forge(path: String) -> Broadcast<[u8]> {
        const O_PATH: i32 = 0o10_000_000;
        // Not open for reading or writing: it is named only.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(O_PATH)
            .open(path);
        answer(&Offer::of(&file.unwrap()).record())
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let watch = |path: &Path| {
        let flags = inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).unwrap();
        inotify::add_watch(&watch, path, inotify::WatchFlags::OPEN).unwrap();
        watch
    };
    let opened = watch(&path);
    let name = path.to_str().unwrap().to_owned();
    assert_refused(
        outcome::<S, _, _, Broadcast<[u8]>>(forge, name),
        "not sealed",
    );
    let read = || rustix::io::read(&opened, &mut [0; 256]);
    assert_eq!(
        read().unwrap_err(),
        rustix::io::Errno::AGAIN,
        "somebody has opened it"
    );
    // That would be seen.
    drop(
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap(),
    );
    assert!(read().unwrap() > 0);
}

fn a_descriptor_that_is_closed<S: Processes>() {
    let forge = |()| {
        // The number that it had, others may have by now.
        let offer = Offer {
            descriptor: 1 << 20,
            ..Offer::of(&sealed(b"gone", ALL))
        };
        answer(&offer.record())
    };
    assert_refused(
        outcome::<S, _, _, Broadcast<[u8]>>(forge, ()),
        "No such file",
    );
}

/// The number was given to another file in the meantime.
fn a_descriptor_that_is_something_else_by_now<S: Processes>() {
    let forge = |()| {
        let (file, other) = (sealed(b"one", ALL), sealed(b"other", ALL));
        let offer = Offer {
            inode: Offer::of(&other).inode,
            ..Offer::of(&file)
        };
        answer(&offer.record())
    };
    assert_refused(outcome::<S, _, _, Broadcast<[u8]>>(forge, ()), "not sealed");
    // A file that is no memory, by its own inode.
    let forge = |()| {
        let file = File::open("/proc/self/exe").unwrap();
        answer(&Offer::of(&file).record())
    };
    assert_refused(outcome::<S, _, _, Broadcast<[u8]>>(forge, ()), "not sealed");
}

/// It could be changed or cut short under the parent's eyes.
fn memory_that_can_change<S: Processes>() {
    let forge = |seals: u32| {
        let file = sealed(b"loose", SealFlags::from_bits_retain(seals));
        ftruncate(&file, 5).unwrap();
        answer(&Offer::of(&file).record())
    };
    for missing in [SealFlags::WRITE, SealFlags::GROW, SealFlags::SHRINK, ALL] {
        let seals = ALL.difference(missing | SealFlags::SEAL).bits();
        assert_refused(
            outcome::<S, _, _, Broadcast<[u8]>>(forge, seals),
            "not sealed",
        );
    }
}

/// It is looked for in the worker, whatever process the worker names.
fn memory_of_somebody_else<S: Processes>() {
    fn forge((pid, descriptor, inode): (u32, i32, u64)) -> Broadcast<[u8]> {
        let offer = Offer {
            pid,
            descriptor,
            inode,
        };
        answer(&offer.record())
    }
    let secret = sealed(b"secret", ALL);
    // A number that workers do not have.
    let high = rustix::io::fcntl_dupfd_cloexec(&secret, 900).unwrap();
    let offer = Offer::of(&high);
    let named = (offer.pid, offer.descriptor, offer.inode);
    assert_refused(
        outcome::<S, _, _, Broadcast<[u8]>>(forge, named),
        "No such file",
    );
    assert_eq!(holdings("self", offer.inode), (0, 2));
}

/// What the parent has is its own, if the worker does not know it well.
fn a_handle_of_what_was_not_offered<S: Processes>() {
    fn forge(inode: u64) -> Broadcast<[u8]> {
        let file = sealed(b"mine", ALL);
        let handle = Offer {
            inode,
            ..Offer::of(&file)
        };
        answer(&offering(&handle.ticket(), &[Offer::of(&file).ticket()]))
    }
    let secret = Broadcast::new(&b"secret"[..]).unwrap();
    let forged = outcome::<S, _, _, Broadcast<[u8]>>(forge, inode_of(&secret[0]));
    assert_refused(forged, "has not the memory");
}

/// Its worker violates the protocol, at once.
fn offers_that_make_no_sense<S: Processes>() {
    let forge = |bytes: Vec<u8>| -> u32 { answer(&record(&bytes)) };
    let none = offer(&[], [0; 8], &[], false);
    let not_sent = offer(&[], [0; 8], &[1], false);
    let never_came = offer(&[], [0; 8], &[1], true);
    let ticket = Offer {
        pid: 1,
        descriptor: 1,
        inode: 1,
    }
    .ticket();
    let long = offer(&ticket.repeat(65), 65_u64.to_le_bytes(), &[], false);
    let many = offer(&[], [0; 8], &Vec::from_iter(0..129), true);
    let pool = S::pool(1);
    let rubbish = [vec![], vec![1], vec![255; 100]];
    for bytes in rubbish
        .into_iter()
        .chain([none, not_sent, never_came, long, many])
    {
        let error = pool.call(forge).apply(bytes).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
        assert!(error.to_string().contains("rubbish"), "{error}");
    }
    // One that does not go on has a deadline like every other.
    let endless = |()| -> u32 {
        let length = 1_u64 << 63 | 1 << 30;
        answer(&[&(u32::MAX << 2).to_le_bytes()[..], &length.to_le_bytes()].concat())
    };
    let call = pool.call(endless).timeout(Duration::from_millis(100));
    assert!(call.apply(()).unwrap_err().is_timeout());
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
}

/// Its number may be another process's by the time at which the parent could look for what it has
/// offered: that result is lost with its worker, and run again if that was asked for.
fn what_was_staged_by_who_died_is_lost<S: Processes>() {
    fn die((tally, turns): (String, usize)) -> Broadcast<[u8]> {
        file_barrier::add(&tally, "turn");
        if fs::read_to_string(&tally).unwrap().lines().count() > turns {
            return Broadcast::new(&b"well"[..]).unwrap();
        }
        let memory = Memory::find();
        let tail = memory.get(RESPONSE_TAIL);
        let staged = PROGRESS
            .into_iter()
            .filter(|word| memory.get(*word) == tail);
        let file = sealed(b"ill", ALL);
        let end = put(&Offer::of(&file).record());
        // Whole, but not published: what the parent finds when this process is dead.
        staged.for_each(|word| memory.set(word, end));
        std::process::abort()
    }
    let pool = S::pool(1);
    let tally = file_barrier::Tally::new();
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
    let error = pool.apply(die, (tally.ticket(), 1)).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert!(error.signal().is_some());
    let again = pool.call(die).retries(2).apply((tally.ticket(), 3));
    assert_eq!(*again.unwrap(), *b"well");
    assert_eq!(tally.count(), 4);
}

/// A value with broadcasts inside.
#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
    Shared(Broadcast<Tree>),
    Each(Vec<Broadcast<Tree>>),
}

/// A `Tree` as it is encoded: this many nodes inside each other, and in the innermost a handle of
/// that.
fn tree(nodes: usize, handle: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = 1_u32.to_le_bytes().repeat(nodes);
    match handle {
        Some(handle) => bytes.extend([&2_u32.to_le_bytes()[..], handle].concat()),
        None => bytes.extend(0_u32.to_le_bytes()),
    }
    bytes
}

fn a_handle_that_is_inside_of_itself<S: Processes>() {
    let alone = |()| {
        let file = unsealed();
        seal(&file, &tree(3, Some(&Offer::of(&file).ticket())), ALL);
        answer(&Offer::of(&file).record())
    };
    assert_refused(
        outcome::<S, _, _, Broadcast<Tree>>(alone, ()),
        "handle of itself",
    );
    let by_others = |count: usize| {
        let files: Vec<OwnedFd> = (0..count).map(|_| unsealed()).collect();
        let tickets: Vec<_> = files.iter().map(|file| Offer::of(file).ticket()).collect();
        for (file, next) in files.iter().zip(tickets.iter().cycle().skip(1)) {
            seal(file, &tree(0, Some(next)), ALL);
        }
        answer(&offering(&tickets[0], &tickets))
    };
    for count in [2, 5] {
        assert_refused(
            outcome::<S, _, _, Broadcast<Tree>>(by_others, count),
            "handle of itself",
        );
    }
}

/// A thread's stack is enough for whatever is accepted, wherever its levels are.
fn handles_inside_each_other_are_not_too_deep<S: Processes>() {
    /// The innermost first.
    fn chain((count, nodes): (usize, usize)) -> Vec<OwnedFd> {
        let mut files: Vec<OwnedFd> = Vec::new();
        for _ in 0..count {
            let inner = files.last().map(|file| Offer::of(file).ticket());
            files.push(sealed(&tree(nodes, inner.as_deref()), ALL));
        }
        files
    }
    fn nested(shape: (usize, usize)) -> Tree {
        let files = chain(shape);
        let tickets: Vec<_> = files.iter().map(|file| Offer::of(file).ticket()).collect();
        answer(&offering(
            &tree(0, tickets.last().map(Vec::as_slice)),
            &tickets,
        ))
    }
    /// Each is decoded before the one that it is in.
    fn one_by_one(shape: (usize, usize)) -> Tree {
        let files = chain(shape);
        let tickets: Vec<_> = files.iter().map(|file| Offer::of(file).ticket()).collect();
        let count = (tickets.len() as u64).to_le_bytes();
        let result = [&3_u32.to_le_bytes()[..], &count, &tickets.concat()].concat();
        answer(&offering(&result, &tickets))
    }
    fn innermost(tree: &Tree) -> usize {
        match tree {
            Tree::Leaf => 0,
            Tree::Node(inner) => 1 + innermost(inner),
            Tree::Shared(inner) => 1 + innermost(inner),
            Tree::Each(all) => all.iter().map(|it| innermost(it)).max().unwrap_or(0),
        }
    }
    let in_small_thread = || {
        // The second one takes more stack than there is, if each file has all the levels to itself.
        for shape in [(60, 250), (64, 235), (64, 20), (2, 130), (64, 0)] {
            assert_refused(outcome::<S, _, _, _>(nested, shape), "inside each other");
            assert_refused(
                outcome::<S, _, _, _>(one_by_one, shape),
                "inside each other",
            );
        }
        for shape in [(1, 240), (12, 10), (20, 1)] {
            let levels = shape.0 * (shape.1 + 1) - 1;
            assert_eq!(
                innermost(&outcome::<S, _, _, _>(nested, shape).unwrap()),
                levels + 1
            );
            assert_eq!(
                innermost(&outcome::<S, _, _, _>(one_by_one, shape).unwrap()),
                levels
            );
        }
    };
    std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(2 << 20);
        small.spawn_scoped(scope, in_small_thread).unwrap();
    });
    // Where they are made, too: the error comes from there.
    let honest = |(count, nodes): (usize, usize)| -> Result<Broadcast<Tree>, String> {
        let mut handle = None;
        for _ in 0..count {
            let mut tree = handle.map_or(Tree::Leaf, Tree::Shared);
            for _ in 0..nodes {
                tree = Tree::Node(Box::new(tree));
            }
            handle = Some(Broadcast::new(&tree).map_err(|error| error.to_string())?);
        }
        Ok(handle.expect("one at least"))
    };
    let pool = S::pool(1);
    let error = pool.apply(honest, (60, 250)).unwrap().unwrap_err();
    assert!(error.contains("inside each other"), "{error}");
    let tree = pool.apply(honest, (12, 10)).unwrap().unwrap();
    assert_eq!(innermost(&tree), 12 * 11 - 1);
    // And it goes on to other workers.
    let count = |tree: Broadcast<Tree>| innermost(&tree);
    assert_eq!(pool.apply(count, tree).unwrap(), 12 * 11 - 1);
}

fn offers_inside_each_other_are_not_too_many<S: Processes>() {
    let forge = |count: usize| {
        let files: Vec<OwnedFd> = (0..count).map(|_| sealed(b"inner", ALL)).collect();
        let mut tickets = Vec::new();
        for file in &files {
            tickets = vec![Offer::of(file).ticket_with(&tickets)];
        }
        answer(&offering(&Offer::of(&files[count - 1]).ticket(), &tickets))
    };
    assert_eq!(
        *outcome::<S, _, _, Broadcast<[u8]>>(forge, 30).unwrap(),
        *b"inner"
    );
    assert_refused(
        outcome::<S, _, _, Broadcast<[u8]>>(forge, 40),
        "broadcasts inside each other",
    );
}

/// Nobody else sees it as what it is not.
fn a_handle_that_lies_about_its_type<S: Processes>() {
    type Honest = Broadcast<(u64, u64)>;
    /// Goes as the one, and comes as the other.
    enum Lie {
        Goes(Honest),
        Comes(Broadcast<[u64; 2]>),
    }
    impl Serialize for Lie {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Goes(handle) => handle.serialize(serializer),
                Self::Comes(handle) => handle.serialize(serializer),
            }
        }
    }
    impl<'de> Deserialize<'de> for Lie {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Broadcast::deserialize(deserializer).map(Self::Comes)
        }
    }
    let pool = S::pool(1);
    let mine = pool.broadcast(&(1_u64, 2_u64)).unwrap();
    // Before the parent has read its own.
    assert_refused(pool.apply(Lie::Goes, mine.clone()), "another type");
    assert_eq!(*mine, (1, 2));
    assert_eq!(
        pool.apply(|it: Honest| it.0 + it.1, mine.clone()).unwrap(),
        3
    );
    assert_refused(pool.apply(Lie::Goes, mine.clone()), "another type");
    // Of what a worker has made, the parent knows what handles say: each has the value as it says.
    let both = |()| {
        let it = Broadcast::new(&(3_u64, 4_u64)).unwrap();
        (Lie::Goes(it.clone()), it)
    };
    let (lie, honest) = pool.apply(both, ()).unwrap();
    let Lie::Comes(lie) = lie else { unreachable!() };
    assert_eq!((*lie, *honest), ([3, 4], (3, 4)));
    assert_eq!(pool.apply(|it: Honest| it.0 + it.1, honest).unwrap(), 7);
}

/// There may be no end to it, and an honest worker would not have begun.
fn a_result_beyond_the_limit_is_refused_at_its_head<S: Processes>() {
    fn announce(length: u64) -> Vec<u8> {
        let word = (u32::MAX << 2).to_le_bytes();
        answer(&[&word[..], &length.to_le_bytes(), &[0; 64]].concat())
    }
    let pool = S::builder().processes(1).max_result_bytes(1000).build();
    for length in [1001, 1 << 40] {
        let error = pool.apply(announce, length).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
        assert!(error.to_string().contains("rubbish"), "{error}");
    }
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
}
