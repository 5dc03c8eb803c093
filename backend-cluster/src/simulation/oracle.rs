//! What must hold.

use std::collections::HashMap;

use super::World;

impl World {
    pub(super) fn deliver(&mut self, job: u64, index: usize) {
        self.note(format!("outcome of {index} of job {job}"));
        let count = self.outcomes.get_mut(&(job, index)).expect("an item");
        *count += 1;
        assert_eq!(*count, 1, "item {index} of {job} has two outcomes");
        self.waited.get_mut(&(job, index)).expect("an item").1 = self.now;
    }

    /// As often as was allowed, and more often only without the client's knowledge: by an agent
    /// that was missed meanwhile, and once each time that one was.
    pub(super) fn check_attempts(&self) {
        let mut known: HashMap<(u64, usize), usize> = HashMap::new();
        let mut unknown: HashMap<(u64, usize), usize> = HashMap::new();
        for (session, piece, item) in &self.begun {
            if self.known.contains(&(*session, *piece)) {
                *known.entry(*item).or_default() += 1;
                continue;
            }
            *unknown.entry(*item).or_default() += 1;
            let is_given_up = !self.sessions.contains_key(session);
            let is_missed = self.missed_meanwhile(*item).any(|it| it == *session);
            let may_run_twice = self.specs[&item.0] > 0;
            assert!(
                is_given_up || is_missed && may_run_twice || self.cancelled.contains(&item.0),
                "{item:?} ran as {piece} without a word\n{}",
                self.log.join("\n")
            );
        }
        for (item, runs) in known {
            let most = 1 + self.specs[&item.0] as usize;
            assert!(
                runs <= most,
                "{item:?} ran {runs} times for {most}\n{}",
                self.log.join("\n")
            );
        }
        for (item, runs) in unknown {
            let most = self.missed_meanwhile(item).count();
            assert!(
                runs <= most || self.cancelled.contains(&item.0),
                "{item:?} ran {runs} times without a word, and {most} were missed\n{}",
                self.log.join("\n")
            );
        }
    }

    /// The sessions that were missed while the client waited for this item.
    fn missed_meanwhile(&self, item: (u64, usize)) -> impl Iterator<Item = u64> {
        let (since, until) = self.waited[&item];
        let missed = self.missed.iter();
        let meanwhile = missed.filter(move |(_, from, to)| *from <= until && since <= *to);
        meanwhile.map(|(session, ..)| *session)
    }
}
