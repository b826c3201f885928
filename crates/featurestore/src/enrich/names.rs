//! Which features, under which names: `avg`, `avg AS usual`, `"odd name" AS "another"`, `*`.

/// One item of a list of features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Every feature.
    All,
    /// One feature, maybe under a name of its own.
    One { feature: String, alias: Option<String> },
}

/// Reads an item. Names that are not plain stand in double quotes, a quote inside is doubled, as in SQL.
pub(crate) fn parse(text: &str) -> Result<Name, String> {
    let wrong = || format!("`{text}` is no feature; write `feature`, `feature AS name`, or `*` for all");
    let trimmed = text.trim();
    if trimmed == "*" {
        return Ok(Name::All);
    }
    let (feature, rest) = name(trimmed).ok_or_else(wrong)?;
    let rest = rest.trim();
    if rest.is_empty() {
        return Ok(Name::One { feature, alias: None });
    }
    let alias = rest
        .split_at_checked(2)
        .filter(|(word, rest)| word.eq_ignore_ascii_case("as") && rest.starts_with([' ', '\t', '"']))
        .and_then(|(_, rest)| name(rest.trim()))
        .filter(|(_, rest)| rest.is_empty());
    alias.map(|(alias, _)| Name::One { feature, alias: Some(alias) }).ok_or_else(wrong)
}

/// The name at the start of `text`, and what follows it.
fn name(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', '"']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        rest = after;
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return (!name.is_empty()).then_some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_named_as_in_sql() {
        let one = |feature: &str, alias: Option<&str>| {
            Some(Name::One { feature: feature.into(), alias: alias.map(str::to_owned) })
        };
        let cases = [
            ("*", Some(Name::All)),
            ("avg", one("avg", None)),
            (" avg  as\tusual ", one("avg", Some("usual"))),
            ("avg AS usual", one("avg", Some("usual"))),
            ("\"odd name\" AS \"say \"\"hi\"\"\"", one("odd name", Some("say \"hi\""))),
            ("\"odd name\"", one("odd name", None)),
            ("as as as", one("as", Some("as"))),
            ("betrag_ü AS menge_ü", one("betrag_ü", Some("menge_ü"))),
            ("", None),
            ("avg usual", None),
            ("avg AS", None),
            ("avg ü", None),
            ("avg AS a b", None),
            ("\"open", None),
            ("\"\"", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }
}
