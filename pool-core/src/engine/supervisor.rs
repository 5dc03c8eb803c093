//! The thread that starts a pool's workers, learns of their deaths, keeps time, and drains the
//! rings while no other thread does.
//!
//! It lives as long as the pool: the kernel ties a worker's parent-death signal to the thread
//! that started it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::capture::WorkerPipes;
use super::launch::Due;
use super::leadership::RingWatcher;
use super::shared::Shared;
use super::time_limits::until;
use super::token::{ALARM, BELLS, Kind, NOTIFIER, Token};
use super::worker_process::{Process, outlive};
use crate::backend::launcher::Launcher;
use crate::backend::tie::Tie;
use crate::error::hint::hint;
use crate::error::launch_error::LaunchError;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::panic::catch::catch;
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, JoinHandle};
use crate::sys::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use crate::sys::{self, Poller};

/// Bells that follow each other more closely than this are hectic.
const HECTIC: Duration = Duration::from_micros(500);
/// How long results may wait in hectic times.
const NAP: Duration = Duration::from_micros(50);
/// The same while a submitter drains them, which has to go on with that.
const LONG_NAP: Duration = Duration::from_micros(200);

/// Starts the thread.
pub(super) fn start(
    shared: Arc<Shared>,
    launcher: Box<dyn Launcher>,
) -> io::Result<JoinHandle<()>> {
    let thread = thread::Builder::new()
        .name("procpool-supervisor".into())
        .spawn(move || {
            let mut supervisor = Supervisor::new(shared, launcher);
            let shared = supervisor.shared.clone();
            let reason = match catch(|| supervisor.run()) {
                Ok(Ok(())) => None,
                // It could when the pool was built: a sandbox was put up in the meantime.
                Ok(Err(error)) => Some(format!(
                    "the pool can no longer wait for its workers: {error}{}",
                    hint(&error)
                )),
                // A defect of ours.
                Err(panic) => Some(format!("the pool's supervisor panicked: {}", panic.message)),
            };
            if let Some(reason) = reason {
                outlive(shared.give_up(reason));
            }
            // The launcher goes with it, and what that has to end.
            drop(supervisor);
            shared.lock().supervisor_ended();
            shared.tell_of_change();
            shared.run_refused_callbacks();
        });
    thread.map_err(sys::failed_in(sys::THREAD_CALL))
}

pub(super) struct Supervisor {
    shared: Arc<Shared>,
    launcher: Box<dyn Launcher>,
    /// The launcher's notifier, if it is being watched.
    notifier: Option<RawFd>,
    /// When bells were last answered.
    last_ring: Instant,
    /// What became ready during a nap; it still is when the nap is over.
    later: Vec<u64>,
}

impl Supervisor {
    pub(super) fn new(shared: Arc<Shared>, launcher: Box<dyn Launcher>) -> Self {
        Self {
            shared,
            launcher,
            notifier: None,
            last_ring: sys::now(),
            later: Vec::new(),
        }
    }

