//! What is in a message of a session: a frame, or what stands outside of all sessions.

use crate::message::DeliveryId;

/// The content of a message between a client and an agent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Envelope<'a> {
    /// A frame of the link.
    Frame(&'a [u8]),
    /// The client has given up the session with this number, and those before it.
    Gone(u32),
    /// A client is there: begin a session.
    Knock,
    /// The client has ended.
    Bye,
    /// A delivery without the queue, for the session with this number alone. No older one than the
    /// `oldest` is open in it.
    Direct {
        session: u32,
        oldest: DeliveryId,
        delivery: &'a [u8],
    },
}

impl<'a> Envelope<'a> {
    /// What this message is; `None`: none of these.
    pub(crate) fn open(payload: &'a [u8]) -> Option<Self> {
        // It stands behind, so that nothing is moved to make room for it.
        let (kind, rest) = payload.split_last()?;
        match kind {
            0 => Some(Self::Frame(rest)),
            1 => Some(Self::Gone(u32::from_le_bytes(rest.try_into().ok()?))),
            2 => Some(Self::Knock),
            3 => Some(Self::Bye),
            4 => {
                let (rest, oldest) = rest.split_last_chunk()?;
                let (delivery, session) = rest.split_last_chunk()?;
                Some(Self::Direct {
                    session: u32::from_le_bytes(*session),
                    oldest: u64::from_le_bytes(*oldest),
                    delivery,
                })
            }
            _ => None,
        }
    }

    pub(crate) fn frame(mut frame: Vec<u8>) -> Vec<u8> {
        frame.push(0);
        frame
    }

    pub(crate) fn gone(number: u32) -> Vec<u8> {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.push(1);
        bytes
    }

    pub(crate) fn knock() -> Vec<u8> {
        vec![2]
    }

    pub(crate) fn bye() -> Vec<u8> {
        vec![3]
    }

    pub(crate) fn direct(session: u32, oldest: DeliveryId, mut delivery: Vec<u8>) -> Vec<u8> {
        delivery.extend(session.to_le_bytes());
        delivery.extend(oldest.to_le_bytes());
        delivery.push(4);
        delivery
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
        assert_eq!(
            Envelope::open(&Envelope::frame(b"abc".to_vec())),
            Some(Envelope::Frame(b"abc"))
        );
        assert_eq!(Envelope::open(&Envelope::gone(7)), Some(Envelope::Gone(7)));
        assert_eq!(Envelope::open(&Envelope::knock()), Some(Envelope::Knock));
        assert_eq!(Envelope::open(&Envelope::bye()), Some(Envelope::Bye));
        let direct = Envelope::Direct {
            session: 7,
            oldest: 1 << 40,
            delivery: b"abc",
        };
        let bytes = Envelope::direct(7, 1 << 40, b"abc".to_vec());
        assert_eq!(Envelope::open(&bytes), Some(direct));
        let cut = &bytes[4..];
        for other in [&[][..], &[1], &[2, 3, 4, 5, 6, 1], &[9], cut] {
            assert_eq!(Envelope::open(other), None);
        }
    }
}
