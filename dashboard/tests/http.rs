//! Who gets which answer, by plain HTTP.

#![allow(
    clippy::disallowed_methods,
    reason = "it looks at threads until they are as they should be"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use procpool_core::{Pool, SerialPool};
use procpool_dashboard::{Dashboard, DashboardOptions, ServeDashboard};

/// Sends a question, of which each line has its end.
fn ask(dashboard: &Dashboard, question: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(dashboard.address()).expect("it is served");
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).expect("a time");
    stream.write_all(question.as_bytes()).expect("it reads");
    BufReader::new(stream)
}

/// The answer to a question for this path behind the token, with these headers.
fn answer(dashboard: &Dashboard, method: &str, path: &str, headers: &str) -> String {
    let host = dashboard.address();
    let path = format!("{}{path}", token(dashboard));
    let question = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    let mut answer = String::new();
    let mut stream = ask(dashboard, &question);
    stream.read_to_string(&mut answer).expect("text");
    answer
}

/// The path of the page.
fn token(dashboard: &Dashboard) -> &str {
    let start = format!("http://{}", dashboard.address());
    dashboard.url().strip_prefix(&start).expect("its address")
}

/// The first lines of the events of a page, until one has this.
fn events(dashboard: &Dashboard, until: &str) -> (BufReader<TcpStream>, Vec<String>) {
    let (path, host) = (token(dashboard), dashboard.address());
    let question = format!("GET {path}events HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut stream = ask(dashboard, &question);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).expect("text"), 0, "{lines:?}");
        lines.push(line.trim_end().to_owned());
        if line.contains(until) {
            return (stream, lines);
        }
    }
}

/// For tests that count threads, or start some.
static WATCHERS: Mutex<()> = Mutex::new(());

fn is_refused(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 403")
}

#[test]
fn who_does_not_know_the_address_gets_nothing() {
    let pool = SerialPool::new();
    let dashboard = pool.serve_dashboard("127.0.0.1:0").expect("it is served");
    let host = dashboard.address();
    for path in [
        "/",
        "/events",
        "/index.html",
        "/0123456789abcdef0123456789abcdef/events",
    ] {
        let question = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut answer = String::new();
        let mut stream = ask(&dashboard, &question);
        stream.read_to_string(&mut answer).expect("text");
        assert!(
            is_refused(&answer) && !answer.contains(token(&dashboard)),
            "{answer}"
        );
    }
    let page = answer(&dashboard, "GET", "", "");
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("<!doctype html>"),
        "{page}"
    );
    for header in [
        "no-store",
        "no-referrer",
        "frame-ancestors 'none'",
        "nosniff",
        "'nonce-",
    ] {
        assert!(page.contains(header), "{header}");
    }
    assert!(!page.contains("NONCE"));
    let other = answer(&dashboard, "GET", "secrets", "");
    assert!(other.starts_with("HTTP/1.1 404"), "{other}");
    assert!(!format!("{dashboard:?}").contains(token(&dashboard).trim_matches('/')));
}

#[test]
fn pages_of_others_get_nothing() {
    let pool = SerialPool::new();
    let dashboard = DashboardOptions::new().buttons();
    let dashboard = dashboard.serve(&pool, "127.0.0.1:0").expect("it is served");
    let own = format!("Origin: http://{}\r\n", dashboard.address());
    for path in ["", "events", "dump?pid=1", "cancel?call=2"] {
        for header in [
            "Origin: http://evil.example\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
        ] {
            for method in ["GET", "POST"] {
                let answer = answer(&dashboard, method, path, header);
                assert!(is_refused(&answer), "{method} {path} {header}: {answer}");
            }
        }
    }
    let gone = answer(&dashboard, "POST", "cancel?call=2", &own);
    assert!(
        gone.starts_with("HTTP/1.1 409") && gone.ends_with("has ended."),
        "{gone}"
    );
    // By a link or a picture, nothing is changed.
    let link = answer(&dashboard, "GET", "cancel?call=2", "");
    assert!(link.starts_with("HTTP/1.1 404"), "{link}");
    // A name of somebody else's that leads here.
    let (path, port) = (token(&dashboard), dashboard.address().port());
    let question = format!("GET {path} HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n");
    let mut text = String::new();
    ask(&dashboard, &question)
        .read_to_string(&mut text)
        .expect("text");
    assert!(is_refused(&text), "{text}");
}

