//! What a client and an agent say to each other in their session, and what travels through the
//! queue.
//!
//! Both sides run the same build, so the form needs no version. Nothing of what arrives is
//! believed: it is decoded with all checks, and makes sense or is dropped.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use procpool_core::{
    BroadcastContent, ContentId, Dump, ExitReason, Observe, Outcome, OutcomeBatch, OutputLine,
    OutputStream, Stats, TaskError, WorkerInfo, codec,
};
use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The number of a client: of one pool.
pub(crate) type ClientId = u64;
/// The number of an agent: of one process.
pub(crate) type AgentId = u64;
/// The number of a delivery. Each pool counts its own, and uses none twice.
pub(crate) type DeliveryId = u64;
/// The number of a piece. The same holds for it.
pub(crate) type PieceId = u64;

/// Bytes that are encoded as such, and not one by one. They may be a part of others, and are not
/// copied for that.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Blob(pub(crate) Bytes);

/// A value, for as long as something of it is to be sent.
struct Value(BroadcastContent);

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Blob {
    /// The bytes of a value where they are.
    pub(crate) fn of_content(content: BroadcastContent) -> Self {
        Self(Bytes::from_owner(Value(content)))
    }
}

/// What travels through the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) id: DeliveryId,
    pub(crate) epoch: u64,
    pub(crate) pieces: Vec<Piece>,
}

/// Some items of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) id: PieceId,
    /// It must not run twice: it is not tried again.
    pub(crate) is_last_attempt: bool,
    /// The encoded chunk. `None`: it is too large, and is to be [fetched](ToClient::Fetch).
    pub(crate) chunk: Option<Blob>,
}

/// From the client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToAgent {
    /// The answer to [`Hello`](ToClient::Hello), and first message.
    Welcome {
        epoch: u64,
        /// That of the agent, as it has said it.
        connection: u64,
        /// What workers for this client are to be: `procpool_core::WorkerOptions`.
        options: Blob,
        /// What becomes of what they print.
        stdout: Printed,
        stderr: Printed,
    },
    /// The client has raised its epoch. The answer is [`Kept`](ToClient::Kept).
    Epoch(u64),
    /// The answer to [`Sync`](ToClient::Sync).
    Synced { epoch: u64, connection: u64 },
    /// The answer to [`Ask`](ToClient::Ask).
    Verdict {
        delivery: DeliveryId,
        is_granted: bool,
    },
    /// This was sent a moment ago, without the queue. What has not come by now is to be
    /// [given back](ToClient::Returned).
    Sent(DeliveryId),
    /// The piece is to end, and nothing is to be said of it.
    Recall { piece: PieceId },
    /// The piece is to end early, and it is to be said what has become of it.
    Cancel { piece: PieceId, kill: bool },
    /// There is room for so many more values that the item of this piece emits.
    Room { piece: PieceId, values: u32 },
    /// A part of the answer to [`Fetch`](ToClient::Fetch), in the lane for data.
    Body {
        piece: PieceId,
        part: Blob,
        is_last: bool,
    },
    /// A part of a value that was asked for by [`Need`](ToClient::Need), in the lane for data.
    Content {
        id: ContentId,
        part: Blob,
        is_last: bool,
    },
    /// The client has that value no more.
    NoContent(ContentId),
    /// How is the pool for this client?
    Report { ticket: u64, wanted: Wanted },
    /// What is to be [told](ToClient::Observed) of what happens to its workers, from now on; at
    /// first, nothing.
    Observe(Option<Observe>),
    /// The pool has ended: whatever there is of it ends now.
    Bye,
}

/// What a client wants to know of its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// What has happened.
    Stats,
    /// What every worker is doing, with its stack.
    Dump,
    /// The same as far as is known without asking the workers.
    Activity,
}

/// What becomes of what a worker prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Printed {
    /// It goes where the agent's own output goes.
    #[default]
    Inherited,
    /// Nobody wants it.
    Discarded,
    /// It is sent to the client.
    Sent,
}

