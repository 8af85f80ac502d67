//! `runner compare`: what differs between two finished stages.

use serde::Serialize;

use crate::difference::{Difference, differences, flatten};
use crate::exit::{Exit, Failure};
use crate::inventory::by_digits;
use crate::output::columns;
use crate::session::Session;

/// A metric of both stages.
#[derive(Serialize)]
struct Metric {
    name: String,
    left: Option<f64>,
    right: Option<f64>,
    difference: Option<f64>,
}

/// What differs.
#[derive(Serialize)]
struct Comparison {
    left: String,
    right: String,
    parameters: Vec<Difference>,
    inputs: Vec<Difference>,
    metrics: Vec<Metric>,
}

/// Compares two stages.
///
/// # Errors
/// When one of them is not finished.
pub(crate) fn run(session: &Session, left: &str, right: &str) -> Result<Exit, Failure> {
    let record = |digits: &str| -> Result<store::Record, Failure> {
        let found = by_digits(session.results(), digits)?;
        Ok(session.store().tree().record(found.key, &found.kind)?)
    };
    let (left, right) = (record(left)?, record(right)?);
    let of_inputs = |record: &store::Record| serde_json::to_value(&record.inputs).map_err(anyhow::Error::from);
    let inputs = differences(&flatten(&of_inputs(&left)?), &flatten(&of_inputs(&right)?));
    let names: std::collections::BTreeSet<&String> = left.metrics.keys().chain(right.metrics.keys()).collect();
    let metric = |name: &&String| {
        let (a, b) = (left.metrics.get(*name).copied(), right.metrics.get(*name).copied());
        let difference = a.zip(b).map(|(a, b)| b - a);
        Metric { name: (*name).clone(), left: a, right: b, difference }
    };
    let name = |record: &store::Record| format!("{} {}", record.kind, record.key.short());
    let comparison = Comparison {
        left: name(&left),
        right: name(&right),
        parameters: differences(&flatten(&left.params), &flatten(&right.params)),
        inputs,
        metrics: names.iter().map(metric).collect(),
    };
    session.output.emit(&comparison, text(&comparison))?;
    Ok(Exit::Done)
}

fn text(comparison: &Comparison) -> String {
    let mut text = format!("{} -> {}\n", comparison.left, comparison.right);
    for (what, differences) in [("parameters", &comparison.parameters), ("inputs", &comparison.inputs)] {
        if differences.is_empty() {
            text.push_str(&format!("{what}: the same\n"));
        } else {
            text.push_str(&format!("{what}:\n"));
            differences.iter().for_each(|difference| text.push_str(&format!("  {difference}\n")));
        }
    }
    if !comparison.metrics.is_empty() {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.6}"));
        let signed = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:+.6}"));
        let mut rows = vec![["metric", "left", "right", "difference"].map(str::to_owned).to_vec()];
        for metric in &comparison.metrics {
            rows.push(vec![metric.name.clone(), number(metric.left), number(metric.right), signed(metric.difference)]);
        }
        text.push_str(&columns(&rows));
    }
    text
}