#[test]
fn a_page_without_buttons_changes_nothing() {
    let pool = SerialPool::new();
    let dashboard = pool.serve_dashboard("127.0.0.1:0").expect("it is served");
    for path in ["cancel?call=2", "resize?processes=3"] {
        assert!(is_refused(&answer(&dashboard, "POST", path, "")));
    }
    let dashboard = DashboardOptions::new().buttons();
    let dashboard = dashboard.serve(&pool, "127.0.0.1:0").expect("it is served");
    for (path, status) in [("resize?processes=x", 400), ("resize?processes=3", 409)] {
        let answer = answer(&dashboard, "POST", path, "");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
}

#[test]
fn other_machines_are_asked_for() {
    let pool = SerialPool::new();
    let refused = pool.serve_dashboard("0.0.0.0:0").unwrap_err();
    assert!(
        refused.to_string().contains("beyond_this_machine"),
        "{refused}"
    );
    let options = DashboardOptions::new().beyond_this_machine();
    let dashboard = options.serve(&pool, "0.0.0.0:0").expect("it is served");
    let taken = pool.serve_dashboard(("127.0.0.1", dashboard.address().port()));
    assert!(taken.is_err());
}

/// Nor when the page has gone. It is told of what happens while it is open.
#[test]
fn a_pool_without_a_page_is_not_observed() {
    let _alone = WATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
    let watchers = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("there is `/proc`");
        let names =
            tasks.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("comm")).ok());
        names
            .filter(|name| name.trim_end() == "procpool-watch")
            .count()
    };
    let wait_for = |count| {
        let end = Instant::now() + Duration::from_secs(60);
        while watchers() != count {
            assert!(Instant::now() < end, "{} are not {count}", watchers());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let pool = SerialPool::new();
    let dashboard = DashboardOptions::new().title("a title");
    let dashboard = dashboard.serve(&pool, "127.0.0.1:0").expect("it is served");
    assert_eq!(watchers(), 0);
    let (mut page, lines) = events(&dashboard, "event: state");
    let hello = lines.iter().position(|line| line == "event: hello");
    let hello = hello.map(|place| &*lines[place + 1]).unwrap_or_default();
    assert!(
        hello.contains("\"title\":\"a title\",\"about\":\"process "),
        "{lines:?}"
    );
    assert_eq!(watchers(), 1);
    let (other, _) = events(&dashboard, "event: state");
    assert_eq!(watchers(), 1);
    drop(other);
    let fails = pool.call(|x: u64| assert_ne!(x, 3, "three")).name("fails");
    assert!(fails.map(0..5).is_err());
    loop {
        let mut line = String::new();
        assert_ne!(page.read_line(&mut line).expect("text"), 0);
        if line.contains("\"call\":\"fails\",\"index\":3,\"kind\":\"Panicked\"") {
            break;
        }
    }
    drop(page);
    wait_for(0);
    let (mut page, _) = events(&dashboard, "event: state");
    wait_for(1);
    drop(pool);
    let mut rest = String::new();
    page.read_to_string(&mut rest).expect("text");
    assert!(rest.contains("event: end"), "{rest}");
    wait_for(0);
    let (mut late, _) = events(&dashboard, "event: end");
    let mut rest = String::new();
    late.read_to_string(&mut rest).expect("text");
    drop(dashboard);
}

/// Whoever says nothing does not keep others from their answers, and its end waits for nobody.
#[test]
fn silent_connections_do_no_harm() {
    let _alone = WATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = SerialPool::new();
    let dashboard = pool.serve_dashboard("127.0.0.1:0").expect("it is served");
    let silent: Vec<BufReader<TcpStream>> = (0..30).map(|_| ask(&dashboard, "GET /")).collect();
    assert!(answer(&dashboard, "GET", "", "").starts_with("HTTP/1.1 200"));
    let long = format!("X: {}\r\n", "x".repeat(1 << 20));
    let mut stream = ask(&dashboard, "");
    let question = format!("GET / HTTP/1.1\r\n{long}\r\n");
    let sent = stream.get_mut().write_all(question.as_bytes());
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    assert!(
        sent.is_err() || read.is_err() || text.starts_with("HTTP/1.1 4"),
        "{text}"
    );
    let (page, _) = events(&dashboard, "event: state");
    drop(dashboard);
    drop((silent, page));
}
