//! A web service that calls a library which crashes and hangs, and stays up: each document is
//! converted by a worker, within a deadline. It answers 200; 504 if the deadline was over and the
//! worker was killed; 500 if the library crashed, with the signal; 503 if the pool is closed.
//!
//! A handler awaits the task's handle as any other future. No thread waits with it, and the
//! deadline is kept by the pool, not by the runtime: a timeout of the runtime's would stop waiting
//! for the task, but not stop the task. A program with an async runtime has threads, so `SpawnPool`
//! is the pool to take: it does not fork this process.
//!
//! Without arguments it sends itself some requests. `--listen 127.0.0.1:8080` serves until it is
//! killed.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example service
//! letter   200 letter, in plain text
//! broken   500 the worker was killed by signal 11 (SIGSEGV) while it ran the task, in PoolWorker-2 (pid 27911)
//! endless  504 the task ran longer than its timeout of 500ms and was killed, in PoolWorker-1 (pid 27909)
//! empty    500 the task panicked: a document has at least one page (at showcase/examples/service/app.rs:71:20), in PoolWorker-3 (pid 27915)
//! 100 letters were converted while another document hung
//! letter   503 the pool is closed
//! ```

mod app;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use procpool::{Pool, SpawnPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::app::Service;

/// Converts documents.
#[derive(Parser)]
struct Arguments {
    /// Serve at this address until killed.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

fn main() -> Result<(), Box<dyn Error>> {
    // First, and so not under `#[tokio::main]`: a worker needs no runtime.
    procpool::init();
    let arguments = Arguments::parse();
    let pool = Arc::new(SpawnPool::builder().processes(2).build()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let service = Service {
            pool: pool.clone(),
            deadline: Duration::from_millis(500),
        };
        let address = (arguments.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let server = axum::serve(listener, app::router(service));
        if arguments.listen.is_some() {
            println!("try http://{address}/documents/letter, or broken, endless, empty");
            return Ok(server.await?);
        }
        let server = tokio::spawn(server.into_future());
        show(address, &pool).await?;
        server.abort();
        Ok(())
    })
}

/// Sends some requests, and prints the answers.
async fn show(address: SocketAddr, pool: &SpawnPool) -> Result<(), Box<dyn Error>> {
    for (name, status) in [
        ("letter", 200),
        ("broken", 500),
        ("endless", 504),
        ("empty", 500),
    ] {
        let answer = request(address, name).await?;
        println!("{name:8} {answer}");
        assert!(answer.starts_with(&status.to_string()));
    }
    // One worker hangs until its deadline; the other one has the rest.
    let endless = tokio::spawn(async move { request(address, "endless").await.is_ok() });
    let mut answered = 0;
    for _ in 0..100 {
        let answer = request(address, "letter").await?;
        answered += u32::from(answer.starts_with("200"));
    }
    println!("{answered} letters were converted while another document hung");
    assert!(endless.await?);
    pool.close();
    println!("letter   {}", request(address, "letter").await?);
    Ok(())
}

/// The status and body of the answer.
async fn request(address: SocketAddr, name: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET /documents/{name} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or_default();
    Ok(format!("{status} {body}"))
}
