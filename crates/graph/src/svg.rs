//! A plan as a picture: a standalone SVG that follows the reader's light or dark mode.

mod layout;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use self::layout::{Item, Layout, Leaves};
use crate::{
    Phase, Plan, PlanStep, Source,
    graph::{ERROR_PORT, INPUT, ON_ERROR},
};

const STYLE: &str = "\
text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;text-anchor:middle}\
.name{font-size:13px;font-weight:600;fill:#1e293b}.kind{font-size:11px;fill:#64748b}\
.port{font-size:11px;fill:#64748b;text-anchor:start}\
.box{fill:#f8fafc;stroke:#94a3b8;stroke-width:1.25}.route{fill:#fffbeb;stroke:#d97706}\
.end{fill:#e0f2fe;stroke:#0284c7}.fault{fill:#fef2f2;stroke:#dc2626}.tail{stroke-dasharray:5 4}\
.edge{fill:none;stroke:#94a3b8;stroke-width:1.5}.edge.fails{stroke:#dc2626;stroke-dasharray:1 4;stroke-linecap:round}\
.head{fill:#94a3b8}.head.fails{fill:#dc2626}.port.fails{fill:#dc2626}\
@media (prefers-color-scheme:dark){\
.name{fill:#e2e8f0}.kind,.port{fill:#94a3b8}.box{fill:#1e293b;stroke:#64748b}.route{fill:#3b2a0b;stroke:#d97706}\
.end{fill:#0c3a55;stroke:#38bdf8}.fault{fill:#3f1519;stroke:#f87171}.edge{stroke:#64748b}.head{fill:#64748b}\
.edge.fails{stroke:#f87171}.head.fails,.port.fails{fill:#f87171}}";

/// How far the sides of a routing step point outwards.
const POINT: f64 = 12.0;
/// Between the out-ports of one step.
const PORT_GAP: f64 = 22.0;
/// The room of a line below the steps, and before it.
const LINE: f64 = 18.0;

/// Where an edge leaves its item, and how it looks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wire {
    /// Position among the out-ports of the item that have readers.
    slot: usize,
    style: &'static str,
}

/// One end of the picture, one step, or one place where a long edge passes between steps.
struct Shape<'p> {
    step: Option<&'p PlanStep>,
    name: &'p str,
    class: &'static str,
    outline: Outline,
    /// The labels of the out-ports that have readers; empty text for the only one.
    ports: Vec<&'p str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Outline {
    Box,
    Route,
    Pill,
}

