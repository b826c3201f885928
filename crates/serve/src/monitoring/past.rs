//! References that are taken from what a graph itself has carried before.

use std::{collections::BTreeMap, sync::Arc};

use millstream_monitor::{BinRule, HistoryError, Pane, Past, Reference};

use super::{
    time,
    watched::{EdgeWatch, GraphWatch},
};
use crate::project::chain;

/// What the edges of one graph are compared with where that is of the past.
#[derive(Default)]
pub(crate) struct PastReferences {
    edges: BTreeMap<String, Found>,
}

struct Found {
    asked: Asked,
    /// The reference, or why there is none.
    reference: Result<Arc<Reference>, String>,
}

/// What was asked of the past. As long as the same is asked, the answer stays.
#[derive(Clone, Copy, PartialEq)]
struct Asked {
    past: Past,
    bins: BinRule,
    least: u64,
    stretch: (i64, i64),
    /// The hour in which it was asked.
    hour: i64,
}

const HOUR: i64 = 3_600_000_000;

impl PastReferences {
    /// Looks up what edges are compared with at a time, beside a window of this length in microseconds. `over` counts a stretch of the
    /// past: when the stretch has moved, which it does once an hour or never, and once an hour as long as there is too little of it.
    pub(crate) fn look(
        &mut self,
        watch: &GraphWatch,
        (now, window): (i64, i64),
        over: impl Fn(i64, i64) -> Result<Pane, HistoryError>,
    ) {
        self.edges.retain(|name, _| watch.edges.iter().any(|edge| edge.edge == *name && edge.past.is_some()));
        // Edges mostly ask for the same stretch.
        let mut counted: Vec<((i64, i64), Result<Pane, String>)> = Vec::new();
        for edge in &watch.edges {
            let Some(past) = edge.past else { continue };
            let (stretch, hour) = (past.stretch(now, window), now.div_euclid(HOUR));
            let asked = Asked { past, bins: edge.bins, least: edge.criterion.min_rows, stretch, hour };
            if self.edges.get(&edge.edge).is_some_and(|found| found.answers(&asked)) {
                continue;
            }
            let at = counted.iter().position(|(known, _)| *known == stretch).unwrap_or_else(|| {
                counted.push((stretch, over(stretch.0, stretch.1).map_err(|error| chain(&error))));
                counted.len() - 1
            });
            let reference = match &counted[at].1 {
                Ok(pane) => taken(edge, pane, &asked),
                Err(problem) => Err(format!("the past cannot be read: {problem}")),
            };
            self.edges.insert(edge.edge.clone(), Found { asked, reference });
        }
    }

    /// What an edge is compared with, if there is anything.
    pub(crate) fn of<'r>(&'r self, edge: &'r EdgeWatch) -> Option<&'r Reference> {
        match edge.past {
            None => edge.reference.as_deref(),
            Some(_) => self.edges.get(&edge.edge)?.reference.as_deref().ok(),
        }
    }

    /// Why an edge is not compared with the past that it asks for.
    pub(crate) fn missing(&self, edge: &EdgeWatch) -> Option<&str> {
        edge.past?;
        self.edges.get(&edge.edge)?.reference.as_ref().err().map(String::as_str)
    }
}

impl Found {
    fn answers(&self, asked: &Asked) -> bool {
        // Another hour has the same answer where the stretch was over already.
        let over = self.reference.is_ok() && self.asked.stretch.1 <= self.asked.hour * HOUR;
        let hour = if over { self.asked.hour } else { asked.hour };
        self.asked == Asked { hour, ..*asked }
    }
}

