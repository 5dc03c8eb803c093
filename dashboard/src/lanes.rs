//! Which lane of the timeline each worker has.

use std::collections::HashMap;

use procpool_core::WorkerInfo;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    of: HashMap<WorkerInfo, usize>,
}

impl Lanes {
    /// It works in this place of the pool, which is its lane: the worker before it has gone.
    pub(crate) fn place(&mut self, worker: &WorkerInfo, position: usize) {
        self.of.retain(|_, lane| *lane != position);
        self.of.insert(worker.clone(), position);
    }

    /// The lane of this worker, if it has one.
    pub(crate) fn get(&self, worker: &WorkerInfo) -> Option<usize> {
        self.of.get(worker).copied()
    }

    /// The same, and one that is free if it has none.
    pub(crate) fn give(&mut self, worker: &WorkerInfo) -> usize {
        if let Some(lane) = self.get(worker) {
            return lane;
        }
        let is_free = |lane: &usize| !self.of.values().any(|it| it == lane);
        let lane = (0..).find(is_free).unwrap_or_default();
        self.of.insert(worker.clone(), lane);
        lane
    }

    /// Those of these workers stay, and no others.
    pub(crate) fn keep<'a>(&mut self, workers: impl Iterator<Item = &'a WorkerInfo>) {
        let here: Vec<&WorkerInfo> = workers.collect();
        self.of.retain(|worker, _| here.contains(&worker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_the_place_of_the_one_before() {
        let worker = |pid| WorkerInfo::new(1, 0, pid);
        let mut lanes = Lanes::default();
        lanes.place(&worker(10), 1);
        assert_eq!((lanes.give(&worker(11)), lanes.give(&worker(12))), (0, 2));
        lanes.place(&worker(13), 1);
        assert_eq!(lanes.get(&worker(10)), None);
        assert_eq!(lanes.get(&worker(13)), Some(1));
        lanes.keep([worker(13)].iter());
        assert_eq!((lanes.give(&worker(14)), lanes.give(&worker(15))), (0, 2));
    }

    #[test]
    fn machines_have_workers_of_the_same_number() {
        let on = |machine| WorkerInfo::new(1, 0, 10).with_machine(machine);
        let mut lanes = Lanes::default();
        assert_eq!((lanes.give(&on("a")), lanes.give(&on("b"))), (0, 1));
        assert_eq!(lanes.give(&on("a")), 0);
    }
}
