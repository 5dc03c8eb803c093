//! What a server is told.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::Authority;

/// How many seconds a client may take to say who it is. Without it, the server hangs up after two,
/// and a machine with much to do is slower at times.
const PATIENCE: u32 = 60;

/// A server's configuration: JetStream, and a ping each second, so that a connection that is cut is
/// noticed after two or three.
#[derive(Clone, Debug)]
pub struct Config {
    address: String,
    text: String,
    jetstream: &'static str,
    /// What to say in place of all that: see [`of_docs`](Config::of_docs).
    whole: Option<String>,
}

impl Config {
    /// On the loopback device, without any authentication.
    #[must_use]
    pub fn new() -> Self {
        Self {
            address: "127.0.0.1".into(),
            text: "ping_interval: \"1s\"\nping_max: 2\n".into(),
            jetstream: "",
            whole: None,
        }
    }

    /// Reached from [machines](crate::machine::Machine) too.
    #[must_use]
    pub fn for_machines(mut self) -> Self {
        self.address = "0.0.0.0".into();
        self
    }

    /// How large a message may be.
    #[must_use]
    pub fn max_payload(self, bytes: u32) -> Self {
        self.with(&format!("max_payload: {bytes}"))
    }

    /// Refuses streams in files.
    #[must_use]
    pub fn memory_only(mut self) -> Self {
        self.jetstream = ", max_file: 0";
        self
    }

    /// Lets in who has this token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.with(&format!(
            "authorization {{ token: \"{token}\", timeout: {PATIENCE} }}"
        ))
    }

    /// Lets in these users: each is a map in the configuration's language, such as
    /// `user: a, password: b, permissions: { publish: [ "x.>" ] }`, or `nkey: U...`.
    #[must_use]
    pub fn users(self, users: &[&str]) -> Self {
        let users: Vec<String> = users.iter().map(|user| format!("{{ {user} }}")).collect();
        self.with(&format!(
            "authorization {{ users: [ {} ], timeout: {PATIENCE} }}",
            users.join(", ")
        ))
    }

    /// Speaks TLS with a certificate of this authority, to clients of which it asks none.
    #[must_use]
    pub fn tls(self, authority: &Authority) -> Self {
        let (certificate, key) = authority.server();
        self.with(&format!(
            "tls {{ cert_file: {certificate:?}, key_file: {key:?}, timeout: {PATIENCE} }}"
        ))
    }

    /// Speaks TLS with clients alone that have a certificate of this authority, too.
    #[must_use]
    pub fn mutual_tls(self, authority: &Authority) -> Self {
        let (certificate, key) = authority.server();
        let ca = authority.certificate();
        self.with(&format!(
            "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true, \
             timeout: {PATIENCE} }}"
        ))
    }

    /// More lines, in the configuration's language: accounts, for example.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.text.push_str(lines);
        self.text.push('\n');
        self
    }

    /// The one that we give to users, `docs/cluster/nats-server.conf`, but for the address, the
    /// folder of streams, and the passwords: that of the user `client` is `of-client`, and that of
    /// `agent`, `of-agent`.
    ///
    /// # Panics
    /// When the file has changed so that this cannot be done.
    #[must_use]
    pub fn of_docs() -> Self {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/cluster/nats-server.conf"
        );
        let text = fs::read_to_string(file).expect("it is there");
        let text = text
            .replace("\"change me\"", "\"of-client\"")
            .replace("\"change me, too\"", "\"of-agent\"");
        assert!(text.contains("of-client") && text.contains("of-agent"));
        let whole = format!("{text}authorization {{ timeout: {PATIENCE} }}\n");
        Self {
            whole: Some(whole),
            ..Self::new()
        }
    }

    /// The same without this part of it.
    ///
    /// # Panics
    /// When it has no such part.
    #[must_use]
    pub fn without(mut self, part: &str) -> Self {
        let whole = self.whole.as_mut().expect("a configuration of the docs");
        assert!(whole.contains(part), "{part}");
        *whole = whole.replace(part, "");
        self
    }

    /// The text of the file.
    pub(super) fn render(&self, port: u16, store: &Path) -> String {
        if let Some(whole) = &self.whole {
            let mut text = whole.clone();
            for (there, here) in [
                ("\"0.0.0.0:4222\"", format!("\"{}:{port}\"", self.address)),
                ("\"/var/lib/nats\"", format!("{store:?}")),
            ] {
                assert_eq!(text.matches(there).count(), 1, "{there} is there once");
                text = text.replace(there, &here);
            }
            return text;
        }
        let mut text = format!("listen: \"{}:{port}\"\n", self.address);
        writeln!(
            text,
            "jetstream {{ store_dir: {store:?}{} }}",
            self.jetstream
        )
        .expect("there is memory for text");
        text.push_str(&self.text);
        text
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
