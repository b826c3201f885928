//! Stores that take writes, and what is done to rows before, as a project file names them.

use std::{borrow::Cow, fmt, path::Path, time::Duration};

use millstream_graph::spec::Size;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::local::{Durability, LocalOptions, WhenFull};
#[cfg(feature = "redis")]
use crate::WindowLength;

/// `online:` of a feature set: where its rows lie while they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnlineSpec {
    /// In memory: gone with the process.
    Memory,
    /// In memory, and kept in a folder.
    Local(LocalSpec),
    /// In one file, of which memory holds what was used last.
    #[cfg(feature = "redb")]
    Redb(RedbSpec),
    /// In Redis or Valkey, which several processes may share.
    #[cfg(feature = "redis")]
    Redis(RedisSpec),
}

/// A set in memory that is kept in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalSpec {
    /// The folder, inside the project's or the state folder; made if it is not there.
    pub path: String,
    /// When a write is safe against a crash of the machine.
    #[serde(default)]
    pub durability: DurabilitySpec,
    /// Memory that rows and their index may take, such as `1GiB`; without bound by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Size>,
    /// What happens when there is no room.
    #[serde(default)]
    pub when_full: WhenFull,
}

/// A set in one file.
#[cfg(feature = "redb")]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedbSpec {
    /// The file, inside the project's or the state folder; made if it is not there.
    pub path: String,
    /// Memory for what was used last; `256MiB` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Size>,
}

/// A set in Redis or Valkey: `url` names one server, `urls` some nodes of a cluster.
#[cfg(feature = "redis")]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisSpec {
    /// The server: `redis://[user:password@]host[:port][/database]`. `${NAME}` is a variable of the environment, where passwords
    /// belong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Some nodes of a cluster, each written like `url`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What the names of all keys in the server begin with; `millstream` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// For how long an answer is waited for; `500ms` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<WindowLength>,
}

#[cfg(feature = "redis")]
impl RedisSpec {
    /// The addresses as they are written, which hold no secret.
    pub(super) fn written(&self) -> String {
        self.url.iter().chain(&self.urls).map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// The addresses, with what `environment` has.
    ///
    /// # Errors
    /// With every problem: there is none, a password stands in the file, the environment lacks a variable.
    pub(super) fn addresses(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<String>, Vec<String>> {
        let mut problems = Vec::new();
        if self.url.is_some() != self.urls.is_empty() {
            problems.push("name one server under `url`, or nodes of a cluster under `urls`".to_owned());
        }
        let mut address = |text: &String| {
            let user = text.split_once("://").and_then(|(_, rest)| Some(rest.rsplit_once('@')?.0));
            if user
                .and_then(|user| user.split_once(':'))
                .is_some_and(|(_, password)| !password.contains("${"))
            {
                problems.push(
                    "a password stands in the file; write `${NAME}` for it, a variable of the environment"
                        .to_owned(),
                );
                return String::new();
            }
            let (mut made, mut rest) = (String::new(), text.as_str());
            while let Some((before, behind)) = rest.split_once("${") {
                let Some((name, behind)) = behind.split_once('}') else {
                    problems.push(format!("`{text}`: a `${{` without its `}}`"));
                    break;
                };
                made += before;
                match environment(name) {
                    Some(value) => made += &value,
                    None => problems.push(format!("`{text}`: the environment has no text in `{name}`")),
                }
                rest = behind;
            }
            made + rest
        };
        let made = self.url.iter().chain(&self.urls).map(&mut address).collect();
        if problems.is_empty() { Ok(made) } else { Err(problems) }
    }
}

/// `offline:` of a feature set: where everything that it takes is kept, to train models on.
#[cfg(feature = "offline")]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfflineSpec {
    /// The folder of the log, inside the project's or the state folder; made if it is not there. No other set has it.
    pub path: String,
}

/// When a write is safe against a crash of the machine. A crash of the process loses nothing that was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DurabilitySpec {
    /// Before its answer.
    #[default]
    Always,
    /// 5 ms after it was taken, at the latest.
    Interval,
    /// When the operating system thinks fit.
    Os,
}

