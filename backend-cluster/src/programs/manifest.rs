//! What is said of a program, and who has signed it.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use nkeys::KeyPair;
use ring::digest::{self, SHA256};
use serde::{Deserialize, Serialize};

/// The SHA-256 of a program's file: 64 hexadecimal digits, and so nothing that could be a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Hash(String);

impl Hash {
    /// That of all that can be read here, and how much it is.
    pub(super) fn of(mut file: impl Read) -> io::Result<(Self, u64)> {
        let mut context = digest::Context::new(&SHA256);
        let mut buffer = vec![0; 1 << 16];
        let mut size = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    context.update(&buffer[..count]);
                    size += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok((Self(hexadecimal(context.finish().as_ref())), size))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_digit = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        if text.len() == 64 && text.bytes().all(is_digit) {
            Ok(Self(text))
        } else {
            Err("a hash is 64 hexadecimal digits")
        }
    }
}

impl fmt::Display for Hash {
    /// The first digits, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[..12])
    }
}

/// What a client says of its program. It is JSON, since agents of any release read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(super) sha256: Hash,
    /// In bytes.
    pub(super) size: u64,
    /// For people.
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signed: Option<Signed>,
}

/// Who has signed the hash and the size, and the signature in hexadecimal digits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Signed {
    pub(super) key: String,
    pub(super) signature: String,
}

impl Manifest {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it is strings and numbers")
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// What is signed. It begins with what it is, so that it is nothing else's signature.
    fn content(&self) -> Vec<u8> {
        format!("procpool program 1\n{}\n{}\n", self.sha256.0, self.size).into_bytes()
    }

    /// Signs it with the seed in this file.
    pub(super) fn sign(&mut self, path: &Path) -> Result<(), String> {
        let shown = path.display();
        let text = fs::read_to_string(path)
            .map_err(|error| format!("the file with the signing key, {shown}: {error}"))?;
        let key = KeyPair::from_seed(text.trim()).map_err(|error| {
            format!(
                "{shown} has no signing key ({error}): it is an nkey's seed, as \
                 `procpool-agent new-key {shown}` makes one"
            )
        })?;
        let signature = key.sign(&self.content());
        let signature = signature.map_err(|error| format!("{shown} cannot sign: {error}"))?;
        self.signed = Some(Signed {
            key: key.public_key(),
            signature: hexadecimal(&signature),
        });
        Ok(())
    }

    /// Whether one of these keys has signed it.
    pub(super) fn check_signature(&self, trusted: &BTreeSet<String>) -> Result<(), String> {
        let Some(signed) = &self.signed else {
            return Err("it is not signed".into());
        };
        if !trusted.contains(&signed.key) {
            return Err(format!("its key, {:?}, is not trusted", signed.key));
        }
        let key = KeyPair::from_public_key(&signed.key);
        let signature = bytes_of(&signed.signature);
        let is_right = key
            .ok()
            .zip(signature)
            .is_some_and(|(key, signature)| key.verify(&self.content(), &signature).is_ok());
        if is_right {
            Ok(())
        } else {
            Err(format!("its signature is not that of {}", signed.key))
        }
    }
}

/// Whether a text is the public part of a key.
pub(super) fn check_key(text: &str) -> Result<(), String> {
    match KeyPair::from_public_key(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "{text:?} is no public key ({error}): it is what `procpool-agent new-key` prints"
        )),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

/// `None`: these are no hexadecimal digits.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let (sha256, size) = Hash::of(&b"a program"[..]).unwrap();
        Manifest {
            sha256,
            size,
            name: "program".into(),
            signed: None,
        }
    }

    /// A key's public part, and a file with its seed.
    fn key() -> (String, tempfile::NamedTempFile) {
        let key = KeyPair::new_user();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), key.seed().unwrap()).unwrap();
        (key.public_key(), file)
    }

    #[test]
    fn hashes_are_what_others_say() {
        let (hash, size) = Hash::of(&b"abc"[..]).unwrap();
        assert_eq!(
            hash.as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(size, 3);
    }

    #[test]
    fn a_hash_is_no_path() {
        let good = "ab".repeat(32);
        assert!(Hash::try_from(good.clone()).is_ok());
        for bad in [
            "",
            "../..",
            &good[1..],
            &good.to_uppercase(),
            &format!("{good}0"),
        ] {
            assert!(Hash::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        let json = r#"{"sha256":"../../../../bin/sh","size":1,"name":"sh"}"#;
        assert!(Manifest::from_bytes(json.as_bytes()).is_err());
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_program() {
        let ((public, file), (stranger, _)) = (key(), key());
        let mut manifest = manifest();
        let trusted = BTreeSet::from([public.clone()]);
        let error = manifest.check_signature(&trusted).unwrap_err();
        assert!(error.contains("not signed"), "{error}");
        manifest.sign(file.path()).unwrap();
        let manifest = Manifest::from_bytes(&manifest.to_bytes()).unwrap();
        manifest.check_signature(&trusted).unwrap();
        let error = manifest.check_signature(&BTreeSet::from([stranger.clone()]));
        assert!(error.unwrap_err().contains("not trusted"));
        // Of another program, of another size, and by whom a stranger would like to be.
        let mut others = [(); 4].map(|()| manifest.clone());
        others[0].sha256 = Hash::of(&b"another"[..]).unwrap().0;
        others[1].size += 1;
        others[2]
            .signed
            .as_mut()
            .unwrap()
            .signature
            .replace_range(0..2, "zz");
        others[3].signed.as_mut().unwrap().signature.clear();
        for other in others {
            let error = other.check_signature(&trusted).unwrap_err();
            assert!(error.contains("is not that of"), "{error}");
        }
        let mut forged = manifest.clone();
        forged.signed.as_mut().unwrap().key = stranger.clone();
        let error = forged.check_signature(&BTreeSet::from([stranger]));
        assert!(error.unwrap_err().contains("is not that of"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(check_key("UABC").unwrap_err().contains("no public key"));
        let mut manifest = manifest();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "no seed").unwrap();
        let error = manifest.sign(file.path()).unwrap_err();
        assert!(error.contains("has no signing key"), "{error}");
        let error = manifest.sign(Path::new("/no/such/file")).unwrap_err();
        assert!(error.contains("/no/such/file"), "{error}");
    }
}
