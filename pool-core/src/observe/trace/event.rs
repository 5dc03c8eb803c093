//! What a trace has, and how it is written down: the format of Chrome's trace viewer, one event in
//! each line of an array.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

use crate::error::task_error::TaskError;
use crate::observe::item_run::Run;
use crate::observe::worker_exit::ExitReason;
use crate::process::worker_info::WorkerInfo;

/// Something that happened. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A worker is up, since then.
    WorkerUp {
        worker: WorkerInfo,
        /// Which of the pool's places it works in.
        position: usize,
        at: u64,
    },
    /// A worker has ended.
    WorkerEnded {
        worker: WorkerInfo,
        reason: ExitReason,
        at: u64,
    },
    /// The sandbox of a worker has refused a system call.
    CallRefused {
        worker: WorkerInfo,
        /// Its name.
        call: Cow<'static, str>,
        at: u64,
    },
    /// A worker has done a chunk.
    Chunk {
        worker: WorkerInfo,
        /// What its call is called.
        call: Cow<'static, str>,
        /// The index of its first item in its call.
        first: usize,
        items: u32,
        /// How long it took, by the worker's word.
        took: u64,
        at: u64,
    },
    /// An item has its outcome.
    Item {
        /// What its call is called.
        call: Cow<'static, str>,
        /// Its index in its call.
        index: usize,
        /// Why it failed, if it did.
        error: Option<TaskError>,
        /// When it was submitted; 0: that is not known.
        submitted: u64,
        attempt: u32,
        argument_bytes: u64,
        /// What the worker said of it; `None`: none has begun it.
        run: Option<Run>,
        /// When this was recorded.
        at: u64,
    },
}

/// Writes events.
pub(super) struct Writer<W> {
    to: W,
    start: u64,
    line: String,
    /// The workers of other machines, whose process identifiers may be those of others, and what
    /// stands for these.
    remote: HashMap<(String, u32), u32>,
}

/// The first number that stands for a process of another machine: Linux gives out none of these.
const FIRST_REMOTE: u32 = 1 << 23;

impl<W: Write> Writer<W> {
    /// The trace began at `start`: times in the file count from then.
    pub(super) fn new(to: W, start: u64) -> Self {
        Self {
            to,
            start,
            line: String::new(),
            remote: HashMap::new(),
        }
    }

