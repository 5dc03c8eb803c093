//! Answers of several agents to one question.

use std::sync::mpsc::Sender;
use std::time::Duration;

use procpool_core::{Dump, Stats};

/// What was asked, and what has come.
pub(crate) enum Gathered {
    Dump(Dump, Sender<Dump>),
    Stats(Box<Stats>, Sender<Stats>),
}

/// See the module.
pub(crate) struct Gathering {
    /// How many have not answered.
    pub(crate) left: usize,
    /// Nobody waits for them after that.
    pub(crate) until: Duration,
    pub(crate) so_far: Gathered,
}

impl Gathering {
    /// An agent has answered with what its workers do.
    pub(crate) fn add_dump(&mut self, dump: Dump) {
        if let Gathered::Dump(all, _) = &mut self.so_far {
            all.queued += dump.queued;
            all.workers.extend(dump.workers);
            self.left = self.left.saturating_sub(1);
        }
    }

    /// The same with what has happened there. Items are the client's to count.
    pub(crate) fn add_stats(&mut self, stats: Stats) {
        if let Gathered::Stats(all, _) = &mut self.so_far {
            all.bytes_sent += stats.bytes_sent;
            all.bytes_received += stats.bytes_received;
            all.workers_started += stats.workers_started;
            all.workers_lost += stats.workers_lost;
            all.workers_terminating += stats.workers_terminating;
            for (reason, workers) in stats.workers_ended {
                *all.workers_ended.entry(reason).or_default() += workers;
            }
            all.lines_dropped += stats.lines_dropped;
            all.events_dropped += stats.events_dropped;
            all.workers.extend(stats.workers);
            self.left = self.left.saturating_sub(1);
        }
    }

    /// Tells who waits.
    pub(crate) fn finish(self) {
        // They may have stopped waiting.
        match self.so_far {
            Gathered::Dump(dump, sender) => drop(sender.send(dump)),
            Gathered::Stats(stats, sender) => drop(sender.send(*stats)),
        }
    }
}
