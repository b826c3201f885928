//! Which part of a model's outputs becomes a column: `probabilities[1]`, `output_probability['yes']`, `label`.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::Deserialize;

/// An output of a model, or one place in each row of it.
///
/// ```
/// use millstream_models::{Pick, Place};
/// let pick: Pick = "probabilities[1]".parse()?;
/// assert_eq!(pick, Pick::all("probabilities").at(1_u64));
/// let pick: Pick = "output_probability['it''s']".parse()?;
/// assert_eq!(pick.places(), [Place::Key("it's".to_owned())]);
/// # Ok::<(), millstream_models::PickError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Pick {
    text: String,
    output: String,
    places: Vec<Place>,
}

/// A place in each row of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Along the next dimension, counted from 0; in a map, the class that is this number.
    Index(i64),
    /// In a map, the class of this name.
    Key(String),
}

/// What is wrong with the text of a [`Pick`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` picks no part of an output: {reason}, at character {at}; write `name`, `name[0]` or `name['class']`"
)]
pub struct PickError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
    /// Where, counted from 1.
    pub at: usize,
}

impl Pick {
    /// The whole output.
    pub fn all(output: impl Into<String>) -> Self {
        let output = output.into();
        Self { text: output.clone(), output, places: Vec::new() }
    }

    /// One place further in.
    #[must_use]
    pub fn at(mut self, place: impl Into<Place>) -> Self {
        let place = place.into();
        self.text += &place.to_string();
        self.places.push(place);
        self
    }

    /// The text as it was written, for outputs that have brackets in their name.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The output's name.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// The places, from the outside in; none is the whole output.
    pub fn places(&self) -> &[Place] {
        &self.places
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(key) => write!(f, "['{}']", key.replace('\'', "''")),
        }
    }
}

impl From<u64> for Place {
    fn from(index: u64) -> Self {
        Self::Index(i64::try_from(index).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Place {
    fn from(key: i64) -> Self {
        Self::Index(key)
    }
}

impl From<&str> for Place {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl TryFrom<String> for Pick {
    type Error = PickError;

    fn try_from(text: String) -> Result<Self, PickError> {
        text.parse()
    }
}

impl FromStr for Pick {
    type Err = PickError;

    fn from_str(text: &str) -> Result<Self, PickError> {
        let at = |rest: &str| text[..text.len() - rest.len()].chars().count() + 1;
        let wrong = |reason, rest: &str| Err(PickError { text: text.to_owned(), reason, at: at(rest) });
        let end = text.find('[').unwrap_or(text.len());
        let (name, mut rest) = text.split_at(end);
        let output = name.trim();
        if output.is_empty() {
            return wrong("the output's name is missing", text);
        }
        let mut places = Vec::new();
        while !rest.trim_start().is_empty() {
            rest = rest.trim_start();
            let Some(inside) = rest.strip_prefix('[') else { return wrong("`[` is missing", rest) };
            let inside = inside.trim_start();
            let place = match inside.chars().next() {
                Some(quote @ ('\'' | '"')) => {
                    key(&inside[1..], quote).map(|(key, rest)| (Place::Key(key), rest))
                }
                _ => index(inside),
            };
            let Some((place, after)) = place else {
                return wrong("a whole number or a quoted class is missing", inside);
            };
            places.push(place);
            let Some(after) = after.trim_start().strip_prefix(']') else {
                return wrong("`]` is missing", after);
            };
            rest = after;
        }
        Ok(Self { text: text.to_owned(), output: output.to_owned(), places })
    }
}

/// A whole number, and what follows.
fn index(text: &str) -> Option<(Place, &str)> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let end = text.len() - digits.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    Some((Place::Index(text[..end].parse().ok()?), &text[end..]))
}

/// The rest of a quoted class, in which a doubled quote stands for one, and what follows.
fn key(mut text: &str, quote: char) -> Option<(String, &str)> {
    let mut key = String::new();
    loop {
        let end = text.find(quote)?;
        key += &text[..end];
        text = &text[end + 1..];
        match text.strip_prefix(quote) {
            Some(more) => {
                key.push(quote);
                text = more;
            }
            None => return Some((key, text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pick_is_a_name_and_places() {
        let check = |text: &str, wanted: Pick| {
            let pick: Pick = text.parse().unwrap();
            assert_eq!((pick.output(), pick.places()), (wanted.output(), wanted.places()), "{text}");
        };
        check("label", Pick::all("label"));
        check("dense_1/Softmax:0", Pick::all("dense_1/Softmax:0"));
        check("probabilities[1]", Pick::all("probabilities").at(1_u64));
        check(" p [ 0 ] [12]", Pick::all("p").at(0_u64).at(12_u64));
        check("p['yes']", Pick::all("p").at("yes"));
        check("p[\"it's\"]", Pick::all("p").at("it's"));
        check("p['it''s']", Pick::all("p").at("it's"));
        check("p[-1]", Pick::all("p").at(-1_i64));
        check("ä['ß']", Pick::all("ä").at("ß"));
    }

    #[test]
    fn what_is_no_pick_says_where() {
        let check = |text: &str, wanted: &str| {
            let error = text.parse::<Pick>().unwrap_err();
            assert_eq!(format!("{} at {}", error.reason, error.at), wanted, "{text}");
        };
        check("", "the output's name is missing at 1");
        check("[1]", "the output's name is missing at 1");
        check("p[", "a whole number or a quoted class is missing at 3");
        check("p[]", "a whole number or a quoted class is missing at 3");
        check("p[one]", "a whole number or a quoted class is missing at 3");
        check("p['one]", "a whole number or a quoted class is missing at 3");
        check("p[1", "`]` is missing at 4");
        check("p[1.5]", "`]` is missing at 4");
        check("ä[1]b", "`[` is missing at 5");
        check("p[99999999999999999999]", "a whole number or a quoted class is missing at 3");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_is_written_is_read_again(text in ".{0,24}", key in ".{0,6}", index in 0_u64..9) {
            let _ = text.parse::<Pick>();
            let pick = Pick::all("out").at(key.as_str()).at(index);
            proptest::prop_assert_eq!(&pick.to_string().parse::<Pick>().unwrap(), &pick);
        }
    }
}
