//! The command beside a program that has pools: this one.

#![allow(
    clippy::disallowed_methods,
    reason = "it starts commands, and looks at a screen until that is as it should be"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use procpool::{AllowInspection, ForkPool, Pool};
use procpool_testing::browser::{self, Page};
use procpool_testing::left_out;

procpool::init_before_main!(fork_server);

/// How long it waits for something that a screen should show.
const PATIENCE: Duration = Duration::from_secs(30);

const COMMAND: &str = env!("CARGO_BIN_EXE_procpool");

/// For tests whose command finds all pools of this process.
static POOLS: Mutex<()> = Mutex::new(());

fn run(arguments: &[&str]) -> Output {
    let output = Command::new(COMMAND).args(arguments).output();
    output.expect("it starts")
}

fn nap(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn pool(workers: usize) -> ForkPool {
    let pool = ForkPool::builder().processes(workers).build();
    pool.expect("it starts")
}

/// A terminal, which ends with it.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// In which this command runs.
    fn new(name: &str, command: &str) -> Self {
        let it = Self {
            socket: format!("procpool-{}-{name}", std::process::id()),
        };
        let size = ["-x", "110", "-y", "30"];
        let mut arguments = vec!["-f", "/dev/null", "new-session", "-d"];
        arguments.extend(size);
        arguments.push(command);
        it.tmux(&arguments);
        it
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        let output = tmux.args(["-L", &self.socket]).args(arguments).output();
        let output = output.expect("tmux starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen has all of these.
    fn wait_for(&self, parts: &[&str]) {
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if parts.iter().all(|part| screen.contains(part)) {
                return;
            }
            assert!(Instant::now() < end, "not all of {parts:?}:\n{screen}");
            nap(50);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = Command::new("tmux")
            .args(["-L", &self.socket, "kill-server"])
            .output();
    }
}

#[test]
fn top_shows_what_a_pool_does() {
    let version = Command::new("tmux").arg("-V").output();
    let version = version.map_err(|error| format!("tmux: {error}"));
    if left_out::unless("top_shows_what_a_pool_does", "a terminal", version).is_none() {
        return;
    }
    let _alone = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let (one, other) = (pool(2), pool(1));
    let _one = one
        .allow_inspection("the first")
        .expect("there is a socket");
    let _other = other
        .allow_inspection("the second")
        .expect("there is a socket");
    let naps = one.call(nap).name("a long nap").map_async([600_000; 10]);
    let pid = std::process::id();
    let command = format!("{COMMAND} top {pid} --every 0.2; echo ended: $?; sleep 600");
    let terminal = Terminal::new("top", &command);
    let title = format!("the first (process {pid}, pool ");
    terminal.wait_for(&[
        &title,
        " handed out",
        "0/10",
        "a long nap, item",
        "2 of 2 workers",
    ]);

    // The stack of the second worker.
    terminal.press("Down");
    terminal.press("Enter");
    terminal.wait_for(&["its stack", "runs a long nap", "nanosleep"]);
    terminal.press("Escape");
    terminal.wait_for(&["workers", "queued at"]);
    terminal.press("Tab");
    terminal.wait_for(&["the second (process", "1 of 1 workers", "idle"]);
    terminal.press("Tab");
    terminal.wait_for(&[&title]);
    terminal.press("q");
    terminal.wait_for(&["ended: 0"]);

    // A program that ends does not leave the terminal as it was then.
    let command = format!("{COMMAND} top {pid} --every 0.2; echo ended: $?; sleep 600");
    let terminal = Terminal::new("end", &command);
    terminal.wait_for(&[&title]);
    naps.kill();
    drop((_one, _other));
    terminal.wait_for(&["procpool: ", "ended: 1"]);
}

#[test]
fn dump_has_the_stacks_of_pools_that_allow_it() {
    let missing = run(&["dump", &u32::MAX.to_string()]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no process"));

    let _alone = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = pool(1);
    let inspection = pool
        .allow_inspection("of a dump")
        .expect("there is a socket");
    let handle = pool.call(nap).name("rest").apply_async(600_000);
    let end = Instant::now() + PATIENCE;
    while pool.stats().running == 0 {
        assert!(Instant::now() < end, "it does not run");
        nap(5);
    }
    let pid = std::process::id().to_string();
    let dump = run(&["dump", &pid, "--stats"]);
    let text = String::from_utf8_lossy(&dump.stdout);
    for part in [
        "of a dump: 1 workers, 0 items queued",
        "runs rest, item 0",
        "nanosleep",
    ] {
        assert!(
            dump.status.success() && text.contains(part),
            "{part}: {text}"
        );
    }
    assert!(text.contains("1 items: 0 succeeded, 0 failed"), "{text}");
    // Whoever reads it may have enough.
    let script = format!("{COMMAND} dump {pid} | head -n 1; exit ${{PIPESTATUS[0]}}");
    let cut = Command::new("bash")
        .args(["-c", &script])
        .output()
        .expect("it starts");
    let error = String::from_utf8_lossy(&cut.stderr);
    assert!(cut.status.success() && error.is_empty(), "{error}");
    handle.kill();
    drop(inspection);
}

fn traced(folder: &Path) -> String {
    let path = folder.join("trace.json");
    let pool = pool(2);
    let trace = pool.trace_to(&path).expect("it can be written");
    pool.call(nap)
        .name("naps")
        .chunksize(1)
        .map([5; 40])
        .expect("they rest");
    let fails = pool.call(|x: u64| assert_ne!(x, 3)).name("</script>");
    assert!(fails.map(0..10).is_err());
    pool.close();
    pool.join().expect("its workers have ended");
    trace.finish().expect("it is written");
    path.into_os_string().into_string().expect("text")
}

/// And a page to zoom into, by wheel and keyboard.
#[test]
fn a_timeline_is_a_picture_and_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = traced(folder.path());
    let drawn = run(&["timeline", &trace, "--title", "a <title>"]);
    let error = String::from_utf8_lossy(&drawn.stderr);
    assert!(drawn.status.success(), "{error}");
    let picture = std::fs::read_to_string(folder.path().join("trace.svg"));
    assert!(picture.expect("it is written").starts_with("<svg"));
    if !browser::is_there("a_timeline_is_a_picture_and_a_page") {
        return;
    }
    let url = format!("file://{}", folder.path().join("trace.html").display());
    let mut page = Page::open(&url, 1200, 500);
    page.wait_for("document.title === 'a <title>'");
    let about = page.eval("byId('about').textContent");
    let about = about.as_str().expect("text");
    assert!(about.starts_with("50 items in ") && about.ends_with("2 workers, 1 items failed"));
    assert_eq!(page.eval("from === 0 && to === data.end"), true);
    page.eval("canvas.focus()");
    page.press("+");
    assert_eq!(page.eval("Math.abs((to - from) * 2 - data.end) < 1"), true);
    page.press("ArrowRight");
    page.press("0");
    assert_eq!(page.eval("from === 0 && to === data.end"), true);
    // What is under the pointer is told.
    page.eval(
        "const item = data.items.find((it) => it[5] != null);\
         const box = canvas.getBoundingClientRect();\
         canvas.onpointermove({ clientX: box.left + 44 + (item[3] + item[4]) / 2 / data.end * \
         (box.width - 44), clientY: box.top + item[0] * row + 5 });",
    );
    let text = page.text();
    assert!(
        text.contains("</script>, item 3: ") && text.contains("Panicked"),
        "{text}"
    );
    for (width, height) in [(400, 500), (2000, 500)] {
        page.resize(width, height);
        let wide = page.eval("document.documentElement.scrollWidth - innerWidth");
        assert!(wide.as_i64() <= Some(0), "{width}: {wide} too wide");
        page.picture(&format!("timeline-{width}"));
    }
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
