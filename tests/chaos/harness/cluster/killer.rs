//! The thread that kills, stops and continues agents, has them leave, starts new ones, restarts
//! the server, and pulls cables.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use procpool_testing::procfs::{self, wait_until};
use rustix::process::Signal;

use super::Cluster;
use super::site::{Member, Site};
use crate::harness::agents::{AgentNumber, STOPPED, Whom};
use crate::harness::effects::Harm;
use crate::harness::meddling;
use crate::harness::plan::one_in;
use crate::harness::storm::Storm;

/// Before that nobody is harmed: somebody must have begun something.
const CALM: Duration = Duration::from_secs(1);

/// With fewer agents than that, another one is started soon.
const FEW: usize = 3;

/// More agents there are not.
const MANY: usize = 6;

/// What is short is over before anybody gives up, in milliseconds,
const SHORT: std::ops::Range<u64> = 20..2000;

/// and what is long is longer than the lease and than the client waits for an agent.
const LONG: std::ops::Range<u64> = 6500..9000;

/// What is to be undone, and when.
struct Pending {
    at: Instant,
    what: What,
    /// Its number among the troubles.
    trouble: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Stopped(AgentNumber),
    Cut(usize),
    ServerAway,
    ServerStopped,
}

/// What the thread has.
struct Killer<'a> {
    storm: &'a Storm<Cluster>,
    site: &'a mut Site,
    pending: Vec<Pending>,
}

/// Does harm until the storm is over, and then undoes what can be undone.
pub(super) fn run(storm: &Storm<Cluster>, rng: &mut Rng) {
    let mut site = storm.backend.site();
    let site = site.as_mut().expect("it is there until the end");
    let mut killer = Killer {
        storm,
        site,
        pending: Vec::new(),
    };
    killer.wait(CALM);
    while !storm.ledger.is_over() {
        // Quick and slow times, and some without any harm.
        let pause = match rng.u32(..20) {
            0 => rng.u64(1000..3000),
            1..6 => rng.u64(..30),
            _ => rng.u64(30..500),
        };
        killer.wait(Duration::from_millis(pause));
        killer.site.bury(&storm.ledger, &storm.victims);
        let agents = killer.site.members.len();
        if agents == 0 || agents < FEW && one_in(rng, 2) {
            killer.start(rng);
        } else {
            killer.act(rng);
        }
    }
    killer.make_peace(rng);
}

