//! What is sent back: something whole, or events for as long as the page is open.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

/// A body.
pub(crate) enum Answer {
    Whole(Bytes),
    Events(mpsc::Receiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Self::Whole(bytes) => {
                Poll::Ready(Some(std::mem::take(bytes)).filter(|it| !it.is_empty()))
            }
            Self::Events(events) => events.poll_recv(context),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// What a page may do: it has its one script, and asks nobody but this server.
const POLICY: &str = "default-src 'none'; script-src 'nonce-NONCE'; style-src 'nonce-NONCE'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

fn response(status: StatusCode, kind: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let all: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        // The address is a secret.
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in all {
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<Answer> {
    let body = Answer::Whole(Bytes::from(text.into()));
    response(status, "text/plain; charset=utf-8", body)
}

/// The page, in which `NONCE` stands for a number that nobody can guess.
pub(crate) fn page(page: &str, nonce: &str) -> Response<Answer> {
    let body = Answer::Whole(Bytes::from(page.replace("NONCE", nonce)));
    let mut response = response(StatusCode::OK, "text/html; charset=utf-8", body);
    if let Ok(policy) = HeaderValue::from_str(&POLICY.replace("NONCE", nonce)) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

pub(crate) fn events(events: mpsc::Receiver<Bytes>) -> Response<Answer> {
    response(StatusCode::OK, "text/event-stream", Answer::Events(events))
}
