//! A URL whose path and query a row may fill in, and whose scheme, host and port it may not.

use std::fmt;

use arrow::{array::RecordBatch, datatypes::Schema};
use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use millstream_graph::SchemaError;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::template::{Part, Template, text_of};

/// All but the characters that mean nothing in any part of a URL.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where calls go. Scheme, host and port are fixed when it is read; values of rows are percent-encoded into what is behind.
#[derive(Clone)]
pub(super) struct Url {
    scheme: Scheme,
    authority: Authority,
    /// The path and the query.
    rest: Template,
}

impl Url {
    pub(super) fn read(source: &str) -> Result<Self, SchemaError> {
        let mut template = Template::read(source)?;
        let wrong = |problem: &str| SchemaError::new(format!("`{source}`: {problem}"));
        let head = match template.parts.first() {
            Some(Part::Text(head)) => head.clone(),
            _ => return Err(wrong("a url begins with `https://` or `http://`")),
        };
        let (scheme, behind) = if let Some(behind) = head.strip_prefix("https://") {
            (Scheme::HTTPS, behind)
        } else if let Some(behind) = head.strip_prefix("http://") {
            (Scheme::HTTP, behind)
        } else {
            return Err(wrong("a url begins with `https://` or `http://`"));
        };
        let end = behind.find(['/', '?', '#']);
        if end.is_none() && template.reads_rows() {
            return Err(wrong("a column may stand in the path and the query, not in the host or the port"));
        }
        let (host, rest) = behind.split_at(end.unwrap_or(behind.len()));
        if host.contains('@') {
            return Err(wrong(
                "a name and a password belong into the header `authorization`, not into the url",
            ));
        }
        let authority: Authority = host.parse().map_err(|_| wrong("no host stands behind `://`"))?;
        if authority.host().is_empty() {
            return Err(wrong("no host stands behind `://`"));
        }
        let slash = if rest.starts_with('/') { "" } else { "/" };
        template.parts[0] = Part::Text(format!("{slash}{rest}"));
        let sample: String =
            template.parts.iter().map(|part| if let Part::Text(text) = part { text } else { "x" }).collect();
        if sample.contains('#') {
            return Err(wrong("what stands behind `#` is not sent"));
        }
        sample
            .parse::<PathAndQuery>()
            .map_err(|_| wrong("the path or the query has a character that must be encoded"))?;
        Ok(Self { scheme, authority, rest: template })
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    pub(super) fn reads_rows(&self) -> bool {
        self.rest.reads_rows()
    }

    pub(super) fn typed(mut self, schema: &Schema) -> Result<Self, SchemaError> {
        self.rest = self.rest.typed(schema)?;
        Ok(self)
    }

    /// The URL for a row.
    ///
    /// # Errors
    /// When the row has a value that cannot stand there: null, or one by which the path would mean another place.
    pub(super) fn fill(&self, batch: &RecordBatch, row: usize) -> Result<Uri, String> {
        let mut text = String::new();
        for part in &self.rest.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Column(name, at) => {
                    let value = text_of(batch, row, name, *at)?;
                    if value.is_empty() && !text.contains('?') {
                        return Err(format!("column `{name}` is empty, which the path of a url cannot hold"));
                    }
                    text.extend(utf8_percent_encode(&value, RESERVED));
                }
            }
        }
        // Dots are not encoded, and encoded they would mean the same: a value must not climb out of its place.
        let path = text.split('?').next().unwrap_or_default();
        if self.reads_rows() && path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err("a value would make the path of the url lead elsewhere".to_owned());
        }
        let rest: PathAndQuery = text.parse().map_err(|_| "the url becomes too long".to_owned())?;
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(rest)
            .build()
            .map_err(|_| "the url becomes too long".to_owned())
    }
}

