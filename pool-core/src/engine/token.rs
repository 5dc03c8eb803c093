//! What the readiness of a descriptor is about.

use super::slot_id::SlotId;

/// The token of a thread's own alarm.
pub(super) const ALARM: u64 = u64::MAX;
/// The token of the poller of all bells.
pub(super) const BELLS: u64 = u64::MAX - 1;
/// The token of the launcher's notifier.
pub(super) const NOTIFIER: u64 = u64::MAX - 2;

/// Names a worker in the readiness of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) slot: SlotId,
    pub(super) number: u32,
}

/// What a worker's descriptor says when it is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Doorbell = 0,
    Death = 1,
    Bell = 2,
}

impl Token {
    pub(super) fn doorbell(self) -> u64 {
        self.pack(Kind::Doorbell)
    }

    pub(super) fn bell(self) -> u64 {
        self.pack(Kind::Bell)
    }

    pub(super) fn exit_fd(self) -> u64 {
        self.pack(Kind::Death)
    }

    fn pack(self, kind: Kind) -> u64 {
        (kind as u64) << 56 | (self.slot.index() as u64) << 32 | u64::from(self.number)
    }

    pub(super) fn unpack(token: u64) -> (Self, Kind) {
        let kind = match token >> 56 {
            0 => Kind::Doorbell,
            1 => Kind::Death,
            _ => Kind::Bell,
        };
        let worker = Self {
            slot: SlotId::new((token >> 32 & 0xFF_FFFF) as usize),
            number: token as u32,
        };
        (worker, kind)
    }
}
