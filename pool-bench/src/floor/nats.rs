//! What the parts of NATS take that a pool of many machines is made of: two programs' worth of
//! connections, a server between them, and nothing of ours.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::object_store::ObjectStore;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, object_store};
use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use procpool_testing::nats::{self, Server};
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::contender::{Contender, Role, Wrong};
use crate::job::{Job, Measured};

const ASK: &str = "floor.ask";
const WORK: &str = "floor.work";
const SINK: &str = "floor.sink";
const INBOX: &str = "floor.inbox";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Core NATS: there and back.
    Request,
    /// A message is stored in a stream, in memory, and the server says so.
    Publish,
    /// A message is stored, a worker pulls it, and answers to an inbox.
    Queue,
    /// An object is stored, in memory, and read again.
    Store,
}

impl Route {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Request, Self::Publish, Self::Queue, Self::Store];
}

/// A way through a server that is there for it alone.
pub struct Nats {
    route: Route,
    side: Option<Side>,
}

impl Nats {
    /// This way. The server is started when it is first needed.
    #[must_use]
    pub fn new(route: Route) -> Self {
        Self { route, side: None }
    }

    fn side(&mut self) -> Result<&mut Side> {
        if self.side.is_none() {
            self.side = Some(Side::start(self.route)?);
        }
        Ok(self.side.as_mut().expect("it was just started"))
    }
}

impl Contender for Nats {
    fn name(&self) -> &str {
        match self.route {
            Route::Request => "floor: NATS request and reply",
            Route::Publish => "floor: NATS publish and acknowledgement",
            Route::Queue => "floor: NATS queue, worker, inbox",
            Route::Store => "floor: NATS object store, put and get",
        }
    }

    fn role(&self) -> Role {
        Role::Floor
    }

    fn run(&mut self, job: Job) -> Result<Option<Measured>> {
        let route = self.route;
        let (n, bytes) = match job {
            // It takes a thousand times as long as the floors that this number is for.
            Job::Apply { n } if route != Route::Store => (n.div_ceil(50), 0),
            Job::Echo { n, bytes, floats } if route == Route::Store && !floats => (n, bytes),
            _ => return Ok(None),
        };
        let Side { runtime, url, .. } = self.side()?;
        let took = runtime.block_on(async {
            // A connection that nobody looks after for seconds is of no use afterwards.
            let mut ends = Ends::at(url).await?;
            let begin = Instant::now();
            for x in 0..n {
                match route {
                    Route::Request => ends.request(x).await?,
                    Route::Publish => ends.publish(x).await?,
                    Route::Queue => ends.queue(x).await?,
                    Route::Store => ends.store(bytes).await?,
                }
            }
            anyhow::Ok(begin.elapsed())
        })?;
        let value = took.as_secs_f64() / n as f64;
        Ok(Some(Measured { value, n }))
    }
}

/// The side that asks, with the server and the side that answers.
struct Side {
    runtime: Runtime,
    url: String,
    other: Option<JoinHandle<Result<()>>>,
    /// Until the other side is to end.
    stop: Option<oneshot::Sender<()>>,
    /// It goes last.
    _server: Server,
}

/// What this side has of the server.
struct Ends {
    client: Client,
    context: jetstream::Context,
    answers: Subscriber,
    objects: ObjectStore,
}

impl Side {
    fn start(route: Route) -> Result<Self> {
        let program = nats::program().map_err(|text| anyhow!(text))?;
        let server = Server::start(program, nats::Config::new().memory_only());
        let url = server.url();
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let address = url.clone();
        let other =
            thread::spawn(move || runtime()?.block_on(answer(route, &address, &ready, stopped)));
        is_ready.recv().context("the other side does not start")?;
        Ok(Self {
            runtime: runtime()?,
            url,
            other: Some(other),
            stop: Some(stop),
            _server: server,
        })
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // That says it.
        self.stop = None;
        if let Some(other) = self.other.take() {
            // What went wrong was seen by who waited for an answer.
            let _ = other.join();
        }
    }
}