impl Plan {
    /// The plan as a standalone SVG: left to right, error edges dotted, the tail dashed.
    ///
    /// It needs no script and no font, and follows the reader's light or dark mode. The same plan gives the same text.
    pub fn svg(&self) -> String {
        let (shapes, wires) = self.shapes();
        let items = shapes.iter().map(Shape::item).collect();
        let leaves = |from: usize, wire: &Wire| match shapes.get(from) {
            None => Leaves { below: 0.0, label: 0.0 },
            Some(shape) => Leaves {
                below: shape.below_middle(wire.slot),
                label: shape.ports.get(wire.slot).map_or(0.0, |label| label_width(label)),
            },
        };
        let layout = Layout::new(items, &wires, leaves);
        let stream =
            self.stream.as_ref().map(|stream| format!("stream: {}", stream.told(&self.input, &self.reply)));
        let (width, height) = match &stream {
            Some(line) => (layout.width.max(label_width(line) + 2.0 * LINE), layout.height + LINE),
            None => (layout.width, layout.height),
        };
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n",
            escaped(&self.name),
            w = width.ceil(),
            h = height.ceil(),
        );
        draw_edges(&mut text, &shapes, &layout);
        for (shape, item) in shapes.iter().zip(&layout.items) {
            draw_shape(&mut text, shape, item);
        }
        if let Some(line) = stream {
            let y = height - LINE / 2.0;
            let _ =
                writeln!(text, "<text class=\"port\" x=\"{LINE:.1}\" y=\"{y:.1}\">{}</text>", escaped(&line));
        }
        text + "</svg>\n"
    }

    /// What to draw: the ends, then the steps in their order; and from where to where edges go.
    fn shapes(&self) -> (Vec<Shape<'_>>, BTreeSet<(usize, Wire, usize)>) {
        let end = |name, class| Shape { step: None, name, class, outline: Outline::Pill, ports: vec![""] };
        let mut shapes = vec![end(INPUT, "box end")];
        if !self.handler_edges.is_empty() {
            shapes.push(end(ON_ERROR, "box fault"));
        }
        let first = shapes.len();
        let only_on_error = self.only_on_error();
        // The slot of each out-port that has readers; the error port comes last.
        let mut slots = BTreeMap::new();
        for (id, step) in self.steps.iter().enumerate() {
            let error = step.outputs.len();
            let ports = step
                .outputs
                .iter()
                .chain([&step.error])
                .enumerate()
                .filter(|(_, port)| !port.edges.is_empty());
            let ports: Vec<_> = ports.collect();
            slots.extend(ports.iter().enumerate().map(|(slot, (at, _))| ((id, *at), slot)));
            let named = |at: usize| at == error || step.outputs.len() > 1;
            let routes = step.routes();
            shapes.push(Shape {
                step: Some(step),
                name: &step.name,
                class: match (id == self.respond.index(), step.phase) {
                    (true, _) => "box end",
                    (_, Phase::Tail) if only_on_error[id] => "box fault tail",
                    (_, Phase::Tail) => "box tail",
                    _ if only_on_error[id] => "box fault",
                    _ if routes => "box route",
                    _ => "box",
                },
                outline: match id == self.respond.index() {
                    true => Outline::Pill,
                    false if routes => Outline::Route,
                    false => Outline::Box,
                },
                ports: ports
                    .iter()
                    .map(|(at, port)| if named(*at) { port.name.as_str() } else { "" })
                    .collect(),
            });
        }
        let wire = |edge: &crate::Edge| {
            let to = first + edge.to.index();
            let style = if self.steps[edge.to.index()].phase == Phase::Tail { "edge tail" } else { "edge" };
            let slot = |step: crate::StepId, port| slots.get(&(step.index(), port)).copied().unwrap_or(0);
            match edge.from {
                Source::Input => (0, Wire { slot: 0, style }, to),
                Source::Handler => (1, Wire { slot: 0, style: "edge fails" }, to),
                Source::Port(step, port) => {
                    (first + step.index(), Wire { slot: slot(step, port), style }, to)
                }
                Source::Error(step) => {
                    let port = self.steps[step.index()].outputs.len();
                    (first + step.index(), Wire { slot: slot(step, port), style: "edge fails" }, to)
                }
            }
        };
        let wires = self.edges.iter().map(wire).collect();
        (shapes, wires)
    }
}

impl PlanStep {
    /// Whether the step decides where rows go rather than what they are.
    pub(crate) fn routes(&self) -> bool {
        self.outputs.len() > 1 || matches!(self.kind, "when" | "choose" | "filter" | "validate")
    }
}

impl Shape<'_> {
    fn item(&self) -> Item {
        let kind = self.kind().map_or(0.0, |kind| text_width(kind, 6.2));
        let padding = if self.outline == Outline::Box { 28.0 } else { 40.0 };
        let height = if self.kind().is_some() { 44.0 } else { 32.0 };
        let width = text_width(self.name, 7.6).max(kind) + padding;
        Item::new(width.max(88.0), f64::max(height, self.ports.len() as f64 * PORT_GAP + 8.0))
    }

    /// The second line; a pill's outline says it.
    fn kind(&self) -> Option<&'static str> {
        self.step.filter(|_| self.outline != Outline::Pill).map(|step| step.kind)
    }

    /// Where an out-port stands on the outline.
    fn port_at(&self, item: &Item, slot: usize) -> (f64, f64) {
        let below = self.below_middle(slot);
        let inwards =
            if self.outline == Outline::Route { POINT * below.abs() / (item.height / 2.0) } else { 0.0 };
        (item.right() - inwards, item.y + below)
    }

    fn below_middle(&self, slot: usize) -> f64 {
        (slot as f64 - (self.ports.len().max(1) as f64 - 1.0) / 2.0) * PORT_GAP
    }
}

