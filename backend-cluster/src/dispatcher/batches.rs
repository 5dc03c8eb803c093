//! What goes to the queue: as many deliveries as there is room for, and small pieces together.

use super::{Action, Dispatcher, PieceState, Sent};
use crate::message::PieceId;

/// How much work small pieces that travel together may be, in nanoseconds.
const BATCH_NS: u64 = 10_000_000;
/// How many bytes they may have.
const BATCH_BYTES: usize = 256 * 1024;
/// How many they may be.
const BATCH_PIECES: usize = 1024;

impl Dispatcher {
    /// Sends what there is room for.
    pub(super) fn send_some(&mut self) {
        if self.is_connected && self.slots() > 0 {
            self.send_directly();
            self.publish_some();
        }
    }

    /// Publishes what there is room for.
    fn publish_some(&mut self) {
        // Those that cannot be reached count: what they may have taken counts as queued.
        let taking = self.agents.values().filter(|it| !it.is_leaving);
        let slots: usize = taking.map(|it| it.slots).sum();
        let busy: usize = self.agents.values().map(|it| it.begun.len()).sum();
        // As many as can begin, and a few more for each agent, which takes the next one when it
        // has ended one.
        let room = slots.saturating_sub(busy) + 2 * slots;
        while self.queued < room && !self.ready.is_empty() {
            let share = self.ready.len().div_ceil(room - self.queued);
            let (pieces, may_run_twice) = self.next_batch(share.min(BATCH_PIECES));
            let delivery = self.next_delivery;
            self.next_delivery += 1;
            for piece in &pieces {
                let it = self.pieces.get_mut(piece).expect("it was ready");
                it.state = PieceState::Sent(delivery);
            }
            let sent = Sent {
                epoch: self.epoch,
                left: pieces.len(),
                pieces: pieces.clone(),
                may_run_twice,
                agent: None,
            };
            self.sent.insert(delivery, sent);
            self.queued += 1;
            self.actions.push_back(Action::Publish {
                delivery,
                epoch: self.epoch,
                pieces,
            });
        }
    }

    /// The next piece, and those behind it that are little work, up to this many. All of them may
    /// run twice, or none: says which.
    fn next_batch(&mut self, most: usize) -> (Vec<PieceId>, bool) {
        let mut batch = Vec::new();
        let (mut work, mut bytes) = (0_u64, 0_usize);
        let first = self.ready.first_key_value();
        let may_run_twice = first.is_some_and(|(_, piece)| self.pieces[piece].is_tried_again());
        while let Some((_, piece)) = self.ready.first_key_value() {
            let it = &self.pieces[piece];
            let takes = self.durations.of(it.terms.function);
            let takes = takes.map(|ns| ns.saturating_mul(it.items.len() as u64));
            let size = it.terms.bytes;
            let fits = batch.len() < most
                && it.is_tried_again() == may_run_twice
                && takes.is_some_and(|ns| work.saturating_add(ns) <= BATCH_NS)
                && bytes + size <= BATCH_BYTES;
            if !batch.is_empty() && !fits {
                break;
            }
            let (_, piece) = self.ready.pop_first().expect("it was seen");
            batch.push(piece);
            if !fits {
                break;
            }
            work += takes.unwrap_or(0);
            bytes += size;
        }
        (batch, may_run_twice)
    }
}
