//! A page in the browser, and one in the terminal, that show a pool at work, with calls of all
//! kinds: long and short ones, some that fail, and some that take their worker with them.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example dashboard -- --seconds 600
//! see http://127.0.0.1:41233/6f3c0a58e3fbb5c4a3a1b3f1c5f00a4e/
//! or: procpool top 4711
//! ```

#![allow(clippy::disallowed_methods, reason = "it is work")]

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use procpool::dashboard::DashboardOptions;
use procpool::{AllowInspection, Pool, SpawnPool};

/// Works, and is watched.
#[derive(Parser)]
struct Arguments {
    /// For so long.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Where the page is.
    #[arg(long, default_value = "127.0.0.1:0")]
    address: String,
    #[arg(long, default_value_t = 4)]
    workers: usize,
}

fn sleep(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

/// Some pictures take longer.
fn thumbnail(picture: u64) -> u64 {
    sleep(20 + picture * 37 % 150);
    picture
}

/// Many, which take no time.
fn checksum(number: u64) -> u64 {
    (0..200).fold(number, |sum, _| sum.wrapping_mul(31).wrapping_add(7))
}

/// Some text makes no sense.
fn parse(text: String) -> u64 {
    sleep(15);
    text.parse().expect("a number")
}

/// A library in C has its bad days.
fn decode(film: u64) -> u64 {
    sleep(120);
    if film % 23 == 7 {
        eprintln!("film {film}: bad header at byte 1044");
        std::process::abort();
    }
    film
}

/// Some answers never come.
fn fetch(page: u64) -> u64 {
    sleep(if page.is_multiple_of(5) { 5000 } else { 80 });
    page
}

fn work(pool: &SpawnPool, end: Instant) {
    while Instant::now() < end {
        let thumbnails = pool.call(thumbnail).name("thumbnail").map_async(0..200);
        let films = pool.call(decode).name("decode").map_async(0..40);
        let numbers = (0..60).map(|number| match number % 13 {
            5 => format!("{number} and a half"),
            _ => number.to_string(),
        });
        let parsed = pool.call(parse).name("parse").map_async(numbers);
        let limit = Duration::from_millis(700);
        let pages = pool
            .call(fetch)
            .name("fetch")
            .timeout(limit)
            .map_async(0..20);
        while !thumbnails.is_ready() && Instant::now() < end {
            pool.map(checksum, 0..200_000).unwrap_or_default();
            sleep(100);
        }
        // What has failed is on the page.
        let _ = (thumbnails.get(), films.get(), parsed.get(), pages.get());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let arguments = Arguments::parse();
    let pool = SpawnPool::builder().processes(arguments.workers).build()?;
    let options = DashboardOptions::new()
        .title("films and pictures")
        .buttons();
    let dashboard = options.serve(&pool, &*arguments.address)?;
    println!("see {dashboard}");
    let _inspection = pool.allow_inspection("films and pictures")?;
    println!("or: procpool top {}", std::process::id());
    work(
        &pool,
        Instant::now() + Duration::from_secs(arguments.seconds),
    );
    println!("{}", pool.stats());
    Ok(())
}
