//! Bytes as they come out of a pipe, as lines.

use crate::observe::output::OutputLine;

const MAX_BYTES: usize = OutputLine::MAX_BYTES;

/// What has arrived of a line that is not over.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes, and gives each line that they complete to `line`, without its end, and
    /// with whether it is only a piece of one that is too long.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(Vec<u8>, bool)) {
        loop {
            let room = MAX_BYTES - self.partial.len();
            // The end may come right behind the longest line.
            let window = &bytes[..bytes.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.partial.extend_from_slice(&bytes[..end]);
                bytes = &bytes[end + 1..];
                let mut whole = std::mem::take(&mut self.partial);
                if whole.last() == Some(&b'\r') {
                    whole.pop();
                }
                line(whole, false);
            } else if bytes.len() > room {
                self.partial.extend_from_slice(&bytes[..room]);
                bytes = &bytes[room..];
                let rest = self.partial.split_off(whole_characters(&self.partial));
                line(std::mem::replace(&mut self.partial, rest), true);
            } else {
                self.partial.extend_from_slice(bytes);
                return;
            }
        }
    }

    /// There will be no more: what there is of a last line.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then(|| std::mem::take(&mut self.partial))
    }
}

/// How many bytes there are before a character of UTF-8 of which only the beginning is there.
fn whole_characters(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    let lead = bytes[from..].iter().rposition(|byte| *byte >= 0xC0);
    match lead.map(|lead| from + lead) {
        Some(lead) if lead > 0 => {
            let length = match bytes[lead] {
                0xF0.. => 4,
                0xE0.. => 3,
                _ => 2,
            };
            if lead + length > bytes.len() {
                lead
            } else {
                bytes.len()
            }
        }
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, MAX_BYTES};
    use proptest::prelude::*;

    /// All lines, with whether they were cut, of bytes that come in such pieces.
    fn lines(bytes: &[u8], piece: usize) -> Vec<(Vec<u8>, bool)> {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        for piece in bytes.chunks(piece) {
            lines.feed(piece, |line, is_cut| found.push((line, is_cut)));
        }
        found.extend(lines.finish().map(|line| (line, false)));
        found
    }

    fn whole(lines: &[&str]) -> Vec<(Vec<u8>, bool)> {
        let line = |line: &&str| (line.as_bytes().to_vec(), false);
        lines.iter().map(line).collect()
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_standard_library(
            text in "([a-zé]{0,10}\r?\n?){0,20}",
            piece in 1_usize..50,
        ) {
            let expected: Vec<&str> = text.lines().collect();
            let found = lines(text.as_bytes(), piece);
            prop_assert_eq!(found, whole(&expected));
        }

        #[test]
        fn nothing_is_lost_of_long_lines_and_characters_stay_whole(
            letters in 0_usize..MAX_BYTES * 3,
            shift in 0_usize..4,
            piece in 1_usize..20_000,
        ) {
            let text = format!("{}{}\nend", "a".repeat(shift), "€".repeat(letters / 3));
            let found = lines(text.as_bytes(), piece);
            let mut joined = String::new();
            for (line, is_cut) in &found {
                prop_assert!(line.len() <= MAX_BYTES);
                prop_assert!(!is_cut || line.len() > MAX_BYTES - 4);
                joined += std::str::from_utf8(line).expect("no character is cut");
                if !is_cut {
                    joined += "\n";
                }
            }
            prop_assert_eq!(joined, text + "\n");
        }

        #[test]
        fn rubbish_is_survived(bytes: Vec<u8>, piece in 1_usize..50, times in 1_usize..200) {
            let bytes = bytes.repeat(times);
            let found = lines(&bytes, piece);
            let told: usize = found.iter().map(|(line, _)| line.len()).sum();
            prop_assert!(told <= bytes.len());
        }
    }

    #[test]
    fn the_longest_line_is_not_cut() {
        let longest = "x".repeat(MAX_BYTES);
        for piece in [1, 1000, MAX_BYTES, 2 * MAX_BYTES] {
            let found = lines(format!("{longest}\n{longest}y\n").as_bytes(), piece);
            let cut: Vec<_> = found.iter().map(|(line, cut)| (line.len(), *cut)).collect();
            assert_eq!(cut, [(MAX_BYTES, false), (MAX_BYTES, true), (1, false)]);
        }
    }
}
