//! Ways out of a sandbox. Each is tried by a process of its own twice: outside, where it must
//! succeed (else the test says nothing), and inside, where it must not.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::disallowed_methods,
    reason = "each of them is tried, by a process of its own, and must fail"
)]

use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use libtest_mimic::{Arguments, Trial};
use nix::libc;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, raise, sigaction,
};
use procpool_sandbox::{Refusal, Sandbox, SandboxError};

/// Names the escape that this process is to try.
const ESCAPE: &str = "PROCPOOL_TEST_ESCAPE";
/// How it is confined: an [`Inside`].
const INSIDE: &str = "PROCPOOL_TEST_INSIDE";
/// The folder with what is to be protected.
const FOLDER: &str = "PROCPOOL_TEST_FOLDER";

/// It has got out.
const OUT: i32 = 0;
/// It was held.
const HELD: i32 = 3;

/// In place of an escape: see [`ask_an_old_kernel`].
const ASK: &str = "ask an old kernel";

type Escape = fn() -> io::Result<()>;

fn all() -> Vec<(&'static str, Escape)> {
    vec![
        ("read_a_file", || fs::read(secret()).map(drop)),
        ("read_the_users", || fs::read("/etc/passwd").map(drop)),
        ("write_a_file", || fs::write(secret(), "mine")),
        ("make_a_file", || {
            fs::File::create_new(folder().join("new")).map(drop)
        }),
        ("make_a_folder", || fs::create_dir(folder().join("new"))),
        ("remove_a_file", || fs::remove_file(secret())),
        ("rename_a_file", || {
            fs::rename(secret(), folder().join("new"))
        }),
        ("link_a_file", || {
            fs::hard_link(secret(), folder().join("new"))
        }),
        ("link_to_a_file", || {
            std::os::unix::fs::symlink(secret(), folder().join("new"))
        }),
        ("cut_a_file", || {
            let path = CString::new(secret().as_os_str().as_encoded_bytes())?;
            result(unsafe { libc::truncate(path.as_ptr(), 0) })
        }),
        ("change_the_mode_of_a_file", || {
            fs::set_permissions(secret(), fs::Permissions::from_mode(0o777))
        }),
        ("fill_shared_memory", || {
            let name = format!("/dev/shm/procpool-test-{}", std::process::id());
            fs::write(&name, "full")?;
            fs::remove_file(name)
        }),
        ("have_shared_memory_of_system_v", || {
            let made = number(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o600) }.into())?;
            result(unsafe { libc::shmctl(made as i32, libc::IPC_RMID, std::ptr::null_mut()) })
        }),
        ("send_by_a_queue", || {
            let made = number(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) }.into())?;
            result(unsafe { libc::msgctl(made as i32, libc::IPC_RMID, std::ptr::null_mut()) })
        }),
        ("list_a_folder", || fs::read_dir(folder()).map(drop)),
        ("read_the_parents_memory", || {
            fs::File::open(of_parent("mem")).map(drop)
        }),
        ("read_the_parents_environment", || {
            fs::read(of_parent("environ")).map(drop)
        }),
        ("read_the_parents_mappings", || {
            fs::read(of_parent("maps")).map(drop)
        }),
        ("list_the_parents_descriptors", || {
            fs::read_dir(of_parent("fd")).map(drop)
        }),
        ("read_ones_own_environment", || {
            fs::read("/proc/self/environ").map(drop)
        }),
        ("list_the_processes", || fs::read_dir("/proc").map(drop)),
        ("take_a_descriptor_of_the_parents", || {
            let process = number(unsafe { libc::syscall(libc::SYS_pidfd_open, parent(), 0) })?;
            number(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, 0, 0) }).map(drop)
        }),
        ("peek_into_the_parent", || {
            // Both have the same program, at an address of its own: nothing can be read at 1.
            let (mut to, mut from) = (remote(), remote());
            let (to, from) = (&raw mut to, &raw mut from);
            let read = unsafe { libc::process_vm_readv(parent(), to, 1, from, 1, 0) };
            match number(read as i64) {
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
                other => other.map(drop),
            }
        }),
        ("signal_the_parent", || {
            result(unsafe { libc::kill(parent(), 0) })
        }),
        ("trace_the_parent", || {
            let seize = libc::PTRACE_SEIZE;
            number(unsafe { libc::ptrace(seize, parent(), 0, 0) }).map(drop)
        }),
        ("open_a_socket", || UdpSocket::bind("127.0.0.1:0").map(drop)),
        ("connect_to_a_port", || {
            let port = std::env::var("PROCPOOL_TEST_PORT").map_err(io::Error::other)?;
            TcpStream::connect(("127.0.0.1", port.parse().map_err(io::Error::other)?)).map(drop)
        }),
        ("listen_on_a_port", || {
            TcpListener::bind("127.0.0.1:0").map(drop)
        }),
        ("connect_to_a_socket", || {
            UnixStream::connect(folder().join("socket")).map(drop)
        }),
        ("connect_to_an_abstract_socket", || {
            UnixStream::connect_addr(&abstract_name()).map(drop)
        }),
        ("ask_the_kernel_about_the_network", || {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            result(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })
        }),
        ("signal_by_a_handle", || {
            let process = number(unsafe { libc::syscall(libc::SYS_pidfd_open, parent(), 0) })?;
            let none = std::ptr::null::<u8>();
            let call = libc::SYS_pidfd_send_signal;
            number(unsafe { libc::syscall(call, process, 0, none, 0) }).map(drop)
        }),
        ("queue_a_signal_to_the_parent", || {
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            info.si_signo = libc::SIGURG;
            info.si_code = -1;
            let (call, place) = (libc::SYS_rt_sigqueueinfo, &raw const info);
            number(unsafe { libc::syscall(call, parent(), libc::SIGURG, place) }).map(drop)
        }),
        ("have_signals_sent_by_a_file", || {
            // To the parent, when there is something to read.
            let (reader, _writer) = io::pipe()?;
            let owner = libc::F_SETOWN;
            result(unsafe { libc::fcntl(reader.as_raw_fd(), owner, parent()) })
        }),
        ("have_them_sent_with_a_wide_number", || {
            // The kernel looks at half of it.
            let (reader, _writer) = io::pipe()?;
            let owner = i64::from(libc::F_SETOWN) | 1 << 32;
            let (call, file) = (libc::SYS_fcntl, reader.as_raw_fd());
            number(unsafe { libc::syscall(call, file, owner, parent()) }).map(drop)
        }),
        ("take_the_handler_of_refusals_away", || {
            let ignore: libc::sighandler_t = libc::SIG_IGN;
            match unsafe { libc::signal(libc::SIGSYS, ignore) } {
                libc::SIG_ERR => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        }),
        ("take_it_away_with_a_wide_number", || {
            let number_of_it = i64::from(libc::SIGSYS) | 1 << 32;
            let none = std::ptr::null::<u8>();
            let call = libc::SYS_rt_sigaction;
            number(unsafe { libc::syscall(call, number_of_it, none, none, 8) }).map(drop)
        }),
        ("start_a_program", || {
            Command::new("/bin/true").status().map(drop)
        }),
        ("become_a_program", || {
            let path = c"/bin/true";
            let arguments = [path.as_ptr(), std::ptr::null()];
            result(unsafe { libc::execv(path.as_ptr(), arguments.as_ptr()) })
        }),
        ("become_a_program_in_memory", || {
            let mut program = Vec::new();
            let memory = number(unsafe { libc::memfd_create(c"x".as_ptr(), 0) }.into())?;
            fs::File::open("/bin/true")?.read_to_end(&mut program)?;
            let path = format!("/proc/self/fd/{memory}");
            fs::write(&path, &program)?;
            Command::new(path).status().map(drop)
        }),
        ("fork", || match unsafe { libc::fork() } {
            0 => unsafe { libc::_exit(0) },
            child => result(child),
        }),
        ("make_a_namespace", || {
            result(unsafe { libc::unshare(libc::CLONE_NEWUSER) })
        }),
        ("make_a_namespace_with_a_process", || {
            let flags = i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
            match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
                0 => unsafe { libc::_exit(0) },
                child => number(child).map(drop),
            }
        }),
        ("mount", || {
            let folder = CString::new(folder().as_os_str().as_encoded_bytes())?;
            let (none, kind) = (c"none".as_ptr(), c"tmpfs".as_ptr());
            let data = std::ptr::null();
            result(unsafe { libc::mount(none, folder.as_ptr(), kind, 0, data) })
        }),
        ("change_the_root", || {
            result(unsafe { libc::chroot(c"/".as_ptr()) })
        }),
        ("change_the_user", || {
            result(unsafe { libc::setuid(libc::getuid()) })
        }),
        ("set_up_io_uring", || {
            let mut parameters = [0_u64; 15];
            let place = parameters.as_mut_ptr();
            number(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, place) }).map(drop)
        }),
        ("load_a_program_into_the_kernel", || {
            // BPF_PROG_LOAD without anything: an error of its own where there is such a call.
            let load = unsafe { libc::syscall(libc::SYS_bpf, 5, std::ptr::null::<u8>(), 0) };
            but_for(number(load), &[libc::EFAULT, libc::EINVAL, libc::E2BIG])
        }),
        ("handle_ones_own_page_faults", || {
            number(unsafe { libc::syscall(libc::SYS_userfaultfd, 1) }).map(drop)
        }),
        ("make_a_key", || {
            let (kind, name) = (c"user".as_ptr(), c"procpool-test".as_ptr());
            let ring = -2; // KEY_SPEC_PROCESS_KEYRING
            let made = unsafe { libc::syscall(libc::SYS_add_key, kind, name, name, 4_usize, ring) };
            number(made).map(drop)
        }),
        ("watch_the_processor", || {
            let opened = unsafe {
                libc::syscall(
                    libc::SYS_perf_event_open,
                    std::ptr::null::<u8>(),
                    0,
                    -1,
                    -1,
                    0,
                )
            };
            but_for(number(opened), &[libc::EFAULT])
        }),
        ("set_the_clock_back", || {
            let clock = libc::CLOCK_REALTIME;
            let none = std::ptr::null::<u8>();
            let set = unsafe { libc::syscall(libc::SYS_clock_settime, clock, none) };
            but_for(number(set), &[libc::EFAULT])
        }),
        ("raise_a_limit", || {
            let limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            result(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) })
        }),
        ("limit_the_parent", || {
            let none: *const libc::rlimit64 = std::ptr::null();
            let mut old: libc::rlimit64 = unsafe { std::mem::zeroed() };
            let resource = libc::RLIMIT_CORE;
            result(unsafe { libc::prlimit64(parent(), resource, none, &raw mut old) })
        }),
        ("type_into_a_terminal", || {
            // To a pipe: an error of its own where the request is looked at.
            let (reader, _writer) = io::pipe()?;
            let typed = unsafe { libc::ioctl(reader.as_raw_fd(), libc::TIOCSTI, c"x".as_ptr()) };
            but_for(number(typed.into()), &[libc::ENOTTY])
        }),
    ]
}

