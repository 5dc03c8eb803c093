//! Files from strangers, and what they are after.

use std::error::Error;
use std::io::Cursor;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::{fs, io, process};

use image::{ImageFormat, Rgb, RgbImage};
use procpool::TaskErrorKind;

use crate::parser::{GO_TO, PNG, SHELL_CODE, ShellCode};

const SECRET: &str = "the password of the database";

/// What attackers would like to reach.
pub(crate) struct Treasure {
    folder: PathBuf,
    listener: TcpListener,
    address: SocketAddr,
}

impl Treasure {
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        let folder = folder.to_owned();
        fs::write(folder.join("secret"), SECRET)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // So that it can be asked whether anybody has come.
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self {
            folder,
            listener,
            address,
        })
    }

    /// A picture with code that reads the secret.
    pub(crate) fn thief(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        infected(&ShellCode::Read(self.folder.join("secret")))
    }

    pub(crate) fn is_secret(&self, text: &str) -> bool {
        text == SECRET
    }

    /// Panics unless everything is as it was.
    pub(crate) fn assert_untouched(&self) {
        let secret = fs::read_to_string(self.folder.join("secret"));
        assert_eq!(secret.expect("it is there"), SECRET);
        let visitor = self.listener.accept().map(|(_, from)| from);
        let nobody = visitor.expect_err("nobody has connected");
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
        let files = fs::read_dir(&self.folder).expect("it is there").count();
        assert_eq!(files, 1, "there is the secret, and no other file");
    }
}

/// What must become of a file.
pub(crate) enum Expected {
    /// The same as in this process.
    Picture,
    /// An error that the parser returns, with these words. The worker lives.
    Fails(&'static str),
    /// No result, and an error of this kind with these words.
    Ends(TaskErrorKind, &'static str),
}

pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) attempt: &'static str,
    pub(crate) content: Vec<u8>,
    pub(crate) expected: Expected,
}

/// Pictures, and what only looks like one.
pub(crate) fn all(treasure: &Treasure) -> Result<Vec<File>, Box<dyn Error>> {
    use Expected::{Ends, Fails, Picture};
    use ShellCode::{Connect, Execute, Kill, Print, Read, Write};
    use TaskErrorKind::{OutOfMemory, Panicked, TimedOut, WorkerLost};

    let mut files = Vec::new();
    let mut add = |name, attempt, content, expected| {
        files.push(File {
            name,
            attempt,
            content,
            expected,
        });
    };

    let png = picture(ImageFormat::Png)?;
    let packed = zstd::encode_all(&png[..], 3)?;
    let jpeg = picture(ImageFormat::Jpeg)?;
    add("good.png", "nothing", png.clone(), Picture);
    add("good.jpeg", "nothing", jpeg, Picture);
    add("good.png.zst", "nothing", packed, Picture);

    let cut = png[..png.len() / 2].to_vec();
    add("cut.png", "ends early", cut, Fails("unexpected end"));
    let bomb = [header(50_000, 50_000), chunk(b"IDAT", &[0x78, 0x01])].concat();
    let ends = || Ends(OutOfMemory, "memory_limit");
    add("bomb.png", "2.5 gigapixels", bomb, ends());
    // Frames that follow each other are one file.
    let zeros = zstd::encode_all(&vec![0; 16 << 20][..], 3)?;
    add("bomb.zst", "4 GiB of zeros", zeros.repeat(256), ends());

    let here = PNG.len() as u32;
    let circle = [PNG, &chunk(GO_TO, &here.to_be_bytes())].concat();
    let ends = Ends(TimedOut, "was killed");
    add("endless.png", "never ends", circle, ends);

    let mut attack = |name, attempt, code, expected| {
        add(name, attempt, infected(&code)?, expected);
        Ok::<_, Box<dyn Error>>(())
    };
    let inside = |name: &str| treasure.folder.join(name);
    let denied = || Fails("Permission denied");
    let killed = |call| Ends(WorkerLost, call);

    attack(
        "secret.png",
        "reads a secret file",
        Read(inside("secret")),
        denied(),
    )?;
    let users = "/etc/passwd".into();
    attack("users.png", "reads /etc/passwd", Read(users), denied())?;
    let environment = format!("/proc/{}/environ", process::id()).into();
    attack(
        "parent.png",
        "reads the program's environment",
        Read(environment),
        denied(),
    )?;
    attack(
        "overwrite.png",
        "overwrites the secret file",
        Write(inside("secret")),
        denied(),
    )?;
    attack("make.png", "makes a file", Write(inside("made")), denied())?;
    attack(
        "connect.png",
        "connects to a port",
        Connect(treasure.address),
        killed("its sandbox refuses the system call `socket`"),
    )?;
    // The C library blocks all signals while it starts a process, so the call has no name.
    attack(
        "execute.png",
        "starts a shell",
        Execute(inside("executed")),
        killed("signal 31 (SIGSYS)"),
    )?;
    attack(
        "print.png",
        "clears your terminal",
        Print("\x1b[2J\x1b]0;mine\x07 all is well".to_owned()),
        Ends(Panicked, r"\u{1b}[2J"),
    )?;

    // The last one, so that what others get out is told before it.
    let kill = infected(&Kill(process::id()))?;
    let ends = killed("its sandbox refuses the system call `kill`");
    add("kill.png", "ends the program", kill, ends);
    Ok(files)
}

fn picture(format: ImageFormat) -> Result<Vec<u8>, Box<dyn Error>> {
    let colour = |x, y| Rgb([x as u8, y as u8, (x + y) as u8]);
    let mut file = Cursor::new(Vec::new());
    RgbImage::from_fn(120, 80, colour).write_to(&mut file, format)?;
    Ok(file.into_inner())
}

/// A picture that is right, but for a chunk with this code after its header.
fn infected(code: &ShellCode) -> Result<Vec<u8>, Box<dyn Error>> {
    let picture = picture(ImageFormat::Png)?;
    let (header, rest) = picture.split_at(header(0, 0).len());
    let code = chunk(SHELL_CODE, &serde_json::to_vec(code)?);
    Ok([header, &code, rest].concat())
}

/// How a PNG of this size begins. Decoders take the memory for all of its pixels.
fn header(width: u32, height: u32) -> Vec<u8> {
    let (width, height) = (width.to_be_bytes(), height.to_be_bytes());
    // Eight bits for each of three colours, and nothing special.
    let data = [&width[..], &height, &[8, 2, 0, 0, 0]].concat();
    [PNG, &chunk(b"IHDR", &data)].concat()
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u32).to_be_bytes();
    let sum = crc32(&[kind, data].concat()).to_be_bytes();
    [&length[..], kind, data, &sum].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}
