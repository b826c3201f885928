//! The state of [`Alerts`] as bytes: a mark, a version, the length and a CRC-32C of the body, and the body as JSON.
//!
//! Alerts go by name and by a hash of their definition, so a file outlives changes of the project.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Activation, Alerts, Counts, Ending, Labels, Matchers, NewSilence, State,
    rule::Verdict,
    series::Series,
    silence::Silences,
    state::{MAX_ALL_SERIES, MAX_HISTORY, MAX_SERIES, Rule},
};

const MARK: &[u8; 8] = b"msalerts";
const VERSION: u32 = 1;
/// Mark, version, length and checksum.
const HEAD: usize = 8 + 4 + 8 + 4;

/// What became of the alerts when a state was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Those that go on where they were.
    pub kept: Vec<String>,
    /// Those whose definition has changed; they start again.
    pub changed: Vec<String>,
    /// Those that are no more.
    pub dropped: Vec<String>,
}

/// Why a state could not be read. Nothing has been changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The bytes are something else.
    #[error("these bytes are no state of alerts")]
    Foreign,
    /// It is of another version.
    #[error("the state of the alerts has version {found}, this program reads {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// There are fewer or more bytes than there should be.
    #[error("the state of the alerts should have {wanted} bytes behind its head, it has {found}")]
    Length {
        /// As many as there should be.
        wanted: u64,
        /// As many as there are.
        found: u64,
    },
    /// It is not what was written.
    #[error("the state of the alerts is damaged: its checksum is wrong")]
    Damaged,
    /// The body is whole, but no state.
    #[error("the state of the alerts cannot be read")]
    Body(#[source] serde_json::Error),
}

impl Alerts {
    /// The whole state. Save it after what a tick answered has been sent: a message may then come twice after a crash,
    /// with the same [`id`](super::Notification::id) only if the tick has the same time, but none is lost.
    ///
    /// ```
    /// use millstream_monitor::alert::{check, Alerts};
    ///
    /// let specs = serde_json::from_str(r#"{"slow": {"when": {"metric": "latency", "above": 0.1}}}"#)?;
    /// let saved = Alerts::new("bank", check(&specs)?).save();
    /// let restored = Alerts::new("bank", check(&specs)?).restore(&saved)?;
    /// assert_eq!(restored.kept, ["slow"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self) -> Vec<u8> {
        let state = SavedState {
            now: self.now,
            counts: self.counts,
            silences: self
                .silences
                .list
                .iter()
                .map(|(&id, silence)| SavedSilence::new(id, silence))
                .collect(),
            next_silence: self.silences.next,
            alerts: self.rules.iter().map(|rule| (rule.alert.name.clone(), SavedRule::new(rule))).collect(),
        };
        // Text keys and finite or quoted numbers: there is nothing that JSON could refuse.
        let body = serde_json::to_vec(&state).unwrap_or_default();
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.extend_from_slice(MARK);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Takes up a saved state, in place of its own. What follows is as if it had never stopped.
    ///
    /// # Errors
    /// When the bytes are no whole state of this version; then nothing changes.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<Restored, RestoreError> {
        let state: SavedState = serde_json::from_slice(body(bytes)?).map_err(RestoreError::Body)?;
        let mut saved = state.alerts;
        let (mut restored, mut room) = (Restored::default(), MAX_ALL_SERIES);
        for rule in &mut self.rules {
            (rule.series, rule.history, rule.sent) = Default::default();
            let name = &rule.alert.name;
            match saved.remove(name) {
                None => {}
                Some(saved) if saved.definition != rule.alert.definition => {
                    restored.changed.push(name.clone())
                }
                Some(saved) => {
                    restored.kept.push(name.clone());
                    saved.into_rule(rule, &mut room);
                }
            }
        }
        restored.dropped = saved.into_keys().collect();
        restored.dropped.sort();
        (self.now, self.counts, self.expecting) = (state.now, state.counts, false);
        let list = state.silences.into_iter().map(|silence| (silence.id, silence.into())).collect();
        self.silences = Silences { list, next: state.next_silence };
        self.rebuild();
        Ok(restored)
    }
}