/// What a process does that computes. Inside of a sandbox, too.
fn compute() -> io::Result<()> {
    let (mut reader, mut writer) = io::pipe()?;
    let sum: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u64)
            .map(|part| scope.spawn(move || (0..100_000).map(|it| it ^ part).sum::<u64>()))
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    });
    writer.write_all(&sum.to_le_bytes())?;
    let mut read = [0; 8];
    reader.read_exact(&mut read)?;
    assert_eq!(read, sum.to_le_bytes());
    let map: std::collections::HashMap<u64, Vec<u8>> =
        (0..1000).map(|it| (it, vec![1; 10_000])).collect();
    assert_eq!(map.len(), 1000);
    std::thread::sleep(std::time::Duration::from_millis(1));
    let (mut one, mut other) = UnixStream::pair()?;
    one.write_all(b"x")?;
    other.read_exact(&mut read[..1])?;
    println!("{:?}", std::time::SystemTime::now());
    assert!(std::panic::catch_unwind(|| panic!("it is caught")).is_err());
    assert_eq!(
        result(unsafe { libc::raise(0) }).map_err(|it| it.kind()),
        Ok(())
    );
    Ok(())
}

fn folder() -> PathBuf {
    std::env::var_os(FOLDER).expect("it is set").into()
}

fn secret() -> PathBuf {
    folder().join("secret")
}

