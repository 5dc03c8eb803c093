//! Events and spans as bytes.
//!
//! A frame is a length of two bytes and as many bytes of what is [`Said`]. It is no longer than
//! what a pipe takes at once or not at all, so that the frames of several threads and processes do
//! not mix, and none is there in part.

use serde::{Deserialize, Serialize};

use super::own_spans;
use crate::codec;

/// The kernel's `PIPE_BUF`.
pub(super) const MAX_FRAME: usize = 4096;
const HEAD: usize = 2;

/// The longest message.
pub(super) const MAX_MESSAGE: usize = 2048;
/// The longest other text.
pub(super) const MAX_TEXT: usize = 256;
/// How many fields of an event or a span, and how many spans, are forwarded at most.
pub(super) const MAX_FIELDS: usize = 24;

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Said {
    Event(Record),
    /// A span begins. From here on, only if spans are forwarded.
    Opened(Opened),
    /// Fields of a span have these values now.
    Recorded(u64, Vec<(String, Value)>),
    /// It has ended.
    Closed(u64),
}

/// A span that begins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// What it is named by, as long as it is open.
    pub(super) id: u64,
    /// The span that it is in.
    pub(super) parent: Option<u64>,
    /// The number of the item that was running, among all of the worker's.
    pub(super) item: Option<u64>,
    pub(super) level: u8,
    pub(super) name: String,
    pub(super) target: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    /// All of its fields, those without a value too: they may have one later.
    pub(super) fields: Vec<(String, Option<Value>)>,
}

/// An event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// 1 for an error to 5 for a trace.
    pub(super) level: u8,
    /// Something was left out, for it was too long.
    pub(super) is_cut: bool,
    pub(super) target: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    /// The name of the function that was running.
    pub(super) task: Option<String>,
    /// The number of the item that was running, among all of the worker's.
    pub(super) item: Option<u64>,
    pub(super) fields: Vec<(String, Value)>,
    /// The spans that it was in, from the outermost on: where spans are not forwarded.
    pub(super) spans: Vec<SpanRecord>,
    /// The innermost one, where they are.
    pub(super) span: Option<u64>,
}

/// A span.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SpanRecord {
    pub(super) name: String,
    pub(super) fields: Vec<(String, Value)>,
}

/// What a field is set to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Value {
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
}

/// Shortens a text to this many bytes.
pub(super) fn shorten(text: &mut String, most: usize) -> bool {
    let is_long = text.len() > most;
    if is_long {
        let mut end = most;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    is_long
}

impl Said {
    /// The number of the item that it belongs to, by the worker's word.
    pub(crate) fn item(&self) -> Option<u64> {
        match self {
            Self::Event(record) => record.item,
            Self::Opened(opened) => opened.item,
            Self::Recorded(..) | Self::Closed(_) => None,
        }
    }

    /// The frame. What does not fit is left out: see [`Record::shorten`].
    pub(super) fn into_frame(mut self) -> Option<Vec<u8>> {
        for step in 0..4 {
            let mut frame = vec![0; HEAD];
            codec::encode(&self, &mut frame).ok()?;
            if frame.len() <= MAX_FRAME {
                let len = (frame.len() - HEAD) as u16;
                frame[..HEAD].copy_from_slice(&len.to_le_bytes());
                return Some(frame);
            }
            match &mut self {
                Self::Event(record) => record.shorten(step),
                Self::Opened(opened) => opened.fields.truncate(4 >> step),
                Self::Recorded(_, fields) => fields.truncate(4 >> step),
                Self::Closed(_) => return None,
            }
        }
        None
    }
}

impl Opened {
    /// If it is the span of an item, it is named as the item's call is, and says which item of it.
    pub(super) fn say_which_item(&mut self, call: Option<&str>, index: Option<usize>) {
        if self.target != own_spans::TARGET || self.name != own_spans::item().name() {
            return;
        }
        for (name, value) in &mut self.fields {
            match (&**name, call, index) {
                ("otel.name", Some(call), _) => *value = Some(Value::Text(call.to_owned())),
                ("procpool.item.index", _, Some(index)) => *value = Some(Value::U64(index as u64)),
                _ => {}
            }
        }
    }
}

impl Record {
    /// Leaves out first what the spans' fields are, then the event's fields but for its message,
    /// then the spans.
    fn shorten(&mut self, step: u32) {
        self.is_cut = true;
        match step {
            0 => self.spans.iter_mut().for_each(|span| span.fields.clear()),
            1 => self.fields.truncate(1),
            _ => self.spans.clear(),
        }
    }
}

/// Finds the records in what a worker has written, which may be anything.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Less than a frame.
    partial: Vec<u8>,
    is_broken: bool,
}

