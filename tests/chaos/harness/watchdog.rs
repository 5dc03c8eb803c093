//! What ends a run that hangs: the stacks of all that take part.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use procpool_testing::{procfs, stacks};

use super::ledger::Ledger;

/// How long things may take.
#[derive(Clone, Copy)]
struct Patience {
    /// For so long something may be outstanding and nothing end.
    nothing_moves: Duration,
    /// So long one operation may take while others move.
    one_operation: Duration,
}

/// A process is stopped for less than two seconds.
const ON_ONE_MACHINE: Patience = Patience {
    nothing_moves: Duration::from_secs(20),
    one_operation: Duration::from_secs(90),
};

/// Nine seconds of silence, and six more until an agent is given up; and that again and again for
/// what is tried again.
const IN_A_CLUSTER: Patience = Patience {
    nothing_moves: Duration::from_secs(60),
    one_operation: Duration::from_secs(180),
};

/// What more there is to say of a hang.
type Describe = Box<dyn Fn() -> String + Send>;

/// Starts the thread that watches, until the ledger is finished.
pub(crate) fn start(ledger: Arc<Ledger>, is_cluster: bool, describe: Describe) -> JoinHandle<()> {
    let patience = if is_cluster {
        IN_A_CLUSTER
    } else {
        ON_ONE_MACHINE
    };
    std::thread::Builder::new()
        .name("chaos-watchdog".into())
        .spawn(move || watch(&ledger, patience, &describe))
        .expect("a thread is to be had")
}

fn watch(ledger: &Ledger, patience: Patience, describe: &Describe) {
    let (mut ended, _) = ledger.movement();
    let mut since = Instant::now();
    while !ledger.is_finished() {
        std::thread::sleep(Duration::from_millis(100));
        let (now, outstanding) = ledger.movement();
        if now != ended || outstanding == 0 {
            ended = now;
            since = Instant::now();
        }
        if since.elapsed() > patience.nothing_moves {
            bark(
                ledger,
                describe,
                &format!("nothing moves and {outstanding} things are outstanding"),
            );
        }
        if let Some((what, age)) = ledger.operations().first()
            && *age > patience.one_operation
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
