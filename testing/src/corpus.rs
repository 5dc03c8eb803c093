//! The inputs that are kept for fuzz targets.

use std::fs;
use std::path::Path;

/// Runs a target on all inputs that are kept for it, each of which must do.
///
/// # Panics
/// When the target does, or nothing is kept for it.
pub fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let entries = fs::read_dir(corpus.join(target)).expect("a corpus");
    let mut count = 0;
    for entry in entries.flatten() {
        // Should it panic, this says for which.
        println!("{}", entry.path().display());
        run(&fs::read(entry.path()).expect("it was there a moment ago"));
        count += 1;
    }
    assert!(count > 0, "nothing is kept for {target}");
}
