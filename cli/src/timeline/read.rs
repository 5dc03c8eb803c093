//! What a trace has.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use tinyjson::JsonValue;

/// A trace. Times are microseconds since its beginning.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) items: Vec<Item>,
    /// The workers, by their numbers.
    pub(crate) workers: BTreeMap<u32, Worker>,
    /// Events that the pool had no room for.
    pub(crate) dropped: u64,
    /// Items that were never begun.
    pub(crate) unborn: u64,
    /// When it ended.
    pub(crate) end: f64,
}

/// An item that a worker ran.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// The worker's number.
    pub(crate) worker: u32,
    pub(crate) function: String,
    pub(crate) index: u64,
    pub(crate) start: f64,
    pub(crate) end: f64,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
    pub(crate) queued: Option<f64>,
}

/// A worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Worker {
    pub(crate) pid: u32,
    /// Which of the pool's positions it had.
    pub(crate) position: u32,
    pub(crate) up: f64,
    /// When and why it ended, if it did.
    pub(crate) ended: Option<(f64, String)>,
}

/// Reads a trace: an array with one event in each line, of which the end may be missing.
///
/// # Errors
/// When there is no event in it.
pub(crate) fn read(text: &str) -> Result<Trace> {
    let mut trace = Trace::default();
    let mut count = 0;
    for line in text.lines() {
        let line = line.trim().trim_end_matches(',');
        if !line.starts_with('{') {
            continue;
        }
        // The last line of a program that was killed may be cut.
        if let Ok(event) = line.parse::<JsonValue>() {
            count += 1;
            trace.add(&event)?;
        }
    }
    if count == 0 {
        bail!("there is no line with an event in it");
    }
    if trace.workers.is_empty() && trace.items.is_empty() {
        bail!("it tells of no worker and of no item");
    }
    let last = trace.items.iter().map(|item| item.end);
    trace.end = last.fold(trace.end, f64::max);
    Ok(trace)
}

impl Trace {
    fn add(&mut self, event: &JsonValue) -> Result<()> {
        match (self.try_add(event), category(event)) {
            (Err(error), "worker" | "task") => {
                Err(error.context("the trace was written by another version of procpool"))
            }
            // An event of somebody else's is none of ours.
            _ => Ok(()),
        }
    }

    fn try_add(&mut self, event: &JsonValue) -> Result<()> {
        let phase = text(event, "ph")?;
        if phase == "M" {
            return Ok(());
        }
        let name = text(event, "name")?;
        let worker = number(event, "tid")? as u32;
        let start = number(event, "ts")?;
        self.end = self.end.max(start);
        let arguments = field(event, "args");
        match (category(event), phase) {
            ("worker", _) if name == "up" => {
                let row = self.workers.entry(worker).or_default();
                row.up = start;
                row.pid = number(event, "pid")? as u32;
                row.position = number(arguments?, "position")? as u32;
            }
            ("worker", _) => {
                let reason = text(arguments?, "reason")?.to_owned();
                self.workers.entry(worker).or_default().ended = Some((start, reason));
            }
            ("task", "X") => {
                let arguments = arguments?;
                let outcome = text(arguments, "outcome")?;
                self.items.push(Item {
                    worker,
                    function: name.to_owned(),
                    index: number(arguments, "index")? as u64,
                    start,
                    end: start + number(event, "dur")?,
                    error: (outcome != "Succeeded").then(|| outcome.to_owned()),
                    queued: number(arguments, "queued_us").ok(),
                });
            }
            ("task", _) => self.unborn += 1,
            _ => {
                if let Ok(dropped) = arguments.and_then(|it| number(it, "dropped")) {
                    self.dropped += dropped as u64;
                }
            }
        }
        Ok(())
    }
}

fn field<'a>(event: &'a JsonValue, name: &str) -> Result<&'a JsonValue> {
    let object: Option<&std::collections::HashMap<String, JsonValue>> = event.get();
    object
        .and_then(|object| object.get(name))
        .with_context(|| format!("there is no {name}"))
}

fn text<'a>(event: &'a JsonValue, name: &str) -> Result<&'a str> {
    let value: Option<&String> = field(event, name)?.get();
    value
        .map(String::as_str)
        .with_context(|| format!("{name} is no text"))
}

fn number(event: &JsonValue, name: &str) -> Result<f64> {
    let value: Option<&f64> = field(event, name)?.get();
    value
        .copied()
        .with_context(|| format!("{name} is no number"))
}

fn category(event: &JsonValue) -> &str {
    text(event, "cat").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = r#"{"name":"f","cat":"task","pid":7,"tid":1,"ph":"X","ts":2.5,"dur":1.5,"args":{"index":4,"outcome":"Panicked"}},"#;
    const UP: &str = concat!(
        r#"{"name":"up","cat":"worker","ph":"i","pid":7,"tid":1,"ts":0.5,"#,
        r#""args":{"position":2,"generation":0}},"#
    );

    #[test]
    fn an_unfinished_trace_is_read() {
        let text = format!("[\n{UP}\n{ITEM}\n{}", &ITEM[..40]);
        let trace = read(&text).expect("a trace");
        assert_eq!(trace.items.len(), 1);
        assert_eq!((trace.items[0].index, trace.items[0].end), (4, 4.0));
        assert_eq!(trace.items[0].error.as_deref(), Some("Panicked"));
        assert_eq!((trace.workers[&1].position, trace.end), (2, 4.0));
    }

    #[test]
    fn a_trace_that_says_it_otherwise_is_refused() {
        let other = UP.replace("position", "place");
        let text = format!("[\n{other}\n{ITEM}");
        let error = read(&text).expect_err("another version");
        assert!(
            format!("{error:#}").contains("another version"),
            "{error:#}"
        );
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for text in ["", "[]", "[\n{}\n]", "{\"a\": 1}"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
