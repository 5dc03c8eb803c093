//! The few shapes that a picture is made of.

use std::fmt::Write;

/// A picture in the making.
pub(crate) struct Svg {
    text: String,
}

impl Svg {
    pub(crate) fn new() -> Self {
        Self {
            text: String::new(),
        }
    }

    /// A rectangle; `attributes` are its further ones, and `title` is what a reader sees who points
    /// at it.
    pub(crate) fn rect(&mut self, at: (f64, f64), size: (f64, f64), attributes: &str, title: &str) {
        let (x, y) = (short(at.0), short(at.1));
        let (width, height) = (short(size.0), short(size.1));
        self.push(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" {attributes}"
        ));
        if title.is_empty() {
            self.push(format_args!("/>\n"));
        } else {
            self.push(format_args!("><title>{}</title></rect>\n", escape(title)));
        }
    }

    pub(crate) fn text(&mut self, at: (f64, f64), attributes: &str, text: &str) {
        let (x, y) = (short(at.0), short(at.1));
        let text = escape(text);
        self.push(format_args!(
            "<text x=\"{x}\" y=\"{y}\" {attributes}>{text}</text>\n"
        ));
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), attributes: &str) {
        let (x1, y1, x2, y2) = (short(from.0), short(from.1), short(to.0), short(to.1));
        self.push(format_args!(
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" {attributes}/>\n"
        ));
    }

    /// Anything.
    pub(crate) fn raw(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The whole file.
    pub(crate) fn finish(self, width: f64, height: f64, style: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} \
             {1}\">\n<style>{style}</style>\n{2}</svg>\n",
            short(width),
            short(height),
            self.text
        )
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = self.text.write_fmt(text);
    }
}

/// A number without digits that nobody sees.
pub(crate) fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
