//! The metrics of Triton and of KServe, for dashboards and alerts that chart them. What they count is counted already; this writes it
//! under their names, when it is asked for.

use std::fmt::{Display, Write};

use millstream_runtime::Totals;

use super::{
    find,
    models::Model,
    statistics::{EDGES, Took},
};
use crate::snapshot::Snapshot;

/// Whose names metrics have beside their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompatMetrics {
    /// `nv_inference_...`, with the labels `model` and `version`.
    Triton,
    /// `request_..._seconds`, with the labels `model_name` and `version`.
    KServe,
}

/// Seconds at which buckets of whole requests end.
const REQUEST_EDGES: [f64; 14] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0, 5.0];

impl CompatMetrics {
    /// Writes the metrics of every model that is loaded, in Prometheus' text format.
    pub(crate) fn write(self, served: &Snapshot, out: &mut String) {
        let models = find::all(served);
        let counted: Vec<_> = models.iter().map(|model| (&**model, model.totals())).collect();
        match self {
            Self::Triton => triton(&counted, out),
            Self::KServe => kserve(&counted, out),
        }
    }
}

type Counted<'m> = (&'m Model, Option<Totals>);

fn triton(models: &[Counted<'_>], out: &mut String) {
    let micros = |took: &Took| took.total().nanos / 1000;
    family(
        out,
        "nv_inference_request_success",
        "counter",
        "Requests that were answered",
        models,
        |model, totals| vec![(of(model), totals.ok)],
    );
    family(
        out,
        "nv_inference_request_failure",
        "counter",
        "Requests that were not, by reason",
        models,
        |model, totals| {
            let reasons =
                [("REJECTED", totals.refused), ("CANCELED", totals.cancelled), ("BACKEND", totals.failed)];
            let told = |(reason, count)| (format!("{},reason=\"{reason}\"", of(model)), count);
            reasons.map(told).into()
        },
    );
    family(
        out,
        "nv_inference_count",
        "counter",
        "Rows of requests that were run",
        models,
        |model, totals| vec![(of(model), totals.rows)],
    );
    family(
        out,
        "nv_inference_exec_count",
        "counter",
        "Runs, of one request or of several",
        models,
        |model, totals| vec![(of(model), totals.executions())],
    );
    family(
        out,
        "nv_inference_pending_request_count",
        "gauge",
        "Requests under way",
        models,
        |model, totals| vec![(of(model), totals.in_flight)],
    );
    let whole = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    // Only what outlives a reload is in it: a counter that falls a little would count anew as a whole.
    let answered = move |totals: &Totals| whole(totals.seconds.sum().saturating_sub(totals.failed_time));
    let waited = move |totals: &Totals| whole(totals.door_wait.sum() + totals.pool_wait.sum());
    family(
        out,
        "nv_inference_request_duration_us",
        "counter",
        "Time of requests that were answered, from admission to reply",
        models,
        |model, totals| vec![(of(model), answered(totals))],
    );
    family(
        out,
        "nv_inference_queue_duration_us",
        "counter",
        "Time of requests that waited for a run or a thread",
        models,
        |model, totals| vec![(of(model), waited(totals))],
    );
    family(
        out,
        "nv_inference_compute_input_duration_us",
        "counter",
        "Time in which tensors of requests were read",
        models,
        |model, _| vec![(of(model), micros(&model.counts.input))],
    );
    family(
        out,
        "nv_inference_compute_infer_duration_us",
        "counter",
        "Time in which requests were run",
        models,
        |model, totals| vec![(of(model), whole(totals.seconds.sum()).saturating_sub(waited(totals)))],
    );
    family(
        out,
        "nv_inference_compute_output_duration_us",
        "counter",
        "Time in which tensors of replies were written",
        models,
        |model, _| vec![(of(model), micros(&model.counts.output))],
    );
}

fn kserve(models: &[Counted<'_>], out: &mut String) {
    for (name, help, took) in [
        ("request_preprocess_seconds", "Time in which requests were read", true),
        ("request_postprocess_seconds", "Time in which replies were written", false),
    ] {
        head(out, name, "histogram", help);
        for (model, _) in models {
            let took = if took { &model.counts.input } else { &model.counts.output };
            let buckets = EDGES.iter().map(|edge| *edge as f64 / 1e9).zip(took.up_to_edges());
            let total = took.total();
            histogram(out, name, model, buckets, total.count, total.nanos as f64 / 1e9);
        }
    }
    let name = "request_predict_seconds";
    head(out, name, "histogram", "Time from admission to reply");
    for (model, totals) in models {
        let Some(totals) = totals else { continue };
        let buckets = REQUEST_EDGES.map(|edge| (edge, totals.seconds.up_to(edge)));
        histogram(
            out,
            name,
            model,
            buckets.into_iter(),
            totals.seconds.count(),
            totals.seconds.sum().as_secs_f64(),
        );
    }
    explained(models, out);
}

/// The same of their explainers, if there are any.
fn explained(models: &[Counted<'_>], out: &mut String) {
    let name = "request_explain_seconds";
    let mut told = false;
    for (model, _) in models {
        let Some(explainer) = model.explainer() else { continue };
        if !std::mem::replace(&mut told, true) {
            head(out, name, "histogram", "Time from admission to explanation");
        }
        let seconds = explainer.engine().totals().seconds;
        let buckets = REQUEST_EDGES.map(|edge| (edge, seconds.up_to(edge)));
        histogram(out, name, model, buckets.into_iter(), seconds.count(), seconds.sum().as_secs_f64());
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a string does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = writeln!(out, "{name}{{{labels}}} {value}");
}

/// One metric of all models that have been asked.
fn family(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    models: &[Counted<'_>],
    values: impl Fn(&Model, &Totals) -> Vec<(String, u64)>,
) {
    head(out, name, kind, help);
    for (model, totals) in models {
        let values = totals.iter().flat_map(|totals| values(model, totals));
        values.for_each(|(labels, value)| line(out, name, &labels, value));
    }
}

fn histogram(
    out: &mut String,
    name: &str,
    model: &Model,
    buckets: impl Iterator<Item = (f64, u64)>,
    count: u64,
    sum: f64,
) {
    let label = format!("model_name=\"{}\",version=\"{}\"", escaped(model.name()), escaped(model.version()));
    for (edge, up_to) in buckets {
        line(out, &format!("{name}_bucket"), &format!("{label},le=\"{edge}\""), up_to);
    }
    line(out, &format!("{name}_bucket"), &format!("{label},le=\"+Inf\""), count);
    line(out, &format!("{name}_sum"), &label, sum);
    line(out, &format!("{name}_count"), &label, count);
}

/// The labels of a model, as Triton has them.
fn of(model: &Model) -> String {
    format!("model=\"{}\",version=\"{}\"", escaped(model.name()), escaped(model.version()))
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
