//! Running the items of one chunk, in the worker.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::take;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::arguments::Emits;
use super::cancel_flag::CancelFlag;
use super::channel::{KEEP_BYTES, WorkerChannel};
use super::emitter::{Emit, Emitter};
use super::initializer;
use super::item_timer::ItemTimer;
use super::refusal::take_refusal;
use super::state;
use crate::broadcast::{Attachments, offer};
use crate::codec::{self, CodecError};
use crate::panic::catch::catch;
use crate::shm::protocol;
use crate::shm::protocol::{Failure, LARGE_BYTES, RecordKind, Stage};
use crate::sys::{self, CpuClock};

/// The items of a frame, as the worker's loop hands them to the function's entry.
pub(crate) struct ChunkRun<'a> {
    pub(super) source: Source<'a>,
}

/// Where a chunk's items come from and where their results go.
pub(super) enum Source<'a> {
    /// A worker's rings.
    WorkerChannel {
        channel: &'a mut WorkerChannel,
        items: u32,
        deadline: bool,
        measured: bool,
    },
    /// Memory of the same process: [`SerialPool`](crate::SerialPool).
    Memory {
        items: &'a [u8],
        measured: bool,
        /// Whether to begin no more items.
        is_cancelled: Option<&'a CancelFlag>,
        /// When to begin no more items either, in nanoseconds.
        deadline: Option<u64>,
        record: &'a mut Record<'a>,
        /// Where the values go that the items emit. `None`: nobody wants them.
        values: Option<&'a dyn TakeValue>,
    },
}

/// Takes the values that an item emits, where items run in threads.
pub(crate) trait TakeValue {
    /// Takes an encoded value, in which there may be handles that mean these, when there is room
    /// for it. `false`: none is wanted any more.
    fn take_value(&self, bytes: &[u8], attachments: Attachments) -> bool;
}

/// Gets the records of items, each with what handles in it mean.
pub(crate) type Record<'a> = dyn FnMut(RecordKind, &[u8], Attachments) + 'a;

impl<'a> ChunkRun<'a> {
    /// Items in the memory of this process; `record` gets each one's result.
    pub(crate) fn in_memory(
        items: &'a [u8],
        measured: bool,
        is_cancelled: Option<&'a CancelFlag>,
        deadline: Option<u64>,
        record: &'a mut Record<'a>,
    ) -> Self {
        Self {
            source: Source::Memory {
                items,
                measured,
                is_cancelled,
                deadline,
                record,
                values: None,
            },
        }
    }

    /// The same of items that emit values: this takes them.
    pub(crate) fn emitting(mut self, to: Option<&'a dyn TakeValue>) -> Self {
        if let Source::Memory { values, .. } = &mut self.source {
            *values = to;
        }
        self
    }

    /// Runs `function` on every item that was not taken back.
    ///
    /// It is monomorphised for each function, so that the loop, the decoding, the call and the
    /// encoding of small items are one piece of straight code.
    pub(crate) fn run_all<F, A, R>(&mut self, function: &F)
    where
        F: Fn(A) -> R,
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        #[cfg(feature = "tracing")]
        crate::observe::events::begin_task(super::name::name_of::<F>());
        self.run_each(&Plain(function));
    }

    /// The same with a function that emits values. An item is how many may be underway, and the
    /// argument.
    pub(crate) fn run_stream<F, A, Y, R, K>(&mut self, function: &F)
    where
        F: Emits<A, Y, R, K>,
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        #[cfg(feature = "tracing")]
        crate::observe::events::begin_task(super::name::name_of::<F>());
        self.run_each::<_, (u32, A), R>(&Emitting::<F, Y, K>(function, PhantomData));
    }

    #[inline(always)]
    fn run_each<T, A, R>(&mut self, task: &T)
    where
        T: Task<A, R>,
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        match &mut self.source {
            Source::WorkerChannel {
                channel,
                items,
                deadline,
                measured,
            } => {
                let mut exchange = OnWire {
                    channel,
                    left: *items,
                    deadline: *deadline,
                    meter: measured.then(|| ItemTimer::new(CpuClock::Process)),
                };
                run(task, &mut exchange);
                let OnWire { channel, left, .. } = exchange;
                channel.skip_items(left);
            }
            Source::Memory {
                items,
                measured,
                is_cancelled,
                deadline,
                record,
                values,
            } => {
                let meter = measured.then(|| ItemTimer::new(CpuClock::Thread));
                let mut exchange = InMemory {
                    items,
                    is_cancelled: *is_cancelled,
                    deadline: *deadline,
                    record: &mut **record,
                    values: *values,
                    meter,
                };
                run(task, &mut exchange);
            }
        }
    }
}

