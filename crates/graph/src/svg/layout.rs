//! A layered layout: columns from left to right, few crossings, long edges in lanes between the boxes.

use std::collections::{BTreeMap, BTreeSet};

const MARGIN: f64 = 12.0;
/// Between two columns, without labels.
const COLUMN_GAP: f64 = 44.0;
/// Between two boxes of a column; a lane needs less.
const BOX_GAP: f64 = 22.0;
const LANE_GAP: f64 = 14.0;
const LANE_HEIGHT: f64 = 4.0;
/// How much more a lane pulls than a box: long edges should be straight.
const LANE_WEIGHT: f64 = 4.0;
const SWEEPS: usize = 12;

/// Something that has a place: a box, or a lane where an edge passes a column.
pub(super) struct Item {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    /// The middle.
    pub(super) y: f64,
    column_width: f64,
    layer: usize,
    is_lane: bool,
}

impl Item {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, left: 0.0, y: 0.0, column_width: 0.0, layer: 0, is_lane: false }
    }

    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    /// Where the gap to the next column begins.
    pub(super) fn column_right(&self) -> f64 {
        self.left + (self.width + self.column_width) / 2.0
    }

    fn gap(&self, below: &Item) -> f64 {
        let gap = if self.is_lane || below.is_lane { LANE_GAP } else { BOX_GAP };
        (self.height + below.height) / 2.0 + gap
    }

    fn weight(&self) -> f64 {
        if self.is_lane { LANE_WEIGHT } else { 1.0 }
    }
}

/// Per item, the items it is connected to on one side, and how much lower than this one's middle they would make the edge
/// straight.
type Near = Vec<Vec<(usize, f64)>>;

/// Where an edge leaves its item: how far below the middle, and how wide its label is.
pub(super) struct Leaves {
    pub(super) below: f64,
    pub(super) label: f64,
}