/// The body, if it is whole.
fn body(bytes: &[u8]) -> Result<&[u8], RestoreError> {
    let rest = bytes.strip_prefix(MARK).ok_or(RestoreError::Foreign)?;
    let (version, rest) = rest.split_first_chunk().ok_or(RestoreError::Foreign)?;
    let found = u32::from_le_bytes(*version);
    if found != VERSION {
        return Err(RestoreError::Version { found });
    }
    let (length, rest) = rest.split_first_chunk().ok_or(RestoreError::Foreign)?;
    let (checksum, body) = rest.split_first_chunk().ok_or(RestoreError::Foreign)?;
    let (wanted, found) = (u64::from_le_bytes(*length), u64::try_from(body.len()).unwrap_or(u64::MAX));
    if wanted != found {
        return Err(RestoreError::Length { wanted, found });
    }
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(RestoreError::Damaged);
    }
    Ok(body)
}

#[derive(Serialize, Deserialize)]
struct SavedState {
    now: Option<i64>,
    #[serde(with = "CountsTwin")]
    counts: Counts,
    silences: Vec<SavedSilence>,
    next_silence: u64,
    alerts: BTreeMap<String, SavedRule>,
}

#[derive(Serialize, Deserialize)]
struct SavedRule {
    definition: u64,
    series: Vec<(Labels, SavedSeries)>,
    history: Vec<(Labels, SavedActivation)>,
    sent: Vec<(usize, Labels, i64)>,
}

impl SavedRule {
    fn new(rule: &Rule) -> Self {
        let history = rule.history.iter().map(|(labels, one)| (Labels::clone(labels), one.into()));
        Self {
            definition: rule.alert.definition,
            series: rule
                .sorted()
                .into_iter()
                .map(|(labels, one)| (Labels::clone(labels), one.into()))
                .collect(),
            history: history.collect(),
            sent: rule.sent.iter().map(|((channel, group), &at)| (*channel, group.clone(), at)).collect(),
        }
    }

    /// Puts it into a rule of the same definition, within the bounds of today.
    fn into_rule(self, rule: &mut Rule, room: &mut usize) {
        let (channels, most) = (rule.alert.channels.len(), MAX_SERIES.min(*room));
        let series = self.series.into_iter().take(most).map(|(labels, one)| {
            let (mut series, hold, count) =
                (Series::from(one), rule.alert.hold.of, rule.alert.criteria.count);
            series.window.drain(..series.window.len().saturating_sub(hold));
            series.firings.drain(..series.firings.len().saturating_sub(count));
            (Arc::new(labels), series)
        });
        rule.series = series.collect::<HashMap<_, _>>();
        *room -= rule.series.len();
        let skipped = self.history.len().saturating_sub(MAX_HISTORY);
        let history = self.history.into_iter().skip(skipped);
        // The series' own labels are shared, as they were before.
        rule.history = history
            .map(|(labels, one)| {
                let known = rule.series.get_key_value(&labels).map(|(known, _)| Arc::clone(known));
                (known.unwrap_or_else(|| Arc::new(labels)), one.into())
            })
            .collect();
        let sent = self.sent.into_iter().filter(|&(channel, ..)| channel < channels);
        rule.sent = sent.map(|(channel, group, at)| ((channel, group), at)).collect();
    }
}

