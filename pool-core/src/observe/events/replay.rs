//! The parent's side.

use std::fmt::{self, Write};

use tracing_core::dispatcher::{self, Dispatch};
use tracing_core::field;
use tracing_core::metadata::LevelFilter;
use tracing_core::span::Id;
use tracing_core::subscriber::NoSubscriber;
use tracing_core::{Event, Level, Metadata};

use super::call_span::{OpenSpan, Origin};
use super::callsite::{Place, Site};
use super::frame::{Record, SpanRecord, Value};
use crate::process::worker_info::WorkerInfo;

/// The target of events about the forwarding itself.
const TARGET: &str = "procpool::worker";

/// The subscriber that a pool's events go to.
#[derive(Clone)]
pub(crate) struct Audience(Dispatch);

impl Audience {
    /// The subscriber of the current thread.
    pub(crate) fn current() -> Self {
        Self(dispatcher::get_default(Clone::clone))
    }

    /// The most detailed level that any subscriber of this process wants, as a number.
    pub(crate) fn max_level() -> u32 {
        LevelFilter::current()
            .into_level()
            .map_or(0, |level| u32::from(number_of(level)))
    }

    /// The span that this thread is in. Where no subscriber was set when the pool was built, that
    /// is one of the thread's own.
    pub(crate) fn current_span(&self) -> Option<OpenSpan> {
        if self.0.is::<NoSubscriber>() {
            dispatcher::get_default(OpenSpan::current)
        } else {
            OpenSpan::current(&self.0)
        }
    }

    /// Replays a worker's event, as one of the span that the call was made in.
    pub(crate) fn tell(&self, worker: &WorkerInfo, record: Record, origin: Option<&Origin>) {
        let Record {
            level,
            is_cut,
            target,
            file,
            line,
            task,
            item: _,
            fields,
            spans,
        } = record;
        let Some(level) = filter_from_number(level.into()).into_level() else {
            return;
        };
        let place = Place {
            level,
            target,
            file,
            line,
            fields: Vec::new(),
        };
        let mut all = fields;
        all.push(("worker".to_owned(), Value::Text(worker.name())));
        all.push(("pid".to_owned(), Value::U64(worker.pid().into())));
        all.extend(task.map(|task| ("task".to_owned(), Value::Text(task))));
        if !spans.is_empty() {
            all.push(("spans".to_owned(), Value::Text(describe(&spans))));
        }
        if is_cut {
            all.push(("cut".to_owned(), Value::Bool(true)));
        }
        self.emit(place, &all, false, origin);
    }

    /// Reports that this many events of a worker were dropped.
    pub(crate) fn tell_dropped(&self, worker: &WorkerInfo, count: u64) {
        let all = [
            (
                "message".to_owned(),
                Value::Text("events were dropped: there were too many at once".to_owned()),
            ),
            ("dropped".to_owned(), Value::U64(count)),
            ("worker".to_owned(), Value::Text(worker.name())),
            ("pid".to_owned(), Value::U64(worker.pid().into())),
        ];
        self.emit(Place::ours(Level::WARN), &all, true, None);
    }

    /// Emits an event of this place, or, if it cannot have metadata of its own, one of ours that
    /// says the same.
    fn emit(&self, place: Place, all: &[(String, Value)], is_ours: bool, origin: Option<&Origin>) {
        let names = |all: &[(String, Value)]| all.iter().map(|field| field.0.clone()).collect();
        let (level, target) = (place.level, place.target.clone());
        let fields = names(all);
        if let Some(metadata) = Site::metadata_of(Place { fields, ..place }, is_ours) {
            return self.emit_with(metadata, all, origin);
        }
        let mut text = String::new();
        for (name, value) in all {
            let _ = match value {
                Value::Text(message) if name == "message" => write!(text, "{message} "),
                value => write!(text, "{name}={value} "),
            };
        }
        let all = [
            (
                "message".to_owned(),
                Value::Text(text.trim_end().to_owned()),
            ),
            ("target".to_owned(), Value::Text(target)),
        ];
        let place = Place {
            fields: names(&all),
            ..Place::ours(level)
        };
        if let Some(metadata) = Site::metadata_of(place, true) {
            self.emit_with(metadata, &all, origin);
        }
    }

    fn emit_with(
        &self,
        metadata: &'static Metadata<'static>,
        all: &[(String, Value)],
        origin: Option<&Origin>,
    ) {
        // A message is shown as it is, other text in quotes.
        let display: Vec<Option<field::DisplayValue<&String>>> = all
            .iter()
            .map(|(name, value)| match value {
                Value::Text(text) if name == "message" => Some(field::display(text)),
                _ => None,
            })
            .collect();
        let values: Vec<Option<&dyn field::Value>> = all
            .iter()
            .zip(&display)
            .map(|((_, value), message)| {
                Some(match (message, value) {
                    (Some(message), _) => message as &dyn field::Value,
                    (None, Value::Text(text)) => text,
                    (None, Value::Bool(value)) => value,
                    (None, Value::I64(value)) => value,
                    (None, Value::U64(value)) => value,
                    (None, Value::F64(value)) => value,
                })
            })
            .collect();
        let values = metadata.fields().value_set_all(&values);
        // A span's name means something to its own subscriber only, which is this one, if there is
        // one.
        let (subscriber, parent) = match origin.and_then(Origin::span) {
            Some((subscriber, span)) => (subscriber, Some(span.clone())),
            None => (&self.0, None),
        };
        let tell = |dispatch: &Dispatch, parent: Option<Id>| {
            if dispatch.enabled(metadata) {
                dispatch.event(&Event::new_child_of(parent, metadata, &values));
            }
        };
        if subscriber.is::<NoSubscriber>() {
            // None was set when the pool was built; there may be one for all by now.
            dispatcher::get_default(|dispatch| tell(dispatch, None));
        } else {
            dispatcher::with_default(subscriber, || tell(subscriber, parent));
        }
    }
}

/// Spans as a text: `load{path="a"}:parse{line=3}`.
fn describe(spans: &[SpanRecord]) -> String {
    let mut text = String::new();
    for (index, span) in spans.iter().enumerate() {
        if index > 0 {
            text.push(':');
        }
        text.push_str(&span.name);
        let mut separator = '{';
        for (name, value) in &span.fields {
            let _ = write!(text, "{separator}{name}={value}");
            separator = ' ';
        }
        if separator == ' ' {
            text.push('}');
        }
    }
    text
}

impl Place {
    /// Of what this crate says itself.
    fn ours(level: Level) -> Self {
        Self {
            level,
            target: TARGET.to_owned(),
            file: None,
            line: None,
            fields: Vec::new(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::I64(value) => value.fmt(f),
            Self::U64(value) => value.fmt(f),
            Self::F64(value) => value.fmt(f),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// 1 for an error to 5 for a trace.
pub(super) fn number_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

pub(super) fn filter_from_number(number: u32) -> LevelFilter {
    match number {
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        5 => LevelFilter::TRACE,
        _ => LevelFilter::OFF,
    }
}
