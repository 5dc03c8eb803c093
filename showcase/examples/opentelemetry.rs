//! A trace that goes from the caller through the workers: spans of a request, of its calls and
//! items, and of what tasks do, as OpenTelemetry has them.
//!
//! Here they stay in memory, and are printed as a tree. To send them to a collector, take the
//! exporter of `opentelemetry-otlp` in place of the one in memory: nothing else changes.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example opentelemetry
//! request           68.4 ms
//!   thumbnail       68.2 ms
//!     thumbnail     15.6 ms  PoolWorker-2
//!       decode       5.0 ms  PoolWorker-2
//!       scale       10.4 ms  PoolWorker-2
//!     thumbnail     20.6 ms  PoolWorker-1
//!       decode      10.2 ms  PoolWorker-1
//!       scale       10.2 ms  PoolWorker-1
//!     thumbnail      5.6 ms  PoolWorker-2  ERROR: the task panicked
//!       decode       5.5 ms  PoolWorker-2
//!     thumbnail     20.7 ms  PoolWorker-2
//!       decode      10.2 ms  PoolWorker-2
//!       scale       10.4 ms  PoolWorker-2
//!     thumbnail     25.7 ms  PoolWorker-1
//!       decode      15.2 ms  PoolWorker-1
//!       scale       10.3 ms  PoolWorker-1
//!     thumbnail     25.6 ms  PoolWorker-2
//!       decode      15.1 ms  PoolWorker-2
//!       scale       10.3 ms  PoolWorker-2
//! ```

#![allow(clippy::disallowed_methods, reason = "its tasks take their time")]

use std::error::Error;
use std::thread;
use std::time::Duration;

use opentelemetry::trace::{SpanId, Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use procpool::{Pool, ProcessPool};
use tracing::{info, info_span};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn thumbnail(picture: u64) -> u64 {
    let decode = info_span!("decode", picture).entered();
    thread::sleep(Duration::from_millis(5 * (1 + picture % 3)));
    assert_ne!(picture, 3, "this is no picture");
    drop(decode);
    let _scale = info_span!("scale").entered();
    thread::sleep(Duration::from_millis(10));
    info!("it is small now");
    picture
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("procpool"));
    tracing_subscriber::registry().with(layer).init();

    let pool = ProcessPool::builder()
        .processes(2)
        .forward_spans()
        .build()?;
    info_span!("request").in_scope(|| {
        let thumbnails = pool.call(thumbnail).name("thumbnail").chunksize(1);
        let outcomes = thumbnails.try_map(0..6);
        assert_eq!(outcomes.iter().filter(|it| it.is_err()).count(), 1);
    });
    pool.close();
    pool.join()?;
    drop(pool);
    provider.force_flush()?;

    let mut spans = exporter.get_finished_spans()?;
    spans.sort_by_key(|span| span.start_time);
    print(&spans, SpanId::INVALID, 0);
    // A request, a call, six items, and what these have opened.
    assert_eq!(spans.len(), 1 + 1 + 6 + 6 + 5);
    Ok(())
}

/// Those in this one, and what is in them.
fn print(spans: &[SpanData], parent: SpanId, depth: usize) {
    for span in spans.iter().filter(|span| span.parent_span_id == parent) {
        let took = span.end_time.duration_since(span.start_time);
        let took = took.unwrap_or_default().as_secs_f64() * 1e3;
        let name = format!("{}{}", "  ".repeat(depth), span.name);
        let worker = span
            .attributes
            .iter()
            .find(|it| it.key.as_str() == "worker");
        let worker = worker.map_or_else(String::new, |it| format!("  {}", it.value));
        let status = match &span.status {
            Status::Error { description } => format!("  ERROR: {description}"),
            _ => String::new(),
        };
        println!("{name:<16}{took:>6.1} ms{worker}{status}");
        print(spans, span.span_context.span_id(), depth + 1);
    }
}
