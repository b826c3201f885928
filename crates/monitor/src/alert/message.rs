//! What goes over the wire for a notification.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Notification, Secret, Severity, SlackSpec, Status,
    body::{entity, told},
    rule::ChannelKind,
    text::cut,
};

/// Bytes of a subject, and of a text in a block of Slack (which allows 3000 characters) and in its header (150).
const MAX_SUBJECT: usize = 200;
const MAX_BLOCK: usize = 2900;
const MAX_HEADER: usize = 140;
/// Events that a message for people spells out; the rest is a number.
const MAX_SHOWN: usize = 20;

/// A message, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// A POST of JSON.
    Http {
        /// Where to.
        url: Secret,
        /// Headers beside the content type.
        headers: BTreeMap<String, Secret>,
        /// The body, still without its secrets.
        body: Value,
        /// The places in the body, as JSON pointers, that take the text of a secret.
        secrets: Vec<(String, Secret)>,
    },
    /// An email. No field but `text` and `html` has a line end or another control character in it.
    Email {
        /// Who gets it.
        to: Vec<String>,
        /// The subject, in UTF-8: whoever sends it encodes it.
        subject: String,
        /// The body for those who read plain text.
        text: String,
        /// The body in HTML.
        html: String,
    },
    /// A line of the log.
    Log {
        /// How loud.
        level: Level,
        /// The line, as `key=value` pairs; it has no control characters in it.
        line: String,
    },
}

/// How loud a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For what has ended, and for what is of low severity.
    Info,
    /// For what is of medium severity.
    Warn,
    /// For what is of high severity.
    Error,
}

impl Notification {
    /// The message for its channel. `external_url` leads to who sends it; it may be empty.
    pub fn message(&self, external_url: &str) -> Message {
        let http = |url: &Secret, headers: &BTreeMap<String, Secret>, body, secrets| Message::Http {
            url: url.clone(),
            headers: headers.clone(),
            body,
            secrets,
        };
        match self.alert.channels.get(self.channel).map(|channel| &channel.kind) {
            None | Some(ChannelKind::Log) => Message::Log { level: self.level(), line: self.line() },
            Some(ChannelKind::Webhook(spec)) => {
                http(&spec.url, &spec.headers, self.webhook_body(external_url), Vec::new())
            }
            Some(ChannelKind::Slack(spec)) => {
                http(&spec.url, &BTreeMap::new(), self.slack_body(spec), Vec::new())
            }
            Some(ChannelKind::Post { url, headers, body }) => {
                let secrets = body.secrets();
                http(url, headers, body.render(&|name| self.placed_in_body(name)), secrets)
            }
            Some(ChannelKind::Email(spec)) => Message::Email {
                to: spec.to.clone(),
                subject: cut(&one_line(&self.title()), MAX_SUBJECT),
                text: self.plain(external_url),
                html: self.html(external_url),
            },
        }
    }