#[derive(Serialize, Deserialize)]
struct SavedSeries {
    window: Vec<(i64, SavedVerdict)>,
    firings: Vec<i64>,
    floor: Option<i64>,
    newest: i64,
    touched: i64,
    missed: bool,
    state: SavedSeriesState,
    since: i64,
    activation: Option<SavedActivation>,
    ended: Option<SavedActivation>,
    told: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Verdict", rename_all = "lowercase")]
enum VerdictTwin {
    Breach,
    Between,
    Clear,
}

#[derive(Serialize, Deserialize)]
struct SavedVerdict(#[serde(with = "VerdictTwin")] Verdict);

#[derive(Serialize, Deserialize)]
#[serde(remote = "State", rename_all = "lowercase")]
enum StateTwin {
    Inactive,
    Pending,
    Active,
    Waiting,
}

#[derive(Serialize, Deserialize)]
struct SavedSeriesState(#[serde(with = "StateTwin")] State);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Ending", rename_all = "lowercase")]
enum EndingTwin {
    Cleared,
    Reset,
}

#[derive(Serialize, Deserialize)]
struct SavedEnding(#[serde(with = "EndingTwin")] Ending);

#[derive(Serialize, Deserialize)]
struct SavedActivation {
    started: i64,
    value: Number,
    peak: Number,
    last: Number,
    firings: u64,
    ended: Option<(i64, SavedEnding)>,
    evidence: Option<Value>,
    seen: bool,
}

/// A number bit by bit: JSON has no infinity, and its readers may round.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Number(u64);

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self(value.to_bits())
    }
}

impl From<Number> for f64 {
    fn from(value: Number) -> Self {
        Self::from_bits(value.0)
    }
}

impl From<&Activation> for SavedActivation {
    fn from(one: &Activation) -> Self {
        Self {
            started: one.started,
            value: one.value.into(),
            peak: one.peak.into(),
            last: one.last.into(),
            firings: one.firings,
            ended: one.ended.map(|(at, how)| (at, SavedEnding(how))),
            evidence: one.evidence.as_deref().cloned(),
            seen: one.seen,
        }
    }
}

impl From<SavedActivation> for Activation {
    fn from(one: SavedActivation) -> Self {
        Self {
            started: one.started,
            value: one.value.into(),
            peak: one.peak.into(),
            last: one.last.into(),
            firings: one.firings,
            ended: one.ended.map(|(at, SavedEnding(how))| (at, how)),
            evidence: one.evidence.map(Arc::new),
            seen: one.seen,
        }
    }
}

impl From<&Series> for SavedSeries {
    fn from(one: &Series) -> Self {
        Self {
            window: one.window.iter().map(|&(at, verdict)| (at, SavedVerdict(verdict))).collect(),
            firings: one.firings.iter().copied().collect(),
            floor: one.floor,
            newest: one.newest,
            touched: one.touched,
            missed: one.missed,
            state: SavedSeriesState(one.state),
            since: one.since,
            activation: one.activation.as_ref().map(Into::into),
            ended: one.ended.as_ref().map(Into::into),
            told: one.told,
        }
    }
}

impl From<SavedSeries> for Series {
    fn from(one: SavedSeries) -> Self {
        Self {
            window: one.window.into_iter().map(|(at, SavedVerdict(verdict))| (at, verdict)).collect(),
            firings: one.firings.into(),
            floor: one.floor,
            newest: one.newest,
            touched: one.touched,
            missed: one.missed,
            // Worked out again by `rebuild`.
            deadline: i64::MAX,
            state: one.state.0,
            since: one.since,
            activation: one.activation.map(Into::into),
            ended: one.ended.map(Into::into),
            told: one.told,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct SavedSilence {
    id: u64,
    matchers: BTreeMap<String, Option<String>>,
    from: i64,
    to: i64,
    author: String,
    comment: String,
}

impl SavedSilence {
    fn new(id: u64, silence: &NewSilence) -> Self {
        let NewSilence { matchers, from, to, author, comment } = silence.clone();
        Self { id, matchers: matchers.0, from, to, author, comment }
    }
}

impl From<SavedSilence> for NewSilence {
    fn from(saved: SavedSilence) -> Self {
        let SavedSilence { matchers, from, to, author, comment, id: _ } = saved;
        Self { matchers: Matchers(matchers), from, to, author, comment }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Counts")]
struct CountsTwin {
    candidates: u64,
    evaluated: u64,
    late: u64,
    repeated: u64,
    ahead: u64,
    no_number: u64,
    refused_labels: u64,
    refused_series: u64,
    evidence_left_out: u64,
}
