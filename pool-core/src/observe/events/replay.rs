//! The parent's side.

use std::collections::HashMap;
use std::fmt::{self, Write};

use tracing_core::dispatcher::{self, Dispatch};
use tracing_core::field;
use tracing_core::metadata::LevelFilter;
use tracing_core::span::{self, Attributes, Id};
use tracing_core::subscriber::NoSubscriber;
use tracing_core::{Event, Level, Metadata};

use super::call_span::{OpenSpan, Origin};
use super::callsite::{Place, Site};
use super::frame::{Opened, Record, Said, SpanRecord, Value};
use super::level::{SPANS, filter_from_number, number_of};
use super::own_spans;
use crate::process::worker_info::WorkerInfo;

/// The target of events about the forwarding itself.
const TARGET: &str = "procpool::worker";

/// The subscriber that a pool's events go to.
#[derive(Clone)]
pub(crate) struct Audience(Dispatch);

/// Spans of a worker that are open here, by their names there.
#[derive(Default)]
pub(crate) struct WorkerSpans(HashMap<u64, OpenSpan>);

/// More than these a worker cannot have open: those beyond are not seen.
const MAX_OPEN: usize = 1024;

impl Audience {
    /// The subscriber of the current thread.
    pub(crate) fn current() -> Self {
        Self(dispatcher::get_default(Clone::clone))
    }

