//! Thumbnails of all pictures below a folder, from whoever they come: one that is broken, or that
//! unpacks to more memory than there is, costs itself and nothing else.
//!
//! `cargo run --release -p procpool-showcase --example thumbnails -- DIR` writes them to a
//! temporary folder and says where. Without an argument it makes some pictures first, a broken one
//! and a *bomb* among them: six megabytes that say that they are 900 million pixels. Each worker
//! may have 512 MiB, so that the bomb ends a worker and not the machine, and each picture ten
//! seconds. The error of a decoder, which panics here, costs not even the worker.
//!
//! ```text
//! $ cargo run --release -p procpool-showcase --example thumbnails
//! bomb.png: memory allocation of 900000000 bytes failed
//! broken.png: unexpected end of file
//! 60 thumbnails of 64 megapixels in 3.59 s, 2 pictures without one
//! ```
//! Meanwhile, in a terminal:
//! ```text
//!  70% ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸────────────────── 44/62 18.4/s 0:01, 0:00 left
//! 100% ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 62/62 17.3/s 0:03  2 failed
//! ```

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{ImageReader, Rgb, RgbImage};
use procpool::{Output, Pool, Resource, SpawnPool, progress};
use walkdir::WalkDir;

/// The longer side of a thumbnail, in pixels.
const SIZE: u32 = 160;
const MEMORY: u64 = 512 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let pool = SpawnPool::builder()
        .rlimit(Resource::AddressSpace, MEMORY, MEMORY)
        // Captured, so that it does not run into the bar. The errors have the end of it.
        .stderr(Output::lines(|_| ()))
        .build()?;
    let made = tempfile::tempdir()?;
    let (folder, is_test) = match std::env::args_os().nth(1) {
        Some(folder) => (PathBuf::from(folder), false),
        None => {
            make_pictures(&pool, made.path())?;
            (made.path().to_owned(), true)
        }
    };
    let target = tempfile::Builder::new().prefix("thumbnails-").tempdir()?;

    let begin = Instant::now();
    let pictures: Vec<PathBuf> = WalkDir::new(&folder)
        .sort_by_file_name()
        .into_iter()
        .filter_map(|entry| Some(entry.ok()?.into_path()))
        .filter(|path| is_picture(path))
        .collect();
    let tasks = pictures.iter().enumerate().map(|(number, picture)| {
        let name = format!("{number:06}.png");
        (picture.clone(), target.path().join(name))
    });
    let call = pool
        .call(thumbnail)
        .timeout(DEADLINE)
        .progress(progress::bar());
    // Pictures take long and differ, so each travels alone.
    let outcomes = call.chunksize(1).try_map(tasks);

    let mut pixels = 0;
    let mut failed = 0;
    for (picture, outcome) in pictures.iter().zip(&outcomes) {
        match outcome {
            Ok(size) => pixels += size,
            Err(error) => {
                failed += 1;
                let name = picture.strip_prefix(&folder)?.display();
                // What a decoder says, or the last words of a worker.
                let words = error.panic_message().or(error.stderr());
                let line = words.and_then(|words| words.trim_start().lines().next());
                println!("{name}: {}", line.map_or(error.to_string(), str::to_owned));
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{} thumbnails of {} megapixels in {seconds:.2} s, {failed} pictures without one",
        pictures.len() - failed,
        pixels / 1_000_000,
    );
    let written = fs::read_dir(target.path())?.count();
    assert_eq!(written, pictures.len() - failed);
    if is_test {
        assert_eq!((written, failed), (60, 2));
    } else {
        println!("they are in {}", target.keep().display());
    }
    Ok(())
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    path.is_file()
        && ["jpeg", "jpg", "png"]
            .iter()
            .any(|known| extension == *known)
}

/// Writes the thumbnail of a picture, and says how many pixels that has.
fn thumbnail((picture, target): (PathBuf, PathBuf)) -> u64 {
    let decode = || {
        let mut reader = ImageReader::open(&picture)?.with_guessed_format()?;
        // As decoders are that know no limits. What a worker may have is limited anyway.
        reader.no_limits();
        reader.decode()
    };
    let image = decode().unwrap_or_else(|error| panic!("{error}"));
    let small = image.thumbnail(SIZE, SIZE).to_rgb8();
    small
        .save(&target)
        .unwrap_or_else(|error| panic!("{error}"));
    u64::from(image.width()) * u64::from(image.height())
}

/// Sixty pictures, one that ends in the middle, and a bomb.
fn make_pictures(pool: &SpawnPool, folder: &Path) -> Result<(), Box<dyn Error>> {
    let paths = (0..60).map(|number| {
        let kind = ["png", "jpg"][number % 2];
        folder.join(format!("{number:02}.{kind}"))
    });
    let paths = Vec::from_iter(paths);
    pool.map(make_picture, paths.iter().cloned().enumerate())?;
    let whole = fs::read(&paths[0])?;
    fs::write(folder.join("broken.png"), &whole[..whole.len() / 2])?;
    fs::write(folder.join("bomb.png"), bomb(30_000))?;
    Ok(())
}

fn make_picture((number, path): (usize, PathBuf)) {
    let wave = |x: u32, y: u32, scale: f64| {
        let angle = f64::from(x * x + y * y) / (10_000.0 * scale) + number as f64;
        (127.0 + 120.0 * angle.sin()) as u8
    };
    let colour = |x, y| Rgb([wave(x, y, 1.0), wave(x, y, 2.0), wave(x, y, 3.0)]);
    let picture = RgbImage::from_fn(1200, 900, colour);
    picture
        .save(&path)
        .unwrap_or_else(|error| panic!("{error}"));
}

/// A black PNG of so many pixels squared, in a few bytes.
fn bomb(side: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut part = |kind: &[u8; 4], data: &[u8]| {
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(kind);
        png.extend(data);
        png.extend(crc32(&[kind, data]).to_be_bytes());
    };
    let side_bytes = side.to_be_bytes();
    // Eight bits of grey, and nothing special.
    part(
        b"IHDR",
        &[&side_bytes[..], &side_bytes, &[8, 0, 0, 0, 0]].concat(),
    );
    // Each line has a byte before it that says how it is coded.
    part(b"IDAT", &zeros(side as usize * (side as usize + 1)));
    part(b"IEND", &[]);
    png
}

/// This many zeros and a few more, compressed by hand: one zero, and then again and again what was
/// 258 bytes long before. (RFC 1950 and 1951; the code for that is 13 bits, 1100_0101 and 0_0000.)
fn zeros(count: usize) -> Vec<u8> {
    let mut data = vec![0x78, 0x01];
    let mut bits = Bits::default();
    // The last block, with the fixed codes.
    bits.push(&mut data, 0b011, 3);
    // A zero.
    bits.push(&mut data, 0b0000_1100, 8);
    let repeats = count.div_ceil(258);
    for _ in 0..repeats {
        bits.push(&mut data, 0b1010_0011, 13);
    }
    // The end of the block, and of the last byte.
    bits.push(&mut data, 0, 7);
    bits.push(&mut data, 0, 7);
    let sum = (repeats * 258 + 1) % 65_521;
    data.extend(((sum as u32) << 16 | 1).to_be_bytes());
    data
}

/// Bits, the lowest first.
#[derive(Default)]
struct Bits {
    held: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, data: &mut Vec<u8>, bits: u32, count: u32) {
        self.held |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            data.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }
}

fn crc32(parts: &[&[u8]]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|byte| {
        (0..8).fold(byte as u32, |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    });
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(!0, |crc, byte| {
        (crc >> 8) ^ table[((crc ^ u32::from(*byte)) & 0xFF) as usize]
    })
}
