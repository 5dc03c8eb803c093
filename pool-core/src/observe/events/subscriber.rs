//! The worker's side.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_core::dispatcher::{self, DefaultGuard};
use tracing_core::field::{Field, Visit};
use tracing_core::metadata::LevelFilter;
use tracing_core::span::{Attributes, Current, Id};
use tracing_core::{Dispatch, Event, Metadata, Subscriber};

use super::frame::{
    MAX_FIELDS, MAX_MESSAGE, MAX_TEXT, Opened, Record, Said, SpanRecord, Value, shorten,
};
use super::level::{SPANS, filter_from_number, number_of};
use super::own_spans;
use crate::shm::region::Region;
use crate::sys::fd::OwnedFd;

/// Where this process's events go, until [`forward`] takes it.
static CHANNEL: Mutex<Option<OwnedFd>> = Mutex::new(None);

thread_local! {
    /// The spans that this thread is in.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// The name of the function whose items this thread runs.
    static TASK: Cell<Option<&'static str>> = const { Cell::new(None) };
    /// This is the thread that runs the worker's items.
    static RUNS_ITEMS: Cell<bool> = const { Cell::new(false) };
    /// And each of them is to be a span.
    static WANTS_SPANS: Cell<bool> = const { Cell::new(false) };
    /// And what it runs now are such items, and no preparation or finalizer.
    static HAS_SPANS: Cell<bool> = const { Cell::new(false) };
}

/// The pipe to write events to.
pub(crate) fn set_channel(channel: OwnedFd) {
    *CHANNEL.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel);
}

/// From now on this thread runs items of that function.
#[inline]
pub(crate) fn begin_task(name: &'static str) {
    TASK.set(Some(name));
}

/// From now on this thread runs items of a call, or else what comes before or after all of them.
#[inline]
pub(crate) fn begin_frame(has_items: bool) {
    HAS_SPANS.set(has_items && WANTS_SPANS.get());
}

/// If there is a pipe, this thread's events go there as long as the guard lives; and those of other
/// threads, unless the process has a subscriber for them.
///
/// A forked worker has inherited its parent's global subscriber, which cannot be replaced. That of
/// a thread comes before it.
pub(crate) fn forward(region: &Arc<Region>) -> Option<DefaultGuard> {
    let mut channel = CHANNEL.lock().unwrap_or_else(PoisonError::into_inner);
    let advice = region.words().advice.max_level.load(Ordering::Relaxed);
    let has_spans = advice & SPANS != 0;
    let forwarder = Forwarder {
        channel: channel.take()?,
        level: filter_from_number(advice & !SPANS),
        has_spans,
        region: region.clone(),
        next_span: AtomicU64::new(1),
        spans: Mutex::default(),
    };
    let dispatch = Dispatch::new(forwarder);
    RUNS_ITEMS.set(true);
    WANTS_SPANS.set(has_spans);
    let _ = dispatcher::set_global_default(dispatch.clone());
    Some(dispatcher::set_default(&dispatch))
}

/// Writes events into the pipe.
struct Forwarder {
    channel: OwnedFd,
    /// What the parent wants to know.
    level: LevelFilter,
    /// And whether it wants to know of spans that have no events.
    has_spans: bool,
    region: Arc<Region>,
    next_span: AtomicU64,
    spans: Mutex<HashMap<u64, Span>>,
}

struct Span {
    metadata: &'static Metadata<'static>,
    parent: Option<u64>,
    /// The number of the item that it is of.
    item: Option<u64>,
    /// Handles of it.
    handles: usize,
    record: SpanRecord,
}

impl Forwarder {
    fn spans(&self) -> MutexGuard<'_, HashMap<u64, Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spans from the outermost down to this one.
    fn spans_down_to(&self, span: Option<u64>) -> Vec<SpanRecord> {
        let spans = self.spans();
        let mut found = Vec::new();
        let mut next = span;
        while let Some(span) = next.and_then(|id| spans.get(&id))
            && found.len() < MAX_FIELDS
        {
            found.push(span.record.clone());
            next = span.parent;
        }
        found.reverse();
        found
    }

