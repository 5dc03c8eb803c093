//! Who gets an answer.

use std::io;
use std::net::SocketAddr;

use hyper::header::{HOST, HeaderMap, ORIGIN};
use rustix::rand::{GetRandomFlags, getrandom};

/// What those know who may see the page.
pub(crate) struct Access {
    address: SocketAddr,
    token: String,
}

impl Access {
    pub(crate) fn new(address: SocketAddr) -> io::Result<Self> {
        let token = Self::secret()?;
        Ok(Self { address, token })
    }

    /// 128 random bits.
    pub(crate) fn secret() -> io::Result<String> {
        let mut bytes = [0_u8; 16];
        // So few come at once, or not at all.
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Where the page is.
    pub(crate) fn url(&self) -> String {
        // What is served on each of its addresses is reached by this one, too.
        let ip = self.address.ip();
        let host = if ip.is_unspecified() {
            format!("localhost:{}", self.address.port())
        } else {
            self.address.to_string()
        };
        format!("http://{host}/{}/", self.token)
    }

    /// What is asked for, behind the token; `None`: who asks does not know that.
    pub(crate) fn open<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (token, rest) = path.strip_prefix('/')?.split_once('/')?;
        is_same(token.as_bytes(), self.token.as_bytes()).then_some(rest)
    }

    /// Whether the question comes from the page, or from who has typed its address, as far as the
    /// browser says so.
    pub(crate) fn is_own(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).map(|it| it.to_str().unwrap_or("?"));
        let host = text(HOST);
        // A name of somebody else's may be made to lead here, and is that page's own origin then.
        // Beyond this machine there may be any.
        let is_host = |host: &str| !self.address.ip().is_loopback() || self.names(host);
        let origin = text(ORIGIN).map(|it| it.strip_prefix("http://").unwrap_or("?"));
        let site = headers.get("sec-fetch-site").map(|it| it.as_bytes());
        host.is_some_and(is_host)
            && origin.is_none_or(|origin| Some(origin) == host)
            && site.is_none_or(|site| [&b"same-origin"[..], b"none"].contains(&site))
    }

    /// Whether this is a name of the address.
    fn names(&self, host: &str) -> bool {
        let port = self.address.port();
        host == self.address.to_string()
            || host.strip_prefix("localhost:") == Some(&port.to_string())
    }
}

/// How long it takes says nothing of how much is right.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differ = |sum, (a, b): (&u8, &u8)| sum | (a ^ b);
    one.len() == other.len() && one.iter().zip(other).fold(0, differ) == 0
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn access(address: &str) -> Access {
        Access::new(address.parse().expect("an address")).expect("there are random numbers")
    }

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let all = all.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        all.collect()
    }

    #[test]
    fn the_token_opens() {
        let access = access("127.0.0.1:80");
        let path = format!("/{}/events", access.token);
        assert_eq!(access.token.len(), 32);
        assert_eq!(access.open(&path), Some("events"));
        assert_eq!(access.open(&path[..path.len() - 6]), Some(""));
        for path in ["", "/", "//", "/events", &path[1..], &path.replace('/', "")] {
            assert_eq!(access.open(path), None, "{path}");
        }
        let wrong = format!("/{}/", "0".repeat(32));
        assert_eq!(access.open(&wrong), None);
        assert!(access.url().starts_with("http://127.0.0.1:80/"));
        assert_ne!(access.token, super::tests::access("127.0.0.1:80").token);
    }

    #[test]
    fn other_origins_get_nothing() {
        let access = access("127.0.0.1:8000");
        let (host, other) = (("host", "127.0.0.1:8000"), ("host", "evil.example:8000"));
        let origin = ("origin", "http://127.0.0.1:8000");
        assert!(access.is_own(&headers(&[host])));
        assert!(access.is_own(&headers(&[host, origin])));
        assert!(access.is_own(&headers(&[("host", "localhost:8000")])));
        assert!(access.is_own(&headers(&[host, ("sec-fetch-site", "same-origin")])));
        assert!(access.is_own(&headers(&[host, ("sec-fetch-site", "none")])));
        assert!(!access.is_own(&headers(&[])));
        assert!(!access.is_own(&headers(&[other])));
        assert!(!access.is_own(&headers(&[other, ("origin", "http://evil.example:8000")])));
        assert!(!access.is_own(&headers(&[host, ("origin", "http://evil.example")])));
        assert!(!access.is_own(&headers(&[host, ("origin", "null")])));
        assert!(!access.is_own(&headers(&[host, ("origin", "https://127.0.0.1:8000")])));
        assert!(!access.is_own(&headers(&[host, ("sec-fetch-site", "cross-site")])));
        assert!(!access.is_own(&headers(&[host, ("sec-fetch-site", "same-site")])));
    }

    #[test]
    fn beyond_this_machine_it_has_any_name() {
        let access = access("0.0.0.0:8000");
        let host = ("host", "builder.example:8000");
        assert!(access.url().starts_with("http://localhost:8000/"));
        assert!(access.is_own(&headers(&[host])));
        let origin = ("origin", "http://builder.example:8000");
        assert!(access.is_own(&headers(&[host, origin])));
        assert!(!access.is_own(&headers(&[host, ("origin", "http://evil.example")])));
    }
}
