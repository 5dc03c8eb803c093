//! The variables of the environment that make a program an agent.

/// The server that the agent serves.
pub(crate) const SERVER: &str = "PROCPOOL_AGENT";
pub(crate) const PROCESSES: &str = "PROCPOOL_AGENT_PROCESSES";
pub(crate) const BACKEND: &str = "PROCPOOL_AGENT_BACKEND";
/// After how many seconds without a client it leaves.
pub(crate) const IDLE: &str = "PROCPOOL_AGENT_IDLE";
pub(crate) const NAME: &str = "PROCPOOL_AGENT_NAME";
pub(crate) const CREDENTIALS: &str = "PROCPOOL_AGENT_CREDENTIALS";
pub(crate) const TOKEN: &str = "PROCPOOL_AGENT_TOKEN";
pub(crate) const AUTHORITIES: &str = "PROCPOOL_AGENT_TLS_CA";
pub(crate) const CERTIFICATE: &str = "PROCPOOL_AGENT_TLS_CERT";
pub(crate) const KEY: &str = "PROCPOOL_AGENT_TLS_KEY";

/// All of them: what workers and programs that tasks start must not have.
pub(crate) const ALL: [&str; 10] = [
    SERVER,
    PROCESSES,
    BACKEND,
    IDLE,
    NAME,
    CREDENTIALS,
    TOKEN,
    AUTHORITIES,
    CERTIFICATE,
    KEY,
];
