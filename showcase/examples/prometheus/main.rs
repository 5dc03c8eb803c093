//! Figures of a pool for Prometheus: how many items ended and how, how long they waited and ran,
//! which workers died of what. `grafana.json`, beside this file, is a dashboard for them.
//!
//! Without arguments it does some work, asks itself for its figures as Prometheus would, and prints
//! a part of the answer. `--listen 127.0.0.1:9000` goes on with the work until it is killed; a
//! Prometheus that is to ask it needs this:
//!
//! ```yaml
//! scrape_configs:
//!   - job_name: thumbnails
//!     static_configs:
//!       - targets: ["127.0.0.1:9000"]
//! ```
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example prometheus
//! procpool_items_total{pool="pictures",call="check",outcome="ok"} 500
//! procpool_items_total{pool="pictures",call="thumbnail",outcome="ok"} 39
//! procpool_items_total{pool="pictures",call="thumbnail",outcome="timed_out"} 1
//! procpool_worker_ends_total{pool="pictures",reason="deadline"} 1
//! ```

#![allow(clippy::disallowed_methods, reason = "it is work")]

use std::error::Error;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use procpool::{Pool, SpawnPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Makes thumbnails, and is watched.
#[derive(Parser)]
struct Arguments {
    /// Work, and be watched at this address, until killed.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

/// Some pictures take longer, and one far too long.
fn thumbnail(picture: u64) -> u64 {
    let time = match picture {
        13 => 10_000,
        _ => picture % 4,
    };
    thread::sleep(Duration::from_millis(time));
    picture
}

fn check(picture: u64) -> bool {
    picture.is_multiple_of(2)
}

fn work(pool: &SpawnPool) {
    let limit = Duration::from_millis(200);
    let thumbnails = pool.call(thumbnail).name("thumbnail").timeout(limit);
    let checks = pool.call(check).name("check").map_async(0..500);
    for outcome in thumbnails.chunksize(1).imap(0..40) {
        if let Err(error) = outcome {
            eprintln!("{error}");
        }
    }
    // It waits behind the thumbnails, and not for long.
    let _ = checks.get();
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let arguments = Arguments::parse();
    // Waiting and running times come as histograms with these limits, in seconds.
    let limits = [0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0];
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let figures = PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &limits)?
        .install_recorder()?;
    let pool = SpawnPool::builder().processes(2).build()?;
    let recorder = procpool::metrics::record(&pool, "pictures")?;
    let worker = thread::spawn(move || {
        work(&pool);
        while arguments.listen.is_some() {
            work(&pool);
        }
        pool.close();
        pool.join()
    });
    if arguments.listen.is_none() {
        // Then it has all that has happened.
        worker.join().expect("it does not panic")?;
        drop(recorder);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let address = arguments.listen.unwrap_or(([127, 0, 0, 1], 0).into());
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let server = axum::serve(listener, router(figures));
        if arguments.listen.is_some() {
            println!("Prometheus finds http://{address}/metrics");
            return Ok(server.await?);
        }
        let server = tokio::spawn(server.into_future());
        let answer = ask(address).await?;
        let mut shown: Vec<_> = (answer.lines())
            .filter(|line| line.starts_with("procpool_items_total") || line.contains("reason="))
            .filter(|line| !line.contains("closed"))
            .collect();
        shown.sort_unstable();
        shown.iter().for_each(|line| println!("{line}"));
        assert_eq!(shown.len(), 4);
        server.abort();
        Ok(())
    })
}

fn router(figures: PrometheusHandle) -> Router {
    Router::new().route("/metrics", get(async move || figures.render()))
}

/// What Prometheus gets.
async fn ask(address: SocketAddr) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
