//! `cargo xtask arm`: the programs on 64-bit Arm, in an emulated machine of its own kernel.
//!
//! The machine has two processors, and a file system in memory: the C library, a shell, and what is
//! to be run, which is built here. All of it comes from Debian, as packages that are unpacked and
//! not installed.

use std::fs;
use std::io::{BufRead, BufReader, Write, pipe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{cargo, watchdog};

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Its linker.
const LINKER: &str = "aarch64-linux-gnu-gcc";

/// What has to be there, and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-aarch64", "qemu-system-arm"),
    (LINKER, "gcc-aarch64-linux-gnu"),
    ("aarch64-linux-gnu-strip", "binutils-aarch64-linux-gnu"),
    ("dpkg-deb", "dpkg"),
    ("cpio", "cpio"),
    ("apt-get", "apt"),
];

/// What the machine has besides its kernel.
const PACKAGES: &[&str] = &["busybox-static", "libc6", "libgcc-s1"];

/// For a build from nothing.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// For all that the machine does. Emulation takes ten to twenty times as long as a processor.
const LIMIT: Duration = Duration::from_secs(120 * 60);

/// What it is known not to do in this machine, and why.
const MISSING: &[(&str, &[&str])] = &[];

/// What `cargo xtask arm` can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The tour, and a few sections of the suite.
    #[arg(long)]
    quick: bool,
    /// A kernel with pages of 16 KiB instead of 4.
    #[arg(long)]
    large_pages: bool,
    /// Only these tests of the suite: parts of their names.
    #[arg(long)]
    tests: Vec<String>,
    /// How long it storms.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Examples that end by themselves, and need nobody.
const EXAMPLES: &[&str] = &[
    "tour",
    "crash",
    "filter",
    "generic",
    "montecarlo",
    "prefork",
    "race",
    "recovery",
    "recycle",
    "results",
    "search",
    "table",
];

/// The sections of a quick run.
const QUICK: &[&str] = &[
    "results::",
    "death::",
    "deadline::",
    "imap::",
    "broadcast::",
];

/// Builds the programs, and runs them in the machine.
///
/// # Errors
/// When something is missing, or one of the programs fails.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    for (tool, package) in TOOLS {
        let found = Command::new("which").arg(tool).output();
        ensure!(
            found.is_ok_and(|found| found.status.success()),
            "there is no {tool}: install Debian's package {package}"
        );
    }
    let folder = cargo::target(root).join("arm");
    let machine = Machine::prepare(&folder, options.large_pages)?;
    let programs = build(root, &folder, options)?;
    let jobs = jobs(options);
    let image = machine.pack(&programs, &jobs)?;
    machine.boot(&image, &jobs)
}

/// Something that the machine runs.
struct Job {
    name: String,
    command: String,
}

fn jobs(options: &Options) -> Vec<Job> {
    let job = |name: &str, command: String| Job {
        name: name.into(),
        command,
    };
    if !options.tests.is_empty() {
        let tests = options.tests.iter();
        return tests
            .map(|name| job(name, format!("/programs/conformance {name}")))
            .collect();
    }
    let examples: &[&str] = if options.quick { &["tour"] } else { EXAMPLES };
    let mut jobs = Vec::new();
    for example in examples {
        jobs.push(job(example, format!("/programs/{example}")));
    }
    let skipped = MISSING.iter().flat_map(|(_, names)| *names);
    let skipped: String = skipped.map(|name| format!(" --skip {name}")).collect();
    for backend in ["fork", "spawn"] {
        if options.quick {
            for section in QUICK {
                let name = format!("{backend}::{section}");
                jobs.push(job(&name, format!("/programs/conformance {name}{skipped}")));
            }
        } else {
            let name = format!("{backend}::");
            jobs.push(job(&name, format!("/programs/conformance {name}{skipped}")));
            let storm = format!(
                "/programs/chaos storm --backend {backend} --seconds {}",
                options.seconds
            );
            jobs.push(job(&format!("storm of {backend}"), storm));
        }
    }
    jobs
}

/// Builds what is run, and says where each program is.
fn build(root: &Path, folder: &Path, options: &Options) -> Result<Vec<PathBuf>> {
    let target = folder.join("target");
    let command = |arguments: &str| {
        let mut command = cargo::cargo(root, arguments);
        command.args(["--target", TARGET]);
        command.env("CARGO_TARGET_DIR", &target);
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
        command
    };
    let examples = if options.quick {
        &EXAMPLES[..1]
    } else {
        EXAMPLES
    };
    let mut build = command("build");
    for example in examples {
        build.args(["--example", example]);
    }
    watchdog::run(build, BUILD_LIMIT)
        .with_context(|| format!("rustup target add {TARGET} brings what is missing"))?;
    let tests = "test --no-run --package procpool-tests --no-default-features \
                 --features fork,spawn --test conformance --test chaos";
    watchdog::run(command(tests), BUILD_LIMIT)?;
    let built = target.join(TARGET).join("debug");
    let examples = examples.iter().map(|it| built.join("examples").join(it));
    let mut programs: Vec<_> = examples.collect();
    for name in ["conformance", "chaos"] {
        programs.push(newest(&built.join("deps"), name)?);
    }
    Ok(programs)
}

