//! Figures of distances: every cell's difference, further training, depth.

use manifest::dit::DitConfig;
use manifest::method::{Depth, Method};
use metrics::Verdict;

use super::{Drawn, Sources, detectable, failed, method_name};
use crate::error::Error;
use crate::figures::{depth, forest, series};
use crate::frames as tables;
use crate::judged::{CONFIDENCE, Control, JudgedCell};

impl Sources<'_, '_> {
    pub(super) fn forest(&self) -> Result<Option<Drawn>, Error> {
        let mut rows: Vec<forest::Row> = Vec::new();
        for cell in self.cells().skip(1) {
            let Some(comparison) = &cell.to_baseline else { continue };
            let difference = comparison.difference();
            let note = match comparison.verdict {
                Some(Verdict::NotRun | Verdict::Diverged) => tables::state(&cell.cell),
                _ => tables::verdict(comparison, self.judged).unwrap_or_default(),
            };
            let same = cell.cell.planned.same_run_as.as_ref().map(|id| format!(" (= {id})")).unwrap_or_default();
            rows.push(forest::Row {
                group: self.group_title(cell.cell.planned),
                label: format!("{}{same}", cell.cell.planned.title),
                difference: difference.map(|d| d.estimate),
                interval: difference.map(|d| d.interval(CONFIDENCE)),
                note,
                again: cell.cell.planned.same_run_as.is_some(),
                mark: match comparison.verdict {
                    Some(Verdict::Reproduced | Verdict::DirectionHolds) => forest::Mark::Holds,
                    Some(Verdict::DirectionContradicted) => forest::Mark::Contradicted,
                    _ => forest::Mark::Open,
                },
            });
        }
        if let Control::Shows(difference) | Control::Silent(difference) = self.judged.control {
            let shows = matches!(self.judged.control, Control::Shows(_));
            rows.push(forest::Row {
                group: format!(
                    "Positive control, against {}",
                    self.table.default_cell.as_deref().unwrap_or("the default")
                ),
                label: "noise on the prompts".to_owned(),
                difference: Some(difference.estimate),
                interval: Some(difference.interval(CONFIDENCE)),
                note: if shows { "shows" } else { "does not show" }.to_owned(),
                mark: forest::Mark::Control,
                again: false,
            });
        }
        if rows.iter().all(|row| row.difference.is_none()) {
            return Ok(None);
        }
        let subtitle = match detectable(self.judged) {
            Some(_) => format!("{}; grey band: below the median smallest detectable difference", self.interval),
            None => self.interval.to_owned(),
        };
        let detectable = detectable(self.judged).map(|(_, median, _)| median);
        let figure = forest::Forest { metric: self.metric, interval: &subtitle, rows: &rows, detectable };
        let text = forest::draw(&figure).map_err(failed("differences"))?;
        let caption = "Blue: the paper's direction, zero outside the interval; orange: the other direction; grey: neither. The axis is \
                       drawn without the control and without cells that reach far beyond the others: an arrow head at the edge points to \
                       a value beyond it, and an interval that meets the edge goes on.";
        Ok(Some(Drawn::svg("differences", "Differences to the baseline", caption, text)))
    }