impl Frames {
    /// Takes the next bytes, and gives what they complete to `said`, with the bytes that each
    /// took. After rubbish there are no more: nobody knows where the next one would
    /// begin.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut said: impl FnMut(Said, usize)) {
        if self.is_broken {
            return;
        }
        let joined;
        let mut rest = if self.partial.is_empty() {
            bytes
        } else {
            joined = [&std::mem::take(&mut self.partial), bytes].concat();
            &joined
        };
        while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
            let len = usize::from(u16::from_le_bytes(*head));
            if len > MAX_FRAME - HEAD {
                self.is_broken = true;
                return;
            }
            let Some((body, after)) = after.split_at_checked(len) else {
                break;
            };
            let Ok(found) = codec::decode::<Said>(body) else {
                self.is_broken = true;
                return;
            };
            said(found, HEAD + len);
            rest = after;
        }
        self.partial = rest.to_vec();
    }

    /// How many bytes are kept for what is only partly there.
    #[cfg(any(fuzzing, test))]
    pub(super) fn kept(&self) -> usize {
        self.partial.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Frames, MAX_FIELDS, MAX_FRAME, MAX_MESSAGE, MAX_TEXT, Opened, Record, Said, SpanRecord,
        Value,
    };
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::I64),
            any::<u64>().prop_map(Value::U64),
            (-1e9..1e9).prop_map(Value::F64),
            "[ -~é]{0,100}".prop_map(Value::Text),
        ]
    }

    fn fields() -> impl Strategy<Value = Vec<(String, Value)>> {
        vec(("[a-z.]{1,20}", value()), 0..6)
    }

    fn record() -> impl Strategy<Value = Record> {
        let spans = vec(
            ("[a-z]{1,20}", fields()).prop_map(|(name, fields)| SpanRecord { name, fields }),
            0..4,
        );
        (
            1_u8..=5,
            "[a-z:]{0,40}",
            any::<Option<u32>>(),
            fields(),
            spans,
        )
            .prop_map(|(level, target, line, fields, spans)| Record {
                level,
                target,
                file: line.map(|_| "src/main.rs".to_owned()),
                line,
                fields,
                spans,
                ..Record::default()
            })
    }

    fn found(bytes: &[u8], piece: usize) -> Vec<Record> {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            frames.feed(piece, |said, _| {
                if let Said::Event(record) = said {
                    found.push(record);
                }
            });
            assert!(frames.kept() < MAX_FRAME);
        }
        found
    }

    proptest! {
        #[test]
        fn records_come_back_in_any_pieces(records in vec(record(), 0..8), piece in 1_usize..9000) {
            let frames: Vec<Vec<u8>> = records
                .iter()
                .map(|record| Said::Event(record.clone()).into_frame().expect("it is small"))
                .collect();
            prop_assert!(frames.iter().all(|frame| frame.len() <= MAX_FRAME));
            let came: Vec<Record> = found(&frames.concat(), piece);
            for (came, sent) in came.iter().zip(&records) {
                prop_assert!(came == sent || came.is_cut);
            }
            prop_assert_eq!(came.len(), records.len());
        }

        #[test]
        fn rubbish_is_survived(bytes: Vec<u8>, piece in 1_usize..100) {
            found(&bytes, piece);
        }

        #[test]
        fn a_damaged_frame_is_survived(record in record(), at: prop::sample::Index, byte: u8) {
            let mut frame = Said::Event(record).into_frame().expect("it is small");
            let at = at.index(frame.len());
            frame[at] = byte;
            prop_assert!(found(&frame, 4096).len() <= 1);
            // Nor does it matter what follows.
            found(&[frame, vec![byte; 100_000]].concat(), 4096);
        }
    }

    #[test]
    fn the_largest_record_fits_without_what_is_left_out() {
        let field = ("n".repeat(MAX_TEXT), Value::Text("v".repeat(MAX_TEXT)));
        let mut fields = vec![field; MAX_FIELDS];
        fields[0].1 = Value::Text("m".repeat(MAX_MESSAGE));
        let text = || "t".repeat(MAX_TEXT);
        let span = SpanRecord {
            name: text(),
            fields: fields.clone(),
        };
        let record = Record {
            target: text(),
            file: Some(text()),
            line: Some(1),
            task: Some(text()),
            fields,
            spans: vec![span; MAX_FIELDS],
            ..Record::default()
        };
        let frame = Said::Event(record.clone()).into_frame().expect("it fits");
        let came = &found(&frame, 100)[0];
        assert!(came.is_cut);
        assert_eq!(came.fields[0], record.fields[0]);
    }

    #[test]
    fn the_largest_span_fits_without_what_is_left_out() {
        let text = || "t".repeat(MAX_TEXT);
        let value = Value::Text(text());
        let opened = Opened {
            name: text(),
            target: text(),
            file: Some(text()),
            fields: vec![(text(), Some(value.clone())); MAX_FIELDS],
            ..Opened::default()
        };
        let recorded = Said::Recorded(1, vec![(text(), value); MAX_FIELDS]);
        for said in [Said::Opened(opened), recorded, Said::Closed(u64::MAX)] {
            let frame = said.into_frame().expect("it fits");
            let mut count = 0;
            Frames::default().feed(&frame, |_, _| count += 1);
            assert_eq!(count, 1);
        }
    }
}
