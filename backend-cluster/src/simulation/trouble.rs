//! What goes wrong.

use super::World;

impl World {
    pub(super) fn make_trouble(&mut self) {
        let trouble = self.trouble;
        let count = self.agents.len() as u64;
        let at = self.dice.roll(count) as usize;
        let long = 1 + self.dice.roll(12_000);
        if self.dice.one_in(1_500 * trouble) && !self.agents[at].is_dead {
            self.note(format!("agent {at} stops for {long}"));
            self.agents[at].stopped_until = self.now + long;
        }
        if self.dice.one_in(1_500 * trouble) && !self.agents[at].is_dead {
            self.note(format!("agent {at} is cut off for {long}"));
            self.agents[at].cut_until = self.now + long;
        }
        for at in 0..self.agents.len() {
            let is_doomed = std::mem::take(&mut self.agents[at].is_doomed);
            if (is_doomed || self.dice.one_in(3_000 * count * trouble)) && !self.agents[at].is_dead
            {
                self.kill_agent(at);
            }
        }
        if self.dice.one_in(4_000 * trouble) {
            self.server_restarts();
        }
        if self.dice.one_in(3_000 * trouble) && self.client_cut_until <= self.now {
            let long = 1 + self.dice.roll(8_000);
            self.note(format!("the client is cut off for {long}"));
            self.client_cut_until = self.now + long;
            self.client.disconnected();
        }
        if self.dice.one_in(1_000 * trouble) {
            let jobs: Vec<u64> = self.specs.keys().copied().collect();
            if !jobs.is_empty() {
                let job = jobs[self.dice.roll(jobs.len() as u64) as usize];
                self.cancelled.insert(job);
                for range in self.client.cancel(job, true) {
                    for index in range {
                        self.deliver(job, index);
                    }
                }
            }
        }
    }

    /// Of what it has said, the server has everything that a note which came back was behind; of
    /// the rest, some. A word that the client misses is before some that it has.
    pub(super) fn kill_agent(&mut self, at: usize) {
        self.note(format!("agent {at} dies"));
        let agent = &mut self.agents[at];
        agent.is_dead = true;
        agent.running.clear();
        agent.done.clear();
        self.lose_words(at);
        self.start_agent(2);
    }

    /// The agent's session ends, and its link with it.
    pub(super) fn lose_words(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let noted = agent.noted;
        let mut certain = agent.to_client.iter();
        let certain = certain.position(|it| it.clock > noted);
        let certain = certain.unwrap_or(agent.to_client.len());
        let more = (agent.to_client.len() - certain) as u64;
        let keeps = certain + self.dice.roll(more + 1) as usize;
        let mut lost = agent.to_client.drain(keeps..);
        let has_gap = lost.any(|it| it.clock <= noted);
        drop(lost);
        if let Some(session) = self.sessions.get_mut(&agent.session) {
            session.has_gap |= has_gap;
        }
    }

    /// The client has another connection. What was said to it meanwhile is lost, and said again by
    /// those who live.
    pub(super) fn client_is_back(&mut self) {
        self.note("the client is back".into());
        for at in 0..self.agents.len() {
            self.send_again(at);
            let comes = self.agents[at].direct.len() as u64;
            let keeps = self.dice.roll(comes + 1) as usize;
            self.agents[at].direct.truncate(keeps);
        }
        self.client.reconnected();
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.found(session);
        }
        // Nobody could answer meanwhile.
        for session in self.sessions.values_mut() {
            session.asked = None;
        }
        self.queue_made_at = Some(self.now + self.dice.roll(200));
    }

    /// What is under way between the client and this agent was lost.
    fn send_again(&mut self, at: usize) {
        let back = self.now + 1 + self.dice.roll(100);
        let agent = &mut self.agents[at];
        if agent.is_dead {
            // Nobody sends it again.
            agent.to_client.clear();
            return;
        }
        // The links send everything again, in order.
        for frame in agent.to_client.iter_mut().chain(&mut agent.from_client) {
            frame.at = frame.at.max(back);
        }
        for frame in &mut agent.to_client {
            frame.clock = frame.clock.max(back);
        }
    }

    /// All connections break. Of a queue in memory nothing is left; one in a file may have
    /// forgotten that it gave something out, or that something was acknowledged.
    fn server_restarts(&mut self) {
        self.note("the server restarts".into());
        self.client.disconnected();
        if self.dice.one_in(2) {
            self.queue.clear();
        } else {
            for it in &mut self.queue {
                if self.dice.one_in(3) {
                    it.given = None;
                    it.times = 0;
                }
            }
        }
        for at in 0..self.agents.len() {
            let agent = &mut self.agents[at];
            agent.arriving.clear();
            agent.direct.clear();
            agent.notes.clear();
            agent.wants = 0;
            if !agent.is_dead {
                agent.intake.reconnected();
            }
        }
        // Unless it is cut off anyway.
        if self.client_cut_until <= self.now {
            self.client_is_back();
        }
        for at in 0..self.agents.len() {
            if !self.agents[at].is_dead {
                self.agent_acts(at);
            }
        }
    }
}
