//! The queue: a stream, and its one consumer.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self};
use async_nats::{Client, HeaderMap};

use bytes::Bytes;

use super::Subjects;
use crate::message::ClientId;

/// How long the queue waits before it gives a delivery out again that nobody has acknowledged.
const ACK_WAIT: Duration = Duration::from_secs(10);

/// Makes the queue, unless it is there. Says whether it is a new one, which knows nothing of what
/// agents have asked for.
///
/// # Errors
/// What the server says against it.
pub(crate) async fn make_queue(
    client: Client,
    client_id: ClientId,
    subjects: Subjects,
    in_file: bool,
) -> Result<bool, String> {
    // Whether this client may put anything in, the server says now, and not only when something
    // waits. The queue does not take what is meant for another one.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Stream", "none");
    let subject = subjects.work(client_id);
    // It fails where the subject or the payload is none: this is one.
    let _ = client
        .publish_with_headers(subject, headers, Bytes::new())
        .await;
    let context = jetstream::new(client);
    let config = Config {
        name: subjects.stream(),
        subjects: vec![subjects.all_work()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        storage: if in_file {
            StorageType::File
        } else {
            StorageType::Memory
        },
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    };
    let (stream, is_new) = match context.get_stream(&config.name).await {
        Ok(stream) => (stream, false),
        Err(_) => {
            // It is not there, or something is wrong that this says, too.
            let made = context.get_or_create_stream(config).await;
            let stream = made.map_err(|error| format!("the queue cannot be made: {error}"))?;
            (stream, true)
        }
    };
    let consumer = pull::Config {
        durable_name: Some(Subjects::consumer().to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: -1,
        max_waiting: 65_536,
        ..pull::Config::default()
    };
    stream
        .get_or_create_consumer(Subjects::consumer(), consumer)
        .await
        .map_err(|error| format!("the queue's consumer cannot be made: {error}"))?;
    Ok(is_new)
}
