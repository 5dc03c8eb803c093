//! Certificates for tests.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// An authority of its own that certifies servers and clients. Its files are there while it is.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, with a certificate for a server on this machine.
    ///
    /// # Panics
    /// When the system has no random numbers, or no room for files.
    #[must_use]
    pub fn new() -> Self {
        let key = new_key();
        let mut params = params(&[], "procpool tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("these are fine");
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("there is room");
        let authority = Self {
            folder,
            issuer: Issuer::new(params, key),
        };
        authority.certify(
            "server",
            &["localhost", "127.0.0.1"],
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        authority
    }

    /// Its own certificate, which clients are to trust.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The server's certificate, and its key.
    #[must_use]
    pub fn server(&self) -> (PathBuf, PathBuf) {
        self.files("server")
    }

    /// Makes a certificate for a client, and its key.
    ///
    /// # Panics
    /// See [`new`](Self::new).
    #[must_use]
    pub fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        self.certify(name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Makes another certificate for the server, under these names and addresses.
    ///
    /// # Panics
    /// See [`new`](Self::new).
    pub fn certify_server(&self, names: &[&str]) {
        self.certify("server", names, ExtendedKeyUsagePurpose::ServerAuth);
    }

    /// Makes a certificate of this name (`server` is the server's) that was valid long ago.
    ///
    /// # Panics
    /// See [`new`](Self::new).
    pub fn certify_expired(&self, name: &str) -> (PathBuf, PathBuf) {
        self.certify_until(name, &["localhost", "127.0.0.1"], None, 2000)
    }

    fn certify(
        &self,
        name: &str,
        names: &[&str],
        purpose: ExtendedKeyUsagePurpose,
    ) -> (PathBuf, PathBuf) {
        self.certify_until(name, names, Some(purpose), 4000)
    }

    /// The certificate is valid until this year. Without a purpose, it has both.
    fn certify_until(
        &self,
        name: &str,
        names: &[&str],
        purpose: Option<ExtendedKeyUsagePurpose>,
        year: i32,
    ) -> (PathBuf, PathBuf) {
        let key = new_key();
        let mut params = params(names, name);
        params.extended_key_usages = match purpose {
            Some(purpose) => vec![purpose],
            None => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate: Certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the names are fine");
        let files = self.files(name);
        write(&files.0, &certificate.pem());
        write(&files.1, &key.serialize_pem());
        files
    }

    fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        let folder = self.folder.path();
        let certificate = folder.join(format!("{name}.pem"));
        (certificate, folder.join(format!("{name}.key")))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("there are random numbers")
}

fn params(names: &[&str], name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the names are fine");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("there is room");
}
