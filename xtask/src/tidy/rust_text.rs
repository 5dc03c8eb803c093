//! A Rust file, in which code, comments and literals are told apart, line by line.

/// The code of a Rust file, with spaces in place of the rest, so that lines and columns stay.
pub(super) struct RustText {
    code: Vec<String>,
    /// For each line, whether it belongs to an item under `#[cfg(test)]`.
    test: Vec<bool>,
}

impl RustText {
    pub(super) fn new(text: &str) -> Self {
        let mut splitter = Splitter::new(text);
        splitter.split();
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let code = lines(&splitter.code);
        Self {
            test: test_lines(&code),
            code,
        }
    }

    /// The lines of code, in which literals are empty and comments are spaces.
    pub(super) fn code(&self) -> impl Iterator<Item = &str> {
        self.code.iter().map(String::as_str)
    }

    /// Whether a line, counted from 1, belongs to an item under `#[cfg(test)]`.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.test.get(line - 1).copied().unwrap_or(false)
    }
}

/// Whether `token` is in `line`, and not as a part of a longer word.
pub(super) fn has_token(line: &str, token: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(token).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + token.len()..].chars().next();
        let goes_on_before = token.starts_with(is_word) && before.is_some_and(is_word);
        let goes_on_after = token.ends_with(is_word) && after.is_some_and(is_word);
        !goes_on_before && !goes_on_after
    })
}

/// What a character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Goes through a Rust file. It knows just enough of the language to find where comments and
/// literals begin and end.
struct Splitter {
    text: Vec<char>,
    next: usize,
    code: String,
}

impl Splitter {
    fn new(text: &str) -> Self {
        Self {
            text: text.chars().collect(),
            next: 0,
            code: String::new(),
        }
    }

    fn split(&mut self) {
        while self.next < self.text.len() {
            if self.sees("//") {
                self.line_comment();
            } else if self.sees("/*") {
                self.block_comment();
            } else if let Some(hashes) = self.raw_string_hashes() {
                self.raw_string(hashes);
            } else if self.sees("\"") {
                self.string();
            } else if self.sees("'") {
                self.character_or_lifetime();
            } else {
                self.take(1, Kind::Code);
            }
        }
    }

    fn sees(&self, expected: &str) -> bool {
        let mut ahead = self.text[self.next..].iter();
        expected.chars().all(|c| ahead.next() == Some(&c))
    }

    fn peek(&self, distance: usize) -> Option<char> {
        self.text.get(self.next + distance).copied()
    }

    fn take(&mut self, count: usize, kind: Kind) {
        let end = self.text.len().min(self.next + count);
        for &c in &self.text[self.next..end] {
            let stays = kind == Kind::Code || c == '\n';
            self.code.push(if stays { c } else { ' ' });
        }
        self.next = end;
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.take(1, Kind::Comment);
        }
    }

    fn block_comment(&mut self) {
        self.take(2, Kind::Comment);
        let mut depth = 1;
        while depth > 0 && self.peek(0).is_some() {
            if self.sees("/*") {
                depth += 1;
                self.take(2, Kind::Comment);
            } else if self.sees("*/") {
                depth -= 1;
                self.take(2, Kind::Comment);
            } else {
                self.take(1, Kind::Comment);
            }
        }
    }

    /// The number of `#` in `r##"`, if that is what comes next and not a name that ends in `r`.
    fn raw_string_hashes(&self) -> Option<usize> {
        let in_word = |c: char| c.is_alphanumeric() || c == '_';
        let before = self.next.checked_sub(1).map(|index| self.text[index]);
        let prefix = ["br", "cr", "r"].into_iter().find(|p| self.sees(p))?;
        if before.is_some_and(in_word) {
            return None;
        }
        let ahead = &self.text[self.next + prefix.len()..];
        let hashes = ahead.iter().take_while(|&&c| c == '#').count();
        (ahead.get(hashes) == Some(&'"')).then_some(hashes)
    }

    fn raw_string(&mut self, hashes: usize) {
        while !self.sees("\"") {
            self.take(1, Kind::Code);
        }
        self.take(1, Kind::Code);
        let end = format!("\"{}", "#".repeat(hashes));
        while !self.sees(&end) && self.peek(0).is_some() {
            self.take(1, Kind::Literal);
        }
        self.take(end.len(), Kind::Code);
    }

    fn string(&mut self) {
        self.take(1, Kind::Code);
        while self.peek(0).is_some_and(|c| c != '"') {
            let length = if self.sees("\\") { 2 } else { 1 };
            self.take(length, Kind::Literal);
        }
        self.take(1, Kind::Code);
    }

    fn character_or_lifetime(&mut self) {
        let is_character = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        self.take(1, Kind::Code);
        if is_character {
            let length = if self.sees("\\") { 2 } else { 1 };
            self.take(length, Kind::Literal);
            // `'\u{1F600}'`
            while self.peek(0).is_some_and(|c| c != '\'') {
                self.take(1, Kind::Literal);
            }
            self.take(1, Kind::Code);
        }
    }
}

