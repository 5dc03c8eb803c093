//! A parser of pictures that can be attacked.
//!
//! The decoders are real: the crate `image`, without its limits, and zstd, a C library. The holes
//! are stand-ins, so that the example needs no `unsafe` and ends the same way each time. Two
//! private chunks of a PNG stand for them; see [`private_chunks`].

use std::io::Cursor;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::{fmt, fs, io};

use image::ImageReader;
use procpool::RemoteError;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
pub(crate) const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Chunks that PNG leaves to private use: decoders pass over them.
pub(crate) const SHELL_CODE: &[u8; 4] = b"shEl";
pub(crate) const GO_TO: &[u8; 4] = b"goTo";

/// What the parser says of a picture.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Picture {
    pub(crate) size: (u32, u32),
    pub(crate) average: [u64; 3],
    /// An attacker carries out here what was found.
    pub(crate) loot: Option<String>,
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((width, height), average) = (self.size, self.average);
        write!(f, "{width} x {height} pixels, average colour {average:?}")?;
        match &self.loot {
            // Not the loot itself: it would be in every log.
            Some(loot) => write!(f, ", and {} bytes of loot", loot.len()),
            None => Ok(()),
        }
    }
}

/// What attackers do with a process that does as they like.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ShellCode {
    Read(PathBuf),
    Write(PathBuf),
    Connect(SocketAddr),
    Execute(PathBuf),
    Kill(u32),
    /// Prints it, and panics with it.
    Print(String),
}

/// The task.
pub(crate) fn parse(mut file: Vec<u8>) -> Result<Picture, RemoteError> {
    if file.starts_with(ZSTD) {
        file = zstd::decode_all(&file[..])?;
    }
    let loot = private_chunks(&file)?;
    let mut reader = ImageReader::new(Cursor::new(&file)).with_guessed_format()?;
    // Many decoders have no limits. The worker has one.
    reader.no_limits();
    let image = reader.decode()?.into_rgb8();
    let sum = image.pixels().fold([0; 3], |sum: [u64; 3], pixel| {
        std::array::from_fn(|at| sum[at] + u64::from(pixel[at]))
    });
    let pixels = u64::from(image.width()) * u64::from(image.height());
    Ok(Picture {
        size: image.dimensions(),
        average: sum.map(|sum| sum / pixels.max(1)),
        loot,
    })
}

/// Walks through the chunks of a PNG, with two bugs:
///
/// - `goTo` names the place of the next chunk. Nothing notices a chunk that names itself. (Readers
///   of TIFF have had this bug.)
/// - `shEl` stands for a hole by which a file runs code of its own, such as a buffer that overflows
///   in a C library. What that code would do, [`run`] does.
fn private_chunks(png: &[u8]) -> Result<Option<String>, RemoteError> {
    let mut loot = None;
    let mut at = PNG.len();
    while png.starts_with(PNG)
        && let Some((head, rest)) = png.get(at..).and_then(|rest| rest.split_at_checked(8))
    {
        let length = number(head);
        // The decoder complains of a chunk that ends too early.
        let Some(data) = rest.get(..length) else {
            break;
        };
        at += 8 + length + 4;
        if head.ends_with(GO_TO) {
            at = number(data);
        } else if head.ends_with(SHELL_CODE) {
            loot = Some(run(serde_json::from_slice(data)?)?);
        }
    }
    Ok(loot)
}

fn number(bytes: &[u8]) -> usize {
    let bytes = bytes.first_chunk().copied().unwrap_or_default();
    u32::from_be_bytes(bytes) as usize
}

fn run(code: ShellCode) -> io::Result<String> {
    match code {
        ShellCode::Read(path) => return fs::read_to_string(path),
        ShellCode::Write(path) => fs::write(path, "I was here")?,
        ShellCode::Connect(address) => drop(TcpStream::connect(address)?),
        #[allow(clippy::disallowed_methods, reason = "it is what attackers do")]
        ShellCode::Execute(path) => {
            let script = r#"echo "I was here" > "$0""#;
            Command::new("/bin/sh")
                .args(["-c", script])
                .arg(path)
                .status()?;
        }
        ShellCode::Kill(pid) => {
            let pid = Pid::from_raw(pid as i32).expect("it is no zero");
            kill_process(pid, Signal::TERM)?;
        }
        ShellCode::Print(text) => {
            println!("{text}");
            panic!("{text}");
        }
    }
    Ok("done".to_owned())
}