impl OnlineSpec {
    /// The path that it names.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Memory => None,
            Self::Local(local) => Some(&local.path),
            #[cfg(feature = "redb")]
            Self::Redb(redb) => Some(&redb.path),
            #[cfg(feature = "redis")]
            Self::Redis(_) => None,
        }
    }

    /// Whether sets with aggregates can lie there.
    pub(crate) fn keeps_windows(&self) -> bool {
        matches!(self, Self::Memory | Self::Local(_))
    }

    /// What it is, and where: `local state/cards`.
    pub fn place(&self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Local(local) => format!("local {}", local.path),
            #[cfg(feature = "redb")]
            Self::Redb(redb) => format!("redb {}", redb.path),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => {
                // The host is enough; who it is that connects there is nobody's business.
                let host = |url: &str| url.rsplit(['@', '/']).next().unwrap_or_default().to_owned();
                let hosts = redis.url.iter().chain(&redis.urls).map(|url| host(url.trim_end_matches('/')));
                format!("redis {}", hosts.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

impl LocalSpec {
    pub(super) fn options(&self, ttl: Option<Duration>) -> LocalOptions {
        LocalOptions {
            ttl,
            max_bytes: self.max_bytes.map(|size| size.0 as u64),
            when_full: self.when_full,
            durability: match self.durability {
                DurabilitySpec::Always => Durability::Always,
                DurabilitySpec::Interval => Durability::Every(Duration::from_millis(5)),
                DurabilitySpec::Os => Durability::System,
            },
            ..LocalOptions::default()
        }
    }
}

/// One entry of `rules:` in a feature set: what its rows must keep.
///
/// ```yaml
/// rules:
///   positive: amount > 0
///   known: { that: "country IN ('US', 'DE')", otherwise: count }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleSpec {
    /// An SQL expression over the columns of a row, times included. A row breaks it by being false; null breaks no rule.
    pub that: String,
    /// What becomes of a row that breaks it.
    #[serde(default)]
    pub otherwise: Otherwise,
}

/// What becomes of rows that break a rule. They are counted and set aside in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// They are refused.
    #[default]
    Refuse,
    /// They are taken all the same.
    Count,
}

/// A rule with more to say than its expression.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongRule {
    /// An SQL expression over the columns of a row.
    that: String,
    /// What becomes of a row that breaks it: `refuse`, or `count`.
    #[serde(default)]
    otherwise: Otherwise,
}

impl<'de> Deserialize<'de> for RuleSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Rule;
        impl<'de> de::Visitor<'de> for Rule {
            type Value = RuleSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an expression, or a map of `that` and `otherwise`")
            }
            fn visit_str<E: de::Error>(self, that: &str) -> Result<RuleSpec, E> {
                Ok(RuleSpec { that: that.to_owned(), otherwise: Otherwise::default() })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RuleSpec, A::Error> {
                let rule = LongRule::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(RuleSpec { that: rule.that, otherwise: rule.otherwise })
            }
        }
        from.deserialize_any(Rule)
    }
}

impl JsonSchema for RuleSpec {
    fn schema_name() -> Cow<'static, str> {
        "RuleSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = LongRule::json_schema(generator);
        json_schema!({
            "description": "What the rows of a feature set must keep: an SQL expression over the columns of a row.",
            "anyOf": [{ "type": "string" }, long],
        })
    }
}

/// `aside:` of a feature set: where rows are kept that were refused, came too late, or broke a rule, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AsideSpec {
    /// The file, JSON Lines, inside the project's or the state folder. Beside it lies the one before it, which ends in `.1`.
    pub path: String,
    /// Bytes of both files; `64MiB` by default. When there is no more room the older file goes.
    #[serde(default = "aside_bytes")]
    pub max_bytes: Size,
}

fn aside_bytes() -> Size {
    Size(64 << 20)
}

impl AsideSpec {
    /// How many rows lie there now. `folder` is the project's or the state folder.
    ///
    /// # Errors
    /// When the path leaves the folder, or a file cannot be read.
    pub fn rows(&self, folder: &Path) -> Result<u64, String> {
        let path = crate::inside(folder, &self.path)?;
        super::aside::rows(&path).map_err(|error| format!("`{}`: {error}", self.path))
    }
}

#[cfg(test)]
#[cfg(feature = "redis")]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
    fn check(spec: serde_json::Value, expected: Expect) {
        let spec: RedisSpec = serde_json::from_value(spec).unwrap();
        let environment = |name: &str| (name == "SECRET").then(|| "s3cret".to_owned());
        let made =
            spec.addresses(environment).map_or_else(|problems| problems.join("; "), |made| made.join(" "));
        expected.assert_eq(&format!("{}: {made}", OnlineSpec::Redis(spec).place()));
    }

    #[test]
    fn passwords_come_from_the_environment_and_are_not_shown() {
        check(json!({ "url": "redis://h:1" }), expect!["redis h:1: redis://h:1"]);
        check(json!({ "url": "redis://:${SECRET}@h:1" }), expect!["redis h:1: redis://:s3cret@h:1"]);
        check(
            json!({ "urls": ["redis://a:${SECRET}@h:1", "redis://h:2"] }),
            expect!["redis h:1 h:2: redis://a:s3cret@h:1 redis://h:2"],
        );
        check(
            json!({ "url": "redis://a:b@h:1" }),
            expect![
                "redis h:1: a password stands in the file; write `${NAME}` for it, a variable of the environment"
            ],
        );
        check(
            json!({ "url": "redis://${HOST}:${PORT}", "urls": ["redis://h"] }),
            expect![
                "redis ${HOST}:${PORT} h: name one server under `url`, or nodes of a cluster under `urls`; `redis://${HOST}:${PORT}`: the environment has no text in `HOST`; `redis://${HOST}:${PORT}`: the environment has no text in `PORT`"
            ],
        );
        check(json!({}), expect!["redis : name one server under `url`, or nodes of a cluster under `urls`"]);
    }
}