/// From the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToClient {
    /// The first message.
    Hello { card: AgentCard, connection: u64 },
    /// It has another connection to the server, and asks for the epoch.
    Sync { connection: u64 },
    /// It begins nothing of an older epoch without asking from now on.
    Kept(u64),
    /// May it begin this, which the queue has given out for the nth time?
    Ask { delivery: DeliveryId, time: u64 },
    /// It begins this.
    Begun { delivery: DeliveryId },
    /// It has not begun this, and gives it back, or has never got it: it does not begin it any
    /// more.
    Returned { delivery: DeliveryId },
    /// It has begun this, and needs what was too large for the queue.
    Fetch { piece: PieceId },
    /// It has begun this, and needs the values that handles in it mean.
    Need {
        piece: PieceId,
        contents: Vec<ContentId>,
    },
    /// Outcomes of a piece's items, in the lane for data.
    Outcomes { piece: PieceId, batch: OutcomeBatch },
    /// All items of a piece that have no outcome end like this; in the lane for data.
    Failed { piece: PieceId, error: TaskError },
    /// The item of this piece has emitted a value; in the lane for data.
    Value { piece: PieceId, value: Outcome },
    /// A value that handles in a result mean that comes next, in the lane for data.
    Content { id: ContentId, bytes: Blob },
    /// It takes no more: it is about to leave.
    Leaving,
    /// Its last word, behind all that its workers have printed; in the lane for data.
    Left,
    /// Lines that a worker has printed.
    Lines(Vec<Line>),
    /// See [`ToAgent::Report`].
    Dump { ticket: u64, dump: Dump },
    /// The same.
    Stats { ticket: u64, stats: Stats },
    /// What has happened to its workers, as it [wants to know](ToAgent::Observe); in the lane for
    /// data.
    Observed(ObservedEvents),
}

/// What has happened in an agent's pool for a client.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ObservedEvents {
    /// This begins with all workers that are up: of others that were, nothing more is told.
    pub(crate) is_start: bool,
    pub(crate) events: Vec<ObservedEvent>,
    /// How many there were beside these, for which there was no room.
    pub(crate) lost: u64,
}

/// Something that has happened to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ObservedEvent {
    /// It is up, in this place of the agent's pool.
    Up { worker: WorkerInfo, place: u32 },
    Ended {
        worker: WorkerInfo,
        reason: ExitReason,
    },
    /// Its sandbox has refused a system call of this name, and it lives.
    Refused { worker: WorkerInfo, call: String },
    /// It has done a chunk.
    Chunk {
        worker: WorkerInfo,
        /// What its call is called.
        call: String,
        first: u64,
        items: u32,
        took: Duration,
        /// How long ago that was when this was sent.
        ago: Duration,
    },
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentCard {
    pub(crate) agent: AgentId,
    /// The machine's name.
    pub(crate) machine: String,
    pub(crate) pid: u32,
    pub(crate) slots: u32,
    /// How long it has been there.
    pub(crate) up: Duration,
}

/// A line that a worker has printed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) worker: WorkerInfo,
    pub(crate) is_stderr: bool,
    pub(crate) bytes: Blob,
    pub(crate) is_cut: bool,
    pub(crate) dropped: u64,
}

impl Line {
    /// What this worker has printed.
    pub(crate) fn of(worker: WorkerInfo, line: &OutputLine) -> Self {
        Self {
            worker,
            is_stderr: line.stream() == OutputStream::Stderr,
            bytes: Blob(Bytes::copy_from_slice(line.bytes())),
            is_cut: line.is_cut(),
            dropped: line.dropped(),
        }
    }
}

/// A message as bytes.
pub(crate) fn to_bytes<T: Serialize + 'static>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(message, &mut bytes).expect("a message has nothing that cannot be encoded");
    bytes
}

/// The message that these bytes are, if they are one.
pub(crate) fn from_bytes<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Option<T> {
    codec::decode(bytes).ok()
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Blob, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Blob(bytes.into()))
            }
        }

        deserializer.deserialize_byte_buf(Read)
    }
}
