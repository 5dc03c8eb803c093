//! The environment variable by which a parent calls a worker.

use std::fmt;

/// What a worker finds in its environment.
///
/// The first three fields are the same in every version of the protocol, so that a copy of this
/// crate in another version, linked into the same program, can tell that a process is a worker,
/// although not its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summons {
    /// The protocol's version, [`pool_core::PROTOCOL_VERSION`] of the parent.
    pub(crate) version: u32,
    /// The process that calls.
    pub(crate) parent: u32,
    /// The inode of the doorbell, whose writing end the worker has as standard input.
    pub(crate) bell: u64,
    /// What only the two know. `None`: of another version.
    pub(crate) secret: Option<Secret>,
}

/// See [`Summons::secret`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret {
    /// Names the folder of the worker's socket; see [`Folder`](crate::folder::Folder).
    pub(crate) folder: u64,
    /// By which the two know each other.
    pub(crate) nonce: u128,
    /// The descriptor by which the worker has the pipe for its events, and the pipe's inode.
    pub(crate) events: Option<(i32, u64)>,
}

impl Summons {
    /// The variable's name.
    pub(crate) const VARIABLE: &str = "PROCPOOL_WORKER";

    /// Reads the variable's value. `None`: nothing that a parent wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(4, ':');
        let version = fields.next()?.parse().ok()?;
        let parent = fields.next()?.parse().ok()?;
        let bell = fields.next()?.parse().ok()?;
        let rest = fields.next()?;
        let secret = if version == pool_core::PROTOCOL_VERSION {
            let mut fields = rest.splitn(4, ':');
            let folder = u64::from_str_radix(fields.next()?, 16).ok()?;
            let nonce = u128::from_str_radix(fields.next()?, 16).ok()?;
            let events = match (fields.next(), fields.next()) {
                (None, _) => None,
                (Some(number), inode) => Some((number.parse().ok()?, inode?.parse().ok()?)),
            };
            Some(Secret {
                folder,
                nonce,
                events,
            })
        } else {
            None
        };
        Some(Self {
            version,
            parent,
            bell,
            secret,
        })
    }
}

impl fmt::Display for Summons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:", self.version, self.parent, self.bell)?;
        match &self.secret {
            Some(secret) => {
                write!(f, "{:016x}:{:032x}", secret.folder, secret.nonce)?;
                match secret.events {
                    Some((number, inode)) => write!(f, ":{number}:{inode}"),
                    None => Ok(()),
                }
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Secret, Summons};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            parent: u32,
            bell: u64,
            folder: u64,
            nonce: u128,
            events: Option<(i32, u64)>,
        ) {
            let summons = Summons {
                version: pool_core::PROTOCOL_VERSION,
                parent,
                bell,
                secret: Some(Secret { folder, nonce, events }),
            };
            prop_assert_eq!(Summons::parse(&summons.to_string()), Some(summons));
        }

        #[test]
        fn any_text_is_survived(text in "\\PC*") {
            let _ = Summons::parse(&text);
        }

        #[test]
        fn text_of_the_right_shape_is_survived(text in "[0-9:a-f+-]{0,80}") {
            let _ = Summons::parse(&text);
        }
    }

    #[test]
    fn another_version_is_known_as_one() {
        let summons = Summons::parse("4294967295:12:34:who knows:what").expect("a summons");
        assert_eq!((summons.parent, summons.bell), (12, 34));
        assert_eq!(summons.secret, None);
    }

    #[test]
    fn the_current_version_must_be_complete() {
        let version = pool_core::PROTOCOL_VERSION;
        for rest in [
            "", "1", "1:", ":1", "x:1", "1:x", "1:1:", "1:1:3", "1:1:3:", "1:1:x:1",
        ] {
            assert_eq!(Summons::parse(&format!("{version}:12:34:{rest}")), None);
        }
    }
}
