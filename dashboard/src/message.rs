//! What a page is told: one event of server-sent events each.

use std::borrow::Cow;

use hyper::body::Bytes;
use procpool_core::{Stats, TaskError};
use serde::Serialize;

/// What it is told first.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Hello {
    title: String,
    about: String,
    can_cancel: bool,
    can_resize: bool,
}

impl Hello {
    pub(crate) fn new(title: Option<String>, has_buttons: bool) -> Self {
        let program = std::env::current_exe().ok();
        let name = program.as_ref().and_then(|it| it.file_stem());
        let name = name.map_or("Pool".into(), |it| it.to_string_lossy());
        Self {
            title: title.unwrap_or_else(|| name.into_owned()),
            about: format!("process {}", std::process::id()),
            can_cancel: has_buttons,
            can_resize: has_buttons,
        }
    }
}

/// How all is now. Times are in seconds, and count from when the pool is observed.
#[derive(Debug, Serialize)]
pub(crate) struct State {
    pub(crate) at: f64,
    /// How many lanes there are.
    pub(crate) lanes: usize,
    /// How many workers there should be.
    pub(crate) processes: usize,
    pub(crate) counts: Counts,
    pub(crate) workers: Vec<Worker>,
    pub(crate) calls: Vec<Call>,
    /// How many calls are not listed.
    pub(crate) more_calls: usize,
    /// Items that are of none of the calls.
    pub(crate) single_tasks: u64,
    /// Events that came too fast to be shown.
    pub(crate) missed: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) queued: u64,
    pub(crate) running: u64,
    pub(crate) lost: u64,
}

impl From<&Stats> for Counts {
    fn from(stats: &Stats) -> Self {
        Self {
            done: stats.succeeded + stats.failed,
            failed: stats.failed,
            queued: stats.queued,
            running: stats.running,
            lost: stats.workers_lost,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Worker {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) machine: Option<String>,
    pub(crate) lane: usize,
    pub(crate) state: &'static str,
    pub(crate) at: Option<At>,
    pub(crate) items: u64,
    pub(crate) queued: u64,
    pub(crate) up: f64,
    /// Which share of the last seconds it was at work.
    pub(crate) busy: Option<f64>,
    /// The same since the last message.
    pub(crate) load: Option<f64>,
    /// How many processors it took in the last seconds.
    pub(crate) cpu: Option<f64>,
    pub(crate) rss: Option<u64>,
}

/// What a worker runs.
#[derive(Debug, Serialize)]
pub(crate) struct At {
    pub(crate) call: Cow<'static, str>,
    pub(crate) index: usize,
    pub(crate) since: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: Cow<'static, str>,
    pub(crate) age: f64,
    pub(crate) total: Option<u64>,
    pub(crate) ended: u64,
    pub(crate) failed: u64,
    pub(crate) rate: Option<f64>,
}

/// What a worker was at.
#[derive(Debug, Serialize)]
pub(crate) struct Span {
    pub(crate) lane: usize,
    pub(crate) call: Cow<'static, str>,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) items: usize,
}

/// A worker has come or gone.
#[derive(Debug, Serialize)]
pub(crate) struct Mark {
    pub(crate) lane: usize,
    pub(crate) at: f64,
    pub(crate) is_loss: bool,
    pub(crate) text: String,
}

/// An item has failed.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    at: f64,
    call: Cow<'static, str>,
    index: usize,
    kind: String,
    text: String,
    worker: Option<String>,
    signal: Option<i32>,
    exit_code: Option<i32>,
    stderr: Option<String>,
    backtrace: Option<String>,
}

impl Failure {
    pub(crate) fn new(at: f64, call: Cow<'static, str>, index: usize, error: &TaskError) -> Self {
        Self {
            at,
            call,
            index,
            kind: format!("{:?}", error.kind()),
            text: error.to_string(),
            worker: error.worker().map(ToString::to_string),
            signal: error.signal(),
            exit_code: error.exit_code(),
            stderr: error.stderr().map(str::to_owned),
            backtrace: error.backtrace().map(str::to_owned),
        }
    }
}

/// Appends an event of this name to what is sent.
pub(crate) fn event(text: &mut String, name: &str, data: &impl Serialize) {
    // What we send has neither maps nor anything else that JSON cannot say.
    if let Ok(json) = serde_json::to_string(data) {
        text.push_str("event: ");
        text.push_str(name);
        // In JSON there is no end of a line.
        text.push_str("\ndata: ");
        text.push_str(&json);
        text.push_str("\n\n");
    }
}

/// The same alone.
pub(crate) fn alone(name: &str, data: &impl Serialize) -> Bytes {
    let mut text = String::new();
    event(&mut text, name, data);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data() {
        let hello = Hello::new(Some("a\nb\r\n".to_owned()), false);
        let text = String::from_utf8(alone("hello", &hello).to_vec()).expect("text");
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!((lines.len(), lines[0]), (4, "event: hello"));
        assert!(
            lines[1].starts_with("data: {\"title\":\"a\\nb\\r\\n\""),
            "{text}"
        );
        assert_eq!(lines[2..], ["", ""]);
    }
}
