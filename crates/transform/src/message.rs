//! What libraries say about expressions, in our words.

use datafusion_common::DataFusionError;

/// An error of DataFusion as part of a sentence of ours.
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(crate) fn complaint(error: DataFusionError) -> String {
    said(&error.strip_backtrace())
}

/// A message of a library as part of a sentence of ours: one line, bounded, without its title.
pub(crate) fn said(message: &str) -> String {
    const TITLES: &[&str] = &[
        "sql parser error: ",
        "SQL error: ParserError(\"",
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "Overflow happened on: ",
        "Compute error: ",
        "Parser error: ",
        "Invalid argument error: ",
        "This feature is not implemented: ",
        "Schema error: ",
        "Optimizer rule 'simplify_expressions' failed",
        "type_coercion",
        "caused by",
    ];
    const LONGEST: usize = 300;
    if message.contains("recursion limit exceeded") {
        return "it nests too deep; name a part of it in a step before".to_owned();
    }
    let mut text = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // A function says what is wrong with its arguments behind the words of those who asked it.
    if let Some((_, rest)) = text.rsplit_once("failed with: ") {
        text = rest.to_owned();
    }
    while let Some(rest) = TITLES.iter().find_map(|title| text.strip_prefix(title)) {
        text = rest.trim_start().to_owned();
    }
    if let Some(end) = text.find(" This issue was likely caused by a bug") {
        text.truncate(end);
    }
    let text = text.trim_end_matches(['.', ' ']).to_owned();
    let mut chars = text.chars();
    let lowered = match (chars.next(), chars.next()) {
        // A word like `Expected`, not a name like `UTF8`.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text,
    };
    crate::shorten(&lowered, LONGEST)
}

/// An expression as it is shown inside a message.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    crate::shorten(&text.split_whitespace().collect::<Vec<_>>().join(" "), LONGEST)
}
