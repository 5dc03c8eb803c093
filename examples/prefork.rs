//! A server whose connections are served by worker processes: the program accepts, and passes each
//! connection to a worker as an [`Fd`]. A request that crashes its worker costs its own client the
//! connection, and nobody else anything.
//!
//! ```text
//! $ cargo run --example prefork
//! listening on 127.0.0.1:46111
//!   2 * 21 = 42, says PoolWorker-1
//!   2 * 1000 = 2000, says PoolWorker-2
//!   crash: the connection was closed
//!   2 * 7 = 14, says PoolWorker-1
//! 3 connections served, 1 crash
//! ```
//!
//! The program asks itself four questions, so that there is something to see. A server goes on
//! accepting: `listener.incoming()` in place of the first four.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use procpool::{Fd, Output, Pool, ProcessPool, RemoteError, TaskHandle, worker};

/// Runs in a worker, with a connection that the program has accepted.
fn serve(connection: Fd) -> Result<(), RemoteError> {
    let connection = TcpStream::from(connection.into_owned());
    let mut request = String::new();
    BufReader::new(&connection).read_line(&mut request)?;
    let name = worker::current().map_or_else(String::new, |it| it.name());
    match request.trim().parse::<u64>() {
        Ok(number) => writeln!(&connection, "2 * {number} = {}, says {name}", 2 * number)?,
        // As C code may end on a request that it does not expect.
        Err(_) => std::process::abort(),
    }
    Ok(())
}

/// What a client hears.
fn ask(server: SocketAddr, request: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(server)?;
    writeln!(connection, "{request}")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.trim().to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let pool = ProcessPool::builder()
        .processes(2)
        .stderr(Output::discard())
        .build()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    println!("listening on {address}");
    let clients = thread::spawn(move || -> io::Result<()> {
        for request in ["21", "1000", "crash", "7"] {
            match ask(address, request)?.as_str() {
                "" => println!("  {request}: the connection was closed"),
                answer => println!("  {answer}"),
            }
        }
        Ok(())
    });
    let mut tasks: Vec<TaskHandle<Result<(), RemoteError>>> = Vec::new();
    for connection in listener.incoming().take(4) {
        // This process keeps no copy, so the client sees the end when the task has ended.
        tasks.push(pool.apply_async(serve, Fd::from(connection?)));
    }
    clients.join().expect("no client panics")?;
    let outcomes: Vec<_> = tasks.into_iter().map(TaskHandle::get).collect();
    let served = outcomes
        .iter()
        .filter(|it| matches!(it, Ok(Ok(()))))
        .count();
    let crashes = outcomes.iter().filter(|it| it.is_err()).count();
    println!("{served} connections served, {crashes} crash");
    Ok(())
}
