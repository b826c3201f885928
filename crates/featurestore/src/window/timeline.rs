//! The events of one key in order of time, with summaries of stretches, so that a window is put together from few pieces.

use super::{
    accumulator::Accumulator,
    aggregates::Aggregates,
    layout::{Layout, Row, Rows},
};

/// A tree of events in order of time. Full nodes know the summary of what is below them.
///
/// Summaries are exact, so that the shape of the tree, which depends on the order of arrival, changes no result. A window
/// takes the summaries of the nodes it covers and walks the events of the two leaves at its edges.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    root: Option<Box<Node>>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Node {
    /// The first and the last event time below.
    from: i64,
    to: i64,
    /// Of all events below. A node has one from when it is full until its first event goes.
    summary: Option<Box<[Accumulator]>>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Leaf(Rows),
    /// All of the same height.
    Inner(Vec<Node>),
}

/// Events in a leaf, and nodes below an inner one, at most.
const FULL: usize = 64;

impl Timeline {
    /// Puts an event at its place: in order in constant time, else in time logarithmic in the number of events.
    pub(super) fn insert(&mut self, of: &Aggregates, row: Row<'_>) {
        self.len += 1;
        let Some(root) = &mut self.root else {
            self.root = Some(Box::new(Node::leaf(of.layout(), row)));
            return;
        };
        if let Some(right) = root.insert(of, row, true) {
            let left = std::mem::replace(&mut **root, right);
            let right = std::mem::replace(&mut **root, Node::inner(vec![left]));
            root.push(right);
        }
    }

    /// Adds the events from `from` to `to`, both inclusive, to the accumulators for which `wanted` says so.
    pub(super) fn range(
        &self,
        of: &Aggregates,
        from: i64,
        to: i64,
        wanted: &[bool],
        into: &mut [Accumulator],
    ) {
        if let Some(root) = &self.root {
            root.range(of, from, to, wanted, into);
        }
    }

    /// Takes the events before `cut` out, earliest first.
    pub(super) fn pop_before(&mut self, of: &Aggregates, cut: i64, each: &mut dyn FnMut(Row<'_>)) {
        let Some(root) = &mut self.root else { return };
        let len = &mut self.len;
        let mut each = |row: Row<'_>| {
            *len -= 1;
            each(row);
        };
        if root.pop_before(of.layout(), cut, &mut each) {
            self.root = None;
            return;
        }
        while let Body::Inner(nodes) = &mut root.body
            && nodes.len() == 1
            && let Some(only) = nodes.pop()
        {
            **root = only;
        }
    }

