//! Checks the alerts of a project file, and says every mistake at once.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use millstream_graph::{spec::Time, suggest};
use serde_json::Value;

use super::{
    Alert, AlertSpec, ChannelSpec, ClearSpec, Condition, HttpSpec, Matchers, Mistake, Mistakes, Secret,
    Source, WhenSpec,
    rule::{Channel, ChannelKind, Criteria, Hold},
    template::{JsonTemplate, Template},
    text,
};

/// Alerts of a project.
const MAX_ALERTS: usize = 10_000;
/// Evaluations that `hold` looks back, and firings that `criteria` counts: each series keeps that many.
const MAX_COUNT: usize = 100;
/// Channels of one alert.
pub(super) const MAX_CHANNELS: usize = 16;
/// Addresses of one email.
const MAX_ADDRESSES: usize = 100;
/// Bytes of a name, a summary and a description.
const MAX_NAME: usize = 128;
const MAX_TEXT: usize = 2048;

const DEFAULT_SUMMARY: &str = "{{name}}: {{metric}} of {{entity}} is {{value}}";
/// What every template may name, beside the labels that `when` names.
const PLACEHOLDERS: [&str; 13] = [
    "count",
    "description",
    "ended",
    "entity",
    "metric",
    "name",
    "peak",
    "project",
    "severity",
    "started",
    "status",
    "threshold",
    "value",
];
/// What the body of a `post` may name beside these.
const BODY_PLACEHOLDERS: [&str; 6] = ["alerts", "evidence", "group", "id", "labels", "summary"];
/// Keys of `when` that are no labels.
const CONDITIONS: [&str; 4] = ["above", "below", "outside", "absent"];
/// Labels that every message has; a label of the same name could not be told from them.
const RESERVED: [&str; 3] = ["alertname", "alertstate", "severity"];

/// Checks alerts, by their names.
///
/// ```
/// use millstream_monitor::alert::check;
///
/// let specs = serde_json::from_str(r#"{"slow": {
///     "when": {"metric": "latency", "graph": "loan"},
///     "summary": "{{grap}} is slow"
/// }}"#)?;
/// assert_eq!(check(&specs).unwrap_err().to_string(), "\
/// alert `slow`: summary: no placeholder `grap`; did you mean `graph`?
/// alert `slow`: when: give one of `above`, `below`, `outside` and `absent`");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Errors
/// When there is any mistake; then with all of them.
pub fn check(specs: &BTreeMap<String, AlertSpec>) -> Result<Vec<Alert>, Mistakes> {
    let mut mistakes = Vec::new();
    if specs.len() > MAX_ALERTS {
        let message = format!("a project has at most {MAX_ALERTS} alerts, this one has {}", specs.len());
        return Err(Mistakes(vec![Mistake { path: Vec::new(), message }]));
    }
    let alerts =
        specs.iter().map(|(name, spec)| Check { name, spec, mistakes: &mut mistakes }.alert()).collect();
    mistakes.sort();
    if mistakes.is_empty() { Ok(alerts) } else { Err(Mistakes(mistakes)) }
}

struct Check<'a> {
    name: &'a str,
    spec: &'a AlertSpec,
    mistakes: &'a mut Vec<Mistake>,
}