    /// Methods that are judged after several numbers of iterations, a curve each.
    pub(super) fn series(&self) -> Result<Option<Drawn>, Error> {
        let mut curves: Vec<(&Method, series::Curve)> = Vec::new();
        let iterations = |share: f64| {
            let (ours, papers) = (self.table.scale.train.iterations, self.table.paper.further_iterations);
            ((share * ours as f64).round(), share * papers as f64)
        };
        for cell in self.cells().skip(1) {
            let planned = cell.cell.planned;
            let mean = cell.summary.map(|summary| summary.mean);
            let difference = cell.to_baseline.as_ref().and_then(|comparison| comparison.difference());
            let around = |(mean, half): (f64, f64)| (mean - half, mean + half);
            let point = series::Point {
                iterations: iterations(planned.share),
                mean,
                interval: mean.zip(difference.map(|d| d.half_width(CONFIDENCE))).map(around),
                paper: planned.claim.as_ref().and_then(|claim| claim.value),
            };
            match curves.iter_mut().find(|(method, _)| **method == planned.method) {
                Some((_, curve)) => curve.points.push(point),
                None => {
                    let label = method_name(&planned.method).to_owned();
                    curves.push((&planned.method, series::Curve { label, points: vec![point] }));
                }
            }
        }
        let from_scratch = curves.iter().any(|(method, _)| method.from_scratch());
        let mut curves: Vec<series::Curve> = curves.into_iter().map(|(_, curve)| curve).collect();
        curves.iter_mut().for_each(|curve| curve.points.sort_by(|a, b| a.iterations.0.total_cmp(&b.iterations.0)));
        let several =
            |curve: &series::Curve| curve.points.iter().any(|point| point.iterations != curve.points[0].iterations);
        let measured = curves.iter().flat_map(|curve| &curve.points).any(|point| point.mean.is_some());
        if !measured || !curves.iter().any(several) {
            return Ok(None);
        }
        let baseline = &self.judged.cells[0];
        let printed = baseline.cell.planned.claim.as_ref().and_then(|claim| claim.value);
        let (start, begin) = match from_scratch {
            true => ((None, None), "All begin as the same network, untrained."),
            false => {
                ((baseline.summary.map(|summary| summary.mean), printed), "All curves start from the same network.")
            }
        };
        let figure = series::Series { metric: self.metric, interval: self.interval, start, curves: &curves };
        let text = series::draw(&figure).map_err(failed("series"))?;
        let caption = format!(
            "Mean over training seeds; the bars are the intervals of the paired differences to the baseline, put around the means. \
             {begin}"
        );
        Ok(Some(Drawn::svg("series", "Over further training", &caption, text)))
    }

    /// The cells that differ from the default in nothing but their depth.
    pub(super) fn depth(&self) -> Result<Option<Drawn>, Error> {
        let Some(Method::Dmp(base)) = self.default_cell().map(|cell| &cell.written) else { return Ok(None) };
        let (blocks, papers) =
            (self.table.denoiser.blocks(), DitConfig::published(&self.table.paper.backbone, None).map(|dit| dit.depth));
        let mut points = Vec::new();
        for (depth, name) in [(Depth::First, "first"), (Depth::Half, "half"), (Depth::All, "all")] {
            let prompted = |blocks: usize| depth.blocks(blocks);
            let mut method = base.clone();
            method.prompts.depth = depth;
            let same = |cell: &&JudgedCell| cell.cell.planned.written == Method::Dmp(method.clone());
            let alike: Vec<&JudgedCell> = self.cells().filter(same).collect();
            let Some(cell) = alike.first() else { continue };
            let difference = cell.to_baseline.as_ref().and_then(|comparison| comparison.difference());
            let mean = cell.summary.map(|summary| summary.mean);
            points.push(depth::Point {
                label: format!("{name} ({})", prompted(blocks)),
                paper_label: papers.map_or(name.to_owned(), |blocks| format!("{name} ({})", prompted(blocks))),
                mean,
                interval: mean
                    .zip(difference)
                    .map(|(mean, d)| (mean - d.half_width(CONFIDENCE), mean + d.half_width(CONFIDENCE))),
                paper: alike.iter().find_map(|cell| cell.cell.planned.claim.as_ref()?.value),
            });
        }
        if points.len() < 2 || points.iter().all(|point| point.mean.is_none()) {
            return Ok(None);
        }
        let baseline = &self.judged.cells[0];
        let printed = baseline.cell.planned.claim.as_ref().and_then(|claim| claim.value);
        let baseline = (baseline.summary.map(|summary| summary.mean), printed);
        let figure = depth::Depths { metric: self.metric, interval: self.interval, baseline, points: &points };
        let text = depth::draw(&figure).map_err(failed("depth"))?;
        let caption = "Mean over training seeds; the bars are the intervals of the paired differences to the baseline, put \
                       around the means. The paper prints two of its four values only.";
        Ok(Some(Drawn::svg("depth", "Prompt depth (the paper's Figure 4)", caption, text)))
    }
}
