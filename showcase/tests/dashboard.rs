//! The dashboard's page, in a browser.

#![allow(
    clippy::disallowed_methods,
    reason = "its tasks rest, and its pages are looked at"
)]

use std::time::Duration;

use procpool::dashboard::DashboardOptions;
use procpool::{ClusterPool, Output, Pool, ServeDashboard, SpawnPool};
use procpool_testing::browser::{self, Page};
use procpool_testing::left_out;

procpool::init_before_main!();

fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

fn wait_for_cancel(_: u64) {
    while !procpool::worker::is_cancelled() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Live: while calls end and workers die.
#[test]
fn the_page_shows_what_the_pool_does() {
    if !browser::is_there("the_page_shows_what_the_pool_does") {
        return;
    }
    let pool = SpawnPool::builder().processes(2).stderr(Output::tee());
    let pool = pool.build().expect("a pool");
    let options = DashboardOptions::new()
        .title("test of <b>pages</b>")
        .buttons();
    let dashboard = options.serve(&pool, "127.0.0.1:0").expect("it is served");
    let mut page = Page::open(dashboard.url(), 1200, 900);
    page.wait_for("document.querySelectorAll('#workers tr').length === 2");
    assert_eq!(page.eval("document.title"), "test of <b>pages</b>");
    assert_eq!(page.eval("document.querySelectorAll('b').length"), 0);

    // A call has progress.
    let naps = pool
        .call(nap)
        .name("naps")
        .chunksize(1)
        .map_async([20; 200]);
    page.wait_for("document.querySelector('#calls tr')?.innerText.includes('naps')");
    page.wait_for("document.querySelector('#calls progress').value > 3");
    page.wait_for(
        "/\\d+ of 200\\s+0\\s+[\\d.]+/.test(document.querySelector('#calls tr').innerText)",
    );
    page.wait_for(
        "spans.length > 10 && document.getElementById('legend').innerText.includes('naps')",
    );
    page.wait_for("/naps, item \\d+/.test(document.getElementById('workers').innerText)");

    // A worker dies, and a task panics.
    let crash = |(): ()| -> u64 {
        eprintln!("the last words");
        std::process::abort()
    };
    let crash = pool.call(crash).name("crash").apply_async(());
    let fails = pool
        .call(|x: u64| assert_ne!(x, 7, "seven <i>it is</i>"))
        .name("fails");
    let fails = fails.apply_async(7);
    page.wait_for("document.querySelectorAll('.failure').length === 2");
    assert!(crash.get().is_err() && fails.get().is_err());
    page.wait_for("marks.some((mark) => mark.is_loss && mark.text === 'Crashed')");
    let text = page.text();
    for part in [
        "WorkerLost crash, item 0",
        "Panicked fails, item 0",
        "seven <i>it is</i>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    page.eval("[...document.querySelectorAll('.failure button')].find((it) => it.innerText.includes('crash')).click()");
    page.wait_for("document.getElementById('details').open");
    let text = page.text();
    for part in ["the last words", "SIGABRT", "PoolWorker-", "signal: 6"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    page.press("Escape");
    page.wait_for("!document.getElementById('details').open");

    // A stack, by keyboard.
    let naps = (naps, pool.map_async(nap, [60_000; 2]));
    page.wait_for("state.workers.every((worker) => worker.at?.call.endsWith('nap'))");
    page.eval("document.querySelector('#workers button').focus()");
    page.press("Enter");
    page.wait_for("document.getElementById('details-text').textContent.includes('dashboard::nap')");
    page.eval("document.getElementById('close').focus()");
    page.press("Enter");
    page.wait_for("!document.getElementById('details').open");
    assert_eq!(
        page.eval("document.activeElement.innerText.includes('PoolWorker')"),
        true
    );

    // Buttons.
    naps.0.cancel();
    naps.1.kill();
    let call = pool.call(wait_for_cancel).name("waits").map_async(0..10);
    page.wait_for("document.querySelector('#calls tr')?.innerText.includes('waits')");
    page.eval("document.querySelector('#calls button').click()");
    assert!(call.get().is_err_and(|error| error.is_cancelled()));
    page.wait_for("document.querySelectorAll('#calls tr').length === 0");
    page.eval("byId('size').value = 3; document.querySelector('#resize button').click()");
    page.wait_for("document.querySelectorAll('#workers tr').length === 3");
    assert_eq!(pool.processes(), 3);
    page.eval("byId('size').max = ''; byId('size').value = 0; post('resize', { processes: 0 })");
    page.wait_for("document.getElementById('details').open");
    page.press("Escape");

    let asked = page.asked();
    assert!(
        asked
            .iter()
            .all(|url| url.starts_with(dashboard.url()) || url.starts_with("data:"))
    );
    // What was refused on purpose is all that it complains about.
    let complaints = page.complaints();
    let is_refused = |it: &serde_json::Value| it.to_string().contains("resize?processes=0");
    assert!(complaints.iter().all(is_refused), "{complaints:#?}");

    pool.close();
    pool.join().expect("its workers have ended");
    page.wait_for("document.querySelectorAll('#workers tr').length === 0");
    drop((pool, naps));
    page.wait_for("byId('link').innerText === 'the pool has ended'");
    drop(dashboard);
}

/// For people with small windows, large ones, and their own colours.
#[test]
fn the_page_fits_each_window() {
    if !browser::is_there("the_page_fits_each_window") {
        return;
    }
    let pool = SpawnPool::builder().processes(4).build().expect("a pool");
    let options = DashboardOptions::new()
        .title("films and pictures")
        .buttons();
    let dashboard = options.serve(&pool, "127.0.0.1:0").expect("it is served");
    let long = "a::module::with::a::rather::long::path::to::the::function::that::does::it";
    let mut page = Page::open(dashboard.url(), 400, 800);
    page.wait_for("document.querySelectorAll('#workers tr').length === 4");
    let naps = pool.call(nap).name(long).chunksize(1).map_async([30; 300]);
    let fails = pool.call(|x: u64| assert!(x > 9, "{}", "a long message ".repeat(20)));
    let fails = fails.name("fails").map_async(0..12);
    let singles: Vec<_> = (0..40).map(|_| pool.apply_async(nap, 50)).collect();
    page.wait_for("document.querySelectorAll('.failure').length === 10 && spans.length > 60");
    for (width, height) in [(400, 1400), (2000, 1100)] {
        page.resize(width, height);
        for scheme in ["light", "dark"] {
            page.prefer(scheme);
            std::thread::sleep(Duration::from_millis(300));
            let wide = page.eval("document.documentElement.scrollWidth - innerWidth");
            assert!(wide.as_i64() <= Some(0), "{width}: {wide} too wide");
            page.picture(&format!("{width}-{scheme}"));
        }
    }
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
    drop((naps, fails, singles));
}

/// What each does, too.
#[test]
fn the_page_shows_workers_of_other_machines() {
    const TEST: &str = "the_page_shows_workers_of_other_machines";
    let pool = ClusterPool::local(2).map_err(|error| error.to_string());
    let Some(pool) = left_out::unless(TEST, "a NATS server", pool) else {
        return;
    };
    if !browser::is_there(TEST) {
        return;
    }
    let dashboard = pool.serve_dashboard("127.0.0.1:0").expect("it is served");
    let mut page = Page::open(dashboard.url(), 1200, 900);
    let naps = pool
        .call(nap)
        .name("naps")
        .chunksize(1)
        .map_async([600_000; 4]);
    page.wait_for("state?.workers.filter((worker) => worker.at?.call === 'naps').length === 2");
    let machines = "new Set(state.workers.map((worker) => worker.machine)).size";
    assert_eq!(page.eval(machines), 2);
    assert_eq!(
        page.eval("new Set(state.workers.map((worker) => worker.lane)).size"),
        2
    );
    page.wait_for("/PoolWorker-\\d+ on \\S+/.test(byId('workers').innerText)");
    page.wait_for("byId('calls').innerText.includes('0 of 4')");
    page.eval("document.querySelector('#workers button').click()");
    page.wait_for("byId('details-text').textContent.includes('runs naps')");
    page.press("Escape");
    naps.kill();
    let naps = pool
        .call(nap)
        .name("naps")
        .chunksize(1)
        .map_async([40; 400]);
    page.wait_for("spans.length > 10 && new Set(spans.map((span) => span.lane)).size === 2");
    page.picture("cluster");
    naps.kill();
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