/// What stands above items that are there for tests, and for fuzzing, alone.
const TEST_ATTRIBUTES: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(fuzzing, test))]"];

/// Marks the lines from each of `TEST_ATTRIBUTES` to the end of the item below it.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    let mut line = 0;
    while line < code.len() {
        let attribute = code[line].trim_start();
        let is_start = TEST_ATTRIBUTES.iter().any(|it| attribute.starts_with(it));
        let end = if is_start { item_end(code, line) } else { line };
        if is_start {
            test[line..=end].fill(true);
        }
        line = end + 1;
    }
    test
}

/// The last line of the item whose first attribute is in line `start`: where its braces close, or
/// its first semicolon outside any braces.
fn item_end(code: &[String], start: usize) -> usize {
    let mut depth = 0_usize;
    for (number, line) in code.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return number;
                    }
                }
                ';' if depth == 0 => return number,
                _ => {}
            }
        }
    }
    code.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Vec::from_iter(RustText::new(text).code()).join("\n")
    }

    #[test]
    fn comments_are_no_code() {
        assert_eq!(code("a // b\nc"), "a     \nc");
        assert_eq!(
            code("a /* b /* c */ d */ e").trim_end(),
            "a                   e"
        );
        assert_eq!(code("a /* b\nc */ d"), "a     \n     d");
    }

    #[test]
    fn literals_are_empty() {
        assert_eq!(code(r#"f("a // \" b", x)"#), r#"f("         ", x)"#);
        assert_eq!(code("f(r##\"a \"# b\"##, x)"), "f(r##\"      \"##, x)");
        assert_eq!(code("br\"\\\" c"), "br\" \" c");
        assert_eq!(
            code("('\"', '\\'', '\\u{41}', x)"),
            "(' ', '  ', '      ', x)"
        );
        assert_eq!(code("b'{' c"), "b' ' c");
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        let text = "fn f<'a>(x: &'a str, r#type: &'static str) -> Xr { 'l: loop {} }";
        assert_eq!(code(text), text);
    }

    #[test]
    fn an_unfinished_file_ends() {
        for text in ["\"a", "/* a", "'\\", "r#\"a", "'"] {
            assert_eq!(code(text).len(), text.len());
        }
    }

    #[test]
    fn tests_end_where_their_braces_close() {
        let text = "a\n#[cfg(test)]\n#[path = \"x;\"]\nmod tests {\n  fn f() { }\n}\nb\n\
                    #[cfg(test)]\nuse x;\nc\n";
        let rust = RustText::new(text);
        let test: Vec<usize> = (1..=10).filter(|&line| rust.is_test(line)).collect();
        assert_eq!(test, [2, 3, 4, 5, 6, 8, 9]);
    }

    #[test]
    fn tokens_are_whole_words() {
        assert!(has_token("unsafe { }", "unsafe"));
        assert!(!has_token("#![allow(unsafe_code)]", "unsafe"));
        assert!(has_token("x.unwrap()?", ".unwrap()"));
        assert!(has_token("std::thread::sleep(d)", "thread::sleep"));
        assert!(!has_token("mythread::sleep(d)", "thread::sleep"));
    }
}
