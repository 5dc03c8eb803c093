//! The machine that was measured, since numbers mean nothing without it.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What the numbers depend on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As the processor calls itself.
    pub cpu: String,
    /// How many processors this program may use.
    pub cores: usize,
    /// All memory, in bytes.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// The interpreter of the rivals, if there is one.
    pub python: String,
    /// The commit that was measured; with a `+` if there were changes on top.
    pub commit: String,
    /// When the run began, in UTC.
    pub date: String,
    /// The load of the minute before it began: others' work, if it is not near zero.
    pub load_before: f64,
}

impl Machine {
    /// Describes this one.
    #[must_use]
    pub fn describe(python: &str) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: meminfo("MemTotal").unwrap_or_default(),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            rustc: output("rustc", &["--version"]),
            python: python.to_owned(),
            commit: commit(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            load_before: load(),
        }
    }

    /// What readers must know if others worked on it as well.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        (self.load_before > 0.5)
            .then_some("the machine is not quiet: the numbers are for orientation only")
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let python = if self.python.is_empty() {
            "no Python"
        } else {
            &self.python
        };
        format!(
            "{}, {} processors, {:.1} GiB, Linux {}, {}, {python}, commit {}, {}, load {}",
            self.cpu,
            self.cores,
            self.memory_bytes as f64 / f64::from(1 << 30),
            self.kernel,
            self.rustc,
            self.commit,
            self.date,
            self.load_before,
        )
    }
}

/// How much memory programs could get now, in bytes.
#[must_use]
pub fn available_memory() -> u64 {
    meminfo("MemAvailable").unwrap_or_default()
}

/// The first line that a program prints, or nothing.
#[must_use]
pub fn output(program: &str, arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "versions are asked for")]
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn commit() -> String {
    let package = crate::roster::package();
    let git = |arguments: &[&str]| {
        let folder = package.to_string_lossy();
        output("git", &[&["-C", &folder], arguments].concat())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"]);
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let mark = if changed.is_empty() { "" } else { "+" };
    format!("{commit}{mark}")
}

fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = load.split_whitespace().next();
    first.and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let value = field(&text, name)?;
    let kilobytes: u64 = value.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 85\nmodel name\t: A Processor @ 2 GHz\n";
        assert_eq!(
            field(text, "model name").as_deref(),
            Some("A Processor @ 2 GHz")
        );
        assert_eq!(field(text, "name"), None);
    }

    #[test]
    fn this_machine_has_memory_and_processors() {
        let machine = Machine::describe("");
        assert!(machine.memory_bytes > 0);
        assert!(machine.cores > 0);
        assert!(available_memory() > 0);
        assert!(machine.line().contains("no Python"));
    }
}
