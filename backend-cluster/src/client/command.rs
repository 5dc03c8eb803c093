//! What a pool's methods ask its thread for.

use std::sync::mpsc::Sender;

use procpool_core::{CallId, Completion, Dump, EncodedChunk, Stats};

use crate::dispatcher::JobId;

/// See [`Shared::tell`](super::shared::Shared::tell).
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all commands are submissions, and a box would cost each an allocation"
)]
pub(crate) enum Command {
    Submit {
        chunk: EncodedChunk,
        completion: Completion,
    },
    Cancel {
        call: CallId,
        kill: bool,
    },
    /// There may be room for a value that an item of this job has emitted.
    Room(JobId),
    /// The queue is made, perhaps a new one, or why not.
    Made {
        /// The connection that it was asked for in.
        connection: u64,
        made: Result<bool, String>,
    },
    /// What are the workers doing?
    Dump(Sender<Dump>),
    /// The same without stacks.
    Activity(Sender<Dump>),
    /// What has happened?
    Stats(Sender<Stats>),
    /// Some have come who observe the pool, or have gone.
    Observers,
    /// Inputs are to be asked for what was read, in a moment.
    AskInputs,
    /// No more will be submitted.
    Close,
    /// Somebody waits for the end: streams are not to wait for a reader.
    Join,
    /// Everything ends now.
    Terminate,
    /// The server that this process has started for the pool has ended like this.
    ServerEnded(String),
    /// The program is in the server's store again, or why it is not.
    Published(Result<(), String>),
    /// An agent that this process has started is dead.
    Died {
        pid: u32,
    },
}
