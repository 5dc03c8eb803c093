//! What the parent and the fork server say to each other, as bytes.
//!
//! Both run the same image, so there is no version; but neither trusts the other not to be broken.

use procpool_core::{ExitStatus, LaunchSpec};
use rustix::io::Errno;
use rustix::process::Pid;

/// Over the server's main socket, with one end of a new pool's connection.
pub(crate) const CONNECT: &[u8] = b"connect";

/// Over the main socket of a standby, from its server: the parent knows of you.
pub(crate) const KNOWN: &[u8] = b"known";

/// Over the main socket of a standby, from the parent: serve from now on.
pub(crate) const SERVE: &[u8] = b"serve";

/// Begins an [`Announcement`].
const STANDBY: &[u8] = b"standby";

/// The longest name of a thread that the kernel keeps.
const NAME_BYTES: usize = 15;

/// No message is longer.
pub(crate) const MESSAGE_BYTES: usize = 10 + NAME_BYTES;

const LAUNCH: u8 = 1;
const REAP: u8 = 2;
const FORGET: u8 = 3;

const EXITED: u8 = 1;
const KILLED: u8 = 2;
const LOST: u8 = 3;

/// Parent to server, over a pool's connection. `launch` numbers the pool's launches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Fork a worker. Goes with the descriptors of its [`WorkerStdio`]. Answered by a
    /// [`Hello`](crate::hello::Hello) in the doorbell.
    Launch {
        launch: u64,
        stdio: WorkerStdio,
        name: String,
    },
    /// Kill what is left of this worker's process group, reap it, and say how it ended.
    Reap { launch: u64 },
    /// The same without an answer; the worker may not even have been forked.
    Forget { launch: u64 },
}

/// Which descriptors a worker gets, in this order: the writing end of the doorbell, the region's
/// memory, its tie to the parent, and those that are said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WorkerStdio {
    /// What its standard output is to be.
    pub(crate) stdout: bool,
    /// What its standard error is to be.
    pub(crate) stderr: bool,
    /// Where its events go.
    pub(crate) events: bool,
}

/// The most descriptors that an [`WorkerStdio`] has.
pub(crate) const OUTFIT: usize = 6;

impl WorkerStdio {
    pub(crate) fn of(spec: &LaunchSpec) -> Self {
        Self {
            stdout: spec.stdout().is_some(),
            stderr: spec.stderr().is_some(),
            events: spec.events().is_some(),
        }
    }

    fn encode(self) -> u8 {
        u8::from(self.stdout) | u8::from(self.stderr) << 1 | u8::from(self.events) << 2
    }

    fn decode(byte: u8) -> Option<Self> {
        let stdio = Self {
            stdout: byte & 1 != 0,
            stderr: byte & 2 != 0,
            events: byte & 4 != 0,
        };
        (stdio.encode() == byte).then_some(stdio)
    }
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Launch {
                launch,
                stdio,
                name,
            } => {
                let mut end = name.len().min(NAME_BYTES);
                while !name.is_char_boundary(end) {
                    end -= 1;
                }
                let head = head(LAUNCH, *launch);
                [&head[..], &[stdio.encode()], &name.as_bytes()[..end]].concat()
            }
            Self::Reap { launch } => head(REAP, *launch).to_vec(),
            Self::Forget { launch } => head(FORGET, *launch).to_vec(),
        }
    }

    /// `None`: these bytes are no request.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, launch, rest) = split(bytes)?;
        match (kind, rest) {
            (LAUNCH, [stdio, name @ ..]) if name.len() <= NAME_BYTES => Some(Self::Launch {
                launch,
                stdio: WorkerStdio::decode(*stdio)?,
                name: String::from_utf8(name.to_vec()).ok()?,
            }),
            (REAP, []) => Some(Self::Reap { launch }),
            (FORGET, []) => Some(Self::Forget { launch }),
            _ => None,
        }
    }
}

/// Server to parent, over a pool's connection: how a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) launch: u64,
    pub(crate) status: ExitStatus,
}

impl Reply {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (kind, value) = match self.status {
            ExitStatus::Code(code) => (EXITED, code),
            ExitStatus::Signal(signal) => (KILLED, signal),
            _ => (LOST, 0),
        };
        [&head(kind, self.launch)[..], &value.to_le_bytes()].concat()
    }

    /// `None`: these bytes are no reply.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, launch, rest) = split(bytes)?;
        let value = i32::from_le_bytes(rest.try_into().ok()?);
        let status = match kind {
            EXITED => ExitStatus::Code(value),
            KILLED => ExitStatus::Signal(value),
            LOST => ExitStatus::Unknown,
            _ => return None,
        };
        Some(Self { launch, status })
    }
}

