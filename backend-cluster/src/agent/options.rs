//! What an agent is told by its environment.

use std::env;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::host::HostBackend;
use super::variables::{
    AUTHORITIES, BACKEND, CERTIFICATE, CREDENTIALS, IDLE, KEY, NAME, PROCESSES, SERVER, TOKEN,
};
use crate::nats::ServerOptions;

/// How workers are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Spawn,
    #[cfg(feature = "fork")]
    Fork,
}

impl Backend {
    /// What starts workers so. To be called while the agent has one thread.
    pub(crate) fn host_backend(self) -> Result<HostBackend, String> {
        match self {
            Self::Spawn => Ok(HostBackend::Spawn),
            #[cfg(feature = "fork")]
            Self::Fork => {
                let server = procpool_fork::ForkServer::start();
                let server = server.map_err(|error| error.to_string())?;
                Ok(HostBackend::Fork(server))
            }
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct AgentOptions {
    pub(crate) server: ServerOptions,
    pub(crate) processes: usize,
    pub(crate) backend: Backend,
    pub(crate) machine: String,
    /// It leaves when it had no client for so long.
    pub(crate) idle: Option<Duration>,
}

impl AgentOptions {
    /// `None`: this process is to be no agent.
    pub(crate) fn of_environment() -> Option<Result<Self, String>> {
        let url = text(SERVER).transpose()?;
        Some(url.and_then(Self::for_server))
    }

    /// The same for the server with this address.
    pub(crate) fn for_server(url: String) -> Result<Self, String> {
        if url.is_empty() {
            return Err(format!(
                "{SERVER} is empty: it is the address of a NATS server, such as nats://host:4222"
            ));
        }
        let processes = match text(PROCESSES)? {
            None => std::thread::available_parallelism().map_or(1, usize::from),
            Some(number) => from_one(PROCESSES, &number)?,
        };
        let idle = text(IDLE)?.map(|number| from_one(IDLE, &number).map(Duration::from_secs));
        let backend = match text(BACKEND)?.as_deref() {
            None | Some("spawn") => Backend::Spawn,
            #[cfg(feature = "fork")]
            Some("fork") => Backend::Fork,
            Some(other) => {
                let known = if cfg!(feature = "fork") {
                    "`spawn` or `fork`"
                } else {
                    "`spawn` (and `fork` where the program has that feature)"
                };
                return Err(format!("{BACKEND} is {other:?}: it is {known}"));
            }
        };
        let identity = match (path(CERTIFICATE), path(KEY)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(format!("{CERTIFICATE} and {KEY} are only of use together")),
        };
        let authorities = path(AUTHORITIES);
        // Who names a certificate does not want to talk to anybody else.
        let requires_tls = authorities.is_some() || identity.is_some();
        let system = rustix::system::uname();
        let host = system.nodename().to_string_lossy().into_owned();
        Ok(Self {
            server: ServerOptions {
                url,
                credentials: path(CREDENTIALS),
                authorities,
                identity,
                requires_tls,
                token: text(TOKEN)?,
            },
            processes,
            backend,
            machine: text(NAME)?.unwrap_or(host),
            idle: idle.transpose()?,
        })
    }
}

fn from_one<T: FromStr + From<u8> + PartialOrd>(name: &str, number: &str) -> Result<T, String> {
    let parsed = number.parse().ok().filter(|it| *it >= T::from(1));
    parsed.ok_or_else(|| format!("{name} is {number:?}: it is a number, from 1"))
}

fn text(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8")),
    }
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from)
}
