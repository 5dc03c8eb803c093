//! What was taken from the queue: the pieces, and where their deliveries are acknowledged.

use std::collections::HashMap;

use procpool_core::Cancel;

use super::work::Work;
use crate::intake::Intake;
use crate::message::{ClientId, Delivery, DeliveryId, PieceId};

/// See the module.
#[derive(Default)]
pub(super) struct Taken {
    work: HashMap<(ClientId, PieceId), Work>,
    /// Where each delivery is acknowledged.
    acknowledgements: HashMap<(ClientId, DeliveryId), String>,
}

impl Taken {
    /// This was given out. The queue, if it has come by that, wants to hear of it at this subject.
    pub(super) fn add(
        &mut self,
        client: ClientId,
        delivery: Delivery,
        acknowledgement: Option<&str>,
    ) {
        if let Some(subject) = acknowledgement {
            self.acknowledgements
                .insert((client, delivery.id), subject.to_owned());
        }
        for piece in delivery.pieces {
            let work = Work::waiting(piece.chunk.map(|it| it.0));
            self.work.entry((client, piece.id)).or_insert(work);
        }
    }

    /// Where this delivery is to be acknowledged, if that was not done.
    pub(super) fn acknowledge(&mut self, client: ClientId, delivery: DeliveryId) -> Option<String> {
        self.acknowledgements.remove(&(client, delivery))
    }

    pub(super) fn get(&self, client: ClientId, piece: PieceId) -> Option<&Work> {
        self.work.get(&(client, piece))
    }

    pub(super) fn get_mut(&mut self, client: ClientId, piece: PieceId) -> Option<&mut Work> {
        self.work.get_mut(&(client, piece))
    }

    pub(super) fn remove(&mut self, client: ClientId, piece: PieceId) -> Option<Work> {
        self.work.remove(&(client, piece))
    }

    /// The pieces of this client.
    pub(super) fn of(&mut self, client: ClientId) -> impl Iterator<Item = (PieceId, &mut Work)> {
        let all = self.work.iter_mut();
        let of_client = all.filter(move |((of, _), _)| *of == client);
        of_client.map(|((_, piece), work)| (*piece, work))
    }

    /// The client is no more: what runs is killed.
    pub(super) fn kill_all(&mut self, client: ClientId) {
        let of_client = self.work.extract_if(|(of, _), _| *of == client);
        for (_, work) in of_client {
            work.cancel(Cancel::Kill);
        }
    }

    /// Kills what runs for it, but keeps what waits to be allowed.
    pub(super) fn kill_running(&mut self, client: ClientId) {
        let of_client = self
            .work
            .extract_if(|(of, _), work| *of == client && work.may_run());
        for (_, work) in of_client {
            work.cancel(Cancel::Kill);
        }
    }

    /// Of what waits to be allowed, some was given back.
    pub(super) fn forget_returned(&mut self, client: ClientId, intake: &Intake) {
        self.work
            .retain(|(of, piece), _| *of != client || intake.has(*of, *piece));
    }

    /// The same, after the end of a session: it is not acknowledged either.
    pub(super) fn forget_ended(&mut self, client: ClientId, intake: &Intake) {
        self.forget_returned(client, intake);
        self.acknowledgements
            .retain(|(of, delivery), _| *of != client || intake.holds(*of, *delivery));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Blob, Piece};

    fn delivery(id: DeliveryId, pieces: &[PieceId]) -> Delivery {
        let piece = |id: &PieceId| Piece {
            id: *id,
            is_last_attempt: false,
            chunk: Some(Blob(vec![1].into())),
        };
        Delivery {
            id,
            epoch: 1,
            pieces: pieces.iter().map(piece).collect(),
        }
    }

    fn pieces(taken: &mut Taken, client: ClientId) -> Vec<PieceId> {
        let mut pieces: Vec<PieceId> = taken.of(client).map(|(piece, _)| piece).collect();
        pieces.sort_unstable();
        pieces
    }

    #[test]
    fn clients_have_their_own() {
        let mut taken = Taken::default();
        taken.add(1, delivery(1, &[1, 2]), Some("a"));
        taken.add(2, delivery(1, &[1]), Some("b"));
        assert_eq!(pieces(&mut taken, 1), [1, 2]);
        assert_eq!(taken.acknowledge(1, 1).as_deref(), Some("a"));
        assert_eq!(taken.acknowledge(1, 1), None);
        taken.get_mut(1, 2).unwrap().allow();
        taken.kill_running(1);
        assert_eq!(pieces(&mut taken, 1), [1]);
        taken.kill_all(1);
        assert!(pieces(&mut taken, 1).is_empty());
        assert_eq!(pieces(&mut taken, 2), [1]);
        // Nobody knows of it any more.
        taken.forget_ended(2, &Intake::new(1));
        assert!(taken.get(2, 1).is_none() && taken.acknowledge(2, 1).is_none());
    }

    #[test]
    fn what_is_given_out_again_is_the_same() {
        let mut taken = Taken::default();
        taken.add(1, delivery(1, &[1]), Some("a"));
        taken.get_mut(1, 1).unwrap().allow();
        taken.add(1, delivery(1, &[1]), Some("b"));
        assert!(taken.remove(1, 1).is_some_and(|it| it.may_run()));
        assert_eq!(taken.acknowledge(1, 1).as_deref(), Some("b"));
    }
}