    /// The number of the item that this thread runs, or, if it runs none, of the one that this span
    /// is of: a task may have started the thread.
    fn item(&self, span: Option<u64>) -> Option<u64> {
        if RUNS_ITEMS.try_with(Cell::get).unwrap_or(false) {
            return Some(self.region.items_begun());
        }
        self.spans().get(&span?)?.item
    }

    fn write(&self, said: Said) {
        let frame = said.into_frame();
        // Full, or the parent has closed it: whichever it is, nobody waits.
        let is_written =
            frame.is_some_and(|frame| crate::sys::write(&self.channel, &frame).is_ok());
        if !is_written {
            let dropped = &self.region.words().progress.events_dropped;
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn entered() -> Option<u64> {
    // A thread that is ending is in none.
    ENTERED
        .try_with(|entered| entered.borrow().last().copied())
        .ok()
        .flatten()
}

impl Subscriber for Forwarder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let parent = if attributes.is_root() {
            None
        } else {
            attributes.parent().map(Id::into_u64).or_else(entered)
        };
        let mut name = attributes.metadata().name().to_owned();
        shorten(&mut name, MAX_TEXT);
        let span = Span {
            metadata: attributes.metadata(),
            parent,
            item: self.item(parent),
            handles: 1,
            record: SpanRecord {
                name,
                fields: fields.all,
            },
        };
        let id = self.next_span.fetch_add(1, Ordering::Relaxed);
        if self.has_spans {
            self.write(Said::Opened(opened(id, attributes.metadata(), &span)));
        }
        let mut spans = self.spans();
        if let Some(parent) = parent.and_then(|parent| spans.get_mut(&parent)) {
            parent.handles += 1;
        }
        spans.insert(id, span);
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &tracing_core::span::Record<'_>) {
        if let Some(span) = self.spans().get_mut(&span.into_u64()) {
            let mut fields = Fields {
                all: std::mem::take(&mut span.record.fields),
                ..Fields::default()
            };
            values.record(&mut fields);
            span.record.fields = fields.all;
        }
        if self.has_spans {
            let mut fields = Fields::default();
            values.record(&mut fields);
            self.write(Said::Recorded(span.into_u64(), fields.all));
        }
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let span = if event.is_root() {
            None
        } else {
            event.parent().map(Id::into_u64).or_else(entered)
        };
        let text = |text: &str| {
            let mut text = text.to_owned();
            shorten(&mut text, MAX_TEXT);
            text
        };
        let mut record = Record {
            level: number_of(*metadata.level()),
            is_cut: fields.is_cut,
            target: text(metadata.target()),
            file: metadata.file().map(text),
            line: metadata.line(),
            task: TASK.try_with(Cell::get).ok().flatten().map(text),
            item: self.item(span),
            spans: match self.has_spans {
                true => Vec::new(),
                false => self.spans_down_to(span),
            },
            span: span.filter(|_| self.has_spans),
            fields: fields.all,
        };
        if metadata.target() == "log" {
            record.say_where_log_was();
        }
        // The message is what is left when there is room for nothing else.
        if let Some(message) = record.fields.iter().position(|field| field.0 == "message") {
            record.fields.swap(0, message);
        }
        self.write(Said::Event(record));
    }

    fn enter(&self, span: &Id) {
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        let _ = ENTERED.try_with(|entered| {
            let entered = &mut *entered.borrow_mut();
            if let Some(at) = entered.iter().rposition(|id| *id == span.into_u64()) {
                entered.remove(at);
            }
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        if let Some(span) = self.spans().get_mut(&span.into_u64()) {
            span.handles += 1;
        }
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let mut spans = self.spans();
        let mut next = Some(span.into_u64());
        let mut is_closed = false;
        let mut closed = Vec::new();
        // A span keeps its parent.
        while let Some(id) = next.take()
            && let Some(span) = spans.get_mut(&id)
        {
            span.handles -= 1;
            if span.handles == 0 {
                is_closed = true;
                closed.push(id);
                next = spans.remove(&id).and_then(|span| span.parent);
            }
        }
        drop(spans);
        if self.has_spans {
            for id in closed {
                self.write(Said::Closed(id));
            }
        }
        is_closed
    }

    fn current_span(&self) -> Current {
        let found = entered().and_then(|id| Some((id, self.spans().get(&id)?.metadata)));
        match found {
            Some((id, metadata)) => Current::new(Id::from_u64(id), metadata),
            None => Current::none(),
        }
    }
}

/// What the parent is told of a span that begins.
fn opened(id: u64, metadata: &Metadata<'_>, span: &Span) -> Opened {
    let text = |text: &str| {
        let mut text = text.to_owned();
        shorten(&mut text, MAX_TEXT);
        text
    };
    let value_of = |name: &str| {
        let found = span.record.fields.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.clone())
    };
    let names = metadata.fields().iter().map(|field| text(field.name()));
    Opened {
        id,
        parent: span.parent,
        item: span.item,
        level: number_of(*metadata.level()),
        name: span.record.name.clone(),
        target: text(metadata.target()),
        file: metadata.file().map(text),
        line: metadata.line(),
        fields: names
            .take(MAX_FIELDS)
            .map(|name| (name.clone(), value_of(&name)))
            .collect(),
    }
}

/// The span of an item that this thread runs, until it is dropped; nothing where spans are not
/// forwarded.
#[inline]
pub(crate) fn item_span() -> Option<ItemSpan> {
    HAS_SPANS.get().then(ItemSpan::open)?
}

/// See [`item_span`].
pub(crate) struct ItemSpan {
    dispatch: Dispatch,
    id: Id,
}

/// Whether items are spans here, so that none may pass unseen.
#[inline]
pub(crate) fn has_item_spans() -> bool {
    HAS_SPANS.get()
}

impl ItemSpan {
    #[cold]
    fn open() -> Option<Self> {
        let name = TASK.get().unwrap_or("task");
        let dispatch = dispatcher::get_default(Clone::clone);
        let metadata = own_spans::item();
        if !dispatch.enabled(metadata) {
            return None;
        }
        let fields = metadata.fields();
        let kind = "consumer";
        let pid = crate::sys::own_pid();
        let values: [Option<&dyn tracing_core::field::Value>; 8] = [
            Some(&name),
            Some(&kind),
            Some(&name),
            Some(&pid),
            None,
            None,
            None,
            None,
        ];
        let values = fields.value_set_all(&values);
        let id = dispatch.new_span(&Attributes::new_root(metadata, &values));
        dispatch.enter(&id);
        Some(Self { dispatch, id })
    }
}

impl Drop for ItemSpan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let metadata = own_spans::item();
            let values: [Option<&dyn tracing_core::field::Value>; 8] = [
                None,
                None,
                None,
                None,
                None,
                Some(&"ERROR"),
                Some(&"the task panicked"),
                Some(&"panic"),
            ];
            let values = metadata.fields().value_set_all(&values);
            self.dispatch
                .record(&self.id, &tracing_core::span::Record::new(&values));
        }
        self.dispatch.exit(&self.id);
        self.dispatch.try_close(self.id.clone());
    }
}