fn parent() -> i32 {
    std::os::unix::process::parent_id() as i32
}

fn of_parent(name: &str) -> PathBuf {
    format!("/proc/{}/{name}", parent()).into()
}

fn abstract_name() -> SocketAddr {
    let name = folder().join("abstract");
    SocketAddr::from_abstract_name(name.as_os_str().as_encoded_bytes()).expect("it is short")
}

fn remote() -> libc::iovec {
    libc::iovec {
        iov_base: std::ptr::without_provenance_mut(1),
        iov_len: 1,
    }
}

fn number(result: i64) -> io::Result<i64> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

fn result(result: i32) -> io::Result<()> {
    number(result.into()).map(drop)
}

/// These errors are of the call itself, and say that it can be made.
fn but_for(result: io::Result<i64>, errors: &[i32]) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error().is_some_and(|it| errors.contains(&it)) => Ok(()),
        other => other.map(drop),
    }
}

/// How the process is confined that tries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    No,
    Kill,
    Fail,
    /// These tell of what they refuse.
    TellAndKill,
    TellAndFail,
    /// In namespaces of its own.
    Namespace,
    /// On a kernel that has Landlock of this version; 0: it has none.
    Old(u8),
}

/// The version that has all that is needed.
const NEEDED: u8 = 6;

impl Inside {
    fn all() -> impl Iterator<Item = Self> {
        use Inside::*;
        let old = (0..NEEDED).map(Old);
        [No, Kill, Fail, TellAndKill, TellAndFail, Namespace]
            .into_iter()
            .chain(old)
    }