/// Server to parent, over the main socket: there is a new standby, which is this process, or none
/// because of this error. A standby goes with two descriptors: the parent's end of its main
/// socket, and its pidfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announcement(pub(crate) Result<Pid, Errno>);

impl Announcement {
    pub(crate) fn encode(self) -> Vec<u8> {
        let value = match self.0 {
            Ok(pid) => pid.as_raw_pid(),
            Err(errno) => -errno.raw_os_error(),
        };
        [STANDBY, &value.to_le_bytes()].concat()
    }

    /// `None`: these bytes are no announcement.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let value = bytes.strip_prefix(STANDBY)?.try_into().ok()?;
        match i32::from_le_bytes(value) {
            pid @ 1.. => Pid::from_raw(pid).map(|pid| Self(Ok(pid))),
            // The kernel's range.
            errno @ -4095..=-1 => Some(Self(Err(Errno::from_raw_os_error(-errno)))),
            _ => None,
        }
    }
}

fn head(kind: u8, launch: u64) -> [u8; 9] {
    let mut head = [kind; 9];
    head[1..].copy_from_slice(&launch.to_le_bytes());
    head
}

fn split(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<9>()?;
    let (kind, launch) = head.split_first_chunk::<1>()?;
    Some((kind[0], u64::from_le_bytes(launch.try_into().ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            (any::<u64>(), any::<(bool, bool, bool)>(), "[ -~]{0,15}").prop_map(
                |(launch, (stdout, stderr, events), name)| Request::Launch {
                    launch,
                    stdio: WorkerStdio {
                        stdout,
                        stderr,
                        events
                    },
                    name,
                }
            ),
            any::<u64>().prop_map(|launch| Request::Reap { launch }),
            any::<u64>().prop_map(|launch| Request::Forget { launch }),
        ]
    }

    fn reply() -> impl Strategy<Value = Reply> {
        let status = prop_oneof![
            any::<i32>().prop_map(ExitStatus::Code),
            any::<i32>().prop_map(ExitStatus::Signal),
            Just(ExitStatus::Unknown),
        ];
        (any::<u64>(), status).prop_map(|(launch, status)| Reply { launch, status })
    }

    proptest! {
        #[test]
        fn requests_come_back(request in request()) {
            let bytes = request.encode();
            assert!(bytes.len() <= MESSAGE_BYTES);
            prop_assert_eq!(Request::decode(&bytes), Some(request));
        }

        #[test]
        fn replies_come_back(reply in reply()) {
            let bytes = reply.encode();
            assert!(bytes.len() <= MESSAGE_BYTES);
            prop_assert_eq!(Reply::decode(&bytes), Some(reply));
        }

        #[test]
        fn announcements_come_back(value in prop_oneof![1..i32::MAX, -4095..0]) {
            let outcome = match value {
                1.. => Ok(Pid::from_raw(value).expect("it is not zero")),
                _ => Err(Errno::from_raw_os_error(-value)),
            };
            let bytes = Announcement(outcome).encode();
            assert!(bytes.len() <= MESSAGE_BYTES);
            prop_assert_eq!(Announcement::decode(&bytes), Some(Announcement(outcome)));
        }

        #[test]
        fn any_bytes_decode_to_what_encodes_to_them(bytes: Vec<u8>) {
            if let Some(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), &bytes[..]);
            }
            if let Some(announcement) = Announcement::decode(&bytes) {
                prop_assert_eq!(announcement.encode(), &bytes[..]);
            }
            if let Some(reply) = Reply::decode(&bytes)
                && reply.status != ExitStatus::Unknown
            {
                prop_assert_eq!(reply.encode(), &bytes[..]);
            }
        }

        #[test]
        fn any_name_fits(name: String) {
            let stdio = WorkerStdio::default();
            let launch = Request::Launch {
                launch: 1,
                stdio,
                name: name.clone(),
            };
            let bytes = launch.encode();
            let Some(Request::Launch { name: carried, .. }) = Request::decode(&bytes) else {
                panic!("a launch decodes to a launch");
            };
            assert!(name.starts_with(&carried));
        }
    }
}
