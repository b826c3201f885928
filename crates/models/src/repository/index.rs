//! What a repository tells of its models: those that are served, and those that are there.

use super::{Load, Repository, RepositoryError, State, read};

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed {
    /// The model.
    pub name: String,
    /// The version; none of a model that is not loaded.
    pub version: Option<u64>,
    /// Whether it takes requests: `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it does not.
    pub reason: String,
}

impl<T: Send + Sync> Repository<T> {
    /// Whether there is a model of this name, loaded or not, as far as [`Repository::look`] has seen.
    pub fn is_there(&self, name: &str) -> bool {
        self.ready.load().contains_key(name) || self.listing.load().names.contains(name)
    }

    /// Whether a model that is not loaded would be when it is asked for, as far as [`Repository::look`] has seen.
    pub fn comes_when_asked(&self, name: &str) -> bool {
        let unloaded = || matches!(self.book().states.get(name), Some(State::Unloaded));
        self.spec.load == Load::Lazy && self.is_there(name) && !unloaded()
    }

    /// Every model in the folder and every version that is served, as far as [`Repository::look`] has seen.
    ///
    /// # Errors
    /// When the folder could not be read.
    pub fn index(&self) -> Result<Vec<Indexed>, RepositoryError> {
        let mut names = self.listed()?;
        let ready = self.ready.load();
        names.extend(ready.keys().cloned());
        let states = self.book().states.clone();
        let mut lines = Vec::new();
        for name in names {
            if let Some(served) = ready.get(&name) {
                lines.extend(served.numbers().map(|version| Indexed {
                    name: name.clone(),
                    version: Some(version),
                    state: "READY",
                    reason: String::new(),
                }));
                continue;
            }
            let (state, reason) = match states.get(&name) {
                Some(State::Loading) => ("LOADING", String::new()),
                Some(State::Unloaded) => ("UNAVAILABLE", "unloaded".to_owned()),
                Some(State::Failed { reason, .. }) => ("UNAVAILABLE", reason.clone()),
                None => ("UNAVAILABLE", "not loaded".to_owned()),
            };
            lines.push(Indexed { name, version: None, state, reason });
        }
        Ok(lines)
    }

    /// The versions of a model that would be served, from what its folder has.
    ///
    /// # Errors
    /// When there is no such model, or its configuration is wrong.
    pub fn offered(&self, name: &str) -> Result<Vec<u64>, RepositoryError> {
        if !self.is_on_disk(name) {
            return Err(self.unknown(name));
        }
        let offered = read::config(&self.root, name)
            .and_then(|config| config.versions.served(&read::versions(&self.root, name)?));
        offered.map_err(|reason| RepositoryError::Failed { name: name.to_owned(), reason })
    }
}