/// What is run on each item.
trait Task<A, R> {
    /// Runs as many of the next items as can be had at once, if argument and result are numbers.
    #[inline(always)]
    fn run_numbers(&self, _exchange: &mut impl Exchange) {}

    fn run(&self, argument: A, exchange: &mut impl Exchange) -> R;
}

/// A function of the argument alone.
struct Plain<'a, F>(&'a F);

impl<F, A, R> Task<A, R> for Plain<'_, F>
where
    F: Fn(A) -> R,
    A: 'static,
    R: 'static,
{
    #[inline(always)]
    fn run_numbers(&self, exchange: &mut impl Exchange) {
        exchange.run_numbers(self.0);
    }

    #[inline(always)]
    fn run(&self, argument: A, _exchange: &mut impl Exchange) -> R {
        (self.0)(argument)
    }
}

/// One that emits values.
struct Emitting<'a, F, Y, K>(&'a F, PhantomData<fn(Y, K)>);

impl<F, A, Y, R, K> Task<(u32, A), R> for Emitting<'_, F, Y, K>
where
    F: Emits<A, Y, R, K>,
{
    fn run(&self, (buffer, argument): (u32, A), exchange: &mut impl Exchange) -> R {
        Emitter::lend(exchange, buffer, |emitter| self.0.call(argument, emitter))
    }
}

/// Where [`run`] has its items from and puts their results.
trait Exchange: Emit {
    /// Begins the next item. `false`: there is none, or it was taken back with all after it.
    fn begin(&mut self) -> bool;

    /// Begins and ends as many of the next items as can be had at once, if argument and result are
    /// numbers.
    #[inline(always)]
    fn run_numbers<A: 'static, R: 'static>(&mut self, _function: &impl Fn(A) -> R) {}

    /// The argument of the item that was begun. Its bytes are not needed after this: their space
    /// can be used while the function runs.
    fn argument<A: DeserializeOwned + 'static>(&mut self) -> Result<A, CodecError>;

    /// The function has returned, and its result is to be encoded.
    fn returned(&mut self);

    /// The encoded result of the item.
    fn put(&mut self, kind: RecordKind, bytes: &[u8]);

    /// A result that is the bulk value which these are the parts of.
    fn put_bulk(&mut self, prefix: [u8; 8], bytes: &[u8]);

    /// The encoded result of the item, in which there are handles that mean these.
    fn put_with(&mut self, bytes: &mut Vec<u8>, attachments: Attachments)
    -> Result<(), CodecError>;
}