/// Where everything stands. `W` tells apart the edges that leave one item.
pub(super) struct Layout<W> {
    /// The items given, in their order, and then the lanes.
    pub(super) items: Vec<Item>,
    /// From item to item of the next column.
    pub(super) segments: Vec<(usize, W, usize)>,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl<W: Copy + Ord> Layout<W> {
    /// Places items whose wires all lead from an earlier item to a later one.
    pub(super) fn new(
        items: Vec<Item>,
        wires: &BTreeSet<(usize, W, usize)>,
        leaves: impl Fn(usize, &W) -> Leaves,
    ) -> Self {
        let mut layout = Self { items, segments: Vec::new(), width: 0.0, height: 0.0 };
        layout.assign_layers(wires);
        layout.add_lanes(wires);
        let mut before: Near = vec![Vec::new(); layout.items.len()];
        let mut after = before.clone();
        for (from, wire, to) in &layout.segments {
            let below = leaves(*from, wire).below;
            before[*to].push((*from, below));
            after[*from].push((*to, -below));
        }
        let columns = layout.order(&before, &after);
        layout.place_rows(&columns, &before, &after);
        layout.place_columns(&columns, leaves);
        layout
    }

    /// The longest way from a source; items without one then move right, next to their first reader.
    fn assign_layers(&mut self, wires: &BTreeSet<(usize, W, usize)>) {
        let mut given = vec![Vec::new(); self.items.len()];
        let mut readers = vec![Vec::new(); self.items.len()];
        for &(from, _, to) in wires {
            given[to].push(from);
            readers[from].push(to);
        }
        for (at, given) in given.iter().enumerate() {
            let layer = given.iter().map(|&from| self.items[from].layer + 1).max();
            self.items[at].layer = layer.unwrap_or(0);
        }
        // What only depends on a second source (the error handler's) need not stand at the far left.
        let mut free = vec![false; self.items.len()];
        for at in 1..self.items.len() {
            free[at] = given[at].iter().all(|&from| free[from]);
        }
        for at in (1..self.items.len()).rev().filter(|&at| free[at]) {
            if let Some(next) = readers[at].iter().map(|&to| self.items[to].layer).min() {
                self.items[at].layer = next.saturating_sub(1);
            }
        }
    }

    /// Cuts edges that pass columns into segments; edges that leave the same port alike share their lanes.
    fn add_lanes(&mut self, wires: &BTreeSet<(usize, W, usize)>) {
        let mut lanes = BTreeMap::new();
        let mut segments = BTreeSet::new();
        for &(from, wire, to) in wires {
            let mut last = from;
            for layer in self.items[from].layer + 1..self.items[to].layer {
                let lane = *lanes.entry((from, wire, layer)).or_insert_with(|| {
                    self.items.push(Item { layer, is_lane: true, ..Item::new(0.0, LANE_HEIGHT) });
                    self.items.len() - 1
                });
                segments.insert((last, wire, lane));
                last = lane;
            }
            segments.insert((last, wire, to));
        }
        self.segments = segments.into_iter().collect();
    }

    /// Orders each column by the mean of its neighbours, sweeping to and fro, and keeps the order with fewest crossings.
    fn order(&self, before: &Near, after: &Near) -> Vec<Vec<usize>> {
        let layers = self.items.iter().map(|item| item.layer + 1).max().unwrap_or(0);
        let mut columns = vec![Vec::new(); layers];
        for (at, item) in self.items.iter().enumerate() {
            columns[item.layer].push(at);
        }
        let mut rank = vec![0usize; self.items.len()];
        let number = |columns: &[Vec<usize>], rank: &mut [usize]| {
            columns
                .iter()
                .for_each(|column| column.iter().enumerate().for_each(|(at, &item)| rank[item] = at));
        };
        number(&columns, &mut rank);
        let mut best = (crossings(&columns, &rank, after), columns.clone());
        for sweep in 0..SWEEPS {
            let forth = sweep % 2 == 0;
            let near = if forth { before } else { after };
            for step in 0..layers {
                let column = &mut columns[if forth { step } else { layers - 1 - step }];
                let mean = |at: usize| match near[at].len() {
                    0 => rank[at] as f64,
                    some => {
                        near[at].iter().map(|&(other, below)| ranked(rank[other], below)).sum::<f64>()
                            / some as f64
                    }
                };
                let mut keyed: Vec<_> = column.iter().map(|&at| (mean(at), at)).collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                *column = keyed.into_iter().map(|(_, at)| at).collect();
                column.iter().enumerate().for_each(|(at, &item)| rank[item] = at);
            }
            let crossings = crossings(&columns, &rank, after);
            if crossings < best.0 {
                best = (crossings, columns.clone());
            }
        }
        best.1
    }

    /// Moves every item towards its neighbours, sweeping to and fro, keeping the order and the gaps of its column.
    fn place_rows(&mut self, columns: &[Vec<usize>], before: &Near, after: &Near) {
        for column in columns {
            let wanted = vec![0.0; column.len()];
            self.settle(column, &wanted);
        }
        for sweep in 0..2 * SWEEPS {
            let forth = sweep % 2 == 0;
            for step in 0..columns.len() {
                let column = &columns[if forth { step } else { columns.len() - 1 - step }];
                let near = |at: usize| match (forth, sweep < SWEEPS) {
                    (true, true) => (&before[at][..], &[][..]),
                    (false, true) => (&after[at][..], &[][..]),
                    (_, false) => (&before[at][..], &after[at][..]),
                };
                let mean = |at: usize| {
                    let (a, b) = near(at);
                    let all = a.iter().chain(b);
                    match a.len() + b.len() {
                        0 => self.items[at].y,
                        some => {
                            all.map(|&(other, below)| self.items[other].y + below).sum::<f64>() / some as f64
                        }
                    }
                };
                let wanted: Vec<_> = column.iter().map(|&at| mean(at)).collect();
                self.settle(column, &wanted);
            }
        }
        // What follows one item alone stands straight behind it, where there is room.
        for column in columns {
            let straight = |at: &usize| match before[*at][..] {
                [(other, below)] => self.items[other].y + below,
                _ => self.items[*at].y,
            };
            let wanted: Vec<_> = column.iter().map(straight).collect();
            self.settle(column, &wanted);
        }
        let top = self.items.iter().map(|item| item.y - item.height / 2.0).fold(f64::INFINITY, f64::min);
        self.items.iter_mut().for_each(|item| item.y += MARGIN - top);
        self.height = self.items.iter().map(|item| item.y + item.height / 2.0).fold(0.0, f64::max) + MARGIN;
    }

    /// Puts the items of a column as near as possible to where they want to be: isotonic regression over the offsets
    /// that remain once every item above has had its height and gap.
    fn settle(&mut self, column: &[usize], wanted: &[f64]) {
        let mut offsets = vec![0.0; column.len()];
        for at in 1..column.len() {
            offsets[at] = offsets[at - 1] + self.items[column[at - 1]].gap(&self.items[column[at]]);
        }
        // Blocks of items that touch: mean of what they want, weight, first item.
        let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
        for at in 0..column.len() {
            let mut block = (wanted[at] - offsets[at], self.items[column[at]].weight(), at);
            while let Some(&above) = blocks.last().filter(|above| above.0 > block.0) {
                let weight = above.1 + block.1;
                block = ((above.0 * above.1 + block.0 * block.1) / weight, weight, above.2);
                blocks.pop();
            }
            blocks.push(block);
        }
        let ends = blocks.iter().skip(1).map(|block| block.2).chain([column.len()]);
        for (block, end) in blocks.iter().zip(ends) {
            for at in block.2..end {
                self.items[column[at]].y = block.0 + offsets[at];
            }
        }
    }

    /// Columns are as wide as their widest box; gaps leave room for labels and for edges that climb far.
    fn place_columns(&mut self, columns: &[Vec<usize>], leaves: impl Fn(usize, &W) -> Leaves) {
        let mut gaps = vec![COLUMN_GAP; columns.len()];
        for (from, wire, to) in &self.segments {
            let climb = (self.items[*from].y - self.items[*to].y).abs();
            let gap = COLUMN_GAP + leaves(*from, wire).label + f64::min(climb * 0.12, 48.0);
            let layer = self.items[*from].layer;
            gaps[layer] = f64::max(gaps[layer], gap);
        }
        let mut x = MARGIN;
        for (column, gap) in columns.iter().zip(gaps) {
            let width = column.iter().map(|&at| self.items[at].width).fold(0.0, f64::max);
            for &at in column {
                let item = &mut self.items[at];
                item.column_width = width;
                item.left = x + (width - item.width) / 2.0;
                if item.is_lane {
                    (item.left, item.width) = (x, width);
                }
            }
            self.width = x + width + MARGIN;
            x += width + gap;
        }
    }
}

/// The rank of an edge's end: that of its item, a little earlier or later for the higher or lower ports of one item.
fn ranked(rank: usize, below: f64) -> f64 {
    rank as f64 + below / 1e4
}

/// How many edges cross, over all columns.
fn crossings(columns: &[Vec<usize>], rank: &[usize], after: &Near) -> usize {
    let mut count = 0;
    for column in columns {
        let mut seen: Vec<usize> = Vec::new();
        for &at in column {
            // From the highest port to the lowest: those of one item can cross, too.
            let mut ends: Vec<_> = after[at].iter().map(|&(to, above)| (-above, rank[to])).collect();
            ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (_, end) in ends {
                let place = seen.partition_point(|other| *other <= end);
                count += seen.len() - place;
                seen.insert(place, end);
            }
        }
    }
    count
}
