//! Finds the alerts of a sample without looking at the others.

use std::collections::HashMap;

use super::{Alert, Labels, text};

/// Alerts by metric, and by the values of the labels for which they want one value.
///
/// Alerts that name the same labels make one shape. A sample costs one look-up per shape of its metric, however many
/// alerts there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(HashMap<String, Vec<Shape>>);

#[derive(Clone, Debug)]
struct Shape {
    names: Vec<String>,
    /// By the hash of the values; whoever looks up must compare them.
    alerts: HashMap<u64, Vec<usize>>,
}

impl Index {
    pub(super) fn new<'a>(alerts: impl IntoIterator<Item = &'a Alert>) -> Self {
        let mut index = Self::default();
        let mut places: HashMap<(&str, Vec<&str>), usize> = HashMap::new();
        for (number, alert) in alerts.into_iter().enumerate() {
            let (names, values): (Vec<&str>, Vec<&str>) = alert.matchers.exact().unzip();
            let shapes = index.0.entry(alert.metric.clone()).or_default();
            let place = *places.entry((alert.metric.as_str(), names)).or_insert_with_key(|(_, names)| {
                let names = names.iter().map(|&name| name.to_owned()).collect();
                shapes.push(Shape { names, alerts: HashMap::new() });
                shapes.len() - 1
            });
            shapes[place].alerts.entry(text::hash(values)).or_default().push(number);
        }
        index
    }

    /// The alerts that may match, and hardly any other.
    pub(super) fn candidates(&self, metric: &str, labels: &Labels) -> Vec<usize> {
        let shapes = self.0.get(metric).map(Vec::as_slice).unwrap_or_default();
        let found = shapes.iter().filter_map(|shape| {
            let values: Option<Vec<&str>> =
                shape.names.iter().map(|name| labels.get(name).map(String::as_str)).collect();
            shape.alerts.get(&text::hash(values?))
        });
        found.flatten().copied().collect()
    }
}
