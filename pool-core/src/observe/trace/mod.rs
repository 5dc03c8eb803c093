//! Traces: what every worker did, as a file for Chrome, Perfetto and `procpool timeline`.

mod event;

use std::io::{self, Write};
use std::sync::Arc;

pub(crate) use self::event::Event;
use self::event::Writer;
use super::event_queue::{EventQueue, Taken};
use crate::sync::thread::{self, JoinHandle};
use crate::sys;

/// Writes what the queue gets, in a thread, until it is finished.
pub(crate) fn write_to(
    queue: Arc<EventQueue>,
    file: impl Write + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let writer = Writer::new(file, queue.start);
    thread::Builder::new()
        .name("procpool-trace".into())
        .spawn(move || sys::without_size_signal(|| write(&queue, writer)))
}

/// Without the queue's lock, so that a thread that has something to report never waits for a disk.
fn write(queue: &EventQueue, mut writer: Writer<impl Write>) -> io::Result<()> {
    let mut taken = Taken::default();
    let mut written = writer.begin();
    loop {
        queue.take(&mut taken, None);
        for event in taken.events.drain(..) {
            written = written.and_then(|()| writer.event(&event));
        }
        if taken.dropped > 0 {
            written = written.and_then(|()| writer.dropped(taken.dropped, sys::now_ns()));
        }
        if taken.is_last {
            return written.and_then(|()| writer.end(sys::now_ns()));
        }
        // So that a program that is killed leaves what there was.
        written = written.and_then(|()| writer.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::super::event_queue::MAX_EVENTS;
    use super::*;
    use crate::observe::worker_exit::ExitReason;
    use crate::process::worker_info::WorkerInfo;

    #[test]
    fn memory_is_bounded_and_what_is_dropped_is_counted() {
        let queue = EventQueue::default();
        let event = || Event::WorkerEnded {
            worker: WorkerInfo::new(1, 0, 2),
            reason: ExitReason::Crashed,
            at: 0,
        };
        queue.push((0..MAX_EVENTS + 7).map(|_| event()));
        queue.finish();
        queue.push([event()]);
        let mut text = Vec::new();
        write(&queue, Writer::new(&mut text, 0)).expect("memory can be written");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("7 events were dropped"), "{}", &text[..200]);
        assert_eq!(text.matches("\"ended: ").count(), MAX_EVENTS);
        assert!(text.starts_with("[\n") && text.ends_with("\n]\n"));
    }
}
