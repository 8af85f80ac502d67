//! `index.parquet`: one row per finished stage, for people's own questions. Made from the tree, never the truth.

use manifest::digest::Key;
use polars::prelude::*;

use crate::error::StoreError;
use crate::frames;
use crate::record::{Outcome, Record};
use crate::tree::Tree;

/// Name of the file.
const FILE: &str = "index.parquet";

/// Makes the index anew from all sound records, writes it and returns it. Columns `kind`, `key`, `outcome`
/// (`completed`, `diverged`), `finished` (UTC), `wall_seconds`, `bytes` (of the artifacts).
///
/// # Errors
/// [`StoreError::Io`] if the tree cannot be read or the index not written.
pub fn rebuild(tree: &Tree) -> Result<DataFrame, StoreError> {
    let records = tree.records()?;
    fn column<T>(records: &[Record], value: impl Fn(&Record) -> T) -> Vec<T> {
        records.iter().map(value).collect()
    }
    let frame = df!(
        "kind" => column(&records, |record| record.kind.clone()),
        "key" => column(&records, |record| record.key).iter().map(Key::to_string).collect::<Vec<_>>(),
        "outcome" => column(&records, |record| match record.outcome {
            Outcome::Completed => "completed",
            Outcome::Diverged { .. } => "diverged",
        }),
        "finished" => column(&records, |record| record.provenance.cost.finished.clone()),
        "wall_seconds" => column(&records, |record| record.provenance.cost.wall_seconds),
        "bytes" => column(&records, |record| record.artifacts.values().map(|artifact| artifact.bytes).sum::<u64>()),
    );
    let path = tree.root().join(FILE);
    let frame = frame.map_err(StoreError::table(&path))?;
    frames::write_parquet(&path, frame.clone())?;
    Ok(frame)
}
