//! The closest known name, for errors that name the fix.

/// Says that there is no `what` named `wanted`, and which known name is closest or, failing that, which there are.
pub fn unknown<'a>(what: &str, wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match closest(wanted, known.iter().copied()) {
        Some(name) => format!("no {what} `{wanted}`; did you mean `{name}`?"),
        None if known.is_empty() => format!("no {what} `{wanted}`; there is none"),
        None => format!("no {what} `{wanted}`; there is {}", listed(&known)),
    }
}

/// The known name closest to `wanted`, if one is close enough to be a slip of the hand.
pub fn closest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = 1 + wanted.chars().count() / 4;
    let lower = wanted.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// At most ten names; a longer list says how many more there are.
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 10;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}
