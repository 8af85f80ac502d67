//! Tables over records: metrics and training curves, in long form (one number per row).

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use manifest::digest::Key;
use polars::prelude::*;

use crate::atomic;
use crate::error::StoreError;
use crate::tree::Tree;

/// Name of the table of a stage's metrics: `metric`, `value`.
pub(crate) const METRICS: &str = "metrics.parquet";

/// Name of the table of a training curve: `iteration`, `series` (a loss, or `learning_rate`), `value`.
pub(crate) const CURVE: &str = "curve.parquet";

/// One point of a training curve.
#[derive(Clone, Debug, PartialEq)]
pub struct CurvePoint {
    /// Iterations done.
    pub iteration: u64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Losses by name; they need not be finite.
    pub losses: BTreeMap<String, f64>,
}

/// The training curve of a finished stage: columns `iteration` (u64), `series` (a loss, or `learning_rate`), `value`.
///
/// # Errors
/// [`StoreError::NotDone`] without a record, [`StoreError::Corrupt`] if the curve is damaged or the stage has none.
pub fn curve_frame(tree: &Tree, key: Key, kind: &str) -> Result<DataFrame, StoreError> {
    read_parquet(&tree.artifact(key, kind, CURVE)?)
}

/// Reads a table.
///
/// # Errors
/// [`StoreError::Io`] if the file cannot be opened, [`StoreError::Table`] if it is no parquet.
pub fn read_parquet(path: &Path) -> Result<DataFrame, StoreError> {
    let file = File::open(path).map_err(StoreError::io("read", path))?;
    ParquetReader::new(file).finish().map_err(StoreError::table(path))
}

/// Writes a table, whole or not at all; the same table always gives the same bytes.
///
/// # Errors
/// [`StoreError::Io`] where the disk is full, [`StoreError::Table`] if the table has no parquet form.
pub fn write_parquet(path: &Path, mut frame: DataFrame) -> Result<(), StoreError> {
    let mut bytes = Vec::new();
    let writer = ParquetWriter::new(&mut bytes).with_compression(ParquetCompression::Uncompressed).set_parallel(false);
    writer.finish(&mut frame).map_err(StoreError::table(path))?;
    atomic::write(path, &bytes)
}

/// The table of a stage's metrics.
pub(crate) fn of_metrics(metrics: &BTreeMap<String, f64>) -> Result<DataFrame, StoreError> {
    let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
    let values: Vec<f64> = metrics.values().copied().collect();
    df!("metric" => names, "value" => values).map_err(StoreError::table(METRICS))
}

/// The table of a training curve.
pub(crate) fn of_curve(points: &[CurvePoint]) -> Result<DataFrame, StoreError> {
    let (mut iterations, mut series, mut values) = (vec![], vec![], vec![]);
    for point in points {
        let rate = ("learning_rate", point.learning_rate);
        for (name, value) in point.losses.iter().map(|(name, value)| (name.as_str(), *value)).chain([rate]) {
            iterations.push(point.iteration);
            series.push(name);
            values.push(value);
        }
    }
    df!("iteration" => iterations, "series" => series, "value" => values).map_err(StoreError::table(CURVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_survives_its_file_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let values = [0.1 + 0.2, f64::MIN_POSITIVE / 2.0, -0.0, f64::NAN, f64::INFINITY];
        let point = |(i, value): (usize, &f64)| CurvePoint {
            iteration: 7 * i as u64,
            learning_rate: 1e-4,
            losses: BTreeMap::from([("mse".to_owned(), *value)]),
        };
        let points: Vec<_> = values.iter().enumerate().map(point).collect();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for path in &paths {
            write_parquet(path, of_curve(&points).unwrap()).unwrap();
        }
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());

        let frame = read_parquet(&paths[0]).unwrap();
        let iterations = frame.column("iteration").unwrap().u64().unwrap();
        assert_eq!(iterations.into_no_null_iter().collect::<Vec<_>>(), [0, 0, 7, 7, 14, 14, 21, 21, 28, 28]);
        let read = frame.column("value").unwrap().f64().unwrap();
        for (read, written) in read.into_no_null_iter().step_by(2).zip(values) {
            assert_eq!(read.to_bits(), written.to_bits());
        }
    }

    #[test]
    fn a_file_that_is_no_table_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.parquet");
        std::fs::write(&path, "text").unwrap();
        let message = read_parquet(&path).unwrap_err().to_string();
        assert!(message.contains("curve.parquet: not a sound table"), "{message}");
    }
}
