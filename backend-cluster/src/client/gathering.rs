//! Answers of several agents to one question.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::Sender;
use std::time::Duration;

use procpool_core::{Dump, Stats};

/// What was asked, and what has come.
pub(super) enum Gathered {
    Dump(Dump, Sender<Dump>),
    Stats(Box<Stats>, Sender<Stats>),
}

/// The questions that are open. Agents are named by their sessions' keys.
#[derive(Default)]
pub(super) struct Gatherings {
    last_ticket: u64,
    open: HashMap<u64, Gathering>,
}

struct Gathering {
    /// The agents that have not answered.
    waits_for: HashSet<u64>,
    /// Nobody waits for them after that.
    until: Duration,
    so_far: Gathered,
}

impl Gatherings {
    /// These agents are asked. Gives the ticket that is to come with their answers.
    pub(super) fn begin(
        &mut self,
        so_far: Gathered,
        waits_for: HashSet<u64>,
        until: Duration,
    ) -> u64 {
        self.last_ticket += 1;
        let gathering = Gathering {
            waits_for,
            until,
            so_far,
        };
        self.open.insert(self.last_ticket, gathering);
        self.finish_if(|it| it.waits_for.is_empty());
        self.last_ticket
    }

    /// An agent has answered with what its workers do.
    pub(super) fn add_dump(&mut self, ticket: u64, agent: u64, dump: Dump) {
        if let Some(Gathered::Dump(all, _)) = self.answered(ticket, agent) {
            all.queued += dump.queued;
            all.workers.extend(dump.workers);
        }
        self.finish_if(|it| it.waits_for.is_empty());
    }

    /// The same with what has happened there. Items are the client's to count.
    pub(super) fn add_stats(&mut self, ticket: u64, agent: u64, stats: Stats) {
        if let Some(Gathered::Stats(all, _)) = self.answered(ticket, agent) {
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
        }
        self.finish_if(|it| it.waits_for.is_empty());
    }

    /// No answer will come from this agent: it is dead, has left, or cannot be reached.
    pub(super) fn forget(&mut self, agent: u64) {
        for gathering in self.open.values_mut() {
            gathering.waits_for.remove(&agent);
        }
        self.finish_if(|it| it.waits_for.is_empty());
    }

    /// Whoever has not answered by now took too long.
    pub(super) fn expire(&mut self, now: Duration) {
        self.finish_if(|it| it.until <= now);
    }

    /// When the next one takes too long.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.open.values().map(|it| it.until).min()
    }

    /// Where an answer belongs, if it is one that is waited for: an agent answers once.
    fn answered(&mut self, ticket: u64, agent: u64) -> Option<&mut Gathered> {
        let gathering = self.open.get_mut(&ticket)?;
        let is_awaited = gathering.waits_for.remove(&agent);
        is_awaited.then_some(&mut gathering.so_far)
    }

    /// Tells who waits.
    fn finish_if(&mut self, is_complete: impl Fn(&Gathering) -> bool) {
        for (_, gathering) in self.open.extract_if(|_, it| is_complete(it)) {
            // They may have stopped waiting.
            match gathering.so_far {
                Gathered::Dump(dump, sender) => drop(sender.send(dump)),
                Gathered::Stats(stats, sender) => drop(sender.send(*stats)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const UNTIL: Duration = Duration::from_secs(10);

    fn stats(workers_started: u64) -> Stats {
        let mut stats = Stats::default();
        stats.workers_started = workers_started;
        stats
    }

    /// Asks these agents.
    fn ask(gatherings: &mut Gatherings, agents: &[u64]) -> (u64, Receiver<Stats>) {
        let (sender, receiver) = channel();
        let so_far = Gathered::Stats(Box::default(), sender);
        let agents = agents.iter().copied().collect();
        (gatherings.begin(so_far, agents, UNTIL), receiver)
    }

    fn started(receiver: &Receiver<Stats>) -> Option<u64> {
        receiver.try_recv().ok().map(|it| it.workers_started)
    }

    #[test]
    fn each_agent_answers_once() {
        let mut gatherings = Gatherings::default();
        let (ticket, receiver) = ask(&mut gatherings, &[1, 2]);
        gatherings.add_stats(ticket, 1, stats(10));
        gatherings.add_stats(ticket, 1, stats(10));
        // That was never asked.
        gatherings.add_stats(ticket, 3, stats(1000));
        gatherings.add_stats(ticket + 1, 2, stats(1000));
        assert_eq!(started(&receiver), None);
        gatherings.add_stats(ticket, 2, stats(100));
        assert_eq!(started(&receiver), Some(110));
        assert_eq!(gatherings.next_expiry(), None);
    }

    #[test]
    fn nobody_waits_for_the_dead() {
        let mut gatherings = Gatherings::default();
        let (ticket, receiver) = ask(&mut gatherings, &[1, 2]);
        gatherings.forget(1);
        assert_eq!(started(&receiver), None);
        gatherings.add_stats(ticket, 2, stats(100));
        assert_eq!(started(&receiver), Some(100));
        let (_, receiver) = ask(&mut gatherings, &[1]);
        gatherings.forget(1);
        assert_eq!(started(&receiver), Some(0));
        let (_, receiver) = ask(&mut gatherings, &[]);
        assert_eq!(started(&receiver), Some(0));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut gatherings = Gatherings::default();
        let (ticket, receiver) = ask(&mut gatherings, &[1, 2]);
        gatherings.add_stats(ticket, 2, stats(100));
        assert_eq!(gatherings.next_expiry(), Some(UNTIL));
        gatherings.expire(UNTIL - Duration::from_nanos(1));
        assert_eq!(started(&receiver), None);
        gatherings.expire(UNTIL);
        assert_eq!(started(&receiver), Some(100));
    }
}