    fn of_name(name: &str) -> Self {
        let mut all = Self::all();
        all.find(|it| format!("{it:?}") == name).expect("it is set")
    }

    /// Whether a system call that is refused ends the process.
    fn kills(self) -> bool {
        matches!(self, Self::Kill | Self::TellAndKill)
    }

    fn enter(self) {
        let strict = Sandbox::strict();
        let failing = strict.clone().on_refusal(Refusal::Fail);
        let entered = match self {
            Self::No => return have_ones_own_mounts(),
            Self::Kill => strict.enter(),
            Self::Fail => failing.enter(),
            Self::TellAndKill => enter_telling(&strict),
            Self::TellAndFail => enter_telling(&failing),
            Self::Namespace => failing.user_namespace().enter(),
            Self::Old(version) => {
                old_kernel::pretend(version);
                failing.best_effort().enter()
            }
        };
        entered.expect("this kernel has all of it");
    }
}

/// Outside it can mount: what it mounts must go with it. Who may not do this may not mount either.
fn have_ones_own_mounts() {
    let (none, root) = (std::ptr::null(), c"/".as_ptr());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0 {
        let made = unsafe { libc::mount(none, root, none, private, none.cast()) };
        result(made).expect("they are of this process alone");
    }
}

fn enter_telling(sandbox: &Sandbox) -> Result<(), SandboxError> {
    let prepared = sandbox.prepare()?;
    unsafe { prepared.enter_telling(tell) }
}

/// The last system call that was told of.
static TOLD: AtomicU32 = AtomicU32::new(0);

fn tell(call: u32) {
    TOLD.store(call, Ordering::Relaxed);
}

/// What is refused is told by its number, of which there is a name, and fails in the way it is to.
fn be_told() -> io::Result<()> {
    let ask = |call: i64| number(unsafe { libc::syscall(call, -1, 0, 0, 0) }).map(drop);
    let is_told = |name: &str, refused: io::Result<()>| {
        let refused = refused.expect_err("it is not allowed");
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{name}");
        let told = TOLD.swap(u32::MAX, Ordering::Relaxed);
        assert_eq!(procpool_sandbox::syscall_name(told), Some(name));
    };
    is_told("ptrace", ask(libc::SYS_ptrace));
    is_told("setsid", ask(libc::SYS_setsid));
    // For these, the C library blocks all signals.
    is_told("clone", Command::new("/bin/true").status().map(drop));
    is_told("clone", result(unsafe { libc::fork() }));
    SigSet::all().thread_block()?;
    is_told("ptrace", ask(libc::SYS_ptrace));
    let thread = std::thread::spawn(move || is_told("setsid", ask(libc::SYS_setsid)));
    thread.join().expect("it is told");
    Ok(())
}