/// The newest program of this name; there is a hash behind it.
fn newest(folder: &Path, name: &str) -> Result<PathBuf> {
    let mut found = None;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path
            .file_name()
            .and_then(|it| it.to_str())
            .unwrap_or_default();
        let is_it = stem
            .strip_prefix(name)
            .is_some_and(|it| it.starts_with('-'))
            && path.extension().is_none();
        if is_it {
            let age = path.metadata()?.modified()?;
            found = found.max(Some((age, path)));
        }
    }
    let (_, path) = found.with_context(|| format!("{name} was not built"))?;
    Ok(path)
}

/// What is not changed from run to run.
struct Machine {
    folder: PathBuf,
    kernel: PathBuf,
    /// What the packages have, unpacked.
    files: PathBuf,
}

impl Machine {
    /// Downloads the packages, once, and unpacks them.
    fn prepare(folder: &Path, large_pages: bool) -> Result<Self> {
        let apt = Apt::new(folder)?;
        let suffix = if large_pages {
            "arm64-16k"
        } else {
            "cloud-arm64"
        };
        let files = folder.join(format!("files-{suffix}"));
        if !files.join("ready").exists() {
            apt.run("apt-get", &["-qq", "update"])?;
            let names = format!("^linux-image-[0-9.]+.*-{suffix}-unsigned$");
            let found = apt.output("apt-cache", &["search", "--names-only", &names])?;
            let mut kernels: Vec<_> = found
                .lines()
                .filter_map(|line| line.split_whitespace().next())
                .collect();
            kernels.sort_by_key(|name| version_of(name));
            let kernel = kernels.last().context("Debian has no such kernel")?;
            let debs = folder.join(format!("debs-{suffix}"));
            fs::create_dir_all(&debs)?;
            let mut download = apt.command("apt-get");
            download
                .args(["-qq", "download"])
                .args(PACKAGES)
                .arg(kernel);
            watchdog::run(in_folder(download, &debs), BUILD_LIMIT)?;
            for entry in fs::read_dir(&debs)? {
                let mut unpack = Command::new("dpkg-deb");
                unpack.arg("-x").arg(entry?.path()).arg(&files);
                watchdog::run(unpack, BUILD_LIMIT)?;
            }
            fs::write(files.join("ready"), kernel)?;
        }
        let boot = fs::read_dir(files.join("boot"))?;
        let mut kernels = boot.filter_map(|entry| Some(entry.ok()?.path()));
        let is_kernel = |path: &PathBuf| path.to_string_lossy().contains("vmlinuz");
        let kernel = kernels
            .find(is_kernel)
            .context("the kernel's package has no kernel")?;
        Ok(Self {
            folder: folder.into(),
            kernel,
            files,
        })
    }

