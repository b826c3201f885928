//! Aggregates as a project file names them.

use std::{borrow::Cow, fmt, str::FromStr};

use millstream_graph::suggest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// One entry of `aggregates:` in a feature set: functions of a column over windows of event time.
///
/// Every function over every window is a feature, named `{name}_{function}_{window}`: `amount_sum_1h`.
///
/// ```yaml
/// aggregates:
///   - {column: amount, functions: [count, sum, p95], windows: [1h, 24h]}
///   - {column: amount, functions: [sum], windows: [1d], fixed: true, where: country <> 'US', name: abroad}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AggregateSpec {
    /// The column of the events that is aggregated. Without it events are counted, and `count` is the only function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What is computed: `count`, `sum`, `sqr` (the sum of squares), `min`, `max`, `avg`, `stdvar` and `stddev` (of a sample),
    /// `first`, `last`, `distinct` (an estimate beyond 512 values), `p50`, `p99`, `p99.9` (quantiles within 1/256).
    pub functions: Vec<Function>,
    /// How far back the windows reach: `10m`, `1h`, `7d`.
    pub windows: Vec<WindowLength>,
    /// What the features' names begin with. By default the column's name, and nothing without a column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which events count: an SQL expression over the event's columns. By default all.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Windows that begin at whole multiples of their length since 1970 UTC, such as round hours, instead of sliding ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
    /// Windows that slide in steps of this length: older events leave by whole steps, and need not be kept one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<WindowLength>,
}

/// What is computed of the values in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// How many values there are.
    Count,
    /// Their sum.
    Sum,
    /// The sum of their squares.
    Squares,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// Their mean.
    Mean,
    /// Their sample variance.
    Variance,
    /// Their sample standard deviation.
    Deviation,
    /// The value of the earliest event.
    First,
    /// The value of the latest event.
    Last,
    /// How many different values there are.
    Distinct,
    /// The value that so many thousandths of all values do not exceed.
    Quantile(u16),
}

const FUNCTIONS: [(&str, Function); 11] = [
    ("count", Function::Count),
    ("sum", Function::Sum),
    ("sqr", Function::Squares),
    ("min", Function::Min),
    ("max", Function::Max),
    ("avg", Function::Mean),
    ("stdvar", Function::Variance),
    ("stddev", Function::Deviation),
    ("first", Function::First),
    ("last", Function::Last),
    ("distinct", Function::Distinct),
];

impl FromStr for Function {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = FUNCTIONS.iter().find(|(name, _)| *name == text).map(|(_, function)| *function);
        known.or_else(|| quantile(text)).ok_or_else(|| {
            let names = FUNCTIONS.iter().map(|(name, _)| *name).chain(["p50", "p99.9"]);
            suggest::unknown("function", text, names)
        })
    }
}

/// `p1` to `p99`, with one more digit if need be.
fn quantile(text: &str) -> Option<Function> {
    let digits = text.strip_prefix('p')?;
    let (percent, tenth) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |digits: &str, longest| {
        (1..=longest).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !plain(percent, 2) || !plain(tenth, 1) {
        return None;
    }
    let thousandths = 10 * percent.parse::<u16>().ok()? + tenth.parse::<u16>().ok()?;
    let function = Function::Quantile(thousandths);
    // One way to write each, so that one feature has one name.
    (thousandths > 0 && function.to_string() == text).then_some(function)
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantile(thousandths) => match (thousandths / 10, thousandths % 10) {
                (percent, 0) => write!(f, "p{percent}"),
                (percent, tenth) => write!(f, "p{percent}.{tenth}"),
            },
            named => {
                let name =
                    FUNCTIONS.iter().find(|(_, function)| function == named).map_or("", |(name, _)| name);
                f.write_str(name)
            }
        }
    }
}

/// How far back a window reaches: a whole number with a unit, `ms`, `s`, `m`, `h`, `d` or `w`, above zero and up to ten years.
#[derive(Clone, Debug)]
pub struct WindowLength {
    text: String,
    micros: i64,
}

/// Lengths are the same if they last as long, however they are written.
impl PartialEq for WindowLength {
    fn eq(&self, other: &Self) -> bool {
        self.micros == other.micros
    }
}

impl Eq for WindowLength {}