/// Signals are blocked as they are outside, but for that of refusals.
fn block_signals() -> io::Result<()> {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "C" fn see(_: i32) {
        SEEN.fetch_add(1, Ordering::Relaxed);
    }
    let seen = || SEEN.load(Ordering::Relaxed);
    let action = SigAction::new(SigHandler::Handler(see), SaFlags::empty(), SigSet::empty());
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    let one = SigSet::from(Signal::SIGUSR1);
    let before = SigSet::thread_get_mask()?;
    assert_eq!(one.thread_swap_mask(SigmaskHow::SIG_BLOCK)?, before);
    raise(Signal::SIGUSR1)?;
    assert_eq!(seen(), 0);
    assert!(SigSet::thread_get_mask()?.contains(Signal::SIGUSR1));
    // A thread has what the one had that has started it.
    let thread = std::thread::spawn(move || SigSet::thread_get_mask().map(|it| it == one));
    assert_eq!(thread.join().expect("it ends"), Ok(true));
    before.thread_set_mask()?;
    assert_eq!(seen(), 1);
    SigSet::all().thread_block()?;
    let most = SigSet::thread_get_mask()?;
    raise(Signal::SIGUSR1)?;
    one.thread_unblock()?;
    assert_eq!(seen(), 2);
    assert!(most.contains(Signal::SIGTERM) && !most.contains(Signal::SIGSYS));
    let wrong = [(7, 8), (libc::SIG_BLOCK, 4)];
    for (how, size) in wrong {
        let (new, old) = (0_u64, std::ptr::null::<u64>());
        let call = libc::SYS_rt_sigprocmask;
        let changed = unsafe { libc::syscall(call, how, &raw const new, old, size) };
        let error = number(changed).expect_err("there is no such change");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
    Ok(())
}

/// In a handler that has all signals blocked, which the kernel does without a call: it kills then,
/// as it does where nothing is told.
fn call_in_a_handler() -> io::Result<()> {
    extern "C" fn call(_: i32) {
        let _ = unsafe { libc::setsid() };
    }
    let action = SigAction::new(SigHandler::Handler(call), SaFlags::empty(), SigSet::all());
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    raise(Signal::SIGUSR1)?;
    Ok(())
}

/// In the process that tries it.
fn try_it(name: &str) -> ExitCode {
    Inside::of_name(&std::env::var(INSIDE).expect("it is set")).enter();
    let others: [(_, Escape); 4] = [
        ("call_in_a_handler", call_in_a_handler),
        ("compute", compute),
        ("be_told", be_told),
        ("block_signals", block_signals),
    ];
    let mut all = all().into_iter().chain(others);
    let (_, escape) = all.find(|(it, _)| *it == name).expect("there is one");
    match escape() {
        Ok(()) => ExitCode::from(OUT as u8),
        Err(error) => {
            println!("{error}");
            ExitCode::from(HELD as u8)
        }
    }
}

/// A kernel that has less, as far as this process is told.
mod old_kernel {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicI64, Ordering};

    use nix::libc;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, apply_filter,
    };

    static VERSION: AtomicI64 = AtomicI64::new(0);

    /// Landlock is of this version from now on; 0: there is none.
    pub(super) fn pretend(version: u8) {
        VERSION.store(version.into(), Ordering::Relaxed);
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = answer as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        let none = std::ptr::null_mut();
        assert_eq!(
            unsafe { libc::sigaction(libc::SIGSYS, &raw const action, none) },
            0
        );
        let asks = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 1);
        let asks = SeccompRule::new(vec![asks.expect("a condition")]).expect("a rule");
        let (rules, instead) = match version {
            0 => (Vec::new(), SeccompAction::Errno(libc::EOPNOTSUPP as u32)),
            _ => (vec![asks], SeccompAction::Trap),
        };
        let calls = BTreeMap::from([(libc::SYS_landlock_create_ruleset, rules)]);
        let processor = std::env::consts::ARCH.try_into().expect("it is known");
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, instead, processor);
        let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
        apply_filter(&program).expect("it may be put up");
    }

    /// In place of the kernel.
    extern "C" fn answer(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
        let version = VERSION.load(Ordering::Relaxed);
        #[cfg(target_arch = "x86_64")]
        unsafe {
            (*context).uc_mcontext.gregs[libc::REG_RAX as usize] = version;
        }
        #[cfg(target_arch = "aarch64")]
        unsafe {
            (*context).uc_mcontext.regs[0] = version as u64;
        }
    }
}

