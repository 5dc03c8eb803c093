//! Other machines, made of network namespaces.
//!
//! They share the processes and the files of this machine, and have a network of their own: one
//! cable, to a switch that this machine is at, too. Only root can make them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::left_out;
use crate::procfs::{self, wait_until};

/// How the names of namespaces begin. The number of the process comes next, and a machine's.
const NAMESPACE: &str = "procpool-";

/// How the names of a switch, and of a cable's end at it, begin.
const SWITCH: &str = "ppb";
const CABLE: &str = "ppc";

/// How long it may take until a new machine is reached. It takes a second at most.
const REACHED_LIMIT: Duration = Duration::from_secs(10);

/// The switch that all machines of this process are at.
static NETWORK: Mutex<Network> = Mutex::new(Network {
    machines: 0,
    number: 0,
    subnet: None,
});

struct Network {
    /// How many there are.
    machines: u32,
    /// How many there have been.
    number: u8,
    /// The first three numbers of addresses, while there is a switch.
    subnet: Option<[u8; 3]>,
}

/// A machine. Dropping it kills what runs there, and takes it away.
#[derive(Debug)]
pub struct Machine {
    namespace: String,
    cable: String,
    address: Ipv4Addr,
    switch: Ipv4Addr,
}

impl Machine {
    /// Whether machines can be made here: why not, if not.
    ///
    /// # Errors
    /// When they cannot.
    pub fn can_be_made() -> Result<(), String> {
        static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
        let answer = ANSWER.get_or_init(|| {
            if !rustix::process::geteuid().is_root() {
                return Err("only root can make network namespaces".into());
            }
            try_ip("-V").map_err(|error| {
                format!("{error}; `ip` is of iproute2 (Debian: `apt install iproute2`)")
            })?;
            sweep();
            drop(Self::try_new()?);
            Ok(())
        });
        answer.clone()
    }

    /// This many new machines. None: this test is left out.
    ///
    /// # Panics
    /// When they cannot be made, and this is CI.
    #[must_use]
    pub fn some_or_skip<const N: usize>(test: &str) -> Option<[Self; N]> {
        left_out::unless(test, "network namespaces", Self::can_be_made())?;
        Some([(); N].map(|()| Self::new()))
    }

    /// A new machine.
    ///
    /// # Panics
    /// When it [cannot be made](Self::can_be_made).
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it changes the system")]
    pub fn new() -> Self {
        match Self::can_be_made().and_then(|()| Self::try_new()) {
            Ok(machine) => machine,
            Err(error) => panic!("no machine can be made: {error}"),
        }
    }

    fn try_new() -> Result<Self, String> {
        let mut network = network();
        let subnet = match network.subnet {
            Some(subnet) => subnet,
            None => {
                let subnet = make_switch()?;
                *network.subnet.insert(subnet)
            }
        };
        let [a, b, c] = subnet;
        // The last address is for all. After so many machines, the first one is long gone.
        network.number = network.number % 253 + 1;
        network.machines += 1;
        let process = std::process::id();
        let machine = Self {
            namespace: format!("{NAMESPACE}{process}-{}", network.number),
            cable: format!("{CABLE}{process}-{}", network.number),
            address: Ipv4Addr::new(a, b, c, network.number + 1),
            switch: Ipv4Addr::new(a, b, c, 1),
        };
        drop(network);
        // From here on, dropping it takes away what there is of it.
        let Self {
            namespace,
            cable,
            address,
            ..
        } = &machine;
        try_ip(&format!("netns add {namespace}"))?;
        try_ip(&format!(
            "link add {cable} type veth peer name eth0 netns {namespace}"
        ))?;
        try_ip(&format!("-n {namespace} address add {address}/24 dev eth0"))?;
        try_ip(&format!("-n {namespace} link set lo up"))?;
        try_ip(&format!("-n {namespace} link set eth0 up"))?;
        try_ip(&format!("link set {cable} master {} up", switch()))?;
        // The system is told later that there is a cable.
        let begun = Instant::now();
        while !machine.answers() {
            if begun.elapsed() > REACHED_LIMIT {
                return Err(format!("the machine {address} cannot be reached"));
            }
        }
        Ok(machine)
    }

