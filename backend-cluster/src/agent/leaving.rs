//! How an agent leaves: it ends what it has, and says so.

use std::time::{Duration, Instant};

use super::Agent;
use super::work::Report;
use crate::clock;
use crate::intake::LEASE;
use crate::link::Lane;
use crate::message::ToClient;

/// How far an agent has come that leaves and has nothing more to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goodbye {
    Unsaid,
    /// The local pools end, and say what their workers have printed.
    Finishing,
    /// It was said, then.
    Said(Duration),
}

impl Agent {
    pub(super) fn start_leaving(&mut self) {
        self.is_leaving = true;
        self.intake.leave();
        self.sessions.say_to_all(Lane::Control, &ToClient::Leaving);
    }

    /// Says goodbye, and whether that was heard, or has taken too long.
    pub(super) fn may_go(&mut self) -> bool {
        match self.goodbye {
            Goodbye::Unsaid => {
                self.goodbye = Goodbye::Finishing;
                let (host, reports) = (self.host.clone(), self.reports.clone());
                let finish = move || {
                    host.finish(Instant::now() + LEASE);
                    // Without an agent there is nobody to tell.
                    let _ = reports.send(Report::Finished);
                };
                let thread = std::thread::Builder::new().name("procpool-finish".into());
                if thread.spawn(finish).is_err() {
                    // Without a thread, what was printed last is not waited for.
                    self.say_goodbye();
                }
                false
            }
            Goodbye::Finishing => false,
            Goodbye::Said(since) => self.sessions.backlog() == 0 || clock::now() > since + LEASE,
        }
    }

    pub(super) fn say_goodbye(&mut self) {
        self.tell_the_rest();
        self.sessions.say_to_all(Lane::Data, &ToClient::Left);
        self.goodbye = Goodbye::Said(clock::now());
    }
}
