//! Which server to connect to, and how.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};

use super::role::Role;
use super::{advice, capacity};

/// How long the handshake with one server may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long all may take together: names that are looked up, and several addresses.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// The server's address, and what it asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerOptions {
    pub(crate) url: String,
    /// A file with a JWT and an nkey seed, or with a seed alone.
    pub(crate) credentials: Option<PathBuf>,
    /// Certificates of authorities besides those of the system.
    pub(crate) authorities: Option<PathBuf>,
    /// Our own certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Only encrypted.
    pub(crate) requires_tls: bool,
    /// For a server of one's own.
    pub(crate) token: Option<String>,
}

/// Why there is no connection. The text says what to do.
#[derive(Debug, Clone)]
pub(crate) struct ConnectError(String);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ConnectError {
    pub(crate) fn lost(options: &ServerOptions, error: &dyn fmt::Display) -> Self {
        Self(format!(
            "the NATS server at {} is gone: {error}",
            options.shown()
        ))
    }
}

/// An address without what stands before its `@`, and that.
fn split_secret(address: &str) -> (String, Option<&str>) {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    match rest.rsplit_once('@') {
        Some((secret, host)) => (format!("{scheme}{host}"), Some(secret)),
        None => (format!("{scheme}{rest}"), None),
    }
}

impl ServerOptions {
    /// The address for people, without passwords.
    pub(crate) fn shown(&self) -> String {
        let addresses = self.url.split(',').map(|it| split_secret(it.trim()).0);
        addresses.collect::<Vec<_>>().join(",")
    }

    pub(crate) async fn connect<F, T>(
        &self,
        role: Role,
        name: &str,
        on_event: F,
    ) -> Result<Client, ConnectError>
    where
        F: Fn(Event) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + Sync + 'static,
    {
        let mut options = ConnectOptions::new()
            .name(name)
            .custom_inbox_prefix(role.inbox())
            .event_callback(on_event)
            .subscription_capacity(capacity())
            .client_capacity(capacity())
            .connection_timeout(HANDSHAKE_LIMIT)
            .ping_interval(Duration::from_secs(10))
            .max_reconnects(None)
            // At once, and then soon: a server that restarts is back in some milliseconds.
            .reconnect_delay_callback(|attempt| match attempt {
                0 | 1 => Duration::ZERO,
                2..50 => Duration::from_millis(20),
                _ => Duration::from_millis(250),
            });
        if let Some(path) = &self.credentials {
            let text = read("credentials", path)?;
            options = if text.contains("-----BEGIN") {
                options.credentials(&text).map_err(|error| {
                    ConnectError(format!(
                        "{} has no credentials that can be used: {error}",
                        path.display()
                    ))
                })?
            } else {
                options.nkey(text.trim().to_owned())
            };
        }
        let secret = self.url.split(',').find_map(|it| split_secret(it.trim()).1);
        match secret.map(|it| it.split_once(':').unwrap_or((it, ""))) {
            Some((user, password)) if !password.is_empty() => {
                options = options.user_and_password(user.to_owned(), password.to_owned());
            }
            Some((token, _)) => options = options.token(token.to_owned()),
            None => {}
        }
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(path) = &self.authorities {
            check_pem("the authorities' certificates", path, "CERTIFICATE-----")?;
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &self.identity {
            check_pem("our certificate", certificate, "CERTIFICATE-----")?;
            check_pem("our certificate's key", key, "PRIVATE KEY-----")?;
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        if self.requires_tls {
            options = options.require_tls(true);
        }
        let failed = |why: String| {
            let url = self.shown();
            ConnectError(format!(
                "there is no connection to the NATS server at {url}: {why}"
            ))
        };
        let addresses: Result<Vec<ServerAddr>, _> =
            self.shown().split(',').map(str::parse).collect();
        let addresses =
            addresses.map_err(|error| failed(format!("{error}: it is like nats://host:4222")))?;
        let connecting = tokio::time::timeout(CONNECT_LIMIT, options.connect(addresses));
        match connecting.await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => {
                let text = chain(&error);
                let advice = advice::on(error.kind(), &text, role, self);
                Err(failed(
                    advice.map_or(text.clone(), |it| format!("{text}: {it}")),
                ))
            }
            Err(_) => Err(failed(format!("it took longer than {CONNECT_LIMIT:?}"))),
        }
    }
}

/// A file that the server or we are to be known by. The error does not say what is in it.
fn read(what: &str, path: &Path) -> Result<String, ConnectError> {
    fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        ConnectError(format!(
            "the file with {what}, {path}, cannot be read: {error}"
        ))
    })
}

/// Whether it is there and has such a part: the library's errors name no file.
fn check_pem(what: &str, path: &Path, part: &str) -> Result<(), ConnectError> {
    if read(what, path)?.contains(part) {
        return Ok(());
    }
    let path = path.display();
    Err(ConnectError(format!(
        "the file with {what}, {path}, has none: it is a PEM file with `{part}`"
    )))
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_secrets() {
        for (url, shown) in [
            ("nats://host:4222", "nats://host:4222"),
            ("nats://user:pass@host:4222", "nats://host:4222"),
            ("tls://token@host", "tls://host"),
            (
                "nats://u:p@one:1, nats://u:p@two:2",
                "nats://one:1,nats://two:2",
            ),
            ("user:p@ss@host", "host"),
        ] {
            let options = ServerOptions {
                url: url.to_owned(),
                ..ServerOptions::default()
            };
            assert_eq!(options.shown(), shown);
        }
    }
}
