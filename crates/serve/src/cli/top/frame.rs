//! One frame of `millstream top`, as lines of text.

use crate::stats::{GraphStats, StepStats};

/// Cells of a bar that is full.
const BAR: usize = 20;
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// What is shown.
pub(super) struct Frame {
    pub(super) server: String,
    pub(super) graphs: Vec<GraphStats>,
    /// The graph whose steps are shown.
    pub(super) selected: usize,
    /// Why the figures are old.
    pub(super) problem: Option<String>,
}

impl Frame {
    /// Shows another graph's steps.
    pub(super) fn choose(&mut self, by: isize) {
        let last = self.graphs.len().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(by).min(last);
    }

    /// Takes new figures; the selected graph stays so if it is still there.
    pub(super) fn renew(&mut self, graphs: Vec<GraphStats>) {
        let name = self.graphs.get(self.selected).map(|graph| &graph.graph);
        let at = graphs.iter().position(|graph| Some(&graph.graph) == name);
        (self.selected, self.problem) = (at.unwrap_or(0), None);
        self.graphs = graphs;
    }
}

/// The frame on so many columns and rows.
pub(super) fn frame(shown: &Frame, (columns, rows): (u16, u16)) -> Vec<String> {
    let window = shown.graphs.first().map_or(0.0, |graph| graph.window);
    let mut lines = vec![format!("millstream top   {}   last {window:.0} s", shown.server)];
    lines.push(shown.problem.clone().unwrap_or_default());
    let head = ["req/s", "p50", "p99", "in flight", "waiting", "rows/run", "degraded", "refused", "failed"];
    let mut table = vec![[&["graph"], &head[..]].concat().iter().map(|cell| (*cell).to_owned()).collect()];
    table.extend(shown.graphs.iter().map(of_graph));
    for (at, line) in aligned(&table, 1).into_iter().enumerate() {
        lines.push(format!("{} {line}", if at == shown.selected + 1 { '>' } else { ' ' }));
    }
    if let Some(graph) = shown.graphs.get(shown.selected) {
        let head = ["step", "kind", "part of the time", "p50", "p99", "errors", "bad rows", "degraded"];
        let mut table = vec![head.iter().map(|cell| (*cell).to_owned()).collect()];
        table.extend(graph.steps.iter().map(of_step));
        lines.push(String::new());
        lines.extend(aligned(&table, 3).into_iter().map(|line| format!("  {line}")));
    }
    lines.push(String::new());
    lines.push("up, down: another graph   q: end".to_owned());
    lines.truncate(usize::from(rows));
    for line in &mut lines {
        *line =
            line.chars().map(printable).take(usize::from(columns)).collect::<String>().trim_end().to_owned();
    }
    lines
}

fn of_graph(graph: &GraphStats) -> Vec<String> {
    vec![
        graph.graph.clone(),
        format!("{:.1}", graph.requests_per_second),
        time(graph.latency_seconds.p50),
        time(graph.latency_seconds.p99),
        graph.in_flight.to_string(),
        graph.waiting.to_string(),
        format!("{:.1}", graph.rows_per_run),
        graph.degraded.to_string(),
        graph.refused.to_string(),
        graph.failed.to_string(),
    ]
}

fn of_step(step: &StepStats) -> Vec<String> {
    vec![
        step.name.clone(),
        step.kind.clone(),
        format!("{} {:>5.1}%", bar(step.share), step.share * 100.0),
        time(step.seconds.p50),
        time(step.seconds.p99),
        step.errors.to_string(),
        step.failed_rows.to_string(),
        step.degraded.to_string(),
    ]
}

/// The cells of a table below one another: the first `left` columns begin at their left, the others end at their right.
fn aligned(table: &[Vec<String>], left: usize) -> Vec<String> {
    let wide = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.first().map_or(0, Vec::len)).map(wide).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < left { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    table.iter().map(line).collect()
}

/// A part of a whole, to an eighth of a cell.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    format!("{bar:BAR$}")
}

/// Seconds as people read them.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 999.5e-9 => format!("{:.0} ns", seconds * 1e9),
        Some(seconds) if seconds < 999.5e-6 => format!("{:.1} us", seconds * 1e6),
        Some(seconds) if seconds < 0.9995 => format!("{:.2} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.2} s"),
    }
}