fn draw_shape(text: &mut String, shape: &Shape<'_>, item: &Item) {
    let (left, right, top, bottom) =
        (item.left, item.right(), item.y - item.height / 2.0, item.y + item.height / 2.0);
    let class = shape.class;
    let (width, height) = (item.width, item.height);
    let _ = match shape.outline {
        Outline::Route => {
            let (l, r, y) = (left + POINT, right - POINT, item.y);
            writeln!(
                text,
                "<path class=\"{class}\" d=\"M{l:.1} {top:.1}H{r:.1}L{right:.1} {y:.1}L{r:.1} {bottom:.1}H{l:.1}L{left:.1} {y:.1}Z\"/>"
            )
        }
        outline => {
            let radius = if outline == Outline::Pill { height / 2.0 } else { 8.0 };
            let place = format!("x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"");
            writeln!(text, "<rect class=\"{class}\" {place} rx=\"{radius:.1}\"/>")
        }
    };
    let x = (left + right) / 2.0;
    let name_at = item.y + if shape.kind().is_some() { -2.0 } else { 4.5 };
    let _ =
        writeln!(text, "<text class=\"name\" x=\"{x:.1}\" y=\"{name_at:.1}\">{}</text>", escaped(shape.name));
    if let Some(kind) = shape.kind() {
        let y = item.y + 14.0;
        let _ = writeln!(text, "<text class=\"kind\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(kind));
    }
}

fn draw_edges(text: &mut String, shapes: &[Shape<'_>], layout: &Layout<Wire>) {
    let mut labelled = BTreeSet::new();
    let mut heads = BTreeMap::new();
    for &(from, wire, to) in &layout.segments {
        let (source, target) = (&layout.items[from], &layout.items[to]);
        let Wire { slot, style } = wire;
        let mut path = String::new();
        let (mut x, y) = match shapes.get(from) {
            None => (source.right(), source.y),
            Some(shape) => shape.port_at(source, slot),
        };
        let _ = write!(path, "M{x:.1} {y:.1}");
        if let Some(label) =
            shapes.get(from).and_then(|shape| shape.ports.get(slot)).filter(|label| !label.is_empty())
        {
            // The edge keeps straight under its label.
            if labelled.insert((from, slot)) {
                let class = if style == "edge fails" && *label == ERROR_PORT { "port fails" } else { "port" };
                let (x, y) = (x + 7.0, y - 4.0);
                let _ = writeln!(
                    text,
                    "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
                    escaped(label)
                );
            }
            x += label_width(label);
            let _ = write!(path, "H{x:.1}");
        }
        let is_lane = to >= shapes.len();
        let end = target.left - if is_lane { 0.0 } else { 6.0 };
        // Straight up to the column's gap, so that the bend never meets a box that is wider than its own.
        let bend = x.max(source.column_right());
        let middle = (bend + end) / 2.0;
        let y_end = target.y;
        let _ = write!(path, "H{bend:.1}C{middle:.1} {y:.1} {middle:.1} {y_end:.1} {end:.1} {y_end:.1}");
        if is_lane {
            let _ = write!(path, "H{:.1}", target.column_right());
        } else {
            // Where several edges end, the head is that of the plainest.
            let head = if style == "edge fails" { "head fails" } else { "head" };
            let best = heads.entry(to).or_insert(head);
            *best = head.min(best);
        }
        let _ = writeln!(text, "<path class=\"{style}\" d=\"{path}\"/>");
    }
    for (to, class) in heads {
        let (x, y) = (layout.items[to].left, layout.items[to].y);
        let _ = writeln!(text, "<path class=\"{class}\" d=\"M{x:.1} {y:.1}l-8 -4.5v9z\"/>");
    }
}

fn label_width(label: &str) -> f64 {
    if label.is_empty() { 0.0 } else { text_width(label, 6.0) + 12.0 }
}

/// About how wide a text is set; the reader's font is not known.
fn text_width(text: &str, per_char: f64) -> f64 {
    // Characters of East Asian scripts and symbols are twice as wide.
    text.chars().map(|c| if c < '\u{1100}' { per_char } else { per_char * 1.8 }).sum()
}

/// Text inside XML; what XML cannot hold becomes a replacement character.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
