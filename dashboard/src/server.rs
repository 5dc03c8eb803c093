//! Who asks, and what is answered.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use procpool_core::WeakPool;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use crate::access::Access;
use crate::answer::{self, Answer};
use crate::feed::Feed;

/// The page.
const PAGE: &str = include_str!("page.html");

/// How long a connection has to say what it wants.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// How many connections there are at most. A page has one, and others for a moment.
const MOST: usize = 64;
/// How long it waits to accept the next connection after it could not.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Server {
    access: Access,
    feed: Arc<Feed>,
    may_change: bool,
}

impl Server {
    pub(crate) fn new(access: Access, feed: Arc<Feed>, may_change: bool) -> Self {
        Self {
            access,
            feed,
            may_change,
        }
    }

    /// What the server's thread does, until it is stopped.
    pub(crate) fn run(
        self,
        listener: std::net::TcpListener,
        stopped: oneshot::Receiver<()>,
    ) -> io::Result<impl FnOnce() + Send> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // For stacks, which take their time.
            .max_blocking_threads(2)
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        Ok(move || {
            runtime.spawn(Arc::new(self).serve(listener));
            // It is stopped by the end of the other side, too.
            let _ = runtime.block_on(stopped);
            // Not after a stack that is being asked for.
            runtime.shutdown_background();
        })
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MOST));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // There may be no descriptors left for now.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            // Those beyond are closed at once.
            if let Ok(place) = places.clone().try_acquire_owned() {
                let server = self.clone();
                tokio::spawn(async move {
                    server.connection(stream).await;
                    drop(place);
                });
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let answer = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(&request).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(ASK_WITHIN)
            .keep_alive(false);
        // Whoever has gone does not want to know.
        let _ = http.serve_connection(TokioIo::new(stream), answer).await;
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Answer> {
        let Some(name) = self.access.open(request.uri().path()) else {
            let why = "The address of this page has a token in it, which is missing or wrong.";
            return answer::text(StatusCode::FORBIDDEN, why);
        };
        if !self.access.is_own(request.headers()) {
            let why = "Other pages, and other names of this machine, get nothing here.";
            return answer::text(StatusCode::FORBIDDEN, why);
        }
        let query = request.uri().query().unwrap_or_default();
        match (request.method(), name) {
            (&Method::GET, "") => match Access::secret() {
                Ok(nonce) => answer::page(PAGE, &nonce),
                Err(error) => refused(&error),
            },
            (&Method::GET, "events") => match self.feed.join() {
                Ok(events) => answer::events(events),
                Err(error) => refused(&error),
            },
            (&Method::GET, "dump") => self.ask(number(query, "pid"), stack).await,
            (&Method::POST, "cancel" | "resize") if !self.may_change => {
                let why = "This page was served without buttons.";
                answer::text(StatusCode::FORBIDDEN, why)
            }
            (&Method::POST, "cancel") => self.ask(number(query, "call"), cancel).await,
            (&Method::POST, "resize") => self.ask(number(query, "processes"), resize).await,
            _ => answer::text(StatusCode::NOT_FOUND, "There is nothing here."),
        }
    }

    /// Asks the pool something, which may take its time.
    async fn ask(
        &self,
        number: Option<u64>,
        question: fn(&WeakPool, u64) -> Result<String, String>,
    ) -> Response<Answer> {
        let Some(number) = number else {
            return answer::text(StatusCode::BAD_REQUEST, "It takes a number.");
        };
        let pool = self.feed.pool().clone();
        match spawn_blocking(move || question(&pool, number)).await {
            Ok(Ok(text)) => answer::text(StatusCode::OK, text),
            Ok(Err(why)) => answer::text(StatusCode::CONFLICT, why),
            Err(error) => refused(&error),
        }
    }
}

fn refused(error: &dyn std::error::Error) -> Response<Answer> {
    answer::text(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// The number that a query has under this name, and nothing else.
fn number(query: &str, name: &str) -> Option<u64> {
    let value = query.strip_prefix(name)?.strip_prefix('=')?;
    value.parse().ok()
}

/// What the worker with this process identifier does. (On several machines it may be several.)
fn stack(pool: &WeakPool, pid: u64) -> Result<String, String> {
    let dump = pool.dump().ok_or("The pool is no more.")?;
    let is_it = |it: &&procpool_core::WorkerDump| {
        let info = it.info.as_ref();
        info.is_some_and(|info| u64::from(info.pid()) == pid)
    };
    let found: Vec<String> = (dump.workers.iter().filter(is_it))
        .map(ToString::to_string)
        .collect();
    match found.is_empty() {
        true => Err("This worker is no more.".to_owned()),
        false => Ok(found.join("\n\n")),
    }
}

fn cancel(pool: &WeakPool, call: u64) -> Result<String, String> {
    match pool.cancel(call) {
        true => Ok("It is cancelled.".to_owned()),
        false => Err("This call has ended.".to_owned()),
    }
}

fn resize(pool: &WeakPool, processes: u64) -> Result<String, String> {
    let processes = usize::try_from(processes).map_err(|error| error.to_string())?;
    let done = pool.resize(processes).map_err(|error| error.to_string());
    done.map(|()| "It is resized.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_have_one_number() {
        assert_eq!(number("call=17", "call"), Some(17));
        for query in [
            "",
            "call",
            "call=",
            "call=-1",
            "call=1&x=2",
            "xcall=1",
            "pid=1",
        ] {
            assert_eq!(number(query, "call"), None, "{query}");
        }
    }
}
