//! What a child does, and how it talks with its pool.
//!
//! A child is this program, started again with [`AGENT`] in its environment. It has nothing of the
//! pool but the bytes that come by its standard input, and answers by its standard output:
//!
//! ```text
//! frame   = length (4 bytes) kind (1 byte) number (8 bytes) bytes
//! to it   = content | run of a chunk, by number | cancel it
//! from it = the chunk begins | content | outcome of the item with this index | the chunk is done
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc;

use procpool::executor::{
    BroadcastContent, CancelFlag, ContentId, EncodedChunk, Outcome, build_id,
};

/// Says that this process is a child of a pool.
pub(super) const AGENT: &str = "CONFORMANCE_PIPES_AGENT";

pub(super) const CONTENT: u8 = 1;
pub(super) const RUN: u8 = 2;
pub(super) const CANCEL: u8 = 3;
pub(super) const OUTCOME: u8 = 4;
pub(super) const DONE: u8 = 5;
pub(super) const BEGUN: u8 = 6;

pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn write_frame(
    to: &mut impl Write,
    kind: u8,
    number: u64,
    bytes: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut head = [0; 13];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4] = kind;
    head[5..].copy_from_slice(&number.to_le_bytes());
    to.write_all(&head)?;
    to.write_all(bytes)?;
    to.flush()
}

pub(super) fn read_frame(from: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 13];
    from.read_exact(&mut head)?;
    let [l0, l1, l2, l3, kind, number @ ..] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let mut bytes = Vec::new();
    // Memory grows with what arrives, whatever the length says.
    from.take(length.into()).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Frame {
        kind,
        number: u64::from_le_bytes(number),
        bytes,
    })
}

/// Is a child of a pool, if this process is one.
pub(crate) fn be_agent() -> Option<ExitCode> {
    std::env::var_os(AGENT)?;
    let answers = rustix::io::dup(rustix::stdio::stdout()).expect("there is a pipe");
    // What tasks print is no answer.
    rustix::stdio::dup2_stdout(rustix::stdio::stderr()).expect("both are open");
    let mut answers = std::fs::File::from(answers);
    // So that the first task need not wait for it.
    let _ = build_id();
    let (sender, chunks) = mpsc::channel::<(EncodedChunk, CancelFlag, u64)>();
    std::thread::spawn(move || {
        // When the pool is gone, or writes rubbish, whatever runs ends with the process.
        let _ = receive(&sender);
        #[allow(clippy::exit, reason = "a task may run on")]
        std::process::exit(0);
    });
    // Contents that the pool has.
    let mut known = BTreeSet::new();
    for (chunk, flag, number) in chunks {
        known.extend(chunk.contents().iter().map(BroadcastContent::id));
        let _ = write_frame(&mut answers, BEGUN, number, &[]);
        let mut answer = |index: usize, outcome: &Outcome| -> io::Result<()> {
            for content in outcome.contents() {
                if known.insert(content.id()) {
                    write_frame(&mut answers, CONTENT, 0, content.bytes())?;
                }
            }
            write_frame(&mut answers, OUTCOME, index as u64, &outcome.to_bytes())
        };
        // Without a pool that hears it, there is an end of file to come.
        std::thread::sleep(chunk.options().delay);
        chunk.run(&flag, |index, outcome| drop(answer(index, &outcome)));
        let _ = write_frame(&mut answers, DONE, number, &[]);
    }
    Some(ExitCode::SUCCESS)
}

fn receive(chunks: &mpsc::Sender<(EncodedChunk, CancelFlag, u64)>) -> io::Result<()> {
    let mut input = io::stdin().lock();
    let mut contents: BTreeMap<ContentId, BroadcastContent> = BTreeMap::new();
    let mut last = (0, CancelFlag::new());
    loop {
        let frame = read_frame(&mut input)?;
        match frame.kind {
            CONTENT => {
                let content = BroadcastContent::new(&frame.bytes).map_err(io::Error::other)?;
                contents.insert(content.id(), content);
            }
            RUN => {
                let chunk = EncodedChunk::from_bytes(&frame.bytes);
                let mut chunk = chunk.map_err(io::Error::other)?;
                for id in chunk.missing() {
                    if let Some(content) = contents.get(&id) {
                        chunk.provide(content);
                    }
                }
                last = (frame.number, CancelFlag::new());
                let _ = chunks.send((chunk, last.1.clone(), frame.number));
            }
            CANCEL if frame.number == last.0 => last.1.set(),
            CANCEL => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