    /// Whether it can be reached, which takes a moment to find out if not.
    #[must_use]
    pub fn answers(&self) -> bool {
        // Nobody listens at this port: who is there refuses.
        let address = (self.address, 9).into();
        let connected = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The address of this process's side, as the machine sees it.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.switch
    }

    /// A program to be run there. The process that it starts is that program.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = ip();
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program);
        command
    }

    /// The processes that run there.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        processes_in(&self.namespace)
    }

    /// Pulls its cable out of the switch: nothing comes through, and nobody is told.
    ///
    /// # Panics
    /// When the system refuses it.
    pub fn link_down(&self) {
        run_ip(&format!("link set {} down", self.cable));
    }

    /// Puts it back.
    ///
    /// # Panics
    /// When the system refuses it.
    pub fn link_up(&self) {
        run_ip(&format!("link set {} up", self.cable));
    }
}

/// What there is of machines of this process: namespaces, cables, a switch.
#[must_use]
pub fn of_this_process() -> Vec<String> {
    let process = std::process::id();
    let (namespace, cable) = (
        format!("{NAMESPACE}{process}-"),
        format!("{CABLE}{process}-"),
    );
    let is_ours = |name: &String| {
        name.starts_with(&namespace) || name.starts_with(&cable) || *name == switch()
    };
    let mut names = namespaces();
    names.extend(links());
    names.retain(is_ours);
    names
}

impl Drop for Machine {
    fn drop(&mut self) {
        remove(&self.namespace);
        // It goes with the namespace, but not at once.
        let _ = try_ip(&format!("link delete {}", self.cable));
        let mut network = network();
        network.machines -= 1;
        if network.machines == 0 && network.subnet.take().is_some() {
            let _ = try_ip(&format!("link delete {}", switch()));
        }
    }
}

fn network() -> MutexGuard<'static, Network> {
    NETWORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of this process's switch.
fn switch() -> String {
    format!("{SWITCH}{}", std::process::id())
}

/// Makes the switch, in a subnet that this machine does not know yet: of those that are reserved
/// for tests between two devices (198.18.0.0/15).
fn make_switch() -> Result<[u8; 3], String> {
    let taken = try_ip("-oneline -4 address show")?;
    let first = std::process::id();
    let subnets = (0..512).map(|offset| {
        let number = first.wrapping_add(offset) % 512;
        let [.., high, low] = number.to_be_bytes();
        [198, 18 + high, low]
    });
    let mut free = subnets.filter(|[a, b, c]| !taken.contains(&format!(" {a}.{b}.{c}.")));
    let [a, b, c] = free.next().ok_or("all subnets are taken")?;
    let switch = switch();
    // With an address of its own, or it would have one of its cables' in turn, and be lost.
    try_ip(&format!(
        "link add {switch} address 02:00:{a:02x}:{b:02x}:{c:02x}:01 type bridge"
    ))?;
    let up = || {
        try_ip(&format!("address add {a}.{b}.{c}.1/24 dev {switch}"))?;
        try_ip(&format!("link set {switch} up"))
    };
    if let Err(error) = up() {
        let _ = try_ip(&format!("link delete {switch}"));
        return Err(error);
    }
    Ok([a, b, c])
}

/// Kills what runs in a namespace, and takes it away.
fn remove(namespace: &str) {
    wait_until(|| {
        let left = processes_in(namespace);
        for pid in &left {
            procfs::signal(*pid, Signal::KILL);
        }
        // One that is dead is its parent's to reap.
        !left.into_iter().any(procfs::is_alive)
    });
    let _ = try_ip(&format!("netns delete {namespace}"));
}