/// In a process of its own: what a kernel lacks is said, and nothing is left out.
fn ask_an_old_kernel() -> io::Result<()> {
    let version = std::env::var("PROCPOOL_TEST_VERSION").expect("it is set");
    old_kernel::pretend(version.parse().expect("a number"));
    let checked = Sandbox::strict().prepare().expect_err("it lacks something");
    let entered = Sandbox::strict().enter().expect_err("it lacks something");
    assert_eq!(checked.to_string(), entered.to_string());
    let said = entered.to_string();
    assert!(
        said.contains("of Landlock") && said.contains("best_effort"),
        "{said}"
    );
    Err(io::Error::other(said))
}

/// How the process ends that tries it, and what it says.
fn outcome(name: &str, inside: Inside) -> (ExitStatus, String) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("secret"), "secret").expect("there is room");
    let _socket = UnixListener::bind(folder.path().join("socket")).expect("a socket");
    let abstract_name = folder.path().join("abstract");
    let abstract_name = abstract_name.as_os_str().as_encoded_bytes();
    let abstract_name = SocketAddr::from_abstract_name(abstract_name).expect("it is short");
    let _abstract = UnixListener::bind_addr(&abstract_name).expect("a socket");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("it has one");
    let output = Command::new(std::env::current_exe().expect("a path"))
        .env(ESCAPE, name)
        .env(INSIDE, format!("{inside:?}"))
        .env(FOLDER, folder.path())
        .env("PROCPOOL_TEST_PORT", address.port().to_string())
        .stdin(Stdio::null())
        .output()
        .expect("it can be started");
    // Also if it could mount something there.
    folder.close().expect("it has left nothing on the machine");
    let said = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&said).into_owned())
}

fn is_held(name: &str) {
    for inside in Inside::all() {
        let (status, said) = outcome(name, inside);
        let context = format!("{inside:?}: {status}: {said}");
        if inside == Inside::No {
            assert_eq!(
                status.code(),
                Some(OUT),
                "outside it does not succeed: {context}"
            );
            continue;
        }
        let is_killed = inside.kills() && status.signal() == Some(libc::SIGSYS);
        assert!(is_killed || status.code() == Some(HELD), "{context}");
    }
}

fn main() -> ExitCode {
    match std::env::var(ESCAPE).as_deref() {
        Ok(ASK) => {
            let _ = ask_an_old_kernel().map_err(|said| print!("{said}"));
            return ExitCode::from(HELD as u8);
        }
        Ok(name) => return try_it(name),
        Err(_) => {}
    }
    let trials = all().into_iter().map(|(name, _)| {
        Trial::test(name, move || {
            is_held(name);
            Ok(())
        })
    });
    let compute = Trial::test("compute", || {
        for inside in Inside::all() {
            let (status, said) = outcome("compute", inside);
            assert_eq!(status.code(), Some(OUT), "{inside:?}: {status}: {said}");
        }
        Ok(())
    });
    let old = Trial::test("what_an_old_kernel_lacks_is_said", || {
        for version in 0..NEEDED {
            let mut this = Command::new(std::env::current_exe().expect("a path"));
            this.env(ESCAPE, ASK)
                .env("PROCPOOL_TEST_VERSION", version.to_string());
            let output = this.output().expect("it can be started");
            assert_eq!(output.status.code(), Some(HELD), "{version}: {output:?}");
        }
        Ok(())
    });
    let told = Trial::test("be_told", || {
        let (status, said) = outcome("be_told", Inside::TellAndFail);
        assert_eq!(status.code(), Some(OUT), "{status}: {said}");
        Ok(())
    });
    let blocked = Trial::test("block_signals", || {
        for inside in [Inside::TellAndKill, Inside::TellAndFail] {
            let (status, said) = outcome("block_signals", inside);
            assert_eq!(status.code(), Some(OUT), "{inside:?}: {status}: {said}");
        }
        Ok(())
    });
    let untold = Trial::test("call_in_a_handler", || {
        for inside in [Inside::TellAndKill, Inside::TellAndFail] {
            let (status, said) = outcome("call_in_a_handler", inside);
            let signal = status.signal();
            assert_eq!(signal, Some(libc::SIGSYS), "{inside:?}: {status}: {said}");
        }
        Ok(())
    });
    let trials = trials
        .chain([compute, old, told, blocked, untold])
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
