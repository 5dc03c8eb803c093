//! The server's store of programs: a bucket in which each is called by its hash.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::object_store::{Config, ObjectMetadata, ObjectStore};
use async_nats::jetstream::stream::StorageType;
use async_nats::jetstream::{self, Context};
use tokio::io::AsyncReadExt;

use super::manifest::{Hash, Manifest};

const BUCKET: &str = "PP_bin";
/// A program that nobody publishes again is forgotten after that.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How large the parts of a program are, if the server takes such messages.
const PART: usize = 128 * 1024;
/// How long the server has for an answer about one program, and for each part.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program that is running, whatever has become of its file.
const THIS: &str = "/proc/self/exe";

/// What this program is.
///
/// # Errors
/// When it cannot be read, or the key cannot sign.
pub(crate) fn this_program(key: Option<&Path>) -> Result<Manifest, String> {
    let failed = |error| format!("this program cannot be read: {error}");
    let file = File::open(THIS).map_err(failed)?;
    let (sha256, size) = Hash::of(file).map_err(failed)?;
    let name = std::env::current_exe().ok();
    let name = name.as_deref().and_then(Path::file_name);
    let mut manifest = Manifest {
        sha256,
        size,
        name: name.map_or_else(String::new, |it| it.to_string_lossy().into_owned()),
        signed: None,
    };
    if let Some(key) = key {
        manifest.sign(key)?;
    }
    Ok(manifest)
}

/// Puts this program into the store, unless it is there.
///
/// # Errors
/// What the server says against it.
pub(crate) async fn publish(client: Client, manifest: Manifest) -> Result<(), String> {
    let part = PART.min(client.max_payload() / 2);
    let context = jetstream::new(client);
    let store = open_or_make(&context).await?;
    let name = manifest.sha256.as_str();
    let info = tokio::time::timeout(PATIENCE, store.info(name)).await;
    if info.is_ok_and(|info| info.is_ok_and(|it| !it.deleted && it.size as u64 == manifest.size)) {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| {
        format!("the program cannot be put into the server's store, the bucket {BUCKET}: {error}")
    };
    let mut file = tokio::fs::File::open(THIS)
        .await
        .map_err(|error| failed(&error))?;
    let meta = ObjectMetadata {
        name: name.to_owned(),
        description: Some(manifest.name.clone()),
        chunk_size: Some(part),
        ..ObjectMetadata::default()
    };
    let put = store.put(meta, &mut file).await;
    put.map_err(|error| failed(&error))?;
    Ok(())
}

async fn open_or_make(context: &Context) -> Result<ObjectStore, String> {
    if let Ok(store) = context.get_object_store(BUCKET).await {
        return Ok(store);
    }
    let made = context.create_object_store(Config {
        bucket: BUCKET.to_owned(),
        description: Some("programs that agents execute".to_owned()),
        max_age: MAX_AGE,
        storage: StorageType::File,
        ..Config::default()
    });
    made.await.map_err(|error| {
        format!("the store of programs, the bucket {BUCKET}, cannot be made: {error}")
    })
}

/// Writes a program from the store into this file, no more of it than the manifest says. Whether it
/// is that program is for who [keeps](super::cache::Cache::keep) it to see.
///
/// # Errors
/// When it is not there, is too large, or the server or the file makes trouble.
pub(super) async fn fetch(
    client: Client,
    manifest: &Manifest,
    into: &mut File,
) -> Result<(), String> {
    let context = jetstream::new(client);
    let failed = |error: &dyn std::fmt::Display| {
        format!("it cannot be got from the server's store, the bucket {BUCKET}: {error}")
    };
    let store = context
        .get_object_store(BUCKET)
        .await
        .map_err(|error| failed(&error))?;
    let object = tokio::time::timeout(PATIENCE, store.get(manifest.sha256.as_str())).await;
    let mut object = object
        .map_err(|_| failed(&"there was no answer"))?
        .map_err(|error| failed(&error))?;
    let mut buffer = vec![0; PART];
    let mut size = 0;
    loop {
        let read = tokio::time::timeout(PATIENCE, object.read(&mut buffer)).await;
        let count = read
            .map_err(|_| failed(&"no more of it has come"))?
            .map_err(|error| failed(&error))?;
        if count == 0 {
            return Ok(());
        }
        size += count as u64;
        if size > manifest.size {
            return Err(format!(
                "what the store has is larger than {} bytes",
                manifest.size
            ));
        }
        into.write_all(&buffer[..count])
            .map_err(|error| format!("it cannot be written: {error}"))?;
    }
}