    pub(super) fn begin(&mut self) -> io::Result<()> {
        let pid = std::process::id();
        writeln!(
            self.to,
            "[\n{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{pid},\"tid\":0,\
             \"args\":{{\"name\":\"the pool's program\"}}}},"
        )?;
        self.flush()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// How many events are missing here.
    pub(super) fn dropped(&mut self, count: u64, now: u64) -> io::Result<()> {
        let pid = std::process::id();
        let ts = self.time(now);
        writeln!(
            self.to,
            "{{\"name\":\"{count} events were dropped\",\"ph\":\"i\",\"s\":\"g\",\"pid\":{pid},\
             \"tid\":0,\"ts\":{ts},\"args\":{{\"dropped\":{count}}}}},"
        )
    }

    /// Closes the array. A file without that can be read all the same.
    pub(super) fn end(&mut self, now: u64) -> io::Result<()> {
        let pid = std::process::id();
        let ts = self.time(now);
        writeln!(
            self.to,
            "{{\"name\":\"the trace ended\",\"ph\":\"i\",\"s\":\"g\",\"pid\":{pid},\"tid\":0,\
             \"ts\":{ts}}}\n]"
        )?;
        self.to.flush()
    }

    pub(super) fn event(&mut self, event: &Event) -> io::Result<()> {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        // Writing into a string does not fail.
        let _ = self.describe(&mut line, event);
        let written = self.to.write_all(line.as_bytes());
        self.line = line;
        written
    }

    /// The process identifier of a worker in the file, whom it introduces if it is of another
    /// machine and new.
    fn pid(&mut self, line: &mut String, worker: &WorkerInfo) -> Result<u32, fmt::Error> {
        let Some(machine) = worker.machine() else {
            return Ok(worker.pid());
        };
        let next = FIRST_REMOTE + self.remote.len() as u32;
        let pid = *(self.remote)
            .entry((machine.to_owned(), worker.pid()))
            .or_insert(next);
        if pid == next {
            let number = worker.number();
            for what in ["process_name", "thread_name"] {
                write!(
                    line,
                    "{{\"name\":\"{what}\",\"ph\":\"M\",\"pid\":{pid},\"tid\":{number},\
                     \"args\":{{\"name\":\""
                )?;
                escape(line, &worker.to_string());
                line.push_str("\"}},\n");
            }
        }
        Ok(pid)
    }

    fn describe(&mut self, line: &mut String, event: &Event) -> fmt::Result {
        match event {
            Event::WorkerUp {
                worker,
                position,
                at,
            } => {
                let (pid, number) = (worker.pid(), worker.number());
                let (name, generation) = (worker.name(), worker.generation());
                for what in ["process_name", "thread_name"] {
                    writeln!(
                        line,
                        "{{\"name\":\"{what}\",\"ph\":\"M\",\"pid\":{pid},\"tid\":{number},\
                         \"args\":{{\"name\":\"{name}\"}}}},"
                    )?;
                }
                writeln!(
                    line,
                    "{{\"name\":\"process_sort_index\",\"ph\":\"M\",\"pid\":{pid},\"tid\":{number},\
                     \"args\":{{\"sort_index\":{}}}}},",
                    position * 10_000 + (generation as usize).min(9999)
                )?;
                writeln!(
                    line,
                    "{{\"name\":\"up\",\"cat\":\"worker\",\"ph\":\"i\",\"s\":\"p\",\"pid\":{pid},\
                     \"tid\":{number},\"ts\":{},\"args\":{{\"position\":{position},\
                     \"generation\":{generation}}}}},",
                    self.time(*at)
                )
            }
            Event::WorkerEnded { worker, reason, at } => {
                let (pid, number) = (worker.pid(), worker.number());
                writeln!(
                    line,
                    "{{\"name\":\"ended: {reason:?}\",\"cat\":\"worker\",\"ph\":\"i\",\"s\":\"p\",\
                     \"pid\":{pid},\"tid\":{number},\"ts\":{},\"args\":{{\"reason\":\"{reason:?}\"}}}},",
                    self.time(*at)
                )
            }
            Event::CallRefused { worker, call, at } => {
                let (pid, number) = (worker.pid(), worker.number());
                writeln!(
                    line,
                    "{{\"name\":\"refused: {call}\",\"cat\":\"worker\",\"ph\":\"i\",\"s\":\"p\",\
                     \"pid\":{pid},\"tid\":{number},\"ts\":{},\"args\":{{\"call\":\"{call}\"}}}},",
                    self.time(*at)
                )
            }
            // Each of its items is there.
            Event::Chunk { .. } => Ok(()),
            Event::Item {
                call,
                index,
                error,
                submitted,
                attempt,
                argument_bytes,
                run,
                at,
            } => {
                let worker = run.as_ref().and_then(|run| run.worker.as_ref());
                let pid = match worker {
                    Some(worker) => self.pid(line, worker)?,
                    None => std::process::id(),
                };
                let number = worker.map_or(0, WorkerInfo::number);
                line.push_str("{\"name\":\"");
                escape(line, call);
                write!(line, "\",\"cat\":\"task\",\"pid\":{pid},\"tid\":{number},")?;
                let begun = run
                    .as_ref()
                    .map(|run| &run.measure)
                    .filter(|it| it.begun != 0);
                match begun {
                    Some(measure) => {
                        let took = measure.decode + measure.run + measure.encode;
                        let (ts, took) = (self.time(measure.begun), Micros(took));
                        write!(line, "\"ph\":\"X\",\"ts\":{ts},\"dur\":{took}")?;
                    }
                    None => write!(line, "\"ph\":\"i\",\"s\":\"t\",\"ts\":{}", self.time(*at))?,
                }
                write!(line, ",\"args\":{{\"index\":{index},\"outcome\":\"")?;
                match error {
                    None => line.push_str("Succeeded"),
                    Some(error) => write!(line, "{:?}", error.kind())?,
                }
                write!(
                    line,
                    "\",\"attempt\":{attempt},\"argument_bytes\":{argument_bytes}"
                )?;
                if let (Some(measure), 1..) = (begun, *submitted) {
                    let wait = Micros(measure.begun.saturating_sub(*submitted));
                    write!(line, ",\"queued_us\":{wait}")?;
                }
                if let Some(run) = run.as_ref().filter(|run| run.is_whole) {
                    let measure = &run.measure;
                    write!(
                        line,
                        ",\"result_bytes\":{},\"decode_us\":{},\"run_us\":{},\"encode_us\":{},\
                         \"cpu_us\":{},\"peak_rss\":{}",
                        run.result_bytes,
                        Micros(measure.decode),
                        Micros(measure.run),
                        Micros(measure.encode),
                        Micros(measure.cpu),
                        measure.peak_rss
                    )?;
                }
                line.push_str("}},\n");
                Ok(())
            }
        }
    }

    /// A time since the trace's beginning; what was before is at the beginning.
    fn time(&self, ns: u64) -> Micros {
        Micros(ns.saturating_sub(self.start))
    }
}

/// Nanoseconds, written as microseconds, which is what the format counts in.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Appends what stands between the quotes of a JSON string.
fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                line.push('\\');
                line.push(c);
            }
            c if c < ' ' => {
                let _ = write!(line, "\\u{:04x}", c as u32);
            }
            c => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::task_error::TaskErrorKind;
    use crate::shm::item_timing::ItemTiming;

    fn written(event: &Event) -> String {
        let mut text = Vec::new();
        let mut writer = Writer::new(&mut text, 1000);
        writer.event(event).expect("memory can be written");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn an_item_is_one_complete_event() {
        let run = Run {
            worker: Some(WorkerInfo::new(3, 1, 77)),
            measure: ItemTiming {
                begun: 3500,
                decode: 100,
                run: 2000,
                encode: 300,
                cpu: 1,
                peak_rss: 4096,
            },
            is_whole: true,
            result_bytes: 8,
        };
        let event = Event::Item {
            call: "f::<\"x\\y\">".into(),
            index: 4,
            error: Some(TaskError::new(TaskErrorKind::Panicked, "no")),
            submitted: 2000,
            attempt: 1,
            argument_bytes: 16,
            run: Some(run),
            at: 9000,
        };
        assert_eq!(
            written(&event),
            "{\"name\":\"f::<\\\"x\\\\y\\\">\",\"cat\":\"task\",\"pid\":77,\"tid\":3,\"ph\":\"X\",\
             \"ts\":2.500,\"dur\":2.400,\"args\":{\"index\":4,\"outcome\":\"Panicked\",\"attempt\":1,\
             \"argument_bytes\":16,\"queued_us\":1.500,\"result_bytes\":8,\"decode_us\":0.100,\
             \"run_us\":2.000,\"encode_us\":0.300,\"cpu_us\":0.001,\"peak_rss\":4096}},\n"
        );
    }

    #[test]
    fn what_was_never_begun_is_a_point() {
        let event = Event::Item {
            call: "f".into(),
            index: 0,
            error: Some(TaskError::new(TaskErrorKind::Closed, "no")),
            submitted: 0,
            attempt: 0,
            argument_bytes: 0,
            run: None,
            at: 9000,
        };
        let line = written(&event);
        assert!(
            line.contains("\"ph\":\"i\"") && line.contains("\"ts\":8.000"),
            "{line}"
        );
    }

    #[test]
    fn a_worker_of_another_machine_is_a_process_of_its_own() {
        let of = |machine: &str| Event::Item {
            call: "f".into(),
            index: 0,
            error: None,
            submitted: 0,
            attempt: 0,
            argument_bytes: 0,
            run: Some(Run {
                worker: Some(WorkerInfo::new(1, 0, 77).with_machine(machine)),
                measure: ItemTiming::default(),
                is_whole: false,
                result_bytes: 0,
            }),
            at: 9000,
        };
        let mut text = Vec::new();
        let mut writer = Writer::new(&mut text, 1000);
        for machine in ["a", "b", "a"] {
            writer.event(&of(machine)).expect("memory can be written");
        }
        let text = String::from_utf8(text).expect("text");
        let named = |pid: u32, name: &str| {
            let name = format!("\"pid\":{pid},\"tid\":1,\"args\":{{\"name\":\"{name}\"");
            text.matches(&name).count()
        };
        assert_eq!(named(FIRST_REMOTE, "PoolWorker-1 (pid 77) on a"), 2);
        assert_eq!(named(FIRST_REMOTE + 1, "PoolWorker-1 (pid 77) on b"), 2);
        let items = |pid: u32| text.matches(&format!("\"task\",\"pid\":{pid},")).count();
        assert_eq!((items(FIRST_REMOTE), items(FIRST_REMOTE + 1)), (2, 1));
    }
}