fn run<T, A, R>(task: &T, exchange: &mut impl Exchange)
where
    T: Task<A, R>,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    let mut out = SCRATCH.take();
    // What handles in a result mean, which are rare.
    let mut attachments = Attachments::default();
    let stage = Cell::new(Stage::DecodeArgument);
    // Once more for each item that panics, from behind that item: to catch once for many items
    // leaves the values of small ones in registers.
    while let Err(panic) = catch(|| {
        loop {
            stage.set(Stage::Run);
            #[cfg(feature = "tracing")]
            let may_run_numbers = !crate::observe::events::has_item_spans();
            #[cfg(not(feature = "tracing"))]
            let may_run_numbers = true;
            if may_run_numbers {
                task.run_numbers(exchange);
            }
            stage.set(Stage::DecodeArgument);
            if !exchange.begin() {
                break;
            }
            #[cfg(feature = "tracing")]
            let _span = crate::observe::events::item_span();
            let argument = match exchange.argument::<A>() {
                Ok(argument) => argument,
                Err(error) => {
                    fail(exchange, Stage::DecodeArgument, error);
                    continue;
                }
            };
            stage.set(Stage::Run);
            let result = task.run(argument, exchange);
            if let Some(bytes) = codec::number_bytes(&result) {
                exchange.put(RecordKind::Value, bytes);
                continue;
            }
            if let Some((prefix, bytes)) = codec::bulk_parts(&result)
                && bytes.len() >= LARGE_BYTES
            {
                exchange.put_bulk(prefix, bytes);
                continue;
            }
            exchange.returned();
            if let Some(why) = initializer::failure_of(&result) {
                put_failure(exchange, &Failure::error(Stage::Initialize, why));
                continue;
            }
            stage.set(Stage::EncodeResult);
            out.clear();
            attachments.clear();
            let encoded = codec::encode_attached(&result, &mut out, &mut attachments);
            // A destructor is the task's code: its panic is a panic of the task.
            stage.set(Stage::Run);
            drop(result);
            match encoded {
                Ok(()) if attachments.is_empty() => exchange.put(RecordKind::Value, &out),
                Ok(()) => {
                    if let Err(error) = exchange.put_with(&mut out, take(&mut attachments)) {
                        fail(exchange, Stage::EncodeResult, error);
                    }
                }
                Err(error) => fail(exchange, Stage::EncodeResult, error),
            }
        }
    }) {
        let failure = take_refusal().unwrap_or_else(|| {
            let stage = match state::has_maker_panicked() {
                true => Stage::MakeState,
                false => stage.get(),
            };
            Failure::panic(stage, panic)
        });
        put_failure(exchange, &failure);
    }
    // One large result must not make the worker large forever.
    if out.capacity() <= KEEP_BYTES {
        SCRATCH.set(out);
    }
}

#[cold]
fn fail(exchange: &mut impl Exchange, stage: Stage, error: CodecError) {
    put_failure(exchange, &Failure::error(stage, error));
}

fn put_failure(exchange: &mut impl Exchange, failure: &Failure) {
    let mut bytes = Vec::new();
    codec::encode(failure, &mut bytes).expect("strings and options can always be encoded");
    exchange.put(RecordKind::Failure, &bytes);
}

/// Has the buffer, for which the C library looks up how a thread's values are dropped.
pub(super) fn warm_up() {
    SCRATCH.with(|_| {});
}

thread_local! {
    /// The buffer for encoded results, used again and again.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

struct OnWire<'a> {
    channel: &'a mut WorkerChannel,
    /// Items that have not begun.
    left: u32,
    deadline: bool,
    meter: Option<ItemTimer>,
}

impl OnWire<'_> {
    #[cold]
    fn put_measure(&mut self) {
        if let Some(meter) = &self.meter {
            let measure = meter.end().write();
            self.channel.put_record(RecordKind::Time, &measure);
        }
    }
}

impl Emit for OnWire<'_> {
    fn max_bytes(&self) -> u64 {
        self.channel.max_result()
    }

    fn emit(&mut self, bytes: &[u8], emitted: u64, buffer: u32) -> bool {
        self.channel.emit(bytes, emitted, buffer)
    }

    fn emit_with(
        &mut self,
        bytes: &mut Vec<u8>,
        attachments: Attachments,
        emitted: u64,
        buffer: u32,
    ) -> Result<bool, CodecError> {
        self.channel.emit_with(bytes, attachments, emitted, buffer)
    }
}

