//! What was submitted and has not all its outcomes: by job, by call, and by time.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use procpool_core::CallId;

use super::job::Job;
use crate::dispatcher::JobId;

/// See the module.
#[derive(Default)]
pub(super) struct Jobs {
    jobs: HashMap<JobId, Job>,
    calls: BTreeSet<(CallId, JobId)>,
    /// When the calls of some of them end.
    deadlines: BTreeSet<(Duration, JobId)>,
    /// Those that are not dispatched yet, by when they are due.
    delayed: BTreeSet<(Duration, JobId)>,
    last: JobId,
}

impl Jobs {
    /// Gives it a number.
    pub(super) fn add(&mut self, it: Job) -> JobId {
        self.last += 1;
        let job = self.last;
        self.calls.insert((it.call, job));
        if let Some(at) = it.deadline {
            self.deadlines.insert((at, job));
        }
        if let Some(at) = it.due {
            self.delayed.insert((at, job));
        }
        self.jobs.insert(job, it);
        job
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(super) fn get(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job)
    }

    pub(super) fn get_mut(&mut self, job: JobId) -> Option<&mut Job> {
        self.jobs.get_mut(&job)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (JobId, &Job)> {
        self.jobs.iter().map(|(job, it)| (*job, it))
    }

    pub(super) fn of_call(&self, call: CallId) -> Vec<JobId> {
        let jobs = self.calls.range((call, 0)..=(call, JobId::MAX));
        jobs.map(|(_, job)| *job).collect()
    }

    /// The job is not delayed any more. Says whether it was.
    pub(super) fn undelay(&mut self, job: JobId) -> bool {
        let due = self.jobs.get_mut(&job).and_then(|it| it.due.take());
        due.is_some_and(|at| self.delayed.remove(&(at, job)))
    }

    /// A job that is delayed until now, and not any more. Ask until there is none.
    pub(super) fn next_due(&mut self, now: Duration) -> Option<JobId> {
        let (at, job) = *self.delayed.first()?;
        (at <= now && self.undelay(job)).then_some(job)
    }

    /// A job whose call's deadline has come. Ask until there is none.
    pub(super) fn next_expired(&mut self, now: Duration) -> Option<JobId> {
        let (at, job) = *self.deadlines.first()?;
        (at <= now && self.deadlines.remove(&(at, job))).then_some(job)
    }

    /// When one of the two has the next one.
    pub(super) fn next_time(&self) -> Option<Duration> {
        let (deadline, due) = (self.deadlines.first(), self.delayed.first());
        deadline.into_iter().chain(due).map(|(at, _)| *at).min()
    }

    /// The job has all its outcomes, or gets none.
    pub(super) fn remove(&mut self, job: JobId) -> Option<Job> {
        self.undelay(job);
        let it = self.jobs.remove(&job)?;
        if let Some(at) = it.deadline {
            self.deadlines.remove(&(at, job));
        }
        self.calls.remove(&(it.call, job));
        Some(it)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use procpool_core::{Callbacks, Cancel, Chunk, Executor, JoinError, Pool, Stats, TaskHandle};

    use super::*;

    /// A pool that keeps what is submitted.
    struct Keeper {
        executor: Arc<dyn Executor>,
        chunks: Arc<Chunks>,
    }

    #[derive(Default)]
    struct Chunks(Mutex<Vec<Chunk>>, Callbacks);

    impl Executor for Chunks {
        fn submit(&self, chunk: Chunk) {
            self.0.lock().unwrap().push(chunk);
        }
        fn cancel(&self, _: CallId, _: Cancel) -> bool {
            false
        }
        fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
            self.1.run(job);
        }
        fn processes(&self) -> usize {
            1
        }
        fn close(&self) {}
        fn terminate(&self) {}
        fn join(&self, _: Option<Instant>) -> Result<bool, JoinError> {
            Ok(true)
        }
        fn stats(&self) -> Stats {
            Stats::default()
        }
    }

    impl Pool for Keeper {
        fn executor(&self) -> &Arc<dyn Executor> {
            &self.executor
        }
    }

    impl Keeper {
        fn new() -> Self {
            let chunks = Arc::new(Chunks(Mutex::default(), Callbacks::new()));
            Self {
                executor: chunks.clone(),
                chunks,
            }
        }

        /// What was submitted.
        fn take(&self) -> Vec<Job> {
            let chunks: Vec<Chunk> = self.chunks.0.lock().unwrap().drain(..).collect();
            let parts = chunks.into_iter().map(Chunk::into_parts);
            parts
                .map(|(chunk, completion)| Job::new(chunk, completion, NOW))
                .collect()
        }

        /// The same, added.
        fn add(&self, jobs: &mut Jobs) -> Vec<JobId> {
            self.take().into_iter().map(|it| jobs.add(it)).collect()
        }
    }

    const NOW: Duration = Duration::from_secs(100);
    const HOUR: Duration = Duration::from_secs(3600);

    fn identity(x: u64) -> u64 {
        x
    }

    #[test]
    fn a_call_has_its_jobs_until_they_are_removed() {
        let (keeper, mut jobs) = (Keeper::new(), Jobs::default());
        let _first = keeper.call(identity).chunksize(1).map_async(0..3);
        let of_first = keeper.add(&mut jobs);
        let _second: TaskHandle<u64> = keeper.apply_async(identity, 7);
        let of_second = keeper.add(&mut jobs);
        assert_eq!((of_first.len(), of_second.len()), (3, 1));
        let call = jobs.get(of_first[0]).unwrap().call;
        let mut found = jobs.of_call(call);
        found.sort_unstable();
        assert_eq!(found, of_first);
        for job in of_first {
            assert!(jobs.remove(job).is_some());
            assert!(jobs.remove(job).is_none());
        }
        assert!(jobs.of_call(call).is_empty());
        assert!(!jobs.is_empty());
        assert_eq!(jobs.next_time(), None);
        jobs.remove(of_second[0]);
        assert!(jobs.is_empty());
    }

    #[test]
    fn a_deadline_comes_once() {
        let (keeper, mut jobs) = (Keeper::new(), Jobs::default());
        let _handle = keeper.call(identity).deadline(HOUR).apply_async(7);
        let job = keeper.add(&mut jobs)[0];
        let at = jobs.next_time().unwrap();
        assert!(at > NOW && at <= NOW + HOUR);
        assert_eq!(jobs.next_expired(NOW), None);
        assert_eq!(jobs.next_expired(at), Some(job));
        assert_eq!(jobs.next_expired(at), None);
        // And not of what is no more.
        let _handle = keeper.call(identity).deadline(HOUR).apply_async(7);
        let job = keeper.add(&mut jobs)[0];
        jobs.remove(job);
        assert_eq!(
            (jobs.next_expired(NOW + HOUR), jobs.next_time()),
            (None, None)
        );
    }

    #[test]
    fn a_delay_ends_once() {
        let (keeper, mut jobs) = (Keeper::new(), Jobs::default());
        let _handle = keeper.call(identity).chunksize(1).map_async(0..2);
        let delayed = keeper.take().into_iter().map(|mut it| {
            it.due = Some(NOW + HOUR);
            jobs.add(it)
        });
        let delayed: Vec<JobId> = delayed.collect();
        assert_eq!(jobs.next_due(NOW), None);
        assert_eq!(jobs.next_time(), Some(NOW + HOUR));
        assert!(jobs.undelay(delayed[0]));
        assert!(!jobs.undelay(delayed[0]));
        assert_eq!(jobs.next_due(NOW + HOUR), Some(delayed[1]));
        assert_eq!(jobs.next_due(NOW + HOUR), None);
        assert_eq!(jobs.all().count(), 2);
    }
}
