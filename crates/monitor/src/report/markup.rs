//! Markup under construction. Tags are balanced by nesting closures, and only literals of this crate get in
//! unescaped: all other text passes through [`Escape`].

use std::fmt::{self, Display, Write};

use super::format::{NAME, clipped};

/// The attributes of a tag. Values are escaped.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

#[derive(Default)]
pub(super) struct Markup(String);

impl Markup {
    pub(super) fn finish(self) -> String {
        self.0
    }

    /// Puts in text as it stands. Its type keeps text from outside out.
    pub(super) fn literal(&mut self, text: &'static str) {
        self.0.push_str(text);
    }

    pub(super) fn text(&mut self, text: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(Escape(&mut self.0), "{text}");
    }

    /// A name from outside, cut if it is long. `bdi` keeps its direction of writing from its surroundings, and lines
    /// may break after its underscores and dots.
    pub(super) fn name(&mut self, name: &str) {
        let shown = clipped(name, NAME).to_string();
        self.tag("bdi", &[], |m| {
            for (at, part) in shown.split_inclusive(['_', '.']).enumerate() {
                if at > 0 {
                    m.void("wbr", &[]);
                }
                m.text(part);
            }
        });
    }

    pub(super) fn tag(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        inside: impl FnOnce(&mut Self),
    ) {
        self.start(tag, attributes);
        self.0.push('>');
        inside(self);
        self.0.push_str("</");
        self.0.push_str(tag);
        self.0.push('>');
        // Lines break where white space means nothing.
        if !matches!(
            tag,
            "a" | "b"
                | "bdi"
                | "button"
                | "code"
                | "dd"
                | "dt"
                | "option"
                | "span"
                | "td"
                | "text"
                | "th"
                | "time"
                | "title"
        ) {
            self.0.push('\n');
        }
    }

    /// A tag that has only text inside.
    pub(super) fn leaf(&mut self, tag: &'static str, attributes: Attributes<'_>, text: impl Display) {
        self.tag(tag, attributes, |m| m.text(text));
    }

    /// A tag that has nothing inside.
    pub(super) fn void(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.start(tag, attributes);
        self.0.push_str("/>");
    }

    fn start(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.0.push('<');
        self.0.push_str(tag);
        for (name, value) in attributes {
            self.0.push(' ');
            self.0.push_str(name);
            self.0.push_str("=\"");
            self.text(value);
            self.0.push('"');
        }
    }
}

/// Text that is safe between tags and in quoted attributes, of HTML and of XML.
///
/// Characters that nobody sees but that change how others are read are shown by their code, so that a name cannot
/// pass for another one: those that turn the direction of writing, and those of no width. Control characters, which
/// XML forbids, are shown by their pictures.
pub(super) struct Escape<'a>(pub(super) &'a mut String);

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                '\0'..='\x1f' => self.0.push(picture(c)),
                '\x7f' => self.0.push('\u{2421}'),
                '\u{80}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => self.0.push(char::REPLACEMENT_CHARACTER),
                '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}' => {
                    write!(self.0, "[U+{:04X}]", u32::from(c))?;
                }
                _ => self.0.push(c),
            }
        }
        Ok(())
    }
}

fn picture(control: char) -> char {
    char::from_u32(0x2400 + u32::from(control)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_escaped_and_shown() {
        for (outside, shown) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("a\"b'c", "a&quot;b&#39;c"),
            ("&amp;", "&amp;amp;"),
            ("evil\u{202e}txt.exe", "evil[U+202E]txt.exe"),
            ("zero\u{200b}width\u{feff}", "zero[U+200B]width[U+FEFF]"),
            ("nul\0bell\u{7}del\u{7f}", "nul␀bell␇del␡"),
            ("c1\u{85}non\u{ffff}", "c1\u{fffd}non\u{fffd}"),
            ("line\nbreak", "line\nbreak"),
            ("naïve 名前 🙂 שם", "naïve 名前 🙂 שם"),
        ] {
            let mut m = Markup::default();
            m.text(outside);
            assert_eq!(m.finish(), shown, "{outside:?}");
        }
    }
}
