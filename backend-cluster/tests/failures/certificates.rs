//! Servers that speak TLS, and what is wrong with certificates.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use procpool_cluster::ClusterPoolBuilder;
use procpool_core::{BuildErrorKind, Pool};
use procpool_testing::nats::{self, Agent, Authority, Config, Server};

use crate::Scenario;
use crate::cluster::{LONG, builder};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("tls_is_spoken", spoken),
        ("certificates_are_asked_for", asked_for),
        ("the_certificate_has_expired", expired),
        ("the_certificate_is_of_another_name", another_name),
        ("the_server_speaks_no_tls", not_spoken),
        ("the_server_says_nothing", says_nothing),
        ("a_certificates_file_is_wrong", wrong_files),
    ]
}

/// The token of all servers here: no error has it.
const TOKEN: &str = "sesame-7413";

/// No error takes longer.
const LIMIT: Duration = Duration::from_secs(25);

/// What a client or an agent is told.
#[derive(Clone, Default)]
struct Files {
    authorities: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Files {
    fn of(authority: &Authority) -> Self {
        Self {
            authorities: Some(authority.certificate()),
            identity: None,
        }
    }

    fn with(mut self, identity: (PathBuf, PathBuf)) -> Self {
        self.identity = Some(identity);
        self
    }

    fn builder(&self, url: &str) -> ClusterPoolBuilder {
        let mut builder = builder(url);
        if let Some(file) = &self.authorities {
            builder = builder.tls(file);
        }
        if let Some((certificate, key)) = &self.identity {
            builder = builder.tls_identity(certificate, key);
        }
        builder
    }

    fn agent(&self, url: &str) -> Agent {
        let mut command = Command::new(env::current_exe().expect("this program has a path"));
        if let Some(file) = &self.authorities {
            command.env("PROCPOOL_AGENT_TLS_CA", file);
        }
        if let Some((certificate, key)) = &self.identity {
            command.env("PROCPOOL_AGENT_TLS_CERT", certificate);
            command.env("PROCPOOL_AGENT_TLS_KEY", key);
        }
        command.stderr(Stdio::piped());
        Agent::run(command, url, "m", 1)
    }

    /// Client and agent work together.
    fn assert_let_in(&self, server: &Server) {
        let url = url(server);
        let _agent = self.agent(&url);
        let pool = self.builder(&url).build().expect("it is let in");
        assert!(pool.wait_for_processes(1, LONG));
        assert_eq!(pool.apply(|x: u64| x * x, 7), Ok(49));
    }

    /// What client and agent say that are not let in.
    fn refusals(&self, url: &str) -> [String; 2] {
        let begun = Instant::now();
        let mut agent = self.agent(url);
        let error = self.builder(url).build().expect_err("it is not let in");
        assert_eq!(error.kind(), BuildErrorKind::Launch);
        let texts = [error.to_string(), agent.last_words()];
        assert!(begun.elapsed() < LIMIT);
        for text in &texts {
            assert!(!text.contains(TOKEN), "{text}");
            if let Some((_, key)) = &self.identity {
                assert_no_secret(text, key);
            }
        }
        texts
    }

    /// Both say this, and each names its own option.
    fn assert_refused(&self, url: &str, part: &str, options: [&str; 2]) {
        for (text, option) in self.refusals(url).iter().zip(options) {
            assert!(text.contains(part) && text.contains(option), "{text}");
            let shown = url.replace(&format!("{TOKEN}@"), "");
            assert!(text.contains(&shown), "{text}");
        }
    }
}

/// What is in a file is not in the text.
fn assert_no_secret(text: &str, file: &Path) {
    let secret = fs::read_to_string(file).unwrap_or_default();
    for line in secret.lines().filter(|it| it.len() > 4) {
        assert!(!text.contains(line), "{text}");
    }
}

fn url(server: &Server) -> String {
    server.url_at(&format!("{TOKEN}@127.0.0.1"))
}

const AUTHORITIES: [&str; 2] = ["`.tls(file)`", "PROCPOOL_AGENT_TLS_CA"];
const IDENTITY: [&str; 2] = ["`.tls_identity(", "PROCPOOL_AGENT_TLS_CERT"];

fn spoken(test: &str) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let config = Config::new().token(TOKEN).tls(&authority);
    let Some(server) = nats::server_or_skip(test, config) else {
        return;
    };
    Files::of(&authority).assert_let_in(&server);
    // Neither those of the system nor any others will do.
    for files in [Files::default(), Files::of(&stranger)] {
        let part = "the server's certificate is of no authority";
        files.assert_refused(&url(&server), part, AUTHORITIES);
    }
}

