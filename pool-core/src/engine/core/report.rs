//! What the core reports of itself.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use crate::engine::slot_id::SlotId;
use crate::engine::work;
use crate::engine::worker_slot::{Phase, Setup};
use crate::observe::dump::{Dump, RunningTask, WorkerDump, WorkerState};
use crate::observe::stats::{Stats, WorkerStats};
use crate::shm::region::Region;
use crate::sys;

impl Core {
    /// What happened so far. How much memory the workers have is for the caller to ask, without the
    /// lock.
    pub(in crate::engine) fn stats(&self) -> Stats {
        let mut stats = self.notify.stats();
        stats.running = self.scheduler.running() + self.notify.deciding();
        stats.queued = self.queued(&stats);
        stats.workers_terminating = self.terminating.len() as u64;
        let now = sys::now_ns();
        for (id, slot) in self.slots.iter() {
            if let Some(channel) = slot.channel() {
                channel.count(&mut stats);
            }
            let Some((process, channel)) = slot.up() else {
                continue;
            };
            let Some(info) = process.info().cloned() else {
                continue;
            };
            let up = now.saturating_sub(slot.born());
            let at_work = self.at_work_since(id, channel.region(), now);
            let busy = slot
                .tally()
                .busy_ns
                .saturating_add(at_work.map_or(0, |since| now - since));
            let busy = busy.min(up);
            stats.workers.push(WorkerStats {
                info,
                up: Duration::from_nanos(up),
                busy: Duration::from_nanos(busy),
                idle: Duration::from_nanos(up - busy),
                items: slot.tally().items,
                queued: self.scheduler.open_in(id),
                rss: None,
                cpu: None,
            });
        }
        stats
    }

    /// How many items wait: those that have neither ended nor are with a worker. The queue may be
    /// long, so it is not walked.
    fn queued(&self, stats: &Stats) -> u64 {
        let ended = stats.succeeded + stats.failed;
        let running = self.scheduler.running() + self.notify.deciding();
        stats.submitted.saturating_sub(ended + running)
    }

    /// Since when a slot's worker is at its current chunk, by its own word, in nanoseconds.
    fn at_work_since(&self, slot: SlotId, region: &Region, now: u64) -> Option<u64> {
        let since = region
            .frame_started()
            .filter(|_| self.scheduler.is_busy(slot))?;
        (self.slots[slot].born()..=now)
            .contains(&since)
            .then_some(since)
    }

    /// What every worker is at. How it looks from outside is for the caller to ask, without the
    /// lock.
    pub(in crate::engine) fn dump(&self) -> (Dump, Vec<Option<Arc<Region>>>) {
        let mut dump = Dump {
            queued: self.queued(&self.notify.stats()),
            ..Dump::default()
        };
        let mut regions = Vec::new();
        let now = sys::now_ns();
        for (id, slot) in self.slots.iter() {
            let mut worker = WorkerDump {
                info: None,
                state: WorkerState::Down,
                task: None,
                waiting: self.scheduler.open_in(id),
                kernel: None,
                stack: None,
            };
            let mut region = None;
            match slot.phase() {
                // Room that is kept for a later worker.
                Phase::Down { .. } if slot.position().is_none() => continue,
                Phase::Down { .. } => {}
                Phase::Launching => worker.state = WorkerState::Starting,
                Phase::Starting { process, .. } => {
                    worker.state = WorkerState::Starting;
                    worker.info = process.info().cloned();
                }
                Phase::Dying { process, .. } => {
                    worker.state = WorkerState::Terminating;
                    worker.info = process.info().cloned();
                }
                Phase::Up { process, channel } => {
                    worker.info = process.info().cloned();
                    let begun = channel.region().items_begun();
                    if let Some(number) = self.scheduler.running_item(id, begun) {
                        worker.waiting = self.scheduler.items_behind(id, number);
                        worker.task = self.running_task(id, number, channel.region(), now);
                    }
                    worker.state = match worker.task {
                        _ if slot.is_killed() => WorkerState::Terminating,
                        _ if self.scheduler.is_retiring(id) => WorkerState::Draining,
                        Some(_) => WorkerState::Running,
                        None => WorkerState::Idle,
                    };
                    region = worker.task.is_some().then(|| channel.last_seen().0);
                }
            }
            dump.workers.push(worker);
            regions.push(region);
        }
        for process in self.terminating.processes() {
            dump.workers.push(WorkerDump {
                info: process.info().cloned(),
                state: WorkerState::Terminating,
                task: None,
                waiting: 0,
                kernel: None,
                stack: None,
            });
            regions.push(None);
        }
        (dump, regions)
    }

    /// The item that a slot's worker runs, which has this number.
    fn running_task(
        &self,
        slot: SlotId,
        number: u64,
        region: &Region,
        now: u64,
    ) -> Option<RunningTask> {
        let (chunk, position) = self.scheduler.place_of(slot, number)?;
        let chunk_since = self.at_work_since(slot, region, now);
        let noted = work::notes_beginnings(chunk)
            .then(|| region.item_started())
            .flatten();
        let since = noted.filter(|since| (chunk_since.unwrap_or(0)..=now).contains(since));
        Some(RunningTask {
            function: match self.slots[slot].setup() {
                Setup::Settings => "the worker's settings".into(),
                _ if chunk.is_initializer => "the initializer".into(),
                _ => chunk.call_name(),
            },
            index: chunk.first + position as usize,
            running_for: since.map(|since| Duration::from_nanos(now - since)),
            chunk_running_for: chunk_since.map(|since| Duration::from_nanos(now - since)),
            done_before: position,
            chunk: chunk.count,
        })
    }
}
