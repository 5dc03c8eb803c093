//! A browser without a window: chromium, by its DevTools protocol over two pipes.

#![allow(
    clippy::disallowed_methods,
    reason = "it starts a browser, and looks at a page until that is as it should be"
)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::left_out;

/// What Debian calls it.
const CHROMIUM: &str = "chromium";

/// Whether there is one, for this test. In CI, there must be.
#[must_use]
pub fn is_there(test: &str) -> bool {
    let version = Command::new(CHROMIUM).arg("--version").output();
    let version = version.map_err(|error| format!("{CHROMIUM}: {error}"));
    left_out::unless(test, "a browser", version).is_some()
}

/// How long it waits for something that a page should show.
const PATIENCE: Duration = Duration::from_secs(30);

/// A page in a browser, which ends with it.
pub struct Page {
    chromium: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
    /// What it has said that nobody has asked for.
    events: VecDeque<Value>,
    profile: Option<tempfile::TempDir>,
}

impl Page {
    /// A page of this size that shows this address.
    ///
    /// # Panics
    /// When the browser does not start, or ends, as all of its methods.
    pub fn open(url: &str, width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        // It reads and writes descriptors 3 and 4. As root, it has no sandbox of its own.
        let script = "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2";
        let mut chromium = Command::new("sh")
            .args(["-c", script, CHROMIUM])
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            // What it leaves goes with its profile, and its processes together.
            .env("TMPDIR", profile.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It has much to say of buses and fonts that are not there.
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let to = chromium.stdin.take().expect("it is a pipe");
        let from = BufReader::new(chromium.stdout.take().expect("it is a pipe"));
        let mut page = Self {
            chromium,
            to,
            from,
            session: None,
            number: 0,
            events: VecDeque::new(),
            profile: Some(profile),
        };
        let targets = page.call("Target.getTargets", json!({}));
        let targets = targets["targetInfos"].as_array().expect("a list");
        let is_page = |it: &&Value| it["type"] == "page";
        let target = targets.iter().find(is_page).expect("it has a page")["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        let session = page.call("Target.attachToTarget", attach);
        page.session = Some(session["sessionId"].as_str().expect("a name").to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.resize(width, height);
        page.call("Page.navigate", json!({ "url": url }));
        // Its scripts have run then.
        page.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'");
        page
    }

    /// Another size.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Light or dark.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// Asks the browser something, and waits for its answer.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let number = self.number;
        let mut question = json!({ "id": number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            question["sessionId"] = json!(session);
        }
        let mut bytes = question.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("it reads");
        loop {
            let mut heard = self.hear();
            if heard["id"] == number {
                assert!(heard.get("error").is_none(), "{method}: {heard}");
                return heard["result"].take();
            }
            self.events.push_back(heard);
        }
    }

    fn hear(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).expect("it writes");
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// What an expression of JavaScript's is on the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let ask = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let mut answer = self.call("Runtime.evaluate", ask);
        let failed = answer.get("exceptionDetails").is_some();
        assert!(!failed, "{expression}: {answer:#}");
        answer["result"]["value"].take()
    }

    /// Waits until that is true.
    pub fn wait_for(&mut self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.eval(expression) != true {
            if Instant::now() > end {
                let text = self.eval("document.body?.innerText");
                panic!("it is never so that {expression}: {text}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the page shows as text.
    pub fn text(&mut self) -> String {
        let text = self.eval("document.body.innerText");
        text.as_str().expect("text").to_owned()
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`, `ArrowLeft`, `ArrowRight`, or what is written
    /// by one.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "ArrowLeft" => (37, ""),
            "ArrowRight" => (39, ""),
            letter => (0, letter),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({
                "type": kind, "key": key, "code": key, "text": text,
                "windowsVirtualKeyCode": code,
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Makes a picture of it, where `PROCPOOL_PICTURES` says.
    pub fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("PROCPOOL_PICTURES").map(PathBuf::from) else {
            return;
        };
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let bytes = decode(picture["data"].as_str().expect("text"));
        std::fs::write(folder.join(name).with_extension("png"), bytes).expect("it can be written");
    }

    /// What the console has that nobody wants to see there.
    pub fn complaints(&mut self) -> Vec<Value> {
        // What has happened so far has been told before this is answered.
        self.eval("1");
        let is_complaint = |event: &Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Network.loadingFailed") => true,
            Some("Runtime.consoleAPICalled") => ["error", "warning", "assert"]
                .contains(&event["params"]["type"].as_str().unwrap_or("")),
            Some("Log.entryAdded") => event["params"]["entry"]["level"] != "verbose",
            _ => false,
        };
        self.events.drain(..).filter(is_complaint).collect()
    }

    /// Where it has asked for something.
    pub fn asked(&mut self) -> Vec<String> {
        self.eval("1");
        let asked = |event: &Value| {
            let is_it = event["method"] == "Network.requestWillBeSent";
            let url = event["params"]["request"]["url"].as_str();
            url.filter(|_| is_it).map(str::to_owned)
        };
        self.events.iter().filter_map(asked).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It has no window that it would have to be asked about.
        let group = Pid::from_child(&self.chromium);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.chromium.wait();
        let end = Instant::now() + PATIENCE;
        while kill_process_group(group, Signal::KILL).is_ok() && Instant::now() < end {
            // Some of its processes are not gone yet.
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(profile) = self.profile.take()
            && let Err(error) = profile.close()
        {
            eprintln!("a browser has left something: {error}");
        }
    }
}

/// Of base64.
fn decode(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four
            .iter()
            .fold(0_u32, |bits, it| bits << 6 | u32::from(value(*it)));
        let bits = bits << (6 * (4 - four.len()) + 8);
        bytes.extend(&bits.to_be_bytes()[..four.len() - 1]);
    }
    bytes
}
