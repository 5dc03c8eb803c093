//! The example `service`, driven over a loopback socket.

#![allow(clippy::disallowed_methods, reason = "tests sleep")]

#[path = "../examples/service/app.rs"]
mod app;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use procpool::{Pool, SpawnPool};

use crate::app::Service;

procpool::init_before_main!(fork_server);

/// A service that runs until it is dropped.
struct Server {
    pool: Arc<SpawnPool>,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

fn serve(deadline: Duration) -> Server {
    let pool = SpawnPool::builder().processes(2).build();
    let pool = Arc::new(pool.expect("a pool"));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listener = runtime.block_on(listener).expect("a loopback socket");
    let address = listener.local_addr().expect("it is bound");
    let service = Service {
        pool: pool.clone(),
        deadline,
    };
    runtime.spawn(axum::serve(listener, app::router(service)).into_future());
    Server {
        pool,
        address,
        _runtime: runtime,
    }
}

impl Server {
    fn send(&self, name: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close";
        write!(stream, "GET /documents/{name} {head}\r\n\r\n").expect("it reads");
        stream
    }

    /// The status and body of the answer.
    fn ask(&self, name: &str) -> (u16, String) {
        let mut answer = String::new();
        let read = self.send(name).read_to_string(&mut answer);
        read.expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), body.to_owned())
    }
}

#[test]
fn each_end_of_a_task_has_its_status() {
    let server = serve(Duration::from_millis(300));
    assert_eq!(server.ask("letter"), (200, "letter, in plain text".into()));
    let (status, body) = server.ask("broken");
    assert_eq!(status, 500);
    assert!(body.contains("signal 11 (SIGSEGV)"), "{body}");
    let (status, body) = server.ask("endless");
    assert_eq!(status, 504);
    assert!(body.contains("timeout of 300ms"), "{body}");
    let (status, body) = server.ask("empty");
    assert_eq!(status, 500);
    assert!(body.contains("at least one page"), "{body}");
    assert_eq!(server.ask("letter").0, 200);
    server.pool.close();
    assert_eq!(server.ask("letter").0, 503);
}

#[test]
fn requests_do_not_wait_for_one_that_hangs() {
    let server = &serve(Duration::from_secs(3600));
    // It is never answered: the server goes down first.
    let _hangs = server.send("endless");
    std::thread::scope(|scope| {
        for name in ["letter", "broken", "report", "empty", "letter", "broken"] {
            scope.spawn(move || {
                for _ in 0..5 {
                    let expected = if name.ends_with('r') || name.ends_with('t') {
                        200
                    } else {
                        500
                    };
                    assert_eq!(server.ask(name).0, expected);
                }
            });
        }
    });
}

/// The task is ended, for nobody waits for it; its worker is replaced.
#[test]
fn a_client_that_goes_away_takes_its_task_along() {
    let server = serve(Duration::from_secs(3600));
    let client = server.send("endless");
    while server.pool.stats().running == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(client);
    while server.pool.stats().running > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(server.ask("letter").0, 200);
}
