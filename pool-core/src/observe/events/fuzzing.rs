//! A worker that writes anything into the pipe of its events.

use std::sync::OnceLock;

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record as SpanValues};
use tracing_core::{Dispatch, Event, Metadata, Subscriber, dispatcher};

use super::frame::{Frames, MAX_FRAME, Said, Value};
use super::replay::{Audience, WorkerSpans};
use crate::codec;
use crate::fuzzing::Input;
use crate::process::worker_info::WorkerInfo;

/// Reads an input behind its first byte as a worker's events, in pieces as long as that says, and
/// replays them to a subscriber.
///
/// # Panics
/// When it matters where the pieces end, when more is kept than a frame, or when an event takes
/// much more memory than its bytes.
pub fn events(input: &[u8]) {
    let mut input = Input(input);
    let piece = 1 + usize::from(input.byte()) * 16;
    let bytes = input.0;
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, piece), whole, "in pieces it is the same");
}

/// The events, encoded again: a number need not be equal to itself.
fn read(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let worker = WorkerInfo::new(1, 0, 1);
    let (mut frames, mut found, mut told) = (Frames::default(), Vec::new(), 0);
    let mut spans = WorkerSpans::default();
    for piece in bytes.chunks(piece) {
        frames.feed(piece, |said, size| {
            told += size;
            assert!(
                memory(&said) <= 4 * size,
                "{size} bytes are {} bytes of memory: {said:?}",
                memory(&said)
            );
            let mut again = Vec::new();
            codec::encode(&said, &mut again).expect("what was decoded can be encoded");
            assert_eq!(again.len() + 2, size, "an event has one form");
            found.push(again);
            audience().tell(&worker, said, None, &mut spans);
        });
        assert!(frames.kept() < MAX_FRAME);
    }
    Audience::end_spans(&mut spans);
    assert!(told + frames.kept() <= bytes.len());
    found
}

/// What something that was said has in memory of its own.
fn memory(said: &Said) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
    let value = |value: &Value| match value {
        Value::Text(text) => text.capacity(),
        _ => 0,
    };
    let fields = |fields: &Vec<(String, Value)>| {
        let values = fields.iter().map(|(name, it)| name.capacity() + value(it));
        values.sum::<usize>() + fields.capacity() * size_of::<(String, Value)>()
    };
    match said {
        Said::Event(record) => {
            let spans = record.spans.iter();
            record.target.capacity()
                + text(&record.file)
                + text(&record.task)
                + fields(&record.fields)
                + size_of_val(&record.spans[..])
                + spans
                    .map(|span| span.name.capacity() + fields(&span.fields))
                    .sum::<usize>()
        }
        Said::Opened(opened) => {
            let values = opened
                .fields
                .iter()
                .map(|(name, it)| name.capacity() + it.as_ref().map_or(0, value));
            opened.name.capacity()
                + opened.target.capacity()
                + text(&opened.file)
                + values.sum::<usize>()
                + opened.fields.capacity() * size_of::<(String, Option<Value>)>()
        }
        Said::Recorded(_, all) => fields(all),
        Said::Closed(_) => 0,
    }
}

fn audience() -> &'static Audience {
    static AUDIENCE: OnceLock<Audience> = OnceLock::new();
    AUDIENCE.get_or_init(|| dispatcher::with_default(&Dispatch::new(Reader), Audience::current))
}

/// Looks at all that there is of an event.
struct Reader;

impl Visit for Reader {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        std::hint::black_box(format!("{field}: {value:?}"));
    }
}

impl Subscriber for Reader {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        std::hint::black_box(format!("{metadata:?}"));
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        attributes.record(&mut Self);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &SpanValues<'_>) {
        values.record(&mut Self);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Self);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