impl Killer<'_> {
    /// Sleeps, and undoes what is due.
    fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let now = Instant::now();
            let due: Vec<Pending> = self.pending.extract_if(.., |it| it.at <= now).collect();
            for pending in due {
                self.undo(&pending);
            }
            if now >= end || self.storm.ledger.is_over() {
                return;
            }
            let next = self.pending.iter().map(|it| it.at).min();
            let next = next.map_or(end, |next| next.min(end));
            // Not beyond the end of the storm.
            let most = Duration::from_millis(50);
            thread::sleep(next.saturating_duration_since(now).min(most));
        }
    }

    /// Undoes everything, and stays until nobody waits for an outcome: somebody must do what there
    /// is. The agents may all be leaving, and one that was started in trouble may give up yet.
    fn make_peace(&mut self, rng: &mut Rng) {
        for pending in std::mem::take(&mut self.pending) {
            self.undo(&pending);
        }
        {
            // One that is put back needs a moment.
            let _operation = self.storm.ledger.operation("links come back");
            let machines = self.site.machines();
            wait_until(|| machines.iter().all(|it| it.answers()));
        }
        loop {
            self.site.bury(&self.storm.ledger, &self.storm.victims);
            if self.site.members.iter().all(|it| it.is_leaving.is_some()) {
                self.start(rng);
            }
            if self.storm.ledger.movement().1 == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn is(&self, what: What) -> bool {
        self.pending.iter().any(|it| it.what == what)
    }

    fn is_server_there(&self) -> bool {
        !self.is(What::ServerAway) && !self.is(What::ServerStopped)
    }

    /// Starts an agent where it can reach the server.
    fn start(&mut self, rng: &mut Rng) {
        if !self.is_server_there() {
            return;
        }
        let machines = 0..self.site.machines().len();
        let reached: Vec<usize> = machines.filter(|it| !self.is(What::Cut(*it))).collect();
        if reached.is_empty() && !self.site.machines().is_empty() {
            return;
        }
        let machine = rng.choice(&reached).copied();
        // A link that was put back needs a moment.
        if machine.is_some_and(|place| !self.site.machines()[place].answers()) {
            return;
        }
        self.site.start_agent(machine, one_in(rng, 3));
    }

    /// Does something.
    fn act(&mut self, rng: &mut Rng) {
        match rng.u32(..100) {
            0..25 => self.kill_worker(rng),
            25..40 => self.kill_agent(rng),
            40..52 => self.dismiss(rng),
            52..66 => self.stop_agent(rng),
            66..80 => self.cut(rng),
            // Nobody gets anything done then.
            80..83 => self.restart_server(rng),
            83 => self.stop_server(rng),
            84 => self.stop_this_program(rng),
            _ if self.site.members.len() < MANY => self.start(rng),
            _ => {}
        }
    }

    /// How long something lasts, from now on.
    fn duration(rng: &mut Rng, one_in_is_long: u32) -> Duration {
        let range = if one_in(rng, one_in_is_long) {
            LONG
        } else {
            SHORT
        };
        Duration::from_millis(rng.u64(range))
    }

    fn begin(&mut self, what: What, whom: Whom, name: &'static str, time: Duration) {
        let trouble = self.storm.victims.agents.trouble(whom, name);
        self.pending.push(Pending {
            at: Instant::now() + time,
            what,
            trouble,
        });
    }

    fn undo(&mut self, pending: &Pending) {
        match pending.what {
            What::Stopped(number) => {
                if let Some(member) = self.site.members.iter().find(|it| it.number == number) {
                    member.agent.signal(Signal::CONT);
                }
            }
            What::Cut(machine) => self.site.machines()[machine].link_up(),
            What::ServerAway => self.site.server().start_again(),
            What::ServerStopped => self.site.server().signal(Signal::CONT),
        }
        self.storm.victims.agents.relieve(pending.trouble);
    }

    /// One of the agents.
    fn agent(&mut self, rng: &mut Rng) -> Option<&mut Member> {
        let place = rng.usize(..self.site.members.len().max(1));
        self.site.members.get_mut(place)
    }

    fn kill_worker(&mut self, rng: &mut Rng) {
        let Some(member) = self.agent(rng) else {
            return;
        };
        let workers = procfs::children(member.agent.pid());
        if let Some(worker) = rng.choice(workers) {
            let victims = &self.storm.victims;
            victims.add(worker, false);
            procfs::signal(worker, Signal::KILL);
            victims.effects.add(Harm::KillWorker, true);
        }
    }

    fn kill_agent(&mut self, rng: &mut Rng) {
        let victims = &self.storm.victims;
        let Some(member) = self.agent(rng) else {
            return;
        };
        let number = member.number;
        victims.agents.kill(number);
        member.agent.kill();
        victims.effects.add(Harm::KillAgent, true);
        self.site.forget(number);
        if one_in(rng, 2) {
            self.start(rng);
        }
    }

    /// Has an agent leave.
    fn dismiss(&mut self, rng: &mut Rng) {
        if let Some(member) = self.agent(rng) {
            member.leave();
        }
        if one_in(rng, 2) {
            self.start(rng);
        }
    }

    fn stop_agent(&mut self, rng: &mut Rng) {
        let Some(member) = self.agent(rng) else {
            return;
        };
        let (number, pid) = (member.number, member.agent.pid());
        if self.is(What::Stopped(number)) {
            return;
        }
        let whom = Whom::These([number].into());
        let time = Self::duration(rng, 6);
        self.begin(What::Stopped(number), whom, STOPPED, time);
        procfs::signal(pid, Signal::STOP);
        let victims = &self.storm.victims;
        victims.effects.add(Harm::StopAgent, is_stopped(pid));
    }

    /// Pulls a machine's cable.
    fn cut(&mut self, rng: &mut Rng) {
        if self.site.machines().is_empty() {
            return;
        }
        let machine = rng.usize(..self.site.machines().len());
        if self.is(What::Cut(machine)) {
            return;
        }
        let whom = Whom::These(self.site.agents_at(machine));
        let time = Self::duration(rng, 4);
        self.begin(What::Cut(machine), whom, "cut off", time);
        self.site.machines()[machine].link_down();
        let is_cut = !self.site.machines()[machine].answers();
        let harm = if LONG.contains(&(time.as_millis() as u64)) {
            Harm::CutForLong
        } else {
            Harm::Cut
        };
        self.storm.victims.effects.add(harm, is_cut);
    }

    fn restart_server(&mut self, rng: &mut Rng) {
        if !self.is_server_there() {
            return;
        }
        let time = Self::duration(rng, 12);
        self.begin(What::ServerAway, Whom::All, "without a server", time);
        self.site.server().kill();
        self.storm.victims.effects.add(Harm::RestartServer, true);
    }

    fn stop_server(&mut self, rng: &mut Rng) {
        if !self.is_server_there() {
            return;
        }
        let time = Self::duration(rng, 12);
        self.begin(
            What::ServerStopped,
            Whom::All,
            "with a stopped server",
            time,
        );
        let server = self.site.server();
        server.signal(Signal::STOP);
        let is_stopped = is_stopped(server.pid());
        self.storm.victims.effects.add(Harm::StopServer, is_stopped);
    }

    /// The client itself. Meanwhile nothing is undone.
    fn stop_this_program(&mut self, rng: &mut Rng) {
        let victims = &self.storm.victims;
        let time = Self::duration(rng, 4);
        let trouble = victims.agents.trouble(Whom::All, "without the client");
        let stopped = meddling::stop_this_program(time);
        victims.agents.relieve(trouble);
        victims.effects.add(Harm::StopProgram, stopped);
    }
}

/// Whether a process is stopped, to which that was said.
fn is_stopped(pid: u32) -> bool {
    let mut state = None;
    let end = Instant::now() + Duration::from_millis(20);
    wait_until(|| {
        state = procfs::state(pid);
        state.as_deref() == Some("T") || Instant::now() >= end
    });
    state.as_deref() == Some("T")
}
