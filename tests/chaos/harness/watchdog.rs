//! What ends a run that hangs: the stacks of all that take part.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use procpool_testing::{procfs, stacks};

use super::ledger::Ledger;

/// For so long something may be outstanding and nothing end. A process is stopped for less than
/// two seconds.
const NOTHING_MOVES: Duration = Duration::from_secs(20);

/// So long one operation may take while others move.
const ONE_OPERATION: Duration = Duration::from_secs(90);

/// What more there is to say of a hang.
type Describe = Box<dyn Fn() -> String + Send>;

/// Starts the thread that watches, until the ledger is finished.
pub(crate) fn start(ledger: Arc<Ledger>, describe: Describe) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name("chaos-watchdog".into())
        .spawn(move || watch(&ledger, &describe))
        .expect("a thread is to be had")
}

fn watch(ledger: &Ledger, describe: &Describe) {
    let (mut ended, _) = ledger.movement();
    let mut since = Instant::now();
    while !ledger.is_finished() {
        std::thread::sleep(Duration::from_millis(100));
        let (now, outstanding) = ledger.movement();
        if now != ended || outstanding == 0 {
            ended = now;
            since = Instant::now();
        }
        if since.elapsed() > NOTHING_MOVES {
            bark(
                ledger,
                describe,
                &format!("nothing moves and {outstanding} things are outstanding"),
            );
        }
        if let Some((what, age)) = ledger.operations().first()
            && *age > ONE_OPERATION
        {
            bark(ledger, describe, &format!("`{what}` takes {age:?}"));
        }
    }
}

fn bark(ledger: &Ledger, describe: &Describe, what: &str) -> ! {
    let own = std::process::id();
    let mut processes = procfs::below(own);
    processes.insert(0, own);
    eprintln!("\nHANG (seed {}): {what}", ledger.seed());
    for (operation, age) in ledger.operations() {
        eprintln!("for {age:?}: {operation}");
    }
    eprintln!("so far: {}", ledger.summary());
    stacks::print(&processes);
    // Last of all: a pool that hangs may not answer, and who watches this one ends it then.
    eprintln!("{}", describe());
    eprintln!(
        "HANG (seed {}): {what}; the stacks stand above",
        ledger.seed()
    );
    // Every process of this run dies with this one.
    std::process::abort()
}
