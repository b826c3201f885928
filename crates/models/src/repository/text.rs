//! Protobuf's text format as it is written in configurations.

/// The same text with a colon before each list: `input [ ... ]` is how lists of messages are written everywhere, and the parser
/// wants `input: [ ... ]`.
pub(super) fn with_colons(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut before = Before::Other;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => string_length(rest, first),
            c if is_word(c) => rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        if first == '[' && before == Before::Name {
            out.push(':');
        }
        before = match first {
            '#' => before,
            c if c.is_whitespace() => before,
            ':' => Before::Colon,
            c if c.is_ascii_alphabetic() && before != Before::Colon => Before::Name,
            _ => Before::Other,
        };
        out.push_str(token);
        rest = after;
    }
    out
}

/// What stands before a token, comments and spaces aside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A word that is no value: the name of a field.
    Name,
    Colon,
    Other,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')
}

/// The bytes of a string with its quotes, or of all that is left where it does not end.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_get_the_colon_that_they_may_go_without() {
        for (text, wanted) in [
            ("", ""),
            ("input [ { dims: [ 1, -2 ] } ]", "input :[ { dims: [ 1, -2 ] } ]"),
            ("a { b [ C, D ] } e: F", "a { b :[ C, D ] } e: F"),
            ("a # [ no\n [ 1 ]", "a # [ no\n :[ 1 ]"),
            (r#"a: "b [" c ['[ \' [', "x"]"#, r#"a: "b [" c :['[ \' [', "x"]"#),
            ("kind: KIND_CPU [ext.name] { x: 1 }", "kind: KIND_CPU [ext.name] { x: 1 }"),
            ("a: [ { b [1] }, { c: [ D ] } ]", "a: [ { b :[1] }, { c: [ D ] } ]"),
            ("größe [ \"ü\\", "größe :[ \"ü\\"),
            ("[", "["),
        ] {
            assert_eq!(with_colons(text), wanted, "{text}");
        }
    }
}
