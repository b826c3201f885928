//! How a model comes into service and goes: one load of it at a time, in room that others have made.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{Given, Load, Repository, RepositoryError, Served, State, read::Checked};

impl<T: Send + Sync> Repository<T> {
    /// Loads a model, in the place of what is served of it. Blocks; when it fails, what was there is served on.
    ///
    /// # Errors
    /// When there is no such model, or it cannot be loaded.
    pub fn load(&self, name: &str, given: &Given) -> Result<(), RepositoryError> {
        let turn = self.turn(name)?;
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.load_in_turn(name, given).map(drop)
    }

    /// Takes a model out of service. Requests that have it finish with it. Nothing happens to one that is not loaded.
    pub fn unload(&self, name: &str) {
        let Ok(turn) = self.turn(name) else { return };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut book = self.book();
        self.ready.rcu(|ready| without(ready, name));
        book.bytes.remove(name);
        book.states.insert(name.to_owned(), State::Unloaded);
    }

    /// Loads a model whose turn the caller has.
    pub(super) fn load_in_turn(&self, name: &str, given: &Given) -> Result<Arc<Served<T>>, RepositoryError> {
        self.may_have(name)?;
        let mut attempt = Attempt { of: self, name, room: None, failed: Some("loading it panicked".into()) };
        self.book().states.insert(name.to_owned(), State::Loading);
        match self.read(name, given, &mut attempt) {
            Ok(served) => {
                attempt.failed = None;
                let served = Arc::new(served);
                // Under the lock, so that nobody sees it served and its room as somebody else's.
                let book = self.book();
                self.ready.rcu(|ready| {
                    let mut ready = BTreeMap::clone(ready);
                    ready.insert(name.to_owned(), Arc::clone(&served));
                    ready
                });
                drop(book);
                self.loaded.fetch_add(1, Relaxed);
                Ok(served)
            }
            Err(reason) => {
                attempt.failed = Some(reason.clone());
                Err(RepositoryError::Failed { name: name.to_owned(), reason })
            }
        }
    }

    fn read(&self, name: &str, given: &Given, attempt: &mut Attempt<'_, T>) -> Result<Served<T>, String> {
        let checked = Checked::read(&self.root, name, given, &self.options)?;
        attempt.room = Some(self.make_room(name, checked.bytes)?);
        let versions = checked.load(&self.options)?.into_iter();
        let versions = versions.map(|version| Ok((version.version, Arc::new((self.make)(version)?))));
        let versions = versions.collect::<Result<BTreeMap<_, _>, String>>()?;
        let labels = self.spec.labels.get(name).cloned().unwrap_or_default();
        Ok(Served { versions, labels, used: AtomicU64::new(self.now()) })
    }

    /// Notes the bytes of a model that is to be loaded, after others have made room for it. Answers what was noted before. Nobody
    /// goes for one that would not fit even then.
    fn make_room(&self, name: &str, bytes: u64) -> Result<Option<u64>, String> {
        let mut book = self.book();
        let most = self.spec.memory.map_or(u64::MAX, |most| most.0 as u64);
        loop {
            let of = |counts: &dyn Fn(&str) -> bool| -> u64 {
                let others = book.bytes.iter().filter(|(other, _)| *other != name && counts(other));
                others.map(|(_, bytes)| bytes).sum()
            };
            let others = of(&|_| true);
            if others.saturating_add(bytes) <= most {
                book.under_way.insert(name.to_owned());
                return Ok(book.bytes.insert(name.to_owned(), bytes));
            }
            let stay = match self.spec.load {
                Load::Lazy => of(&|other| book.under_way.contains(other)),
                Load::All | Load::Asked => others,
            };
            if stay.saturating_add(bytes) > most {
                // What is being loaded may go when it is there.
                if bytes <= most && self.spec.load == Load::Lazy {
                    book = self.ended.wait(book).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                return Err(format!(
                    "it needs {bytes} bytes, and of {most} there are {} left",
                    most - stay.min(most)
                ));
            }
            let Some(oldest) = self.oldest_but(name, &book.under_way) else {
                return Err(format!("it needs {bytes} bytes, and nothing makes room for it"));
            };
            self.ready.rcu(|ready| without(ready, &oldest));
            book.bytes.remove(&oldest);
            self.evicted.fetch_add(1, Relaxed);
        }
    }

    /// Of the models that are ready and not being loaded anew, the one that was asked for the longest time ago.
    fn oldest_but(&self, name: &str, under_way: &BTreeSet<String>) -> Option<String> {
        let ready = self.ready.load();
        let others = ready.iter().filter(|(other, _)| *other != name && !under_way.contains(*other));
        others.min_by_key(|(_, served)| served.used.load(Relaxed)).map(|(name, _)| name.clone())
    }
}

/// A load that is under way. However it ends, the book is right behind it.
struct Attempt<'r, T> {
    of: &'r Repository<T>,
    name: &'r str,
    /// What was noted of the model before it took its room, if it has.
    room: Option<Option<u64>>,
    /// Why it has failed, unless it has not.
    failed: Option<String>,
}

impl<T> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        let Self { of, name, .. } = self;
        let mut book = of.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.under_way.remove(*name);
        match self.failed.take() {
            None => drop(book.states.remove(*name)),
            Some(reason) => {
                of.failed.fetch_add(1, Relaxed);
                if let Some(before) = self.room {
                    // What was there before, if it still is.
                    match before.filter(|_| of.ready.load().contains_key(*name)) {
                        Some(before) => book.bytes.insert((*name).to_owned(), before),
                        None => book.bytes.remove(*name),
                    };
                }
                book.states.insert((*name).to_owned(), State::Failed { reason, at: Instant::now() });
            }
        }
        of.ended.notify_all();
    }
}

fn without<T>(ready: &BTreeMap<String, Arc<Served<T>>>, name: &str) -> BTreeMap<String, Arc<Served<T>>> {
    ready
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(name, served)| (name.clone(), Arc::clone(served)))
        .collect()
}