impl Check<'_> {
    /// The alert; where there was a mistake, with something harmless in its place.
    fn alert(mut self) -> Alert {
        let spec = self.spec;
        self.names();
        let matchers = self.matchers(&spec.when);
        let condition = self.condition(&spec.when);
        let labels: Vec<&str> = matchers.0.keys().map(String::as_str).collect();
        let known: Vec<&str> = PLACEHOLDERS.iter().chain(&labels).copied().collect();
        let summary = Template::read(spec.summary.as_deref().unwrap_or(DEFAULT_SUMMARY), &known);
        let mut alert = Alert {
            name: self.name.to_owned(),
            description: spec.description.clone(),
            severity: spec.severity,
            metric: spec.when.metric.clone(),
            condition,
            clear: self.clear(condition),
            hold: self.hold(condition),
            criteria: self.criteria(),
            reset: spec.reset,
            group_by: self.named(&["group_by"], spec.group_by.as_deref(), &labels),
            inhibit: self.named(&["inhibit"], spec.inhibit.as_deref(), &labels),
            summary: summary.unwrap_or_else(|found| {
                found.into_iter().for_each(|message| self.mistake(&["summary"], message));
                Template::default()
            }),
            channels: self.channels(&known),
            definition: 0,
            matchers,
        };
        alert.definition = definition(&alert);
        alert
    }

    fn mistake(&mut self, keys: &[&str], message: impl Into<String>) {
        let path = std::iter::once(&self.name).chain(keys).map(|&key| key.to_owned()).collect();
        self.mistakes.push(Mistake { path, message: message.into() });
    }

    fn names(&mut self) {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.chars().all(fits) {
            let message = format!("a name has 1 to {MAX_NAME} letters, digits, `_` and `-`");
            self.mistake(&[], message);
        }
        if self.spec.when.metric.is_empty() || self.spec.when.metric.len() > MAX_NAME {
            self.mistake(&["when", "metric"], format!("a metric has a name of 1 to {MAX_NAME} bytes"));
        }
        for (key, text) in [("summary", &self.spec.summary), ("description", &self.spec.description)] {
            if text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
                self.mistake(&[key], format!("at most {MAX_TEXT} bytes"));
            }
        }
    }

    fn matchers(&mut self, when: &WhenSpec) -> Matchers {
        let mut pairs = Vec::new();
        for (name, value) in &when.labels {
            // An unknown key is a label, so a slip of the hand in `above` ends up here, mostly with a number.
            let meant = suggest::closest(name, CONDITIONS).map(|key| format!("; did you mean `{key}`?"));
            match value {
                _ if RESERVED.contains(&name.as_str()) => {
                    self.mistake(&["when", name], "every alert has this label; match on another");
                }
                Value::String(value) if !value.is_empty() => pairs.push((name.clone(), value.clone())),
                _ => {
                    let message = "the value of a label is a text or `*`; put it in quotes";
                    self.mistake(&["when", name], format!("{message}{}", meant.unwrap_or_default()));
                }
            }
        }
        Matchers::new(pairs)
    }

    fn condition(&mut self, when: &WhenSpec) -> Condition {
        let outside = when.outside.map(|[low, high]| Condition::Outside(low, high));
        let given = [
            when.above.map(Condition::Above),
            when.below.map(Condition::Below),
            outside,
            when.absent.map(|time| Condition::Absent(micros(time))),
        ];
        let given: Vec<Condition> = given.into_iter().flatten().collect();
        let [condition] = given[..] else {
            self.mistake(&["when"], "give one of `above`, `below`, `outside` and `absent`");
            return Condition::Above(0.0);
        };
        match condition {
            Condition::Above(value) if !value.is_finite() => self.mistake(&["when", "above"], NOT_FINITE),
            Condition::Below(value) if !value.is_finite() => self.mistake(&["when", "below"], NOT_FINITE),
            Condition::Outside(low, high) if !low.is_finite() || !high.is_finite() => {
                self.mistake(&["when", "outside"], NOT_FINITE);
            }
            Condition::Outside(low, high) if low > high => {
                self.mistake(&["when", "outside"], "the first number is above the second");
            }
            _ => {}
        }
        condition
    }

    fn clear(&mut self, condition: Condition) -> (f64, f64) {
        let past = "beyond the threshold; it clears on the good side of it, or on it";
        let (clear, mistake) = match (condition, self.spec.clear) {
            (Condition::Absent(_), None) => ((0.0, 0.0), None),
            (Condition::Absent(_), Some(_)) => ((0.0, 0.0), Some("an absence clears when a value comes")),
            (Condition::Above(threshold), None) => ((f64::NEG_INFINITY, threshold), None),
            (Condition::Above(threshold), Some(ClearSpec::At(clear))) => {
                ((f64::NEG_INFINITY, clear), (!ordered(clear, threshold)).then_some(past))
            }
            (Condition::Below(threshold), None) => ((threshold, f64::INFINITY), None),
            (Condition::Below(threshold), Some(ClearSpec::At(clear))) => {
                ((clear, f64::INFINITY), (!ordered(threshold, clear)).then_some(past))
            }
            (Condition::Outside(low, high), None) => ((low, high), None),
            (Condition::Outside(low, high), Some(ClearSpec::Within([from, to]))) => {
                let inside = ordered(low, from) && ordered(from, to) && ordered(to, high);
                ((from, to), (!inside).then_some("a range inside that of `outside`"))
            }
            (Condition::Outside(..), Some(ClearSpec::At(_))) => {
                ((0.0, 0.0), Some("`outside` clears in a range: `[lo, hi]`"))
            }
            (_, Some(ClearSpec::Within(_))) => ((0.0, 0.0), Some("`above` and `below` clear at one number")),
        };
        if let Some(message) = mistake {
            self.mistake(&["clear"], message);
        }
        clear
    }

    fn hold(&mut self, condition: Condition) -> Hold {
        let (of, at_least) = (self.spec.hold.of, self.spec.hold.at_least);
        if matches!(condition, Condition::Absent(_)) && (of.is_some() || at_least.is_some()) {
            self.mistake(&["hold"], "an absence has no evaluations to count; make `absent` longer");
        }
        let of = of.unwrap_or_else(|| at_least.unwrap_or(1));
        let hold = Hold { of, at_least: at_least.unwrap_or(of) };
        if !(1..=MAX_COUNT).contains(&hold.of) {
            self.mistake(&["hold", "of"], format!("1 to {MAX_COUNT} evaluations"));
        }
        if !(1..=hold.of.max(1)).contains(&hold.at_least) {
            self.mistake(&["hold", "at_least"], format!("1 to {}, which is `of`", hold.of));
        }
        hold
    }

    fn criteria(&mut self) -> Criteria {
        let spec = &self.spec.criteria;
        let criteria = Criteria { count: spec.count.unwrap_or(1), period: spec.period.map_or(1, micros) };
        if !(1..=MAX_COUNT).contains(&criteria.count) {
            self.mistake(&["criteria", "count"], format!("1 to {MAX_COUNT} firings"));
        }
        if criteria.count > 1 && spec.period.is_none() {
            self.mistake(&["criteria"], "several firings need a `period`, such as `period: 1h`");
        }
        criteria
    }

    /// Names of labels, each of which `when` must name: a misspelt one would match nothing and say nothing.
    fn named(&mut self, key: &[&str], names: Option<&[String]>, labels: &[&str]) -> Option<Vec<String>> {
        for name in names.unwrap_or_default().iter().filter(|name| !labels.contains(&name.as_str())) {
            let known = suggest::unknown("label", name, labels.iter().copied());
            self.mistake(key, format!("{known}; name it in `when`, as `{name}: \"*\"`"));
        }
        names.map(|names| names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn channels(&mut self, known: &[&str]) -> Vec<Channel> {
        if self.spec.notify.len() > MAX_CHANNELS {
            self.mistake(&["notify"], format!("at most {MAX_CHANNELS} channels"));
        }
        let spec = self.spec;
        spec.notify
            .iter()
            .enumerate()
            .map(|(index, channel)| self.channel(&index.to_string(), channel, known))
            .collect()
    }

    fn channel(&mut self, index: &str, spec: &ChannelSpec, known: &[&str]) -> Channel {
        let (cooldown, kind) = match spec {
            ChannelSpec::Log => (None, ChannelKind::Log),
            ChannelSpec::Webhook(http) => {
                self.http(&["notify", index, "webhook"], http);
                (http.cooldown, ChannelKind::Webhook(http.clone()))
            }
            ChannelSpec::Slack(slack) => {
                if let Source::Plain(_) = slack.url.source() {
                    let message =
                        "whoever knows this URL can write there; put it into `env:NAME` or `file:PATH`";
                    self.mistake(&["notify", index, "slack", "url"], message);
                }
                self.secret(&["notify", index, "slack", "url"], &slack.url);
                (slack.cooldown, ChannelKind::Slack(slack.clone()))
            }
            ChannelSpec::Email(email) => {
                if email.to.is_empty() || email.to.len() > MAX_ADDRESSES {
                    self.mistake(
                        &["notify", index, "email", "to"],
                        format!("1 to {MAX_ADDRESSES} addresses"),
                    );
                }
                for (place, address) in
                    email.to.iter().enumerate().filter(|(_, address)| !is_address(address))
                {
                    let message = format!("{address:?} is no address; write it like `team@example.com`");
                    self.mistake(&["notify", index, "email", "to", &place.to_string()], message);
                }
                (email.cooldown, ChannelKind::Email(email.clone()))
            }
            ChannelSpec::Post(post) => {
                let http = HttpSpec { url: post.url.clone(), headers: post.headers.clone(), cooldown: None };
                self.http(&["notify", index, "post"], &http);
                let known: Vec<&str> = known.iter().chain(&BODY_PLACEHOLDERS).copied().collect();
                let (mut path, mut found) = (Vec::new(), Vec::new());
                let body = JsonTemplate::read(&post.body, &known, &mut path, &mut found);
                for (path, message) in found {
                    let keys =
                        ["notify", index, "post", "body"].into_iter().chain(path.iter().map(String::as_str));
                    self.mistake(&keys.collect::<Vec<_>>(), message);
                }
                (
                    post.cooldown,
                    ChannelKind::Post { url: post.url.clone(), headers: post.headers.clone(), body },
                )
            }
        };
        Channel { cooldown: cooldown.or(self.spec.cooldown).map_or(0, micros), kind }
    }

    fn http(&mut self, path: &[&str], http: &HttpSpec) {
        let at = |keys: &[&'static str]| [path, keys].concat();
        self.secret(&at(&["url"]), &http.url);
        if let Source::Plain(url) = http.url.source() {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
            match host {
                _ if url.contains(|c: char| c.is_whitespace() || c.is_control()) => {
                    self.mistake(&at(&["url"]), "a URL has no spaces in it");
                }
                None | Some("") => {
                    self.mistake(&at(&["url"]), "write an `http` or `https` URL, or `env:NAME`")
                }
                Some(host) if host.contains('@') => {
                    let message = "user and password are secrets; put the URL into `env:NAME` or `file:PATH`";
                    self.mistake(&at(&["url"]), message);
                }
                Some(_) => {}
            }
        }
        for (name, value) in &http.headers {
            let keys = [path, &["headers", name.as_str()]].concat();
            self.secret(&keys, value);
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(token) {
                self.mistake(&keys, "no name of a header");
            }
            if let Source::Plain(value) = value.source() {
                if tells_who_we_are(name) {
                    self.mistake(&keys, "this is a secret; put it into `env:NAME` or `file:PATH`");
                } else if value.contains(|c: char| c.is_control() || !c.is_ascii()) {
                    self.mistake(&keys, "the value of a header is plain ASCII in one line");
                }
            }
        }
    }

    /// A reference must name something.
    fn secret(&mut self, path: &[&str], secret: &Secret) {
        if let Source::Env("") | Source::File("") = secret.source() {
            self.mistake(path, "the reference names nothing; write `env:NAME` or `file:PATH`");
        }
    }
}

const NOT_FINITE: &str = "a finite number";

fn micros(time: Time) -> i64 {
    i64::try_from(time.0.as_micros()).unwrap_or(i64::MAX).max(1)
}

/// Whether both are numbers and the first is not above the second.
fn ordered(one: f64, other: f64) -> bool {
    matches!(one.partial_cmp(&other), Some(Ordering::Less | Ordering::Equal))
}

fn tells_who_we_are(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    ["authorization", "cookie", "token", "secret", "key", "password"].iter().any(|word| header.contains(word))
}

/// One `@`, something on both sides, and no character that means anything in the header of an email.
fn is_address(address: &str) -> bool {
    let fits = |c: char| c.is_ascii_graphic() && !"<>()[],;:\\\"".contains(c);
    let parts = address.split_once('@').filter(|(name, host)| !name.is_empty() && !host.is_empty());
    address.len() <= 254 && address.chars().all(fits) && parts.is_some_and(|(_, host)| !host.contains('@'))
}

/// A hash of what the state of the series depends on. Texts, severity and cooldowns are left out: to change them need not
/// reset an active alert.
fn definition(alert: &Alert) -> u64 {
    let matchers: Vec<_> = alert.matchers.pairs().collect();
    let channels = alert.channels.iter().map(|channel| match &channel.kind {
        ChannelKind::Log => "log".to_owned(),
        ChannelKind::Webhook(http) => format!("webhook {}", http.url.written()),
        ChannelKind::Slack(slack) => format!("slack {} {:?}", slack.url.written(), slack.channel),
        ChannelKind::Email(email) => format!("email {}", email.to.join(" ")),
        ChannelKind::Post { url, .. } => format!("post {}", url.written()),
    });
    let channels: Vec<_> = channels.collect();
    let condition = match alert.condition {
        Condition::Above(value) => serde_json::json!(["above", value]),
        Condition::Below(value) => serde_json::json!(["below", value]),
        Condition::Outside(low, high) => serde_json::json!(["outside", low, high]),
        Condition::Absent(time) => serde_json::json!(["absent", time]),
    };
    // Infinite ends are null here, which is what tells them from any number.
    let parts = serde_json::json!([
        alert.metric,
        matchers,
        condition,
        [alert.clear.0, alert.clear.1],
        [alert.hold.of, alert.hold.at_least, alert.criteria.count],
        alert.criteria.period,
        alert.reset == super::Reset::Manual,
        alert.group_by,
        channels,
    ]);
    text::hash([parts.to_string().as_str()])
}
