use std::{
    cmp::Ordering,
    collections::{BTreeSet, VecDeque},
    iter,
    sync::Arc,
};

/// A name, and the time that it is of.
type Aged = (i64, Arc<str>);

/// Names by time and then by themselves, the oldest first. One that is added in this order, as most are, is not searched a place for.
#[derive(Debug, Clone, Default)]
pub(super) struct Ages {
    /// Each is above the one before.
    in_order: VecDeque<Aged>,
    /// Those that came when a younger one was there.
    others: BTreeSet<Aged>,
}

impl Ages {
    pub(super) fn insert(&mut self, at: i64, name: Arc<str>) {
        let aged = (at, name);
        match self.in_order.back().map(|last| aged.cmp(last)) {
            Some(Ordering::Less) => {
                self.others.insert(aged);
            }
            Some(Ordering::Equal) => {}
            Some(Ordering::Greater) | None => self.in_order.push_back(aged),
        }
    }

    pub(super) fn first(&self) -> Option<&Aged> {
        let all = self.in_order.front().into_iter().chain(self.others.first());
        all.min()
    }

    pub(super) fn pop_first(&mut self) -> Option<Aged> {
        match (self.in_order.front(), self.others.first()) {
            (Some(in_order), Some(other)) if other < in_order => self.others.pop_first(),
            (Some(_), _) => self.in_order.pop_front(),
            (None, _) => self.others.pop_first(),
        }
    }

    /// All of them, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Aged> {
        let (mut in_order, mut others) = (self.in_order.iter().peekable(), self.others.iter().peekable());
        iter::from_fn(move || match (in_order.peek(), others.peek()) {
            (Some(first), Some(other)) if other < first => others.next(),
            (Some(_), _) => in_order.next(),
            (None, _) => others.next(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_by_age_in_whatever_order_they_came() {
        let mut ages = Ages::default();
        let mut all: BTreeSet<Aged> = BTreeSet::new();
        let came = [(5, "b"), (5, "c"), (5, "a"), (7, "a"), (6, "z"), (1, "x"), (7, "a"), (9, "y"), (8, "y")];
        for (at, name) in came {
            ages.insert(at, Arc::from(name));
            all.insert((at, Arc::from(name)));
            assert!(ages.iter().eq(&all), "{ages:?}");
            assert_eq!(ages.first(), all.first());
        }
        while let Some(first) = all.pop_first() {
            assert_eq!(ages.pop_first(), Some(first));
            assert!(ages.iter().eq(&all), "{ages:?}");
        }
        assert_eq!(ages.first(), None);
        assert_eq!(ages.pop_first(), None);
    }
}