    /// Makes the file system that the machine begins with.
    fn pack(&self, programs: &[PathBuf], jobs: &[Job]) -> Result<PathBuf> {
        let tree = self.folder.join("tree");
        let _ = fs::remove_dir_all(&tree);
        for folder in ["bin", "etc", "lib", "programs", "jobs", "root"] {
            fs::create_dir_all(tree.join(folder))?;
        }
        fs::copy(self.files.join("bin/busybox"), tree.join("bin/busybox"))?;
        let libraries = self.files.join("lib/aarch64-linux-gnu");
        for name in [
            "libc.so.6",
            "libm.so.6",
            "libgcc_s.so.1",
            "ld-linux-aarch64.so.1",
        ] {
            fs::copy(libraries.join(name), tree.join("lib").join(name))
                .with_context(|| format!("the packages have no {name}"))?;
        }
        for program in programs {
            let name = program
                .file_name()
                .and_then(|it| it.to_str())
                .unwrap_or_default();
            // Without the hash.
            let name = ["conformance", "chaos"]
                .into_iter()
                .find(|it| name.starts_with(it))
                .unwrap_or(name);
            let mut strip = Command::new("aarch64-linux-gnu-strip");
            // The names of functions stay.
            strip.args(["--strip-debug", "-o"]);
            strip.arg(tree.join("programs").join(name)).arg(program);
            watchdog::run(strip, BUILD_LIMIT)?;
        }
        fs::write(
            tree.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\n\
             nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
        )?;
        fs::write(tree.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        for (number, job) in jobs.iter().enumerate() {
            let script = format!("{}\n", job.command);
            fs::write(tree.join("jobs").join(format!("{number:03}")), script)?;
        }
        let init = tree.join("init");
        fs::write(&init, INIT)?;
        set_executable(&init)?;
        let image = self.folder.join("initramfs");
        let archive = fs::File::create(&image)?;
        let mut list = Vec::new();
        for entry in walkdir::WalkDir::new(&tree) {
            let entry = entry?;
            let path = entry.path().strip_prefix(&tree)?;
            if !path.as_os_str().is_empty() {
                list.extend(path.as_os_str().as_encoded_bytes());
                list.push(b'\n');
            }
        }
        let mut pack = Command::new("cpio");
        pack.args(["--quiet", "-o", "-H", "newc"])
            .current_dir(&tree);
        pack.stdin(std::process::Stdio::piped()).stdout(archive);
        let mut packing = pack.spawn().context("cpio cannot be started")?;
        packing
            .stdin
            .take()
            .context("it has an input")?
            .write_all(&list)?;
        ensure!(packing.wait()?.success(), "cpio has failed");
        Ok(image)
    }

    /// Runs all jobs, and prints what they print.
    fn boot(&self, image: &Path, jobs: &[Job]) -> Result<()> {
        let (output, input) = pipe()?;
        let mut machine = Command::new("qemu-system-aarch64");
        machine.args([
            "-M",
            "virt",
            "-cpu",
            "max,pauth-impdef=on",
            "-smp",
            "2",
            "-m",
            "6G",
        ]);
        machine.args(["-nographic", "-no-reboot", "-nic", "none"]);
        machine.args(["-append", "console=ttyAMA0 quiet panic=-1"]);
        machine
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(image);
        machine.stdin(std::process::Stdio::null()).stdout(input);
        let listener = thread::spawn(|| ended(BufReader::new(output)));
        watchdog::run(machine, LIMIT)?;
        let ended = match listener.join() {
            Ok(ended) => ended,
            Err(_) => bail!("what the machine has said cannot be read"),
        };
        let mut failed = Vec::new();
        for (number, job) in jobs.iter().enumerate() {
            match ended.iter().find(|it| it.0 == number) {
                Some((_, 0)) => println!("{}: passed", job.name),
                Some((_, status)) => failed.push(format!("{}: exit status {status}", job.name)),
                None => failed.push(format!("{}: it has not ended", job.name)),
            }
        }
        ensure!(failed.is_empty(), "on Arm, failed:\n{}", failed.join("\n"));
        Ok(())
    }
}

/// What the machine begins with.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin HOME=/root
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp /sbin /usr
ln -s /bin /usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
ln -sf /proc/self/fd /dev/fd
ifconfig lo 127.0.0.1 up
cd /root
uname -a
for job in /jobs/*; do
  echo "arm: begins $(basename $job): $(cat $job)"
  sh $job
  echo "arm: ended $(basename $job) $?"
done
poweroff -f
"#;

/// Prints what the machine says, and gives the jobs that have ended, with their exit status.
fn ended(output: impl BufRead) -> Vec<(usize, i32)> {
    let mut ended = Vec::new();
    for line in output.split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        println!("{line}");
        if let Some(said) = line.strip_prefix("arm: ended ")
            && let Some((number, status)) = said.split_once(' ')
            && let (Ok(number), Ok(status)) = (number.parse(), status.parse())
        {
            ended.push((number, status));
        }
    }
    ended
}

/// Debian's packages for Arm, whatever this machine is, and without a word to its own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(folder: &Path) -> Result<Self> {
        let (lists, cache) = (folder.join("lists"), folder.join("cache"));
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        let options = [
            "APT::Architecture=arm64".to_owned(),
            "APT::Architectures::=arm64".to_owned(),
            format!("Dir::State::Lists={}", lists.display()),
            format!("Dir::Cache={}", cache.display()),
            "Dir::State::status=/dev/null".to_owned(),
            // It is downloaded into a folder of the caller's.
            "APT::Sandbox::User=".to_owned(),
        ];
        Ok(Self {
            options: options.into(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(program);
        command.args(arguments);
        watchdog::run(command, BUILD_LIMIT)
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).output();
        let output = output.with_context(|| format!("{program} cannot be started"))?;
        ensure!(output.status.success(), "{program} has failed");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn in_folder(mut command: Command, folder: &Path) -> Command {
    command.current_dir(folder);
    command
}

/// The numbers in a package's name, by which versions are compared.
fn version_of(name: &str) -> Vec<u64> {
    let numbers = name.split(|character: char| !character.is_ascii_digit());
    numbers.filter_map(|it| it.parse().ok()).collect()
}

fn set_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_last_one() {
        let older = version_of("linux-image-6.12.9+deb12-cloud-arm64-unsigned");
        assert!(older < version_of("linux-image-6.12.117+deb12-cloud-arm64-unsigned"));
    }

    #[test]
    fn what_has_ended_is_told() {
        let said = "x\r\narm: ended 000 0\r\narm: ended 1\narm: ended 002 101\n";
        assert_eq!(ended(said.as_bytes()), [(0, 0), (2, 101)]);
    }
}
