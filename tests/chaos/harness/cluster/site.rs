//! A server, machines that are reached by links, and agents there.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;

use procpool_testing::left_out;
use procpool_testing::machine::{self, Machine};
use procpool_testing::nats::{self, Agent, Config, Server};
use procpool_testing::procfs::{self, wait_until};
use rustix::process::Signal;

use crate::harness::action::TALK;
use crate::harness::agents::{self, AgentNumber};
use crate::harness::effects::Harm;
use crate::harness::ledger::Ledger;
use crate::harness::notes;
use crate::harness::victims::Victims;

/// What is left out without them.
const LINKS: &str = "links that go down in the storm of a cluster";

/// So many machines there are.
const MACHINES: usize = 3;

/// So many agents there are in the beginning.
const FIRST: usize = 3;

/// How many workers each agent has for each client.
const WORKERS: usize = 2;

/// How long an agent tries to reach the server when it starts, in milliseconds,
const CONNECTS: u32 = 25_000;

/// and how long it may take until it has begun to.
const BEGINS: u32 = 3000;

/// See the module.
pub(super) struct Site {
    server: Server,
    /// None, where they cannot be made: then all agents are on this machine.
    machines: Vec<Machine>,
    pub(super) members: Vec<Member>,
    last: AgentNumber,
}

/// An agent.
pub(super) struct Member {
    pub(super) agent: Agent,
    pub(super) number: AgentNumber,
    /// The place of its machine among those that there are.
    pub(super) machine: Option<usize>,
    /// Since when it is asked to, as notes of runs have it.
    pub(super) is_leaving: Option<u32>,
    /// When it was started, as notes of runs have it.
    started: u32,
}

impl Member {
    /// Asks it to leave.
    pub(super) fn leave(&mut self) {
        self.is_leaving.get_or_insert_with(notes::now);
        self.agent.signal(Signal::TERM);
    }
}

impl Site {
    pub(super) fn new() -> Self {
        let program = nats::program().unwrap_or_else(|why| panic!("there is no server: {why}"));
        let can_be_made = Machine::can_be_made();
        let links = left_out::unless(LINKS, "network namespaces", can_be_made);
        let (config, machines) = match links {
            Some(()) => (Config::new().for_machines(), MACHINES),
            None => (Config::new(), 0),
        };
        let mut site = Self {
            server: Server::start(program, config),
            machines: (0..machines).map(|_| Machine::new()).collect(),
            members: Vec::new(),
            last: 0,
        };
        for number in 0..FIRST {
            site.start_agent((machines > 0).then(|| number % machines), false);
        }
        site
    }

    /// Where this program finds the server.
    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    pub(super) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    pub(super) fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// Starts an agent, on this machine of those that there are. Some let their workers talk.
    pub(super) fn start_agent(&mut self, machine: Option<usize>, talks: bool) {
        self.last += 1;
        let number = self.last;
        let there = machine.map(|place| &self.machines[place]);
        let url = match there {
            Some(there) => self.server.url_at(&there.gateway().to_string()),
            None => self.server.url(),
        };
        let this = std::env::current_exe().expect("this program has a path");
        let mut command = match there {
            Some(there) => there.command(this),
            None => std::process::Command::new(this),
        };
        command.env(notes::AGENT, number.to_string());
        if talks {
            command.env(TALK, "yes");
        }
        let started = notes::now();
        let agent = Agent::run(command, &url, &agents::name(number), WORKERS);
        self.members.push(Member {
            agent,
            number,
            machine,
            is_leaving: None,
            started,
        });
    }

    /// The agents of a machine.
    pub(super) fn agents_at(&self, machine: usize) -> HashSet<AgentNumber> {
        let there = self.members.iter().filter(|it| it.machine == Some(machine));
        there.map(|it| it.number).collect()
    }

    /// Takes an agent away that has been killed.
    pub(super) fn forget(&mut self, number: AgentNumber) {
        self.members.retain(|it| it.number != number);
    }

    /// Takes those away that have left, who must have left in peace.
    pub(super) fn bury(&mut self, ledger: &Ledger, victims: &Victims) {
        self.members.retain_mut(|member| {
            let Some(status) = member.agent.try_status() else {
                return true;
            };
            let Member {
                number,
                is_leaving,
                started,
                ..
            } = member;
            let is_term = status.signal() == Some(Signal::TERM.as_raw());
            if is_leaving.is_some() {
                victims.effects.add(Harm::Drain, status.success());
            }
            // One that cannot reach the server when it starts is none.
            let is_new = notes::now() < *started + CONNECTS;
            let has_failed = is_new && status.code().is_some() && !status.success();
            let is_explained = has_failed
                && victims
                    .agents
                    .was_in_trouble(*number, *started, *started + BEGINS);
            // Nor is one that was asked to leave before it was one.
            let is_explained =
                is_explained || is_term && is_leaving.is_some_and(|at| at < *started + BEGINS);
            let has_left = status.success() && is_leaving.is_some();
            if !has_left && !is_explained {
                ledger.violation(&format!(
                    "the agent m{number} has ended: {status}, asked to leave: {is_leaving:?}; {}",
                    victims.agents.describe(*number)
                ));
            }
            false
        });
    }

    /// Has all agents leave, and looks at what is left.
    pub(super) fn finish(mut self, ledger: &Ledger, victims: &Victims) {
        let operation = ledger.operation("all agents leave");
        for member in &mut self.members {
            member.leave();
        }
        let pids: Vec<u32> = self.members.iter().map(|it| it.agent.pid()).collect();
        let below: Vec<u32> = pids.iter().flat_map(|pid| procfs::below(*pid)).collect();
        wait_until(|| {
            self.bury(ledger, victims);
            self.members.is_empty()
        });
        for worker in below.into_iter().filter(|pid| procfs::is_alive(*pid)) {
            let who = procfs::describe(worker);
            ledger.violation(&format!("an agent has left, but {who} lives"));
        }
        drop(operation);
        let _operation = ledger.operation("the server and the machines go");
        drop(self);
        let left = machine::of_this_process();
        if !left.is_empty() {
            ledger.violation(&format!("machines are left: {left:?}"));
        }
    }
}