/// The host may come from the environment, too.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rest.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use millstream_graph::rows;

    use super::*;

    fn filled(url: &str, value: &str) -> Result<String, String> {
        let batch = rows! { v: [value] };
        let url = Url::read(url)
            .and_then(|url| url.typed(batch.schema_ref()))
            .map_err(|error| error.to_string())?;
        url.fill(&batch, 0).map(|uri| uri.to_string())
    }

    #[test]
    fn a_value_never_leaves_its_place() {
        let cases = [
            ("http://h/a/{v}", "7", Ok("http://h/a/7")),
            ("http://h/a/{v}", "x/../y?z#f", Ok("http://h/a/x%2F..%2Fy%3Fz%23f")),
            ("http://h/{v}", "/evil.example", Ok("http://h/%2Fevil.example")),
            ("http://h/{v}", "@evil.example:1/", Ok("http://h/%40evil.example%3A1%2F")),
            ("http://h/a?c={v}", "a&b=c d+é", Ok("http://h/a?c=a%26b%3Dc%20d%2B%C3%A9")),
            ("http://h?c={v}", "\r\nhost: evil", Ok("http://h/?c=%0D%0Ahost%3A%20evil")),
            ("http://h/a?c={v}", "", Ok("http://h/a?c=")),
            ("http://h/a?c={v}", "..", Ok("http://h/a?c=..")),
            ("http://h:81/a/{v}/b", "..", Err("a value would make the path of the url lead elsewhere")),
            ("http://h/a/.{v}/b", ".", Err("a value would make the path of the url lead elsewhere")),
            ("http://h/a/{v}", "", Err("column `v` is empty, which the path of a url cannot hold")),
        ];
        for (url, value, wanted) in cases {
            let got = filled(url, value);
            assert_eq!(got.as_deref().map_err(String::as_str), wanted, "{url} with {value:?}");
        }
        assert_eq!(filled("http://h/{v}", &"x".repeat(70_000)).unwrap_err(), "the url becomes too long");
    }

    fn refused(url: &str, wanted: &Expect) {
        wanted.assert_eq(&filled(url, "x").unwrap_err());
    }

    #[test]
    fn a_url_that_is_none_is_refused_with_the_fix() {
        refused("ftp://h/", &expect!["`ftp://h/`: a url begins with `https://` or `http://`"]);
        refused("{v}://h/", &expect!["`{v}://h/`: a url begins with `https://` or `http://`"]);
        let host = expect![
            "`http://{v}/`: a column may stand in the path and the query, not in the host or the port"
        ];
        refused("http://{v}/", &host);
        let port = expect![
            "`http://h:{v}/`: a column may stand in the path and the query, not in the host or the port"
        ];
        refused("http://h:{v}/", &port);
        refused("http:///a", &expect!["`http:///a`: no host stands behind `://`"]);
        refused("http://h/a#b", &expect!["`http://h/a#b`: what stands behind `#` is not sent"]);
        refused(
            "http://h/a b",
            &expect!["`http://h/a b`: the path or the query has a character that must be encoded"],
        );
        let user = expect![
            "`http://u:p@h/`: a name and a password belong into the header `authorization`, not into the url"
        ];
        refused("http://u:p@h/", &user);
        refused("http://h/{w}", &expect!["no column `w`; did you mean `v`?"]);
        refused(
            "http://h/{v",
            &expect!["`http://h/{v`: a brace begins or ends no `{column}` and no `${NAME}`"],
        );
        let unset =
            expect!["`http://h/${NOT_SET_ANYWHERE}`: the environment has no text in `NOT_SET_ANYWHERE`"];
        refused("http://h/${NOT_SET_ANYWHERE}", &unset);
    }

    #[test]
    fn what_the_environment_puts_in_is_not_shown() {
        // Cargo sets it for every test.
        let secret = std::env::var("CARGO_PKG_VERSION").unwrap();
        let url = Url::read("https://h/${CARGO_PKG_VERSION}/{v}").unwrap();
        assert!(!format!("{url:?}").contains(&secret));
        let uri = url.typed(rows! { v: [1] }.schema_ref()).unwrap().fill(&rows! { v: [1] }, 0).unwrap();
        assert_eq!(uri.path(), format!("/{secret}/1"));
    }
}
