//! What a connection is for.

/// Who connects. The server may permit the two different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Agent,
}

impl Role {
    /// How the subjects of answers begin: each has its own, so that a server can keep the one from
    /// reading what the other is given.
    pub(crate) fn inbox(self) -> &'static str {
        match self {
            Self::Client => "_INBOX.client",
            Self::Agent => "_INBOX.agent",
        }
    }

    /// Where the authorities are named.
    pub(crate) fn authorities(self) -> &'static str {
        match self {
            Self::Client => "`.tls(file)`",
            Self::Agent => "PROCPOOL_AGENT_TLS_CA",
        }
    }

    /// Where our own certificate is named.
    pub(crate) fn identity(self) -> &'static str {
        match self {
            Self::Client => "`.tls_identity(certificate, key)`",
            Self::Agent => "PROCPOOL_AGENT_TLS_CERT and PROCPOOL_AGENT_TLS_KEY",
        }
    }

    /// Where other ways are named to be known by the server.
    pub(crate) fn credentials(self) -> &'static str {
        match self {
            Self::Client => "`.credentials(file)`",
            Self::Agent => "PROCPOOL_AGENT_CREDENTIALS or PROCPOOL_AGENT_TOKEN",
        }
    }
}
