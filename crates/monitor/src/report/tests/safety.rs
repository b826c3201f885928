//! Text from outside stays text, and nothing runs or loads but the page's own.

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use super::*;
use crate::report::page;

#[test]
fn markup_in_any_text_stays_text() {
    const ATTACK: &str = "\"'><img src=x onerror=alert(1)></script><script>alert(1)</script>\u{202e}";
    let elements = |html: &str| parsed(html, |page| page.descendants().filter(Node::is_element).count());
    let mut json = serde_json::to_value(small()).unwrap();
    let clean = serde_json::from_value::<Report>(json.clone()).unwrap().to_html();
    // All strings of the report, wherever they are.
    let mut replaced = 0;
    replace_strings(&mut json, ATTACK, &mut replaced);
    assert!(replaced > 12, "{replaced}");
    let attacked = serde_json::from_value::<Report>(json).unwrap().to_html();
    assert_eq!(attacked.matches("<script").count(), 1);
    assert_eq!(attacked.matches("<img").count(), 0);
    assert!(!attacked.contains('\u{202e}'));
    // Nothing but the breaks after the dots and underscores of names differs.
    let breaks = |html: &str| html.matches("<wbr/>").count();
    assert_eq!(elements(&attacked) - breaks(&attacked), elements(&clean) - breaks(&clean));
}

/// Replaces all strings but those of enums. Those of different names stay different.
fn replace_strings(value: &mut serde_json::Value, by: &str, replaced: &mut usize) {
    const ENUMS: [&str; 5] = ["numeric", "categorical", "high", "firing", "low"];
    match value {
        serde_json::Value::String(text) if !ENUMS.contains(&text.as_str()) => {
            *text = format!("{by}{replaced}");
            *replaced += 1;
        }
        serde_json::Value::Array(items) => {
            items.iter_mut().for_each(|item| replace_strings(item, by, replaced))
        }
        serde_json::Value::Object(fields) => {
            fields.iter_mut().for_each(|(_, field)| replace_strings(field, by, replaced));
        }
        _ => {}
    }
}

#[test]
fn the_policy_names_the_page_s_own_style_and_script() {
    for (directive, source) in [("style-src", page::STYLE), ("script-src", page::SCRIPT)] {
        let hash = BASE64_STANDARD.encode(Sha256::digest(source.as_bytes()));
        let wanted = format!("{directive} 'sha256-{hash}'");
        assert!(page::POLICY.contains(&wanted), "the text changed: page.rs has to say {wanted}");
    }
    let html = small().to_html();
    assert!(!html.contains(" style=\"") && !html.contains(" onclick"), "the policy forbids these");
    for outside in ["http://", "https://", "@import", "url(h", "src="] {
        let own = html.replace("xmlns=\"http://www.w3.org/1999/xhtml\"", "");
        assert!(!own.contains(outside), "{outside}");
    }
}
