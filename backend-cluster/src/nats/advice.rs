//! What to do when there is no connection.

use std::path::Path;

use async_nats::ConnectErrorKind;

use super::role::Role;
use super::server_options::ServerOptions;

/// What to do about an error, if that is known. It is told by its text: the library says what went
/// wrong in TLS in no other way.
pub(super) fn on(
    kind: ConnectErrorKind,
    text: &str,
    role: Role,
    options: &ServerOptions,
) -> Option<String> {
    let has = |part: &str| text.to_ascii_lowercase().contains(part);
    let (authorities, identity) = (role.authorities(), role.identity());
    Some(match kind {
        ConnectErrorKind::AuthorizationViolation => format!(
            "the server does not know this user: it is named by the address \
             (nats://user:password@host or nats://token@host) or by {}",
            role.credentials()
        ),
        ConnectErrorKind::Authentication => {
            let path = options.credentials.as_deref().unwrap_or(Path::new(""));
            format!(
                "the file with credentials, {}, has no key that can be used: it has a user's nkey \
                 seed (SU...), or a JWT and a seed as `nsc` writes them",
                path.display()
            )
        }
        // What the server says of our certificate.
        _ if has("received fatal alert") && has("cert") || has("unknownca") => {
            match options.identity {
                Some(_) => format!(
                    "the server does not accept the certificate of {identity}: is it of an \
                     authority that it trusts, for clients, and not expired?"
                ),
                None => format!("the server asks for a certificate: name one by {identity}"),
            }
        }
        _ if has("unknownissuer") || has("badsignature") => format!(
            "the server's certificate is of no authority that is trusted here: name the file with \
             the authority's certificate by {authorities}"
        ),
        _ if has("certificate expired") || has("certificate not valid yet") => {
            "renew the server's certificate, or set the clock of this machine".to_owned()
        }
        _ if has("certificate not valid for name") => {
            "use a name in the address that the server's certificate has, or give the server a \
             certificate with this one"
                .to_owned()
        }
        _ if has("could not add certificate or key") => {
            format!("do the certificate and the key of {identity} belong together?")
        }
        _ if has("invalidcontenttype") || has("corrupt message") => {
            "the server does not speak TLS, and without it nothing is sent".to_owned()
        }
        // A server that is not content with a certificate may hang up before it has said so.
        ConnectErrorKind::Io if hung_up(text) && options.identity.is_none() => format!(
            "the server has hung up: does it ask for a certificate? Then name one by {identity}"
        ),
        ConnectErrorKind::Io if hung_up(text) => {
            format!("the server has hung up: does it not accept the certificate of {identity}?")
        }
        _ => return None,
    })
}

fn hung_up(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "broken pipe",
        "reset by peer",
        "unexpected eof",
        "handshake eof",
        "close_notify",
    ]
    .iter()
    .any(|it| text.contains(it))
}
