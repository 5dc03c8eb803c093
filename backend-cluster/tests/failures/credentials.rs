//! Files with credentials: a JWT, signed by an account that an operator has signed, and a seed.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nkeys::KeyPair;
use procpool_core::{BuildErrorKind, Pool};
use procpool_testing::nats::{Agent, Config};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Scenario;
use crate::cluster::{Cluster, builder};

pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("credentials_let_in", let_in),
        ("a_file_has_no_credentials", no_credentials),
    ]
}

/// A token that this key has signed.
fn sign(issuer: &KeyPair, subject: &str, name: &str, claims: Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({
        "jti": name,
        "iat": 1_600_000_000,
        "iss": issuer.public_key(),
        "name": name,
        "sub": subject,
        "nats": claims,
    });
    let text = format!(
        "{}.{}",
        encode(header.to_string()),
        encode(body.to_string())
    );
    let signature = issuer.sign(text.as_bytes()).expect("it has a seed");
    format!("{text}.{}", encode(signature))
}

/// In base 64, for addresses.
fn encode(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.as_ref().chunks(3) {
        let mut bits = 0;
        for at in 0..3 {
            bits = bits << 8 | u32::from(*three.get(at).unwrap_or(&0));
        }
        for at in 0..=three.len() {
            let digit = bits >> (18 - 6 * at) & 63;
            text.push(char::from(DIGITS[digit as usize]));
        }
    }
    text
}

/// An account.
struct Account {
    key: KeyPair,
    jwt: String,
}

impl Account {
    fn new(operator: &KeyPair, name: &str, storage: i64) -> Self {
        let key = KeyPair::new_account();
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": storage, "disk_storage": storage, "streams": -1, "consumer": -1,
        });
        let claims = json!({"type": "account", "version": 2, "limits": limits});
        let jwt = sign(operator, &key.public_key(), name, claims);
        Self { key, jwt }
    }

    /// The file of a new user of this account, and its seed.
    fn credentials(&self, folder: &TempDir, name: &str) -> (PathBuf, String) {
        let key = KeyPair::new_user();
        let claims = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
        });
        let jwt = sign(&self.key, &key.public_key(), name, claims);
        let seed = key.seed().expect("it has one");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             *** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let file = folder.path().join(name);
        fs::write(&file, text).expect("there is room");
        (file, seed)
    }
}

fn agent(url: &str, credentials: &PathBuf) -> Agent {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.env("PROCPOOL_AGENT_CREDENTIALS", credentials);
    command.stderr(Stdio::piped());
    Agent::run(command, url, "m", 1)
}

fn let_in(test: &str) {
    let operator = KeyPair::new_operator();
    let pools = Account::new(&operator, "pools", -1);
    let system = Account::new(&operator, "system", 0);
    let claims = json!({"type": "operator", "version": 2});
    let of_operator = sign(&operator, &operator.public_key(), "operator", claims);
    let lines = format!(
        "operator: {of_operator}\nsystem_account: {}\nresolver: MEMORY\n\
         resolver_preload: {{ {}: {}, {}: {} }}",
        system.key.public_key(),
        pools.key.public_key(),
        pools.jwt,
        system.key.public_key(),
        system.jwt,
    );
    let Some(cluster) = Cluster::with_config(test, Config::new().with(&lines), 0) else {
        return;
    };
    let url = cluster.server.url();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (of_client, _) = pools.credentials(&folder, "client");
    let (of_agent, _) = pools.credentials(&folder, "agent");
    let _agent = agent(&url, &of_agent);
    let pool = builder(&url).credentials(&of_client).build();
    let pool = pool.expect("it is known");
    assert_eq!(pool.apply(|x: u64| x * x, 7), Ok(49));
    // An account that is not the operator's.
    let stranger = Account::new(&KeyPair::new_operator(), "pools", -1);
    let (file, seed) = stranger.credentials(&folder, "stranger");
    let error = builder(&url).credentials(&file).build();
    let error = error.expect_err("it is not known");
    assert_eq!(error.kind(), BuildErrorKind::Launch);
    let client = (error.to_string(), "`.credentials(file)`");
    let agent = (
        agent(&url, &file).last_words(),
        "PROCPOOL_AGENT_CREDENTIALS",
    );
    for (text, option) in [client, agent] {
        let parts = [&*url, "authorization violation", option];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains(&seed), "{text}");
    }
}

fn no_credentials(test: &str) {
    let Some(cluster) = Cluster::some_or_skip(test, 0) else {
        return;
    };
    let url = cluster.server.url();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("seed");
    for text in [
        "",
        "SUAIO3FHUX5PNV2LQIIP7TZ3N4L7",
        "-----BEGIN NATS USER JWT-----\nSECRETJWT\n------END NATS USER JWT------\n",
    ] {
        fs::write(&file, text).expect("there is room");
        let error = builder(&url).credentials(&file).build();
        let error = error.expect_err("it has no key").to_string();
        for said in [error, agent(&url, &file).last_words()] {
            let secret = text.lines().find(|it| !it.starts_with('-'));
            assert!(!secret.is_some_and(|it| said.contains(it)), "{said}");
            assert!(said.contains(file.to_str().expect("text")), "{said}");
        }
    }
}
