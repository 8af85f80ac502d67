//! Comparing what a file holds with what a model has.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Weights, WeightsError};

/// Checks that `weights`, read from `path`, are exactly the tensors `shapes`, and that their numbers are finite.
///
/// # Errors
/// Lists every missing, unexpected and mis-shaped tensor, or else those that hold infinities or no numbers.
pub fn check(path: &Path, weights: &Weights, shapes: &[(String, Vec<usize>)]) -> Result<(), WeightsError> {
    exactly(path, weights.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())), shapes)?;
    let faults: Vec<String> = weights.iter().filter_map(|(name, tensor)| not_finite(name, &tensor.values)).collect();
    if faults.is_empty() { Ok(()) } else { Err(WeightsError::Keys { path: path.to_owned(), faults }) }
}

/// What is wrong with a tensor that holds infinities or no numbers.
pub(super) fn not_finite(name: &str, values: &[f32]) -> Option<String> {
    let count = values.iter().filter(|value| !value.is_finite()).count();
    (count > 0).then(|| format!("{name}: {count} of {} values are not finite", values.len()))
}

/// The same for names and shapes.
pub(super) fn exactly<'a>(
    path: &Path,
    found: impl Iterator<Item = (&'a str, &'a [usize])>,
    shapes: &[(String, Vec<usize>)],
) -> Result<(), WeightsError> {
    let found: BTreeMap<&str, &[usize]> = found.collect();
    let expected: BTreeMap<&str, &[usize]> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    let mut faults = Vec::new();
    for (name, shape) in &expected {
        match found.get(name) {
            None => faults.push(format!("missing {name} {shape:?}")),
            Some(found) if found != shape => {
                faults.push(format!("{name} has shape {found:?}, expected {shape:?}"));
            }
            Some(_) => {}
        }
    }
    let unexpected = found.keys().filter(|name| !expected.contains_key(*name));
    faults.extend(unexpected.map(|name| format!("unexpected {name}")));
    if faults.is_empty() { Ok(()) } else { Err(WeightsError::Keys { path: path.to_owned(), faults }) }
}