fn processes_in(namespace: &str) -> Vec<u32> {
    // It fails where there is no such namespace.
    let list = try_ip(&format!("netns pids {namespace}")).unwrap_or_default();
    list.lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

/// Takes away what processes have left behind that are gone.
fn sweep() {
    let is_left = |name: &str, prefix: &str| {
        let rest = name.strip_prefix(prefix)?;
        let process = rest.split(['-', '@']).next()?.parse().ok()?;
        (!procfs::exists(process)).then_some(())
    };
    for name in namespaces() {
        if is_left(&name, NAMESPACE).is_some() {
            remove(&name);
        }
    }
    for name in links() {
        if is_left(&name, CABLE).or(is_left(&name, SWITCH)).is_some() {
            let _ = try_ip(&format!("link delete {name}"));
        }
    }
}

/// The names of all namespaces. None, where they cannot be listed.
fn namespaces() -> Vec<String> {
    let list = try_ip("netns list").unwrap_or_default();
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// The names of all links outside of namespaces. None, where they cannot be listed.
fn links() -> Vec<String> {
    let list = try_ip("-oneline link show").unwrap_or_default();
    let names = list.lines().filter_map(|line| line.split(": ").nth(1));
    let names = names.filter_map(|name| name.split('@').next());
    names.map(str::to_owned).collect()
}

fn ip() -> Command {
    #[allow(clippy::disallowed_methods, reason = "for tests")]
    Command::new("ip")
}

fn run_ip(arguments: &str) {
    if let Err(error) = try_ip(arguments) {
        panic!("{error}");
    }
}

/// Runs `ip`, and returns what it prints.
fn try_ip(arguments: &str) -> Result<String, String> {
    let mut command = ip();
    command.args(arguments.split(' ')).stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("cannot run `ip`: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`ip {arguments}`: {}", text.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn machines_are_reached_until_their_cable_is_pulled() {
        let Some([one, other]) = Machine::some_or_skip("machines_are_reached") else {
            return;
        };
        assert_ne!(one.address(), other.address());
        assert!(one.answers() && other.answers());
        one.link_down();
        assert!(!one.answers() && other.answers());
        one.link_up();
        wait_until(|| one.answers());
    }

    #[test]
    fn a_program_there_is_beyond_the_cable() {
        let Some([machine]) = Machine::some_or_skip("a_program_there") else {
            return;
        };
        let listener = TcpListener::bind((machine.gateway(), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("exec 3<>/dev/tcp/{}/{port}; cat <&3", machine.gateway());
        let mut child = machine
            .command("bash")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .spawn();
        let child = child.as_mut().unwrap();
        let (mut stream, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), machine.address());
        assert!(machine.processes().contains(&child.id()));
        stream.write_all(b"hello").unwrap();
        drop(stream);
        let mut text = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello");
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn dropping_a_machine_ends_what_runs_there_and_leaves_nothing() {
        let Some([machine]) = Machine::some_or_skip("dropping_a_machine") else {
            return;
        };
        let Machine {
            namespace, cable, ..
        } = &machine;
        let (namespace, cable) = (namespace.clone(), cable.clone());
        let mut child = machine.command("sleep").arg("1000").spawn().unwrap();
        wait_until(|| procfs::name(child.id()) == "sleep");
        let there = of_this_process();
        assert!(there.contains(&namespace) && there.contains(&cable));
        drop(machine);
        assert_eq!(child.wait().unwrap().to_string(), "signal: 9 (SIGKILL)");
        let there = of_this_process();
        assert!(!there.contains(&namespace) && !there.contains(&cable));
    }

    #[test]
    fn what_a_dead_process_has_left_is_swept_away() {
        let Some([_other]) = Machine::some_or_skip("what_a_dead_process_has_left") else {
            return;
        };
        #[allow(clippy::disallowed_methods, reason = "for a number that nobody has")]
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = child.id();
        run_ip(&format!("netns add {NAMESPACE}{dead}-1"));
        run_ip(&format!(
            "link add {CABLE}{dead}-1 type veth peer name eth0 netns {NAMESPACE}{dead}-1"
        ));
        run_ip(&format!("link add {SWITCH}{dead} type bridge"));
        sweep();
        let left = try_ip("netns list").unwrap() + &try_ip("-oneline link show").unwrap();
        assert!(!left.contains(&dead.to_string()), "{left}");
        // And what lives is left alone.
        assert!(left.contains(&format!("{NAMESPACE}{}-", std::process::id())));
        assert!(left.contains(&switch()));
    }
}
