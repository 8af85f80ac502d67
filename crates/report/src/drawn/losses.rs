//! Loss curves.

use manifest::digest::Key;
use manifest::plan::CellRun;
use store::{Outcome, frames};

use super::{Drawn, Sources, failed, first};
use crate::error::Error;
use crate::figures::curves;
use crate::observed::record;

impl Sources<'_, '_> {
    /// Losses of the first seed at which the default cell has a curve.
    pub(super) fn curves(&self) -> Result<Option<Drawn>, Error> {
        let Some(default) = self.default_cell() else { return Ok(None) };
        let curved = |run: &CellRun| {
            let curve = run.trained.map(|key| self.curve(key, "default")).transpose()?.flatten();
            Ok(curve.map(|curve| (run.seed, curve)))
        };
        let Some((seed, curve)) = first(&default.runs, curved)? else { return Ok(None) };
        let mut groups: Vec<(String, Vec<curves::Curve>)> = Vec::new();
        for cell in self.table.cells.iter().filter(|cell| cell.same_run_as.is_none() && cell.id != default.id) {
            let train = cell.runs.iter().find(|run| run.seed == seed).and_then(|run| run.trained);
            let Some(curve) = train.map(|key| self.curve(key, &cell.title)).transpose()?.flatten() else { continue };
            let title = self.group_title(cell);
            match groups.iter_mut().find(|(group, _)| *group == title) {
                Some((_, members)) => members.push(curve),
                None => groups.push((title, vec![curve])),
            }
        }
        let subtitle = format!("training seed {seed}, default: {}", default.id);
        let figure = curves::Curves { subtitle: &subtitle, default: &curve, groups: &groups };
        let text = curves::draw(&figure).map_err(failed("losses"))?;
        let caption = "Above: the losses as they are. Below, by group: each cell's loss minus the default's on the same batches, \
                       timesteps and noise. A curve beyond its panel runs along the edge; a cross marks one that ends because the loss was not finite.";
        Ok(Some(Drawn::svg("losses", "Training losses", caption, text)))
    }

    /// The curve of a training; `None` without a record or if it trained no iteration.
    fn curve(&self, key: Key, label: &str) -> Result<Option<curves::Curve>, Error> {
        let tree = self.store.tree();
        let Some(found) = record(tree, key, "train")? else { return Ok(None) };
        if !found.artifacts.contains_key("curve.parquet") {
            return Ok(None);
        }
        let frame = frames::curve_frame(tree, key, "train")?;
        let iterations: Vec<Option<u64>> = frame.column("iteration")?.u64()?.iter().collect();
        let names: Vec<Option<&str>> = frame.column("series")?.str()?.iter().collect();
        let values: Vec<Option<f64>> = frame.column("value")?.f64()?.iter().collect();
        let series = |name: &str| -> Vec<(f64, f64)> {
            let rows = iterations.iter().zip(&names).zip(&values);
            let of_name = rows.filter(|((_, other), _)| **other == Some(name));
            of_name.filter_map(|((iteration, _), value)| Some(((*iteration)? as f64, (*value)?))).collect()
        };
        let all = curves::LOSSES.map(|(name, _)| series(name));
        let iterations = all[0].iter().map(|(iteration, _)| *iteration).collect();
        let losses = all.map(|points| points.into_iter().map(|(_, value)| value).collect());
        let diverged = matches!(found.outcome, Outcome::Diverged { .. });
        Ok(Some(curves::Curve { label: label.to_owned(), iterations, losses, diverged }))
    }
}
