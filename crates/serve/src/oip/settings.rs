//! What is traced and logged, as clients of Triton ask for it and change it.

use serde_json::{Map, Value, json};

use crate::observe::{LogSettings, Observer, Sampling};

/// The settings of traces.
pub(super) fn traces(observer: &Observer) -> Value {
    let (level, rate) = match observer.sampling() {
        Some(Sampling { on: true, rate }) => ("TIMESTAMPS", rate),
        Some(Sampling { on: false, rate }) => ("OFF", rate),
        None => ("OFF", 1000),
    };
    json!({
        "trace_level": [level],
        "trace_rate": rate.to_string(),
        "trace_count": "-1",
        "log_frequency": "0",
        "trace_file": "",
        "trace_mode": "opentelemetry",
    })
}

/// Changes those that `changes` names; null puts one back to what it was at the start.
pub(super) fn change_traces(observer: &Observer, changes: &Map<String, Value>) -> Result<(), String> {
    let Some(mut sampling) = observer.sampling() else {
        return Err("traces have nowhere to go; start the server with --otlp-endpoint".into());
    };
    let first = observer.first_sampling().unwrap_or(sampling);
    for (key, value) in changes {
        let values: Vec<&Value> =
            value.as_array().map_or_else(|| vec![value], |values| values.iter().collect());
        match key.as_str() {
            "trace_level" if value.is_null() => sampling.on = first.on,
            "trace_level" => {
                let level = |value: &&Value| matches!(value.as_str(), Some("OFF" | "TIMESTAMPS" | "TENSORS"));
                if values.is_empty() || !values.iter().all(level) {
                    return Err("trace_level is a list of OFF and TIMESTAMPS".into());
                }
                if values.iter().any(|value| *value == "TENSORS") {
                    return Err("trace_level TENSORS: values of requests are not traced".into());
                }
                sampling.on = values.iter().any(|value| *value == "TIMESTAMPS");
            }
            "trace_rate" if value.is_null() => sampling.rate = first.rate,
            "trace_rate" => {
                sampling.rate =
                    number(&values).filter(|rate| *rate > 0).ok_or("trace_rate is a number from 1 on")?;
            }
            "trace_count" | "log_frequency" | "trace_file" | "trace_mode" => {
                let now = traces(observer);
                let same = value.is_null() || values.iter().all(|value| text(value) == text(&now[key]));
                if !same {
                    return Err(format!("{key} cannot be changed: spans go to the receiver as they end"));
                }
            }
            _ => return Err(format!("there is no trace setting `{key}`")),
        }
    }
    observer.sample(sampling);
    Ok(())
}

/// The settings of the log.
pub(super) fn log(settings: LogSettings) -> Value {
    json!({
        "log_file": "",
        "log_info": settings.info,
        "log_warning": settings.warning,
        "log_error": settings.error,
        "log_verbose_level": settings.verbose,
        "log_format": "default",
    })
}

/// The settings that `changes` make of those that are there. Keys that nobody knows are left out, as Triton does.
pub(super) fn changed_log(
    mut settings: LogSettings,
    changes: &Map<String, Value>,
) -> Result<LogSettings, String> {
    for (key, value) in changes {
        let flag = || value.as_bool().ok_or_else(|| format!("{key} is true or false"));
        match key.as_str() {
            "log_info" => settings.info = flag()?,
            // Both are in use.
            "log_warning" | "log_warnings" => settings.warning = flag()?,
            "log_error" => settings.error = flag()?,
            "log_verbose_level" => {
                let level = value.as_u64().and_then(|level| u32::try_from(level).ok());
                settings.verbose = level.ok_or("log_verbose_level is a number from 0 on")?;
            }
            "log_file" if value.as_str() != Some("") => {
                return Err("log_file: the log goes to standard error".into());
            }
            "log_format" if value.as_str() != Some("default") => {
                return Err(
                    "log_format: only `default`; --log-format says at the start how lines look".into()
                );
            }
            _ => {}
        }
    }
    Ok(settings)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A number, which clients send as text.
fn number(values: &[&Value]) -> Option<u64> {
    let [only] = values else { return None };
    text(only).parse().ok()
}