    /// The most detailed level that any subscriber of this process wants, as a number, and whether
    /// it wants spans.
    pub(crate) fn max_level(has_spans: bool) -> u32 {
        let level = LevelFilter::current().into_level();
        let number = level.map_or(0, |level| u32::from(number_of(level)));
        number | if has_spans { SPANS } else { 0 }
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

    /// The span of a call that this thread makes, in the one that it is in. `None`: nobody wants to
    /// know of it.
    pub(crate) fn open_call(&self, name: &str, function: &str) -> Option<OpenSpan> {
        let metadata = own_spans::call();
        let kind = "producer";
        let values: [Option<&dyn field::Value>; 3] = [Some(&name), Some(&kind), Some(&function)];
        let values = metadata.fields().value_set_all(&values);
        let open = |dispatch: &Dispatch| {
            dispatch.enabled(metadata).then(|| {
                let attributes = Attributes::new(metadata, &values);
                OpenSpan::new(dispatch, dispatch.new_span(&attributes), metadata)
            })
        };
        if self.0.is::<NoSubscriber>() {
            dispatcher::get_default(open)
        } else {
            dispatcher::with_default(&self.0, || open(&self.0))
        }
    }

    /// Replays what a worker says. `origin`: the span of the call that it comes from, and the index
    /// of its item in that call.
    pub(crate) fn tell(
        &self,
        worker: &WorkerInfo,
        said: Said,
        origin: Option<(&Origin, usize)>,
        spans: &mut WorkerSpans,
    ) {
        let (origin, index) = origin.unzip();
        match said {
            Said::Event(record) => {
                let parent = record.span.and_then(|span| spans.0.get(&span));
                let parent = parent.map(OpenSpan::parts);
                self.tell_event(worker, record, parent.or_else(|| origin?.span()));
            }
            Said::Opened(mut opened) => {
                let parent = opened.parent.and_then(|span| spans.0.get(&span));
                let parent = parent.map(OpenSpan::parts);
                let id = opened.id;
                opened.say_which_item(origin.and_then(Origin::call_name), index);
                let span = self.open(worker, opened, parent.or_else(|| origin?.span()));
                if let Some(span) = span.filter(|_| spans.0.len() < MAX_OPEN) {
                    // One that was there before is closed: its name is another's now.
                    spans.0.insert(id, span);
                }
            }
            Said::Recorded(id, fields) => {
                if let Some(span) = spans.0.get(&id) {
                    span.record(&fields);
                }
            }
            Said::Closed(id) => drop(spans.0.remove(&id)),
        }
    }

    /// The worker has ended, and with it what was open.
    pub(crate) fn end_spans(spans: &mut WorkerSpans) {
        let failed = [
            ("otel.status_code", "ERROR"),
            ("otel.status_description", "the worker has ended"),
            ("error.type", "WorkerLost"),
        ];
        let failed = failed.map(|(name, text)| (name.to_owned(), Value::Text(text.to_owned())));
        for (_, span) in spans.0.drain() {
            span.record(&failed);
        }
    }

    /// Begins a span of a worker's.
    fn open(
        &self,
        worker: &WorkerInfo,
        opened: Opened,
        parent: Option<(&Dispatch, &Id)>,
    ) -> Option<OpenSpan> {
        let level = filter_from_number(opened.level.into()).into_level()?;
        let mut all = opened.fields;
        all.push(("worker".to_owned(), Some(Value::Text(worker.name()))));
        let place = Place {
            level,
            target: opened.target,
            file: opened.file,
            line: opened.line,
            fields: all.iter().map(|(name, _)| name.clone()).collect(),
            span: Some(opened.name),
        };
        let metadata = Site::metadata_of(place, false)?;
        let values: Vec<Option<&dyn field::Value>> = (all.iter())
            .map(|(_, value)| value.as_ref().map(Value::as_field))
            .collect();
        let values = metadata.fields().value_set_all(&values);
        let open = |dispatch: &Dispatch, parent: Option<Id>| {
            dispatch.enabled(metadata).then(|| {
                let attributes = match parent {
                    Some(parent) => Attributes::child_of(parent, metadata, &values),
                    None => Attributes::new_root(metadata, &values),
                };
                OpenSpan::new(dispatch, dispatch.new_span(&attributes), metadata)
            })
        };
        let (subscriber, parent) = match parent {
            Some((subscriber, span)) => (subscriber, Some(span.clone())),
            None => (&self.0, None),
        };
        if subscriber.is::<NoSubscriber>() {
            dispatcher::get_default(|dispatch| open(dispatch, None))
        } else {
            dispatcher::with_default(subscriber, || open(subscriber, parent))
        }
    }

    fn tell_event(&self, worker: &WorkerInfo, record: Record, parent: Option<(&Dispatch, &Id)>) {
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
            span: _,
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
            span: None,
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
        self.emit(place, &all, false, parent);
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
    fn emit(
        &self,
        place: Place,
        all: &[(String, Value)],
        is_ours: bool,
        parent: Option<(&Dispatch, &Id)>,
    ) {
        let names = |all: &[(String, Value)]| all.iter().map(|field| field.0.clone()).collect();
        let (level, target) = (place.level, place.target.clone());
        let fields = names(all);
        if let Some(metadata) = Site::metadata_of(Place { fields, ..place }, is_ours) {
            return self.emit_with(metadata, all, parent);
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
            self.emit_with(metadata, &all, parent);
        }
    }

    fn emit_with(
        &self,
        metadata: &'static Metadata<'static>,
        all: &[(String, Value)],
        parent: Option<(&Dispatch, &Id)>,
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
                    (None, value) => value.as_field(),
                })
            })
            .collect();
        let values = metadata.fields().value_set_all(&values);
        // A span's name means something to its own subscriber only, which is this one, if there is
        // one.
        let (subscriber, parent) = match parent {
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
            span: None,
        }
    }
}

impl Value {
    fn as_field(&self) -> &dyn field::Value {
        match self {
            Self::Text(text) => text,
            Self::Bool(value) => value,
            Self::I64(value) => value,
            Self::U64(value) => value,
            Self::F64(value) => value,
        }
    }
}

impl OpenSpan {
    /// Sets some of its fields, as far as it has these.
    fn record(&self, fields: &[(String, Value)]) {
        let all = self.metadata.map(|metadata| metadata.fields());
        let Some(all) = all else { return };
        let values: Vec<Option<&dyn field::Value>> = (all.iter())
            .map(|field| {
                let found = fields.iter().find(|(name, _)| name == field.name());
                found.map(|(_, value)| value.as_field())
            })
            .collect();
        let values = all.value_set_all(&values);
        let (dispatch, id) = self.parts();
        dispatcher::with_default(dispatch, || {
            dispatch.record(id, &span::Record::new(&values));
        });
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
