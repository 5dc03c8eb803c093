//! The thread that asks pools what they have done, whatever happens meanwhile.

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use procpool::Pool;

use super::Cluster;
use crate::harness::plan::one_in;
use crate::harness::storm::Storm;

/// Asks until the storm is over.
pub(super) fn run(storm: &Storm<Cluster>, rng: &mut Rng) {
    while !storm.ledger.is_over() {
        thread::sleep(Duration::from_millis(rng.u64(..100)));
        let Some(tenant) = storm.pools.random(rng) else {
            continue;
        };
        let name = &tenant.facts.name;
        if one_in(rng, 10) {
            let _operation = storm.ledger.operation(format!("dump {name}"));
            drop(tenant.pool.dump());
            continue;
        }
        let _operation = storm.ledger.operation(format!("stats of {name}"));
        let stats = tenant.pool.stats();
        let counted = stats.succeeded + stats.failed + stats.queued + stats.running;
        if stats.submitted != counted {
            storm
                .ledger
                .violation(&format!("{name} counts an item twice, or not: {stats:?}"));
        }
    }
}
