//! What is larger than a message may be.

use std::io::{Read, Write};
use std::net::TcpStream;

use procpool_core::{Broadcast, Pool};
use procpool_testing::nats::Config;

use crate::Scenario;
use crate::cluster::Cluster;

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("items_and_results_are_large", large),
        ("a_broadcast_goes_to_each_agent_once", broadcast),
    ]
}

const MIB: usize = 1 << 20;

/// The largest message that the server takes.
const MOST: u32 = 64 * 1024;

fn pattern(seed: usize, bytes: usize) -> Vec<u8> {
    let byte = |at: usize| (at.wrapping_mul(31) ^ (at >> 8) ^ seed).to_le_bytes()[0];
    (0..bytes).map(byte).collect()
}

fn large(test: &str) {
    let config = Config::new().max_payload(MOST);
    let Some(cluster) = Cluster::with_config(test, config, 2) else {
        return;
    };
    let pool = cluster.pool();
    let reversed = |mut bytes: Vec<u8>| {
        bytes.reverse();
        bytes
    };
    let items: Vec<Vec<u8>> = (0..8).map(|seed| pattern(seed, 2 * MIB)).collect();
    let results = pool.call(reversed).chunksize(1).map(items.clone());
    for (mut result, item) in results.expect("values").into_iter().zip(items) {
        result.reverse();
        assert!(result == item);
    }
    // Sizes around what a message, and a delivery, may have.
    for size in [0, 1, 32_000, 32_768, 65_000, 65_536, 70_000, 524_288] {
        let item = pattern(size, size);
        let mut result = pool.apply(reversed, item.clone()).expect("a value");
        result.reverse();
        assert!(result == item, "{size}");
    }
    // Many small ones are one large one.
    let sums = pool.map(
        |bytes: Vec<u8>| bytes.len(),
        (0..2000).map(|_| vec![7; 1000]),
    );
    assert_eq!(sums, Ok(vec![1000; 2000]));
}

fn broadcast(test: &str) {
    // Its own port says what each connection has carried.
    let config = Config::new().max_payload(MOST);
    let config = config.with("http: \"127.0.0.1:-1\"");
    let Some(cluster) = Cluster::with_config(test, config, 2) else {
        return;
    };
    let pool = cluster.pool();
    let size = 8 * MIB;
    let value = pool.broadcast(pattern(0, size)).expect("memory");
    let all = pool
        .call(sum)
        .chunksize(1)
        .map((0..40_usize).map(|at| (value.clone(), at)));
    let byte = |at: usize| pattern(0, size)[at * 1000];
    let bytes: Vec<u8> = all.expect("values");
    assert!(
        bytes
            .iter()
            .enumerate()
            .all(|(at, found)| *found == byte(at))
    );
    for name in ["m0", "m1"] {
        let carried = bytes_to(&cluster, &format!("procpool agent on {name}"));
        assert!(
            (size..size + MIB).contains(&carried),
            "{name}: {carried} bytes"
        );
    }
}

fn sum((value, at): (Broadcast<[u8]>, usize)) -> u8 {
    // So that each agent gets some.
    std::thread::sleep(std::time::Duration::from_millis(10));
    value[at * 1000]
}

/// How many bytes the server has sent to who calls himself so.
fn bytes_to(cluster: &Cluster, name: &str) -> usize {
    let log = cluster.server.log();
    let (_, address) = log
        .split_once("Starting http monitor on ")
        .expect("it has one");
    let address = address.split_whitespace().next().expect("an address");
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET /connz HTTP/1.0\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let connections = body["connections"].as_array().expect("a list");
    let of_name = connections.iter().find(|it| it["name"] == name);
    let bytes = of_name.expect("it is connected")["out_bytes"].as_u64();
    usize::try_from(bytes.expect("a number")).expect("it fits")
}