fn asked_for(test: &str) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let config = Config::new().token(TOKEN).mutual_tls(&authority);
    let Some(server) = nats::server_or_skip(test, config) else {
        return;
    };
    let files = Files::of(&authority);
    files
        .clone()
        .with(authority.client("client"))
        .assert_let_in(&server);
    let url = url(&server);
    files.assert_refused(&url, "ask", IDENTITY);
    for identity in [
        stranger.client("client"),
        authority.certify_expired("expired"),
    ] {
        let files = files.clone().with(identity);
        files.assert_refused(&url, "not accept the certificate", IDENTITY);
    }
    // The key of another certificate.
    let (certificate, _) = authority.client("one");
    let (_, key) = authority.client("other");
    let files = files.with((certificate, key));
    files.assert_refused(&url, "belong together", IDENTITY);
}

fn expired(test: &str) {
    let authority = Authority::new();
    authority.certify_expired("server");
    let config = Config::new().token(TOKEN).tls(&authority);
    let Some(server) = nats::server_or_skip(test, config) else {
        return;
    };
    let part = "certificate expired";
    let files = Files::of(&authority);
    files.assert_refused(&url(&server), part, ["renew the server's"; 2]);
}

fn another_name(test: &str) {
    let authority = Authority::new();
    authority.certify_server(&["elsewhere.example"]);
    let config = Config::new().token(TOKEN).tls(&authority);
    let Some(server) = nats::server_or_skip(test, config) else {
        return;
    };
    let files = Files::of(&authority);
    let part = "elsewhere.example";
    files.assert_refused(&url(&server), part, ["use a name in the address"; 2]);
}

/// Who wants TLS sends nothing without it.
fn not_spoken(test: &str) {
    let authority = Authority::new();
    let Some(server) = nats::server_or_skip(test, Config::new().token(TOKEN)) else {
        return;
    };
    let all = [
        Files::of(&authority),
        Files::of(&authority).with(authority.client("client")),
        Files::default().with(authority.client("client")),
    ];
    for files in all {
        let part = "does not speak TLS";
        files.assert_refused(&url(&server), part, ["nothing is sent"; 2]);
    }
    Files::default().assert_let_in(&server);
}

fn says_nothing(_test: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let port = listener.local_addr().expect("it has one").port();
    let url = format!("nats://{TOKEN}@127.0.0.1:{port}");
    Files::default().assert_refused(&url, "timed out", [""; 2]);
}

fn wrong_files(test: &str) {
    let authority = Authority::new();
    let config = Config::new().token(TOKEN).mutual_tls(&authority);
    let Some(server) = nats::server_or_skip(test, config) else {
        return;
    };
    let (certificate, key) = authority.client("client");
    let nowhere = PathBuf::from("/nowhere/file");
    let good = Files::of(&authority);
    let missing = Files {
        authorities: Some(nowhere.clone()),
        identity: None,
    };
    // A key is no certificate, and a certificate no key.
    let mistaken = Files {
        authorities: Some(key.clone()),
        identity: None,
    };
    for (files, file) in [
        (missing, &nowhere),
        (mistaken, &key),
        (good.clone().with((nowhere.clone(), key.clone())), &nowhere),
        (good.clone().with((key.clone(), key.clone())), &key),
        (
            good.clone().with((certificate.clone(), nowhere.clone())),
            &nowhere,
        ),
        (
            good.with((certificate.clone(), certificate.clone())),
            &certificate,
        ),
    ] {
        for text in files.refusals(&url(&server)) {
            assert!(text.contains(file.to_str().expect("text")), "{text}");
            assert_no_secret(&text, &key);
        }
    }
}