/// What was counted of an edge in the past, if there is enough of it.
fn taken(edge: &EdgeWatch, pane: &Pane, asked: &Asked) -> Result<Arc<Reference>, String> {
    let source = format!("{} to {}", time::text(asked.stretch.0), time::text(asked.stretch.1));
    let pane = pane.edges.get(&edge.edge);
    let rows = pane.map_or(0, |pane| pane.rows);
    match pane {
        Some(pane) if rows >= asked.least => {
            Ok(Arc::new(Reference::of_pane(&source, pane.clone(), asked.bins)))
        }
        _ => Err(format!(
            "{rows} rows are kept of {source}: too few to compare with; {} are enough",
            asked.least
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use millstream_monitor::{compare::Criterion, pane::EdgePane};

    use super::*;

    fn watch(pasts: &[Option<Past>]) -> GraphWatch {
        let edge = |(at, past): (usize, &Option<Past>)| EdgeWatch {
            past: *past,
            ..EdgeWatch::new(&format!("edge{at}"), Criterion::default())
        };
        GraphWatch::new("loan", pasts.iter().enumerate().map(edge).collect())
    }

    fn pane(rows: u64) -> Pane {
        let mut pane = Pane::default();
        for edge in ["edge0", "edge1"] {
            pane.edges.insert(edge.to_owned(), EdgePane { rows, ..EdgePane::new() });
        }
        pane
    }

    #[test]
    fn the_past_is_asked_once_an_hour_and_no_more_when_it_cannot_change() {
        let day = Past::Before(Duration::from_secs(24 * 3600));
        let minutes = HOUR / 60;
        let over = Past::Between(0, 2 * HOUR);
        type Case<'c> = (&'c [Option<Past>], u64, &'c [i64], Vec<(i64, i64)>);
        // What edges ask for, how many rows there are, when it is looked, and which stretches are counted then.
        let cases: [Case<'_>; 5] = [
            (&[None], 500, &[0, HOUR], vec![]),
            (
                &[Some(day), Some(day)],
                500,
                &[30 * HOUR, 30 * HOUR + 20 * minutes, 30 * HOUR + 40 * minutes],
                vec![(5 * HOUR, 6 * HOUR), (6 * HOUR, 7 * HOUR)],
            ),
            (&[Some(over)], 500, &[3 * HOUR, 4 * HOUR, 9 * HOUR], vec![(0, 2 * HOUR)]),
            (&[Some(over)], 500, &[HOUR, 2 * HOUR, 3 * HOUR], vec![(0, 2 * HOUR); 2]),
            (&[Some(over)], 99, &[3 * HOUR, 3 * HOUR + 1, 4 * HOUR], vec![(0, 2 * HOUR); 2]),
        ];
        for (pasts, rows, times, expected) in cases {
            let (watch, asked) = (watch(pasts), RefCell::new(Vec::new()));
            let mut references = PastReferences::default();
            for now in times {
                references.look(&watch, (*now, HOUR), |from, to| {
                    asked.borrow_mut().push((from, to));
                    Ok(pane(rows))
                });
                for edge in watch.edges.iter().filter(|edge| edge.past.is_some()) {
                    let enough = rows >= 100;
                    assert_eq!(
                        (references.of(edge).is_some(), references.missing(edge).is_none()),
                        (enough, enough)
                    );
                }
            }
            assert_eq!(asked.into_inner(), expected, "{pasts:?} {times:?}");
        }
    }

    #[test]
    fn why_there_is_no_past_is_said() {
        let watch = watch(&[Some(Past::Between(0, HOUR)), None]);
        let broken = || std::io::Error::other("disk");
        type Answer<'a> = Box<dyn Fn() -> Result<Pane, HistoryError> + 'a>;
        let cases: [(Answer<'_>, &str); 3] = [
            (
                Box::new(|| Ok(pane(99))),
                "99 rows are kept of 1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z: too few",
            ),
            (Box::new(|| Ok(Pane::default())), "0 rows are kept"),
            (
                Box::new(|| {
                    Err(HistoryError::File {
                        file: "loan.panes".into(),
                        doing: "cannot be read",
                        source: broken(),
                    })
                }),
                "the past cannot be read: loan.panes: cannot be read: disk",
            ),
        ];
        for (answer, expected) in cases {
            let mut references = PastReferences::default();
            references.look(&watch, (2 * HOUR, HOUR), |_, _| answer());
            let said = references.missing(&watch.edges[0]).unwrap();
            assert!(said.starts_with(expected), "{said}");
            assert_eq!(references.missing(&watch.edges[1]), None);
        }
    }
}
