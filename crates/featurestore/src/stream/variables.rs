//! `${NAME}` in settings: what the environment has.

/// The text with the environment's values in it.
///
/// # Errors
/// When the environment lacks one of them, or a brace is not closed.
pub(super) fn filled(text: &str) -> Result<String, String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once("${") {
        let Some((name, behind)) = behind.split_once('}') else {
            return Err(format!("`{text}`: `${{` is not closed"));
        };
        filled += before;
        filled += &std::env::var(name).map_err(|_| format!("the environment has no text in `{name}`"))?;
        rest = behind;
    }
    Ok(filled + rest)
}

/// What must not stand in a file: the whole text is one `${NAME}`.
///
/// # Errors
/// When it is anything else, which is not repeated, or the environment lacks it.
pub(super) fn secret(setting: &str, text: &str) -> Result<String, String> {
    let name = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    match name.filter(|name| !name.contains(['$', '{', '}'])) {
        Some(_) => filled(text),
        None => {
            Err(format!("`{setting}` stands in the environment: write `${{NAME}}` here, and its value there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_fills_settings_and_has_all_secrets() {
        let name = env!("CARGO_PKG_NAME");
        for (text, expected) in [
            ("nats://localhost", Ok("nats://localhost".to_owned())),
            ("a ${CARGO_PKG_NAME} b", Ok(format!("a {name} b"))),
            ("${CARGO_PKG_NAME}${CARGO_PKG_NAME}", Ok(format!("{name}{name}"))),
            ("${NO_SUCH_VARIABLE}", Err("the environment has no text in `NO_SUCH_VARIABLE`".to_owned())),
            ("${CARGO", Err("`${CARGO`: `${` is not closed".to_owned())),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
        assert_eq!(secret("password", "${CARGO_PKG_NAME}"), Ok(name.to_owned()));
        for text in ["hunter2", "a${CARGO_PKG_NAME}", "${CARGO_PKG_NAME}${CARGO_PKG_NAME}", ""] {
            let error = secret("password", text).unwrap_err();
            assert!(
                error.contains("`password` stands in the environment") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
