//! The environment variable by which a parent calls a worker.

use std::fmt;
use std::os::fd::RawFd;

/// What a worker finds in its environment.
///
/// The first three fields are the same in every version of the protocol, so that a copy of this
/// crate in another version, linked into the same program, can see that a process is a worker,
/// although not its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootstrapEnv {
    /// The protocol's version, [`procpool_core::PROTOCOL_VERSION`] of the parent.
    pub(crate) version: u32,
    /// The process that calls.
    pub(crate) parent: u32,
    /// The inode of the doorbell, whose writing end the worker has as standard input.
    pub(crate) doorbell: u64,
    /// What this version of the protocol says beyond that. `None`: it is another version.
    pub(crate) launch: Option<Launch>,
}

/// See [`BootstrapEnv::launch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launch {
    /// By which parent and worker know each other's messages.
    pub(crate) nonce: u128,
    /// The memory that they share.
    pub(crate) memory: Inherited,
    /// The socket in which the worker says hello.
    pub(crate) hello: Inherited,
    /// The worker's tie to its parent.
    pub(crate) tie: Inherited,
    /// Which copy of this crate is to become the worker.
    pub(crate) target: Target,
    /// The pipe for the worker's events, if they are to be forwarded.
    pub(crate) events: Option<Inherited>,
}

impl Launch {
    /// The descriptors that the worker is to have.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let always = [self.memory, self.hello, self.tie];
        always
            .into_iter()
            .chain(self.events)
            .map(|it| it.number)
            .collect()
    }
}

/// Which copy of this crate is to become the worker, and where. A process may have several: its
/// program's, and those of shared objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) entry: Entry,
    /// The parent's [`procpool_core::build_identity`].
    pub(crate) identity: u128,
}

/// Where a process becomes a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// In `init` of the executable.
    Main,
    /// In `init` of a shared object, once it is loaded.
    Call,
    /// In what the loader calls when it has loaded a shared object, before `main`.
    Load,
}

impl Target {
    fn parse(text: &str) -> Option<Self> {
        let (entry, identity) = text.split_at_checked(1)?;
        Some(Self {
            entry: match entry {
                "m" => Entry::Main,
                "c" => Entry::Call,
                "l" => Entry::Load,
                _ => return None,
            },
            identity: u128::from_str_radix(identity, 16).ok()?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = match self.entry {
            Entry::Main => 'm',
            Entry::Call => 'c',
            Entry::Load => 'l',
        };
        write!(f, "{entry}{:032x}", self.identity)
    }
}

/// A descriptor that a worker has from its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// Its number, in both processes.
    pub(crate) number: RawFd,
    /// The inode of what it refers to: a process that merely has the same environment has something
    /// else, or nothing, under that number.
    pub(crate) inode: u64,
}

impl BootstrapEnv {
    /// The variable's name.
    pub(crate) const VARIABLE: &str = "PROCPOOL_WORKER";

    /// Reads the variable's value. `None`: nothing that a parent wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(4, ':');
        let version = fields.next()?.parse().ok()?;
        let parent = fields.next()?.parse().ok()?;
        let doorbell = fields.next()?.parse().ok()?;
        let rest = fields.next()?;
        let launch = if version == procpool_core::PROTOCOL_VERSION {
            Some(Launch::parse(rest)?)
        } else {
            None
        };
        Some(Self {
            version,
            parent,
            doorbell,
            launch,
        })
    }
}

impl Launch {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(':');
        let launch = Self {
            nonce: u128::from_str_radix(fields.next()?, 16).ok()?,
            memory: Inherited::parse(fields.next()?)?,
            hello: Inherited::parse(fields.next()?)?,
            tie: Inherited::parse(fields.next()?)?,
            target: Target::parse(fields.next()?)?,
            events: match fields.next() {
                Some(events) => Some(Inherited::parse(events)?),
                None => None,
            },
        };
        fields.next().is_none().then_some(launch)
    }
}

impl Inherited {
    fn parse(text: &str) -> Option<Self> {
        let (number, inode) = text.split_once('/')?;
        Some(Self {
            number: number.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

impl fmt::Display for BootstrapEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:", self.version, self.parent, self.doorbell)?;
        let Some(launch) = &self.launch else {
            return Ok(());
        };
        write!(f, "{:032x}", launch.nonce)?;
        write!(f, ":{}:{}:{}", launch.memory, launch.hello, launch.tie)?;
        write!(f, ":{}", launch.target)?;
        match launch.events {
            Some(events) => write!(f, ":{events}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::{BootstrapEnv, Entry, Inherited, Launch, Target};
    use proptest::prelude::*;

    fn inherited() -> impl Strategy<Value = Inherited> {
        (any::<i32>(), any::<u64>()).prop_map(|(number, inode)| Inherited { number, inode })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            parent: u32,
            doorbell: u64,
            nonce: u128,
            memory in inherited(),
            hello in inherited(),
            tie in inherited(),
            events in prop::option::of(inherited()),
            entry in prop::sample::select(vec![Entry::Main, Entry::Call, Entry::Load]),
            identity: u128,
        ) {
            let called = BootstrapEnv {
                version: procpool_core::PROTOCOL_VERSION,
                parent,
                doorbell,
                launch: Some(Launch {
                    nonce,
                    memory,
                    hello,
                    tie,
                    target: Target { entry, identity },
                    events,
                }),
            };
            prop_assert_eq!(BootstrapEnv::parse(&called.to_string()), Some(called));
        }

        #[test]
        fn any_text_is_survived(text in "\\PC*") {
            let _ = BootstrapEnv::parse(&text);
        }

        #[test]
        fn text_of_the_right_shape_is_survived(text in "[0-9:/a-f+-]{0,80}") {
            let _ = BootstrapEnv::parse(&text);
        }
    }

    #[test]
    fn another_version_is_known_as_one() {
        let called = BootstrapEnv::parse("4294967295:12:34:who knows:what").expect("a call");
        assert_eq!((called.parent, called.doorbell), (12, 34));
        assert_eq!(called.launch, None);
    }

    #[test]
    fn the_current_version_must_be_complete() {
        let version = procpool_core::PROTOCOL_VERSION;
        let whole = format!("{version}:12:34:1f:3/4:5/6:7/8:m1f");
        assert!(BootstrapEnv::parse(&whole).is_some());
        for rest in [
            "",
            "1",
            "1:",
            ":1",
            "1:3/4",
            "1:3/4:5/6",
            "1:3/4:5/6:7",
            "1:3/4:5/6:7/",
            "1:3/4:5/6:7/8",
            "1:3/4:5/6:7/8:m",
            "1:3/4:5/6:7/8:x1",
            "1:3/4:5/6:7/8:é1",
            "x:3/4:5/6:7/8:m1",
            "1:3/x:5/6:7/8:m1",
            "1:3/4:5/6:7/8:m1:",
            "1:3/4:5/6:7/8:m1:9",
            "1:3/4:5/6:7/8:m1:9/10:11",
        ] {
            assert_eq!(
                BootstrapEnv::parse(&format!("{version}:12:34:{rest}")),
                None
            );
        }
    }
}