/// Names come from the server; none of them moves the cursor.
fn printable(char: char) -> char {
    if char.is_control() { '?' } else { char }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::stats::Percentiles;

    fn percentiles(p50: f64, p99: f64) -> Percentiles {
        Percentiles { count: 1000, p50: Some(p50), p99: Some(p99), ..Percentiles::default() }
    }

    fn step(name: &str, kind: &str, share: f64, p50: f64) -> StepStats {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        StepStats { name, kind, share, seconds: percentiles(p50, 3.0 * p50), ..StepStats::default() }
    }

    fn shown() -> Frame {
        let fraud = GraphStats {
            graph: "fraud".to_owned(),
            window: 10.0,
            requests_per_second: 49_903.4,
            latency_seconds: percentiles(312.4e-6, 1.25e-3),
            in_flight: 16,
            waiting: 3,
            rows_per_run: 5.12,
            degraded: 2,
            refused: 7,
            failed: 1,
            steps: vec![
                step("enriched", "enrich", 0.0702, 640e-9),
                step("lgbm", "model", 0.5, 8.1e-6),
                StepStats { errors: 4, failed_rows: 9, ..step("decided\u{1b}[2J", "select", 0.0, 0.0999) },
            ],
            ..GraphStats::default()
        };
        let loan = GraphStats { graph: "loan-approval".to_owned(), ..GraphStats::default() };
        Frame {
            server: "http://127.0.0.1:8080/".to_owned(),
            graphs: vec![fraud, loan],
            selected: 0,
            problem: None,
        }
    }

    #[track_caller]
    fn check(shown: &Frame, size: (u16, u16), expected: &Expect) {
        expected.assert_eq(&frame(shown, size).join("\n"));
    }

    #[test]
    fn a_frame_has_the_graphs_and_the_steps_of_the_selected_one() {
        check(
            &shown(),
            (120, 40),
            &expect![[r#"
            millstream top   http://127.0.0.1:8080/   last 10 s

              graph            req/s       p50      p99  in flight  waiting  rows/run  degraded  refused  failed
            > fraud          49903.4  312.4 us  1.25 ms         16        3       5.1         2        7       1
              loan-approval      0.0         -        -          0        0       0.0         0        0       0

              step         kind    part of the time                  p50        p99  errors  bad rows  degraded
              enriched     enrich  █▍                     7.0%    640 ns     1.9 us       0         0         0
              lgbm         model   ██████████            50.0%    8.1 us    24.3 us       0         0         0
              decided?[2J  select                         0.0%  99.90 ms  299.70 ms       4         9         0

            up, down: another graph   q: end"#]],
        );
    }

    #[test]
    fn a_frame_is_cut_to_the_terminal_and_says_why_figures_are_old() {
        let mut shown = shown();
        shown.choose(5);
        shown.problem = Some("127.0.0.1:8080 cannot be reached".to_owned());
        check(
            &shown,
            (60, 7),
            &expect![[r#"
            millstream top   http://127.0.0.1:8080/   last 10 s
            127.0.0.1:8080 cannot be reached
              graph            req/s       p50      p99  in flight  wait
              fraud          49903.4  312.4 us  1.25 ms         16
            > loan-approval      0.0         -        -          0

              step  kind  part of the time  p50  p99  errors  bad rows"#]],
        );
    }

    #[test]
    fn the_selected_graph_stays_selected_while_it_is_there() {
        let mut shown = shown();
        shown.choose(1);
        let graphs: Vec<_> = shown.graphs.iter().rev().cloned().collect();
        shown.renew(graphs);
        assert_eq!((shown.selected, shown.graphs[0].graph.as_str()), (0, "loan-approval"));
        shown.choose(-3);
        shown.renew(Vec::new());
        shown.choose(1);
        assert_eq!(shown.selected, 0);
    }

    #[test]
    fn bars_grow_by_eighths_and_never_beyond_their_cells() {
        for share in [-1.0, 0.0, 0.001, 0.0063, 0.33, 0.999, 1.0, 7.0, f64::NAN] {
            assert_eq!(bar(share).chars().count(), BAR, "{share}");
        }
        assert_eq!(
            (bar(1.0).trim_end(), bar(0.5 / 160.0 + 0.5).trim_end()),
            (&*"█".repeat(20), "██████████▏")
        );
    }
}
