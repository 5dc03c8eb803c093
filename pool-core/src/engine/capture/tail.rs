//! The last lines of what was written.

/// This many lines are kept, at most.
const MAX_LINES: usize = 20;
/// This many bytes of them, at most.
const MAX_BYTES: usize = 4096;

/// The last lines of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The last bytes, up to twice as many as are kept, so that each is moved but once.
    bytes: Vec<u8>,
    /// Whether there were others before.
    is_cut: bool,
}

impl Tail {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(MAX_BYTES)..];
        if last.len() < bytes.len() {
            self.is_cut = true;
            // What was there does not stand before these.
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(last);
        if self.bytes.len() > 2 * MAX_BYTES {
            self.is_cut = true;
            self.bytes.drain(..self.bytes.len() - MAX_BYTES);
        }
    }

    /// The lines as text, without the last one's end. `None`: there are none.
    pub(super) fn text(&self) -> Option<String> {
        let bytes = self.bytes.trim_ascii_end();
        let mut from = bytes.len().saturating_sub(MAX_BYTES);
        let ends = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n');
        // The first line is not whole, unless it is the only one.
        if (from > 0 || self.is_cut)
            && let Some(end) = ends(&bytes[from..])
        {
            from += end + 1;
        }
        let bytes = &bytes[from..];
        let lines = bytes.rsplit(|byte| *byte == b'\n').take(MAX_LINES);
        let length: usize = lines.map(|line| line.len() + 1).sum();
        let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(length - 1)..]);
        (!text.is_empty()).then(|| text.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, MAX_LINES, Tail};
    use proptest::prelude::*;

    fn tail(bytes: &[u8], piece: usize) -> Option<String> {
        let mut tail = Tail::default();
        bytes.chunks(piece).for_each(|piece| tail.feed(piece));
        tail.text()
    }

    proptest! {
        #[test]
        fn the_last_lines_are_kept(lines in 0_usize..200, width in 1_usize..300, piece in 1_usize..9000) {
            let all: Vec<String> = (0..lines).map(|line| format!("{line:0width$}")).collect();
            let text = all.join("\n") + "\n";
            match tail(text.as_bytes(), piece) {
                None => prop_assert_eq!(lines, 0),
                Some(kept) => {
                    let kept: Vec<&str> = kept.lines().collect();
                    prop_assert!(kept.len() <= MAX_LINES);
                    prop_assert_eq!(&kept[..], &all[lines - kept.len()..]);
                    // No fewer than there is room for.
                    let more = (kept.len() + 2) * (all[0].len() + 1) > MAX_BYTES;
                    prop_assert!(kept.len() == lines.min(MAX_LINES) || more);
                }
            }
        }

        #[test]
        fn rubbish_is_survived_and_bounded(bytes: Vec<u8>, times in 1_usize..500, piece in 1_usize..9000) {
            let text = tail(&bytes.repeat(times), piece).unwrap_or_default();
            prop_assert!(text.len() <= 3 * MAX_BYTES);
        }
    }

    #[test]
    fn a_line_longer_than_all_is_kept_from_its_end() {
        let line = "x".repeat(10 * MAX_BYTES) + "!";
        let text = tail(line.as_bytes(), 1000).expect("something");
        assert_eq!(text.len(), MAX_BYTES);
        assert!(text.ends_with("x!"));
    }

    /// The half line at the beginning of what is kept does not become one of its own because a
    /// whole line was there before.
    #[test]
    fn what_is_missing_between_two_pieces_is_no_end_of_a_line() {
        let mut tail = Tail::default();
        tail.feed(b"one\n");
        tail.feed(("x".repeat(MAX_BYTES) + "\n" + &"two\n".repeat(3)).as_bytes());
        assert_eq!(tail.text().as_deref(), Some("two\ntwo\ntwo"));
    }

    #[test]
    fn a_last_line_without_an_end_is_there() {
        assert_eq!(tail(b"one\ntwo", 1).as_deref(), Some("one\ntwo"));
        assert_eq!(tail(b"\n\n", 1), None);
    }
}