const SECOND: i64 = 1_000_000;
const UNITS: [(&str, i64); 6] = [
    ("ms", 1_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
    ("d", 86_400 * SECOND),
    ("w", 7 * 86_400 * SECOND),
];
const LONGEST: i64 = 3_653 * 86_400 * SECOND;

impl WindowLength {
    /// The length in microseconds.
    pub fn micros(&self) -> i64 {
        self.micros
    }

    /// The length as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for WindowLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, micros)| *micros);
        let micros = number.parse::<i64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
        match micros.filter(|micros| (1..=LONGEST).contains(micros)) {
            Some(micros) => Ok(Self { text: text.to_owned(), micros }),
            None => Err(format!(
                "`{text}` is no length of time; write a whole number and one of ms, s, m, h, d, w, up to ten years, such as `24h`"
            )),
        }
    }
}

impl fmt::Display for WindowLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Both are strings in files.
macro_rules! text {
    ($type:ty, $name:literal, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(from)?.parse().map_err(D::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text!(Function, "Function", {
    "description": "What is computed of the values in a window.",
    "type": "string",
    "pattern": "^(count|sum|sqr|min|max|avg|stdvar|stddev|first|last|distinct|p[1-9][0-9]?(\\.[1-9])?|p0\\.[1-9])$",
});
text!(WindowLength, "WindowLength", {
    "description": "How far back a window reaches, such as `24h`.",
    "type": "string",
    "pattern": "^[0-9]+(ms|s|m|h|d|w)$",
});

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
    fn check(value: serde_json::Value, expected: Expect) {
        let text = match serde_json::from_value::<AggregateSpec>(value) {
            Ok(spec) => serde_json::to_string(&spec).unwrap(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_spec_round_trips_and_refuses_what_it_does_not_know() {
        check(
            json!({"column": "a", "functions": ["sum", "p99.9"], "windows": ["1h"]}),
            expect![[r#"{"column":"a","functions":["sum","p99.9"],"windows":["1h"]}"#]],
        );
        check(
            json!({"functions": ["count"], "windows": ["7d"], "name": "n", "where": "a > 1", "fixed": true, "period": "1d"}),
            expect![[
                r#"{"functions":["count"],"windows":["7d"],"name":"n","where":"a > 1","fixed":true,"period":"1d"}"#
            ]],
        );
        check(
            json!({"column": "a", "functions": ["smu"], "windows": ["1h"]}),
            expect!["no function `smu`; did you mean `sum`?"],
        );
        check(
            json!({"column": "a", "functions": ["sum"], "windows": ["1 hour"]}),
            expect![
                "`1 hour` is no length of time; write a whole number and one of ms, s, m, h, d, w, up to ten years, such as `24h`"
            ],
        );
        check(
            json!({"column": "a", "functions": ["sum"], "windows": ["1h"], "filter": "x"}),
            expect![
                "unknown field `filter`, expected one of `column`, `functions`, `windows`, `name`, `where`, `fixed`, `period`"
            ],
        );
    }

    #[test]
    fn quantiles_have_one_name_each() {
        for (text, thousandths) in [("p50", 500), ("p1", 10), ("p99.9", 999), ("p0.1", 1), ("p10", 100)] {
            let function: Function = text.parse().unwrap();
            assert_eq!((function, function.to_string().as_str()), (Function::Quantile(thousandths), text));
        }
        for text in ["p", "p0", "p0.0", "p100", "p050", "p50.0", "p50.", "p5.55", "p+5", "p5 ", "P50", "q50"]
        {
            assert!(text.parse::<Function>().is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_whole_numbers_with_a_unit_above_zero_and_up_to_ten_years() {
        let micros = |text: &str| text.parse::<WindowLength>().ok().map(|length| length.micros());
        for (text, expected) in [
            ("500ms", Some(500_000)),
            ("1s", Some(SECOND)),
            ("10m", Some(600 * SECOND)),
            ("24h", Some(86_400 * SECOND)),
            ("1d", Some(86_400 * SECOND)),
            ("3653d", Some(LONGEST)),
            ("3654d", None),
            ("0s", None),
            ("1.5h", None),
            ("1 h", None),
            ("h", None),
            ("1", None),
            ("-1h", None),
            ("", None),
            ("99999999999999999999d", None),
            ("9223372036854775807w", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
    }

    #[test]
    fn the_schema_documents_every_field() {
        let schema = serde_json::to_value(schemars::schema_for!(AggregateSpec)).unwrap();
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{name}");
        }
        assert_eq!(schema["additionalProperties"], json!(false));
    }
}