impl Ends {
    async fn at(url: &str) -> Result<Self> {
        let client = async_nats::connect(url).await?;
        let context = jetstream::new(client.clone());
        let answers = client.subscribe(INBOX).await?;
        context
            .create_stream(Config {
                name: "SINK".into(),
                subjects: vec![SINK.into()],
                storage: StorageType::Memory,
                max_messages: 1000,
                discard: DiscardPolicy::Old,
                ..Config::default()
            })
            .await?;
        let objects = context
            .create_object_store(object_store::Config {
                bucket: "objects".into(),
                storage: StorageType::Memory,
                ..object_store::Config::default()
            })
            .await?;
        Ok(Self {
            client,
            context,
            answers,
            objects,
        })
    }

    async fn request(&mut self, x: u64) -> Result<()> {
        let question = x.to_le_bytes().to_vec();
        let answer = self.client.request(ASK, question.into()).await?;
        check(x, &answer.payload)
    }

    async fn publish(&mut self, x: u64) -> Result<()> {
        let message = x.to_le_bytes().to_vec();
        self.context.publish(SINK, message.into()).await?.await?;
        Ok(())
    }

    async fn queue(&mut self, x: u64) -> Result<()> {
        let message = x.to_le_bytes().to_vec();
        self.client.publish(WORK, message.into()).await?;
        let answer = self.answers.next().await;
        check(x, &answer.context("the connection is lost")?.payload)
    }

    async fn store(&mut self, bytes: u64) -> Result<()> {
        let object = vec![7_u8; bytes as usize];
        self.objects.put("object", &mut &object[..]).await?;
        let mut back = Vec::with_capacity(object.len());
        let mut stored = self.objects.get("object").await?;
        stored.read_to_end(&mut back).await?;
        ensure!(back == object, Wrong("another object".into()));
        Ok(())
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn check(x: u64, answer: &[u8]) -> Result<()> {
    let expected = x.wrapping_mul(x).to_le_bytes();
    ensure!(answer == expected, Wrong(format!("{x}: {answer:?}")));
    Ok(())
}

fn squared(message: &[u8]) -> Result<Vec<u8>> {
    let x = u64::from_le_bytes(message.try_into()?);
    Ok(x.wrapping_mul(x).to_le_bytes().to_vec())
}

/// The side that answers.
async fn answer(
    route: Route,
    url: &str,
    ready: &mpsc::Sender<()>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let client = async_nats::connect(url).await?;
    match route {
        Route::Request => answer_requests(client, ready, stopped).await,
        Route::Queue => work(client, ready, stopped).await,
        // The server itself answers.
        Route::Publish | Route::Store => Ok(ready.send(())?),
    }
}

async fn answer_requests(
    client: Client,
    ready: &mpsc::Sender<()>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let mut asks = client.subscribe(ASK).await?;
    client.flush().await?;
    ready.send(())?;
    loop {
        tokio::select! {
            Some(message) = asks.next() => {
                let reply = message.reply.context("nobody wants an answer")?;
                client.publish(reply, squared(&message.payload)?.into()).await?;
            }
            _ = &mut stopped => return Ok(()),
        }
    }
}

async fn work(
    client: Client,
    ready: &mpsc::Sender<()>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let context = jetstream::new(client.clone());
    let stream = context
        .create_stream(Config {
            name: "WORK".into(),
            subjects: vec![WORK.into()],
            storage: StorageType::Memory,
            retention: RetentionPolicy::WorkQueue,
            ..Config::default()
        })
        .await?;
    let consumer = stream
        .create_consumer(pull::Config {
            durable_name: Some("worker".into()),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        })
        .await?;
    let messages = consumer.stream().max_messages_per_batch(1);
    let mut messages = messages.messages().await?;
    ready.send(())?;
    loop {
        tokio::select! {
            Some(message) = messages.next() => {
                // Where the server has said nothing for a while, it is asked again.
                let Ok(message) = message else { continue };
                client.publish(INBOX, squared(&message.payload)?.into()).await?;
                message.ack().await.map_err(|error| anyhow!(error))?;
            }
            _ = &mut stopped => return Ok(()),
        }
    }
}