impl Record {
    /// The bridge from `log` makes events of one target, whose fields say what the record's were.
    fn say_where_log_was(&mut self) {
        self.fields.retain(|(name, value)| {
            match (name.as_str(), value) {
                ("log.target", Value::Text(target)) => self.target.clone_from(target),
                ("log.file", Value::Text(file)) => self.file = Some(file.clone()),
                ("log.line", Value::U64(line)) => self.line = u32::try_from(*line).ok(),
                ("log.module_path", _) => {}
                _ => return true,
            }
            false
        });
    }
}

/// Fields as they are recorded.
#[derive(Default)]
struct Fields {
    all: Vec<(String, Value)>,
    is_cut: bool,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        let mut name = field.name().to_owned();
        shorten(&mut name, MAX_TEXT);
        let has_room = self.all.len() < MAX_FIELDS || name == "message";
        match self.all.iter_mut().find(|other| other.0 == name) {
            Some(other) => other.1 = value,
            None if has_room => self.all.push((name, value)),
            None => self.is_cut = true,
        }
    }

    fn set_text(&mut self, field: &Field, mut text: String) {
        let is_message = field.name() == "message";
        let most = if is_message { MAX_MESSAGE } else { MAX_TEXT };
        self.is_cut |= shorten(&mut text, most);
        self.set(field, Value::Text(text));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::I64(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::U64(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::F64(value));
    }
}
