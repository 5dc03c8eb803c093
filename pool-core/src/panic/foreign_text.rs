//! Text that another process has chosen: panic messages, what workers printed.

use std::fmt::{self, Write};

/// How many bytes of a text are kept of it, at most.
pub(crate) const MAX_KEPT: usize = 4 << 20;

/// How many bytes of it are shown in a message.
const MAX_SHOWN: usize = 8 * 1024;

/// Shows a text so that a terminal does nothing but print it, and a log has its lines where they
/// belong: control characters, and those that turn the direction of what follows, are escaped;
/// lines after the first are indented. A long text is cut.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, left) = split(self.0, MAX_SHOWN);
        let mut lines = text.split('\n');
        show_line(f, lines.next().unwrap_or_default())?;
        for line in lines {
            f.write_str("\n")?;
            if !line.is_empty() && !line.starts_with(INDENTATION) {
                f.write_str(INDENTATION)?;
            }
            show_line(f, line)?;
        }
        if left > 0 {
            write!(f, ".. ({left} bytes more)")?;
        }
        Ok(())
    }
}

const INDENTATION: &str = "    ";

fn show_line(f: &mut fmt::Formatter<'_>, line: &str) -> fmt::Result {
    let mut rest = line;
    while let Some(at) = rest.find(is_active) {
        let (before, from) = rest.split_at(at);
        f.write_str(before)?;
        let mut chars = from.chars();
        if let Some(active) = chars.next() {
            write!(f, "{}", active.escape_default())?;
        }
        rest = chars.as_str();
    }
    f.write_str(rest)
}

/// Whether a terminal does something with this character, or shows what comes after it elsewhere.
fn is_active(c: char) -> bool {
    // Most text has neither.
    !matches!(c, ' '..='~' | '\t')
        && (c.is_control()
            || matches!(
                c,
                '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                    | '\u{e0000}'..='\u{e007f}'
            ))
}

/// What is kept of a text that may be of any length.
pub(crate) fn cut(mut text: String) -> String {
    let (kept, left) = split(&text, MAX_KEPT);
    if left > 0 {
        let kept = kept.len();
        text.truncate(kept);
        let _ = write!(text, ".. ({left} bytes more)");
        text.shrink_to_fit();
    }
    text
}

/// The beginning of a text, no longer than this, and how much of it is left.
pub(crate) fn split(text: &str, at: usize) -> (&str, usize) {
    let mut end = at.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (&text[..end], text.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Shown(text).to_string()
    }

    #[test]
    fn what_a_terminal_would_do_is_escaped() {
        assert_eq!(
            shown("\x1b]0;owned\x07\x1b[2Jboo \u{202e}live\u{9b}31m\r\0"),
            "\\u{1b}]0;owned\\u{7}\\u{1b}[2Jboo \\u{202e}live\\u{9b}31m\\r\\u{0}"
        );
        for harmless in ["", "plain", "grüße\t日本 👩‍👩‍👧", "back\\slash \"quoted\""]
        {
            assert_eq!(shown(harmless), harmless);
        }
    }

    #[test]
    fn no_line_looks_like_one_of_somebody_else() {
        assert_eq!(
            shown("one\nERROR two\n    three\n\n"),
            "one\n    ERROR two\n    three\n\n"
        );
        assert_eq!(shown("one\rERROR"), "one\\rERROR");
        assert_eq!(
            shown("one\u{2028}two\u{85}three"),
            "one\\u{2028}two\\u{85}three"
        );
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "ü".repeat(MAX_KEPT);
        let text = shown(&long);
        assert!(
            text.len() < MAX_SHOWN + 40 && text.ends_with(" bytes more)"),
            "{text}"
        );
        assert_eq!(shown(&long[..MAX_SHOWN]), long[..MAX_SHOWN]);
        let kept = cut(long.clone());
        assert!(kept.len() < MAX_KEPT + 40 && kept.ends_with(".. (4194304 bytes more)"));
        assert_eq!(cut(long[..MAX_KEPT].to_owned()), long[..MAX_KEPT]);
        // Where a character would be cut in two.
        assert_eq!(
            cut(format!("x{long}")).len(),
            MAX_KEPT - 1 + ".. (4194306 bytes more)".len()
        );
    }
}
