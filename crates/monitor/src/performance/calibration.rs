use serde::{Deserialize, Serialize};

use super::roc_auc;

/// Turns scores into probabilities: the share of positives that a score stood for in the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Calibrator {
    /// The scores are probabilities as they are.
    Identity,
    /// Isotonic regression.
    Isotonic(Isotonic),
}

/// The non-decreasing function of a score that is nearest, by squared error, to the labels of the reference.
///
/// Linear between the scores of the reference, constant beyond them.
///
/// ```
/// use millstream_monitor::performance::Isotonic;
///
/// let rows = [(0.1, false), (0.2, true), (0.3, false), (0.4, true)];
/// let isotonic = Isotonic::fit(&rows).unwrap();
/// assert_eq!(isotonic.calibrate(0.0), 0.0);
/// assert_eq!(isotonic.calibrate(0.25), 0.5);
/// assert_eq!(isotonic.calibrate(1.0), 1.0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Isotonic {
    /// (Score, probability) with rising scores.
    points: Vec<(f64, f64)>,
}

/// Rounds of the comparison that [`needs_calibration`] makes.
const SPLITS: u64 = 10;
/// One row of so many is held out in each round.
const HELD_OUT: usize = 10;
/// Bins of the calibration error, of equal numbers of rows.
const ERROR_BINS: usize = 10;
/// Scores closer than this are one score.
const RESOLUTION: f64 = 1e-15;

impl Calibrator {
    /// Isotonic regression if [`needs_calibration`], else the identity. Rows are (score, is positive).
    pub fn fit(rows: &[(f64, bool)]) -> Self {
        let isotonic = || Isotonic::fit(rows).map(Self::Isotonic);
        needs_calibration(rows).then(isotonic).flatten().unwrap_or(Self::Identity)
    }

    /// The probability that a score stands for.
    pub fn calibrate(&self, score: f64) -> f64 {
        match self {
            Self::Identity => score,
            Self::Isotonic(isotonic) => isotonic.calibrate(score),
        }
    }
}

impl Isotonic {
    /// Fits (score, is positive) rows; none without a row whose score is a number.
    pub fn fit(rows: &[(f64, bool)]) -> Option<Self> {
        let mut points: Vec<(f64, f64)> = Vec::new();
        let blocks = pooled(&distinct(rows));
        for Block { first, last, sum, rows } in blocks {
            points.push((first, sum / rows));
            if last > first {
                points.push((last, sum / rows));
            }
        }
        (!points.is_empty()).then_some(Self { points })
    }

    /// The probability that a score stands for; no number for what is no number.
    pub fn calibrate(&self, score: f64) -> f64 {
        let next = self.points.partition_point(|point| point.0 < score);
        match (self.points.get(next.wrapping_sub(1)), self.points.get(next)) {
            _ if score.is_nan() => f64::NAN,
            (Some(&(x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) / (x1 - x0) * (score - x0),
            (Some(point), None) | (None, Some(point)) => point.1,
            (None, None) => f64::NAN,
        }
    }
}

/// Whether isotonic calibration lowers the expected calibration error on rows that it was not fitted to.
///
/// In ten rounds a tenth of each class is held out, calibrated by the rest, and all held-out rows together are
/// compared before and after. Rows of one class, with fewer than two rows of a class, or ranked all but perfectly
/// (ROC AUC above 0.999) need none. The rounds are drawn from a fixed seed, so the same rows give the same answer.
pub fn needs_calibration(rows: &[(f64, bool)]) -> bool {
    let rows: Vec<_> = rows.iter().copied().filter(|row| row.0.is_finite()).collect();
    let (positives, negatives): (Vec<_>, Vec<_>) = rows.iter().copied().partition(|row| row.1);
    if positives.len() < 2 || negatives.len() < 2 || roc_auc(&rows).is_none_or(|area| area > 0.999) {
        return false;
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut random = Random(42);
    let mut classes = [positives, negatives];
    for _ in 0..SPLITS {
        let (mut fitted, mut held_out) = (Vec::with_capacity(rows.len()), Vec::new());
        for class in &mut classes {
            random.shuffle(class);
            // At least one row of each class on either side.
            let (test, train) = class.split_at((class.len() / HELD_OUT).max(1));
            held_out.extend_from_slice(test);
            fitted.extend_from_slice(train);
        }
        let Some(isotonic) = Isotonic::fit(&fitted) else { return false };
        after.extend(held_out.iter().map(|&(score, label)| (isotonic.calibrate(score), label)));
        before.append(&mut held_out);
    }
    calibration_error(before) > calibration_error(after)
}

/// Rows of one score, or of several that isotonic regression has pooled.
#[derive(Clone, Copy)]
struct Block {
    first: f64,
    last: f64,
    sum: f64,
    rows: f64,
}

/// One block per distinct score, by score.
fn distinct(rows: &[(f64, bool)]) -> Vec<Block> {
    let mut rows: Vec<_> = rows.iter().copied().filter(|row| row.0.is_finite()).collect();
    rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut blocks: Vec<Block> = Vec::new();
    for (score, positive) in rows {
        let sum = f64::from(u8::from(positive));
        match blocks.last_mut() {
            Some(block) if score - block.first < RESOLUTION => {
                block.sum += sum;
                block.rows += 1.0;
            }
            _ => blocks.push(Block { first: score, last: score, sum, rows: 1.0 }),
        }
    }
    blocks
}

/// Pools adjacent blocks until their means rise.
fn pooled(blocks: &[Block]) -> Vec<Block> {
    let mut stack: Vec<Block> = Vec::new();
    for &block in blocks {
        let mut block = block;
        while let Some(before) = stack.last().copied()
            && before.sum * block.rows >= block.sum * before.rows
        {
            stack.pop();
            block = Block {
                first: before.first,
                last: block.last,
                sum: before.sum + block.sum,
                rows: before.rows + block.rows,
            };
        }
        stack.push(block);
    }
    stack
}

/// Expected calibration error over bins of equal numbers of rows, by probability; the last bin takes the remainder.
fn calibration_error(mut rows: Vec<(f64, bool)>) -> f64 {
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let bins = if rows.len() <= 2 * ERROR_BINS { rows.len() / 2 } else { ERROR_BINS };
    let width = (rows.len() / bins.max(1)).max(1);
    let full = rows.len() / width;
    let bin = |index: usize| {
        let end = if index + 1 == full { rows.len() } else { (index + 1) * width };
        let bin = &rows[index * width..end];
        let distance: f64 = bin.iter().map(|&(p, label)| p - f64::from(u8::from(label))).sum();
        distance.abs()
    };
    (0..full).map(bin).sum::<f64>() / rows.len().max(1) as f64
}

/// SplitMix64: repeatable, and good enough to shuffle.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let chosen = (u128::from(self.next()) * (last as u128 + 1)) >> 64;
            items.swap(last, chosen as usize);
        }
    }
}