impl Exchange for OnWire<'_> {
    #[inline(always)]
    fn begin(&mut self) -> bool {
        let begins = self.left > 0 && self.channel.begin_item(self.deadline);
        self.left -= u32::from(begins);
        if begins && let Some(meter) = &mut self.meter {
            meter.begin();
        }
        begins
    }

    #[inline(always)]
    fn run_numbers<A: 'static, R: 'static>(&mut self, function: &impl Fn(A) -> R) {
        if self.left > 1 && !self.deadline && self.meter.is_none() {
            self.channel.run_numbers(&mut self.left, function);
        }
    }

    #[inline(always)]
    fn argument<A: DeserializeOwned + 'static>(&mut self) -> Result<A, CodecError> {
        let argument = match self.channel.take_bulk::<A>() {
            Some(argument) => argument,
            None => self.channel.with_item(codec::decode_argument::<A>),
        };
        if let Some(meter) = &mut self.meter {
            meter.decoded();
        }
        argument
    }

    #[inline]
    fn returned(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.returned();
        }
    }

    #[inline]
    fn put(&mut self, kind: RecordKind, bytes: &[u8]) {
        if self.meter.is_some() {
            self.put_measure();
        }
        self.channel.put_record(kind, bytes);
    }

    fn put_bulk(&mut self, prefix: [u8; 8], bytes: &[u8]) {
        self.put_measure();
        self.channel.put_bulk(prefix, bytes);
    }

    #[cold]
    fn put_with(
        &mut self,
        bytes: &mut Vec<u8>,
        attachments: Attachments,
    ) -> Result<(), CodecError> {
        let Some(offer) = offer(&attachments)? else {
            self.put(RecordKind::Value, bytes);
            return Ok(());
        };
        if !self.channel.has_room_for(bytes.len()) {
            // It fails for that, and nothing is to be sent for it.
            self.put(RecordKind::Value, bytes);
            return Ok(());
        }
        let is_sent = self.channel.send_files(&offer)?;
        offer.write(is_sent, bytes)?;
        self.put(RecordKind::SharedResult, bytes);
        if !is_sent {
            self.channel.offer(attachments.into_memory());
            if self.left > 0 {
                // Should the next item end this process, this one must not be lost with it.
                self.channel.wait_until_taken();
            }
        }
        Ok(())
    }
}

struct InMemory<'a, 'b> {
    items: &'a [u8],
    is_cancelled: Option<&'a CancelFlag>,
    deadline: Option<u64>,
    record: &'b mut Record<'a>,
    values: Option<&'a dyn TakeValue>,
    meter: Option<ItemTimer>,
}

impl InMemory<'_, '_> {
    fn put_record(&mut self, kind: RecordKind, bytes: &[u8], attachments: Attachments) {
        if let Some(meter) = &self.meter {
            let none = Attachments::default();
            (self.record)(RecordKind::Time, &meter.end().write(), none);
        }
        (self.record)(kind, bytes, attachments);
    }

    /// Gives a value to who takes them.
    fn give(&self, bytes: &[u8], attachments: Attachments) -> bool {
        let is_cancelled = self.is_cancelled.is_some_and(CancelFlag::is_set);
        !is_cancelled && (self.values).is_some_and(|values| values.take_value(bytes, attachments))
    }
}

impl Emit for InMemory<'_, '_> {
    fn max_bytes(&self) -> u64 {
        u64::MAX
    }

    fn emit(&mut self, bytes: &[u8], _emitted: u64, _buffer: u32) -> bool {
        self.give(bytes, Attachments::default())
    }

    fn emit_with(
        &mut self,
        bytes: &mut Vec<u8>,
        attachments: Attachments,
        _emitted: u64,
        _buffer: u32,
    ) -> Result<bool, CodecError> {
        Ok(self.give(bytes, attachments))
    }
}

impl Exchange for InMemory<'_, '_> {
    fn begin(&mut self) -> bool {
        let begins = !self.items.is_empty()
            && !self.is_cancelled.is_some_and(CancelFlag::is_set)
            && self.deadline.is_none_or(|due| due > sys::now_ns());
        if begins && let Some(meter) = &mut self.meter {
            meter.begin();
        }
        begins
    }

    fn argument<A: DeserializeOwned + 'static>(&mut self) -> Result<A, CodecError> {
        let (bytes, rest) = protocol::split_item(self.items).unwrap_or_default();
        self.items = rest;
        let argument = codec::decode(bytes);
        if let Some(meter) = &mut self.meter {
            meter.decoded();
        }
        argument
    }

    fn returned(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.returned();
        }
    }

    fn put(&mut self, kind: RecordKind, bytes: &[u8]) {
        self.put_record(kind, bytes, Attachments::default());
    }

    fn put_bulk(&mut self, prefix: [u8; 8], bytes: &[u8]) {
        self.put(RecordKind::Value, &[&prefix, bytes].concat());
    }

    fn put_with(
        &mut self,
        bytes: &mut Vec<u8>,
        attachments: Attachments,
    ) -> Result<(), CodecError> {
        self.put_record(RecordKind::Value, bytes, attachments);
        Ok(())
    }
}