    /// All events in order of time; of equally late ones in any order.
    pub(super) fn each<'a>(&'a self, layout: &'a Layout, each: &mut dyn FnMut(Row<'a>)) {
        if let Some(root) = &self.root {
            root.each(layout, each);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes held outside the value itself.
    pub(super) fn heap(&self) -> usize {
        self.root.as_ref().map_or(0, |root| size_of::<Node>() + root.heap())
    }
}

impl Node {
    fn leaf(layout: &Layout, row: Row<'_>) -> Self {
        let mut rows = Rows::default();
        rows.insert(layout, 0, row);
        Self { from: row.event(), to: row.event(), summary: None, body: Body::Leaf(rows) }
    }

    fn inner(nodes: Vec<Self>) -> Self {
        let (from, to) =
            (nodes.first().map_or(i64::MAX, |node| node.from), nodes.last().map_or(i64::MIN, |node| node.to));
        Self { from, to, summary: None, body: Body::Inner(nodes) }
    }

    fn push(&mut self, node: Self) {
        if let Body::Inner(nodes) = &mut self.body {
            self.to = node.to;
            nodes.push(node);
        }
    }

    /// Inserts below this node, which is the last of its height if `last` says so. What no longer fits comes back as the node
    /// that follows this one.
    fn insert(&mut self, of: &Aggregates, row: Row<'_>, last: bool) -> Option<Self> {
        let (layout, event) = (of.layout(), row.event());
        match &mut self.body {
            Body::Leaf(rows) => {
                let appends = event >= self.to;
                if rows.held(layout) >= FULL && !rows.compact(layout, FULL / 2) {
                    if appends && last {
                        self.seal(of);
                        return Some(Self::leaf(layout, row));
                    }
                    let (from, to, body) = (self.from, self.to, Body::Leaf(rows.split(layout)));
                    let mut right = Self { from, to, summary: None, body };
                    right.reseal(of);
                    self.reseal(of);
                    // Both halves have room, so that nothing comes back from them.
                    let side = if event >= right.from { &mut right } else { &mut *self };
                    side.insert(of, row, false);
                    return Some(right);
                }
                let at = if appends { rows.len(layout) } else { rows.until(layout, event) };
                rows.insert(layout, at, row);
                self.cover(of, row);
                None
            }
            Body::Inner(nodes) => {
                let end = nodes.len() - 1;
                let at = match nodes.last() {
                    Some(node) if node.from <= event => end,
                    _ => nodes.partition_point(|node| node.from <= event).saturating_sub(1),
                };
                if let Some(node) = nodes[at].insert(of, row, last && at == end) {
                    nodes.insert(at + 1, node);
                }
                if nodes.len() <= FULL {
                    self.cover(of, row);
                    return None;
                }
                // Events that come in order leave full nodes behind; the new one waits for its summary until it is full.
                let in_order = last && at == end;
                let mut right = Self::inner(nodes.split_off(if in_order { FULL } else { FULL / 2 }));
                if !in_order {
                    right.seal(of);
                }
                self.reseal(of);
                Some(right)
            }
        }
    }

    /// Notes an event that was put below.
    fn cover(&mut self, of: &Aggregates, row: Row<'_>) {
        self.from = self.from.min(row.event());
        self.to = self.to.max(row.event());
        if let Some(summary) = &mut self.summary {
            for (part, accumulator) in of.parts().iter().zip(summary) {
                part.add(of.layout(), accumulator, row);
            }
        }
    }

    /// Notes anew what is below, after a part of it was taken out.
    fn reseal(&mut self, of: &Aggregates) {
        self.bound(of.layout());
        self.summary = None;
        self.seal(of);
    }

    /// Sets the first and the last event time anew; `false` for a node without events.
    fn bound(&mut self, layout: &Layout) -> bool {
        let ends = match &self.body {
            Body::Leaf(rows) if rows.len(layout) > 0 => {
                Some((rows.row(layout, 0).event(), rows.row(layout, rows.len(layout) - 1).event()))
            }
            Body::Leaf(_) => None,
            Body::Inner(nodes) => nodes.first().zip(nodes.last()).map(|(first, last)| (first.from, last.to)),
        };
        if let Some(ends) = ends {
            (self.from, self.to) = ends;
        }
        ends.is_some()
    }

    /// Makes the summary, if there is none.
    fn seal(&mut self, of: &Aggregates) {
        if self.summary.is_none() {
            let mut summary = of.empty();
            self.range(of, i64::MIN, i64::MAX, of.all(), &mut summary);
            self.summary = Some(summary);
        }
    }

    fn range(&self, of: &Aggregates, from: i64, to: i64, wanted: &[bool], into: &mut [Accumulator]) {
        if self.to < from || to < self.from {
            return;
        }
        match (&self.summary, &self.body) {
            (Some(summary), _) if from <= self.from && self.to <= to => {
                let chosen = into.iter_mut().zip(summary).zip(wanted).filter(|(_, wanted)| **wanted);
                chosen.for_each(|((into, from), _)| into.merge(from));
            }
            (_, Body::Leaf(rows)) => {
                let layout = of.layout();
                let rows = || rows.iter(layout, rows.before(layout, from)..rows.until(layout, to));
                let chosen = of.parts().iter().zip(into).zip(wanted).filter(|(_, wanted)| **wanted);
                chosen.for_each(|((part, into), _)| rows().for_each(|row| part.add(layout, into, row)));
            }
            (_, Body::Inner(nodes)) => {
                nodes.iter().for_each(|node| node.range(of, from, to, wanted, into));
            }
        }
    }

    /// Whether nothing is left.
    fn pop_before(&mut self, layout: &Layout, cut: i64, each: &mut dyn FnMut(Row<'_>)) -> bool {
        if self.from >= cut {
            return false;
        }
        self.summary = None;
        match &mut self.body {
            Body::Leaf(rows) => {
                for _ in 0..rows.before(layout, cut) {
                    each(rows.row(layout, 0));
                    rows.drop_first();
                }
            }
            Body::Inner(nodes) => {
                let gone = nodes.iter_mut().position(|node| !node.pop_before(layout, cut, each));
                nodes.drain(..gone.unwrap_or(nodes.len()));
            }
        }
        !self.bound(layout)
    }

    fn each<'a>(&'a self, layout: &'a Layout, each: &mut dyn FnMut(Row<'a>)) {
        match &self.body {
            Body::Leaf(rows) => rows.iter(layout, 0..rows.len(layout)).for_each(each),
            Body::Inner(nodes) => nodes.iter().for_each(|node| node.each(layout, each)),
        }
    }

    fn heap(&self) -> usize {
        let summary = self.summary.iter().flatten().map(|kept| size_of::<Accumulator>() + kept.heap());
        let body = match &self.body {
            Body::Leaf(rows) => rows.heap(),
            Body::Inner(nodes) => {
                nodes.capacity() * size_of::<Self>() + nodes.iter().map(Self::heap).sum::<usize>()
            }
        };
        summary.sum::<usize>() + body
    }
}
