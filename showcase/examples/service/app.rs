//! The service itself, which `showcase/tests/service.rs` tests.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use procpool::{Pool, SpawnPool, TaskError, TaskErrorKind, TaskHandle};

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) pool: Arc<SpawnPool>,
    /// How long one document may take.
    pub(crate) deadline: Duration,
}

pub(crate) fn router(service: Service) -> Router {
    Router::new()
        .route("/documents/{name}", get(document))
        .with_state(service)
}

async fn document(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> (StatusCode, String) {
    let call = service.pool.call(convert).timeout(service.deadline);
    let mut task = KillOnDrop(call.apply_async(name));
    // The thread is free meanwhile: this future is woken when the task has ended.
    match (&mut task.0).await {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (status(&error), error.to_string()),
    }
}

/// What went wrong, in the words of HTTP.
fn status(error: &TaskError) -> StatusCode {
    match error.kind() {
        TaskErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        TaskErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A handle that is dropped leaves its task running. axum drops a handler whose client has gone,
/// and then nobody wants the result: so this ends it. What has ended it leaves alone.
struct KillOnDrop(TaskHandle<String>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Stands for a call into a C library.
#[allow(unsafe_code)]
fn convert(name: String) -> String {
    match name.as_str() {
        "broken" => {
            let font: *mut u32 = std::ptr::null_mut();
            // SAFETY: none. The fourth field of a structure that is not there.
            unsafe { font.wrapping_add(3).write_volatile(7) };
            String::new()
        }
        "endless" => loop {
            std::thread::park();
        },
        "empty" => panic!("a document has at least one page"),
        name => format!("{name}, in plain text"),
    }
}