    /// Ends when the pool has ended and all its workers are dead.
    ///
    /// # Errors
    /// When the system does not say any more what happens.
    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.launch_what_is_due();
            self.watch_notifier();
            self.shared.tell_of_frees();
            self.shared.run_refused_callbacks();
            let hears_silence = self.shared.lock().has_silent_worker();
            if hears_silence {
                self.hear_everybody(&mut ready)?;
            }
            self.say_farewell();
            self.ask_the_hung_up();
            let open;
            let timeout = {
                let mut core = self.shared.lock();
                if hears_silence {
                    core.kill_silent_workers();
                }
                core.on_time();
                core.leadership().stand_in_if_due(sys::now_ns());
                core.cancel_pending_launches();
                // It is tried again where it is still needed.
                core.leadership().hear_again();
                if core.lifecycle().is_maintenance_due() {
                    core.dispatch();
                }
                self.shared.restore_invariant(&mut core);
                if core.is_over() {
                    self.shared.deliver(core);
                    break;
                }
                let now = sys::now_ns();
                open = if core.leadership().is_time_to_ask(now) {
                    core.open_for_idle()
                } else {
                    core.open_for_supervisor()
                };
                let timer = core.next_timer(true);
                core.leadership().supervisor_sleeps(timer);
                let busy = core.has_deliveries();
                self.shared.deliver(core);
                if busy {
                    Some(Duration::ZERO)
                } else {
                    timer.map(until)
                }
            };
            // Also of what was heard a moment ago, by a thread that began to listen.
            self.shared.tell_of_change();
            self.shared.ask_for_items(open);
            self.sleep(&mut ready, timeout)?;
        }
        self.shared.tell_of_change();
        Ok(())
    }

    /// Takes in what has happened by now.
    fn hear_everybody(&mut self, ready: &mut Vec<u64>) -> io::Result<()> {
        // Each look takes in dozens, of which a worker has two.
        let looks = self.shared.lock().slots().len() / 16 + 1;
        for _ in 0..looks {
            self.sleep(ready, Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Sleeps until something happens, and does what is to be done about it.
    pub(super) fn sleep(
        &mut self,
        ready: &mut Vec<u64>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.shared.events.wait(ready, timeout)?;
        for &token in &*ready {
            self.handle(token)?;
        }
        Ok(())
    }

    fn handle(&mut self, token: u64) -> io::Result<()> {
        match token {
            ALARM => self.shared.alarm.clear(),
            BELLS => self.answer_bells()?,
            NOTIFIER => self.ask_again(),
            token => match Token::unpack(token) {
                (worker, Kind::Doorbell) => self.advance(worker),
                (worker, Kind::Death) => self.died(worker),
                // It is in the other poller.
                (_, Kind::Bell) => {}
            },
        }
        Ok(())
    }

    /// Some of the workers rang, and no thread leads, or did a moment ago.
    ///
    /// Where rings follow each other closely, the next ones are not waited for but, as network
    /// drivers do, looked for after a short nap, many at a time: a ring costs the worker a system
    /// call and this thread a wake-up.
    fn answer_bells(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        self.shared.bells.wait(&mut ready, Some(Duration::ZERO))?;
        let mut is_hectic = sys::now() - self.last_ring < HECTIC;
        loop {
            let mut core = self.shared.lock();
            if core.leadership().has_leader() {
                // The ring is meant for the leader, which sleeps on the same bells, or will:
                // they must go on ringing, but not for us. A bell rings once.
                self.shared.hear_bells(&mut core, false);
                if !ready.is_empty() {
                    self.shared.leadership.wake_leader();
                }
                break;
            }
            if ready.contains(&ALARM) {
                self.shared.leadership.clear_wakeup();
            }
            ready.clear();
            core.attend(RingWatcher::Coalescing);
            let drained_early = core.take_drained_early();
            let nap = if drained_early { LONG_NAP } else { NAP };
            let news = core.drain_and_dispatch() || drained_early;
            // Time must be kept, too.
            let is_due = core
                .next_timer(true)
                .is_some_and(|timer| timer <= sys::now_ns());
            if !(news && is_hectic) || is_due {
                core.attend(RingWatcher::None);
                self.shared.restore_invariant(&mut core);
                self.shared.deliver(core);
                break;
            }
            let open = core.open_for_idle();
            self.shared.deliver(core);
            self.shared.ask_for_items(open);
            is_hectic = self.shared.events.wait(&mut self.later, Some(nap)).is_ok();
            if !self.later.is_empty() {
                is_hectic = false;
            }
        }
        self.last_ring = sys::now();
        Ok(())
    }

    /// A worker that is starting has written to its doorbell.
    fn advance(&self, worker: Token) {
        let mut core = self.shared.lock();
        let Some(process) = core.process(worker) else {
            return;
        };
        if core.slots()[worker.slot].up().is_some() {
            if !matches!(sys::is_hung_up(process.handle.doorbell()), Ok(true)) {
                return;
            }
            self.shared.unwatch_bell(process);
            core.hung_up_on(worker.slot);
            self.shared.deliver(core);
            return;
        }
        let was_reached = core.advance(worker.slot);
        let was_killed = core.slots()[worker.slot].is_killed();
        if was_reached {
            if let Some(process) = core.process(worker) {
                let doorbell = process.handle.doorbell();
                let events = &self.shared.events;
                let moved = events.hear_hang_up_alone(doorbell, worker.doorbell());
                let moved = moved.and_then(|()| self.shared.hear(process, worker));
                let watched =
                    process.is_watched || self.watch_death(worker, process.handle.exit_fd());
                core.watched(worker.slot, watched);
                if moved.is_err() || !watched {
                    // Out of kernel memory: a worker that cannot be heard is of no use.
                    core.unwatched(worker.slot);
                }
            }
            core.dispatch();
        } else if let Some(process) = core.process(worker)
            && (was_killed || process.is_hung_up())
        {
            forget(&self.shared.events, process.handle.doorbell());
        }
        self.shared.deliver(core);
    }

    /// Asks how far those starting workers are whose doorbells are silent from now on.
    fn ask_the_hung_up(&self) {
        let hung_up = self.shared.lock().hung_up(sys::now_ns());
        for worker in hung_up {
            self.advance(worker);
        }
    }

    fn watch_death(&self, worker: Token, death: Option<BorrowedFd<'_>>) -> bool {
        death.is_some_and(|death| self.shared.events.add(death, worker.exit_fd()).is_ok())
    }

    /// A worker's process has died.
    fn died(&self, worker: Token) {
        let pipes = {
            let core = self.shared.lock();
            core.worker(worker)
                .and_then(|process| process.pipes.as_ref().map(WorkerPipes::finisher))
        };
        if let Some(finish) = pipes {
            // All that it has written is in the pipes by now.
            finish();
        }
        let mut core = self.shared.lock();
        let Some(process) = core.worker(worker) else {
            return;
        };
        self.shared.unwatch(process);
        if core.process(worker).is_some() {
            core.died(worker.slot);
        } else {
            core.died_late(worker.number);
        }
        core.dispatch();
        self.shared.deliver(core);
    }

    /// Asks once more for the exit statuses that are not known.
    fn ask_again(&self) {
        let mut core = self.shared.lock();
        core.poll_exits(u64::MAX);
        core.dispatch();
        self.shared.deliver(core);
    }

    /// Parts from workers that should be gone by now.
    fn say_farewell(&self) {
        let now = sys::now_ns();
        let (overdue, left) = {
            let mut core = self.shared.lock();
            if core.next_farewell() > now {
                return;
            }
            core.poll_exits(now);
            let overdue = core.overdue(now);
            let left = core.leave_behind(now);
            for worker in &left {
                self.shared.unwatch(worker.process());
            }
            core.dispatch();
            self.shared.deliver(core);
            (overdue, left)
        };
        // Outside of the lock: their pipes are emptied.
        drop(left);
        for worker in overdue {
            self.part_from(worker);
        }
        self.shared.tell_of_change();
    }

    fn part_from(&self, worker: Token) {
        let is_dead = {
            let core = self.shared.lock();
            let death = core
                .process(worker)
                .and_then(|process| process.handle.exit_fd());
            death.is_some_and(|death| sys::has_ended(death).unwrap_or(false))
        };
        if is_dead {
            // It may be that nobody was notified.
            self.died(worker);
        }
        let mut core = self.shared.lock();
        let Some(process) = core.process(worker) else {
            return;
        };
        self.shared.unwatch_bell(process);
        core.part_from(worker.slot);
        core.dispatch();
        self.shared.restore_invariant(&mut core);
        self.shared.deliver(core);
    }

    fn launch_what_is_due(&mut self) {
        let due = self.shared.lock().due_launches();
        for due in due {
            let slot = due.slot;
            match self.launch(&due) {
                Ok(process) => {
                    let mut core = self.shared.lock();
                    core.launched(slot, process);
                    self.shared.deliver(core);
                }
                Err(error) => {
                    let mut core = self.shared.lock();
                    core.launch_failed(slot, &error);
                    self.shared.deliver(core);
                }
            }
            self.shared.tell_of_change();
        }
    }

    fn launch(&mut self, due: &Due) -> Result<Process, LaunchError> {
        if self.shared.lock().has_ended() {
            return Err(LaunchError::new("the pool has ended"));
        }
        let (mut tie, theirs) = Tie::new().map_err(|error| {
            LaunchError::new("cannot make what ties a worker to this process").caused_by(error)
        })?;
        let (outlets, pipes) = self.shared.capture.connect(due).map_err(|error| {
            LaunchError::new("cannot make what a worker is to print to").caused_by(error)
        })?;
        let spec = due.spec(outlets, theirs);
        let launcher = &mut self.launcher;
        let handle = catch(|| launcher.launch(&spec)).map_err(|panic| {
            LaunchError::new(format!("the launcher panicked: {}", panic.message))
        })??;
        if let Some(bell) = tie.take_wakeup() {
            handle.region().wake_by(bell);
        }
        let worker = Token {
            slot: due.slot,
            number: due.number,
        };
        let watch = |poller: &Poller, source: Option<BorrowedFd<'_>>, token| match source {
            None => Ok(false),
            Some(source) => poller.add(source, token).map(|()| true),
        };
        let events = &self.shared.events;
        let watched = watch(events, Some(handle.doorbell()), worker.doorbell())
            .and_then(|_| watch(events, handle.exit_fd(), worker.exit_fd()));
        let (is_watched, failure) = match watched {
            Ok(is_watched) => (is_watched, None),
            Err(error) => {
                let what = "the system refuses to watch a worker";
                (false, Some(LaunchError::new(what).caused_by(error)))
            }
        };
        Ok(Process {
            handle,
            tie,
            number: due.number,
            seed: spec.seed,
            info: None,
            failure,
            is_watched,
            ask_again: None,
            pipes,
        })
    }

    /// Keeps the launcher's notifier in the poller as long as there is one.
    fn watch_notifier(&mut self) {
        let notifier = self.launcher.notifier();
        let descriptor = notifier.as_ref().map(AsRawFd::as_raw_fd);
        if descriptor != self.notifier {
            // If it is refused, that is tried again the next time. Until then those that are to be
            // asked again have a timer.
            let is_watched =
                notifier.is_none_or(|notifier| self.shared.events.add(notifier, NOTIFIER).is_ok());
            self.notifier = descriptor.filter(|_| is_watched);
        }
    }
}

impl Shared {
    /// The pool ends, since it cannot go on for this reason: nobody must wait forever because of
    /// it. Who has the time waits for the workers that were killed.
    pub(super) fn give_up(&self, reason: String) -> Vec<Process> {
        let mut core = self.lock();
        let killed = core.give_up(TaskError::new(TaskErrorKind::Launch, reason));
        self.is_ending.store(true, Ordering::SeqCst);
        self.deliver(core);
        killed
    }

    /// Nothing of this worker's is heard any more.
    fn unwatch(&self, process: &Process) {
        if let Some(death) = process.handle.exit_fd() {
            forget(&self.events, death);
        }
        self.unwatch_bell(process);
    }

    /// They leave the pollers by themselves only when all copies of the descriptors are closed, and
    /// there are copies in every task's own children.
    pub(super) fn unwatch_bell(&self, process: &Process) {
        forget(&self.events, process.handle.doorbell());
        forget(&self.bells, process.tie.bell());
    }

    /// Whoever waits for results hears of this worker's from now on.
    pub(super) fn hear(&self, process: &Process, worker: Token) -> io::Result<()> {
        let bell = process.tie.bell();
        self.bells.add_for_each_change(bell, worker.bell())
    }
}

/// Takes a descriptor out of a poller, if it is there.
pub(super) fn forget(poller: &Poller, source: impl AsFd) {
    // The kernel needs no memory for that: the one reason why it could fail is that it is not
    // there.
    let _ = poller.delete(source);
}
