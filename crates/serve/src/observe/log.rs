//! How much the process logs, which may be changed while it runs.

use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::level_filters::LevelFilter;

/// Which lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub(crate) info: bool,
    pub(crate) warning: bool,
    pub(crate) error: bool,
    /// From 1 on lines at debug too, from 2 on all.
    pub(crate) verbose: u32,
}

impl From<LevelFilter> for LogSettings {
    fn from(level: LevelFilter) -> Self {
        let verbose = u32::from(level >= LevelFilter::DEBUG) + u32::from(level >= LevelFilter::TRACE);
        Self {
            info: level >= LevelFilter::INFO,
            warning: level >= LevelFilter::WARN,
            error: level >= LevelFilter::ERROR,
            verbose,
        }
    }
}

impl LogSettings {
    /// The level that they come to: each level has those that are graver.
    fn level(self) -> Result<LevelFilter, String> {
        let levels = [
            ("log_verbose_level", self.verbose > 0, LevelFilter::DEBUG),
            ("log_info", self.info, LevelFilter::INFO),
            ("log_warning", self.warning, LevelFilter::WARN),
            ("log_error", self.error, LevelFilter::ERROR),
        ];
        let Some(first) = levels.iter().position(|(_, on, _)| *on) else { return Ok(LevelFilter::OFF) };
        if let Some((graver, ..)) = levels[first..].iter().find(|(_, on, _)| !on) {
            return Err(format!("{graver} cannot be off while {} is on", levels[first].0));
        }
        Ok(if self.verbose > 1 { LevelFilter::TRACE } else { levels[first].2 })
    }
}

/// The process's log.
struct Control {
    settings: Mutex<LogSettings>,
    apply: Box<dyn Fn(LevelFilter) + Send + Sync>,
}

/// A process has one log.
static CONTROL: OnceLock<Control> = OnceLock::new();

/// The log writes lines of this level and graver ones, and `apply` changes that.
pub(crate) fn started(level: LevelFilter, apply: impl Fn(LevelFilter) + Send + Sync + 'static) {
    // A second log cannot be started: the first is the process's.
    let _ = CONTROL.set(Control { settings: Mutex::new(level.into()), apply: Box::new(apply) });
}

/// What is written now.
pub(crate) fn settings() -> LogSettings {
    match CONTROL.get() {
        Some(control) => *control.settings.lock().unwrap_or_else(PoisonError::into_inner),
        None => LevelFilter::current().into(),
    }
}

/// Writes other lines from here on.
///
/// # Errors
/// When the settings contradict each other, or the log is not this program's.
pub(crate) fn set(settings: LogSettings) -> Result<(), String> {
    let control = CONTROL.get().ok_or("the log is the application's, which this server is part of")?;
    let level = settings.level()?;
    let mut held = control.settings.lock().unwrap_or_else(PoisonError::into_inner);
    (control.apply)(level);
    *held = settings;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_to_a_level_or_contradict_each_other() {
        for level in [
            LevelFilter::OFF,
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ] {
            assert_eq!(LogSettings::from(level).level(), Ok(level));
        }
        let holes = LogSettings { info: true, warning: false, error: true, verbose: 0 };
        assert_eq!(holes.level(), Err("log_warning cannot be off while log_info is on".into()));
    }
}