    /// The kind of its channel: `webhook`, `slack`, `email`, `log` or `post`.
    pub fn kind(&self) -> &'static str {
        self.alert.channels.get(self.channel).map_or("log", |channel| channel.kind.word())
    }

    /// One line about all of it.
    fn title(&self) -> String {
        let status = self.status();
        let word = if status == Status::Firing { self.alert.severity.word() } else { status.word() };
        let start = format!("[{}] {}: ", word.to_uppercase(), self.alert.name);
        match (&self.events[..], self.truncated) {
            ([event], 0) => start + &self.summary(event),
            (events, truncated) => {
                let count = |status| events.iter().filter(|event| event.status == status).count();
                let (firing, resolved) = (count(Status::Firing), count(Status::Resolved));
                let more = if truncated > 0 { format!(", {truncated} more") } else { String::new() };
                let group =
                    if self.group.is_empty() { String::new() } else { format!(" ({})", entity(&self.group)) };
                format!("{start}{firing} firing, {resolved} resolved{more}{group}")
            }
        }
    }

    fn level(&self) -> Level {
        match (self.status(), self.alert.severity) {
            (Status::Resolved, _) | (_, Severity::Low) => Level::Info,
            (Status::Firing, Severity::Medium) => Level::Warn,
            (Status::Firing, Severity::High) => Level::Error,
        }
    }

    fn line(&self) -> String {
        let mut line = format!(
            "alert={} project={} status={} severity={}",
            quoted(&self.alert.name),
            quoted(&self.project),
            self.status().word(),
            self.alert.severity.word()
        );
        match &self.events[..] {
            [event] => line += &format!(" entity={}", quoted(&entity(&event.labels))),
            events => line += &format!(" group={} events={}", quoted(&entity(&self.group)), events.len()),
        }
        if let Some(event) = self.events.last() {
            line += &format!(" summary={}", quoted(&self.summary(event)));
        }
        if self.truncated > 0 {
            line += &format!(" truncated={}", self.truncated);
        }
        line
    }

    /// What Slack's incoming webhooks take: blocks, and a text for where blocks are not shown.
    fn slack_body(&self, spec: &SlackSpec) -> Value {
        // Slack reads `plain_text` as it stands; what is `mrkdwn` must be escaped, and so must the fallback.
        let mut blocks = vec![json!({
            "type": "header",
            "text": {"type": "plain_text", "text": cut(&one_line(&self.title()), MAX_HEADER), "emoji": false},
        })];
        for event in self.shown() {
            let text = format!(
                "{}: {}\n{}\n{}",
                event.status.word(),
                self.summary(event),
                entity(&event.labels),
                told(event)
            );
            blocks.push(
                json!({"type": "section", "text": {"type": "mrkdwn", "text": escaped(&text, MAX_BLOCK)}}),
            );
        }
        let mut notes: Vec<String> = self.unshown().into_iter().collect();
        notes.extend(self.alert.description.clone());
        if !notes.is_empty() {
            let elements = [json!({"type": "mrkdwn", "text": escaped(&notes.join("\n"), MAX_BLOCK)})];
            blocks.push(json!({"type": "context", "elements": elements}));
        }
        let mut body = json!({"text": escaped(&one_line(&self.title()), MAX_BLOCK), "blocks": blocks});
        if let (Some(map), Some(channel)) = (body.as_object_mut(), &spec.channel) {
            map.insert("channel".to_owned(), channel.clone().into());
        }
        body
    }

    fn plain(&self, external_url: &str) -> String {
        let mut text = one_line(&self.title()) + "\n";
        for event in self.shown() {
            let (summary, entity) = (one_line(&self.summary(event)), one_line(&entity(&event.labels)));
            text += &format!("\n{}: {summary}\n  {entity}\n  {}\n", event.status.word(), told(event));
            if let Some(evidence) = event.evidence() {
                text += &format!("  evidence: {evidence}\n");
            }
        }
        for note in self.unshown().iter().chain(&self.alert.description) {
            text += &format!("\n{note}\n");
        }
        if !external_url.is_empty() {
            text += &format!("\n{external_url}\n");
        }
        text
    }

    fn html(&self, external_url: &str) -> String {
        let mut html = format!("<!DOCTYPE html>\n<html><body>\n<h3>{}</h3>\n", html_text(&self.title()));
        for event in self.shown() {
            let status = event.status.word();
            let (summary, entity) = (html_text(&self.summary(event)), html_text(&entity(&event.labels)));
            html += &format!("<p><b>{status}</b>: {summary}<br>{entity}<br>{}</p>\n", told(event));
            if let Some(evidence) = event.evidence() {
                html += &format!("<pre>{}</pre>\n", html_text(&format!("{evidence:#}")));
            }
        }
        for note in self.unshown().iter().chain(&self.alert.description) {
            html += &format!("<p>{}</p>\n", html_text(note));
        }
        // Only what is a link becomes one: `javascript:` is none.
        if external_url.starts_with("http://") || external_url.starts_with("https://") {
            let url = html_text(external_url);
            html += &format!("<p><a href=\"{url}\">{url}</a></p>\n");
        }
        html + "</body></html>\n"
    }

    /// The events that are spelt out: the last, which are those that fire.
    fn shown(&self) -> impl Iterator<Item = &super::Event> {
        self.events.iter().rev().take(MAX_SHOWN)
    }

    fn unshown(&self) -> Option<String> {
        let more = self.events.len().saturating_sub(MAX_SHOWN) + self.truncated;
        (more > 0).then(|| format!("and {more} more"))
    }
}

/// Without line ends and other control characters, which would begin a header or a line of their own.
fn one_line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect()
}

/// A value of a `key=value` line.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", one_line(text).replace('\\', "\\\\").replace('"', "\\\""))
}

/// As Slack wants it, cut so that no escape is broken.
fn escaped(text: &str, most: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let before = out.len();
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
        if out.len() > most {
            out.truncate(before);
            out.push('…');
            break;
        }
    }
    out
}

fn html_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
