//! The figures of a report, from its records and artifacts.

use manifest::digest::Key;
use manifest::dit::DitConfig;
use manifest::method::{Depth, Method};
use manifest::plan::{CellRun, Plan, PlannedCell, Table};
use metrics::Verdict;
use safetensors::Dtype;
use store::{Store, frames};

use crate::artifact::{odd, open, read, tensor};
use crate::error::Error;
use crate::figures::{activation, bias, curves, depth, forest, png, samples, series};
use crate::frames as tables;
use crate::gate;
use crate::judged::{ALPHA, CONFIDENCE, Control, Judged, JudgedCell, POWER};
use crate::observed::record;

/// One figure of the report.
pub(crate) struct Drawn {
    /// Name of its file.
    pub(crate) file: String,
    /// Title in the page.
    pub(crate) title: String,
    /// What it shows and how to read it.
    pub(crate) caption: String,
    /// The file's contents.
    pub(crate) bytes: Vec<u8>,
    /// Whether the page shows it.
    pub(crate) shown: bool,
}

/// What the figures are drawn from.
pub(crate) struct Sources<'a, 'p> {
    /// The plan.
    pub(crate) plan: &'a Plan,
    /// Its table.
    pub(crate) table: &'a Table,
    /// The results.
    pub(crate) store: &'a Store,
    /// What is said about the cells.
    pub(crate) judged: &'a Judged<'p>,
    /// Name of the metric.
    pub(crate) metric: &'a str,
    /// What an interval means.
    pub(crate) interval: &'a str,
}

/// Draws what the records allow; a figure without records is left out.
pub(crate) fn all(sources: &Sources) -> Result<Vec<Drawn>, Error> {
    let figures = [
        sources.forest()?,
        sources.series()?,
        sources.depth()?,
        sources.activation()?,
        sources.bias()?,
        sources.curves()?,
    ];
    let mut drawn: Vec<Drawn> = figures.into_iter().flatten().collect();
    drawn.extend(sources.samples()?);
    drawn.extend(sources.classes()?);
    drawn.extend(sources.captions()?);
    Ok(drawn)
}

/// The median of the smallest differences that the table's comparisons with the baseline could have detected, with the
/// smallest and the largest.
pub(crate) fn detectable(judged: &Judged) -> Option<(f64, f64, f64)> {
    let distinct = judged.cells.iter().filter(|cell| cell.cell.planned.same_run_as.is_none());
    let differences = distinct.filter_map(|cell| cell.to_baseline.as_ref()?.difference());
    let mut sizes: Vec<f64> = differences.map(|difference| difference.detectable(ALPHA, POWER)).collect();
    sizes.sort_by(f64::total_cmp);
    Some((*sizes.first()?, sizes[sizes.len() / 2], *sizes.last()?))
}

impl Sources<'_, '_> {
    fn cells(&self) -> impl Iterator<Item = &JudgedCell<'_>> {
        self.judged.cells.iter()
    }

    fn default_cell(&self) -> Option<&PlannedCell> {
        self.table.default_cell.as_ref().and_then(|id| self.table.cell(id))
    }

    fn group_title(&self, cell: &PlannedCell) -> String {
        let group = self.table.groups.iter().find(|group| Some(&group.id) == cell.group.as_ref());
        group.map(tables::group_title).unwrap_or_default()
    }

    fn forest(&self) -> Result<Option<Drawn>, Error> {
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
    fn series(&self) -> Result<Option<Drawn>, Error> {
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
        let start = (baseline.summary.map(|summary| summary.mean), printed);
        let figure = series::Series { metric: self.metric, interval: self.interval, start, curves: &curves };
        let text = series::draw(&figure).map_err(failed("series"))?;
        let caption = "Mean over training seeds; the bars are the intervals of the paired differences to the baseline, put around the \
                       means. All curves start from the same network.";
        Ok(Some(Drawn::svg("series", "Over further training", caption, text)))
    }

    /// The cells that differ from the default in nothing but their depth.
    fn depth(&self) -> Result<Option<Drawn>, Error> {
        let Some(Method::Dmp(base)) = self.default_cell().map(|cell| &cell.written) else { return Ok(None) };
        let (blocks, papers) =
            (self.table.dit.depth, DitConfig::published(&self.table.paper.backbone, None).map(|dit| dit.depth));
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

    fn activation(&self) -> Result<Option<Drawn>, Error> {
        let Some(cell) = self.default_cell() else { return Ok(None) };
        let recorded = |run: &CellRun| Ok(run.activation.zip(Some(run.seed)).filter(|(key, _)| self.has(*key)));
        let Some((key, seed)) = first(&cell.runs, recorded)? else { return Ok(None) };
        let gate::Weights { timesteps, blocks, prompts, values: weights } = gate::read(self.store, key)?;
        let steps = timesteps.len();
        let title = format!("{}, training seed {seed}", cell.id);
        let figure =
            activation::Activation { title: &title, timesteps: &timesteps, blocks, prompts, weights: &weights };
        let text = activation::draw(&figure).map_err(failed("activation"))?;
        let caption = format!(
            "The gate's weight of every prompt at {steps} timesteps. The paper finds many prompts active at high t and few at \
             low t. The colours span the weights that occur, however close they are: read the bar."
        );
        Ok(Some(Drawn::svg("activation", "Prompt activation (the paper's Figure 5)", &caption, text)))
    }

    /// How strongly the default cell's prompts act over timesteps and patches: the gate's weight times the prompt's length,
    /// since weights alone sum to 1 at every timestep.
    fn bias(&self) -> Result<Option<Drawn>, Error> {
        let Some(cell) = self.default_cell() else { return Ok(None) };
        let recorded = |run: &CellRun| {
            let keys = run.activation.zip(run.train).filter(|(activation, train)| {
                self.has(*activation) && self.store.open_artifact(*train, "train", WEIGHTS).is_ok()
            });
            Ok(keys.map(|keys| (keys, run.seed)))
        };
        let Some(((activation, train), seed)) = first(&cell.runs, recorded)? else { return Ok(None) };
        let gate::Weights { timesteps, blocks, prompts, values } = gate::read(self.store, activation)?;
        let side = prompts.isqrt();
        // Only prompts that are added lie at a place of the image.
        if side * side != self.table.dit.tokens() {
            return Ok(None);
        }
        let path = self.store.open_artifact(train, "train", WEIGHTS)?;
        let bytes = read(&path)?;
        let (shape, data) = tensor(&open(&bytes, &path)?, &path, "prompt_embeddings", Dtype::F32)?;
        let &[prompted, count, width] = shape.as_slice() else {
            return Err(odd(&path, "`prompt_embeddings` has not three axes"));
        };
        if (prompted, count) != (blocks, prompts) || width == 0 {
            return Err(odd(&path, "`prompt_embeddings` do not fit the gate's weights"));
        }
        let data: Vec<f32> = data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let length = |prompt: &[f32]| prompt.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let lengths: Vec<f64> = data.chunks_exact(width).map(length).collect();
        let strengths = |block: usize| -> Vec<f32> {
            let rows = values.chunks_exact(blocks * prompts).map(|row| &row[block * prompts..(block + 1) * prompts]);
            let own = &lengths[block * prompts..(block + 1) * prompts];
            rows.flat_map(|row| row.iter().zip(own).map(|(w, l)| (f64::from(*w) * l) as f32)).collect()
        };
        let of = |block: usize| {
            let bias = metrics::StructuralBias::of(&strengths(block), prompts);
            bias.map(|bias| (bias.temporal, bias.spatial)).map_err(|error| odd(&path, &error.to_string()))
        };
        let blocks = (0..blocks).map(of).collect::<Result<Vec<_>, Error>>()?;
        let title = format!("{}, training seed {seed}", cell.id);
        let figure = bias::Bias { title: &title, timesteps: &timesteps, side, blocks: &blocks };
        let text = bias::draw(&figure).map_err(failed("bias"))?;
        let caption = "Above: over the timesteps, averaged over patches. Below: over the patches as they lie in the image, averaged over \
                       timesteps; brighter is stronger, all blocks share one scale. The gate's weights alone sum to 1 at every timestep, so \
                       each is multiplied with the length of its prompt: that is what is added to a patch.";
        Ok(Some(Drawn::svg("bias", "Structural bias of prompts (the paper's Figure 7)", caption, text)))
    }

    /// Losses of the first seed at which the default cell has a curve.
    fn curves(&self) -> Result<Option<Drawn>, Error> {
        let Some(default) = self.default_cell() else { return Ok(None) };
        let curved = |run: &CellRun| {
            let curve = run.train.map(|key| self.curve(key, "default")).transpose()?.flatten();
            Ok(curve.map(|curve| (run.seed, curve)))
        };
        let Some((seed, curve)) = first(&default.runs, curved)? else { return Ok(None) };
        let mut groups: Vec<(String, Vec<curves::Curve>)> = Vec::new();
        for cell in self.table.cells.iter().filter(|cell| cell.same_run_as.is_none() && cell.id != default.id) {
            let train = cell.runs.iter().find(|run| run.seed == seed).and_then(|run| run.train);
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
        Ok(Some(curves::Curve { label: label.to_owned(), iterations, losses }))
    }

    /// Baseline, prompt tuning and the default method from the same noise, at the first seed at which all have samples.
    fn samples(&self) -> Result<Vec<Drawn>, Error> {
        let tuned = self.table.cells.iter().find(|cell| matches!(cell.method, Method::PromptTuning(_)));
        let chosen: Vec<&PlannedCell> =
            self.table.cells.first().into_iter().chain(tuned).chain(self.default_cell()).collect();
        let run = |cell: &PlannedCell, seed: u64| {
            cell.runs.iter().find(|run| run.seed == seed).map(|run| run.decoded.unwrap_or(run.sample))
        };
        let complete = |seed: &u64| chosen.iter().all(|cell| run(cell, *seed).is_some_and(|key| self.has(key)));
        let Some(seed) = self.table.seeds.iter().copied().find(complete) else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        let mut side = 0;
        for cell in &chosen {
            let Some(key) = run(cell, seed) else { continue };
            let images;
            (side, images) = self.images(key, side)?;
            rows.push((method_name(&cell.method).to_owned(), images));
        }
        if let [(first, baseline), .., (last, patched)] = rows.as_slice() {
            let (factor, images) = samples::differences(patched, baseline);
            let name = format!("{last} \u{2212} {first}, x {factor}");
            rows.push((name, images));
        }
        let sampling = self.table.scale.sample.seed.wrapping_add(seed);
        let subtitle = format!("training seed {seed}, sampling seed {sampling}, samples 0 to {}", COLUMNS - 1);
        let grid = samples::Grid { subtitle: &subtitle, side, columns: COLUMNS, rows: &rows };
        let text = samples::draw(&grid).map_err(failed("samples"))?;
        let (width, height, rgb) = samples::enlarged(&grid);
        let caption = "The first samples, not chosen. Images of one column start from the same noise. Last row: what the method changes, \
                       around grey and amplified by the factor beside it.";
        let title = "Samples";
        Ok(vec![
            Drawn::svg("samples", title, caption, text),
            Drawn {
                file: "samples.png".to_owned(),
                title: title.to_owned(),
                caption: String::new(),
                bytes: png((width, height), &rgb),
                shown: false,
            },
        ])
    }

    /// A grid for each class that cells show.
    fn classes(&self) -> Result<Vec<Drawn>, Error> {
        let mut grids = Vec::new();
        for class in self.subjects(|run| &run.classes) {
            let shown = self.table.dit.classes.map_or(class, |classes| class % classes as u32);
            let other =
                if shown == class { String::new() } else { format!(" (here class {shown}: the backbone has fewer)") };
            let caption = format!(
                "The first samples of class {class}{other}, not chosen. Images of one column start from the same noise."
            );
            let subject = Subject {
                file: format!("class-{class}"),
                title: format!("Class {class}"),
                subtitle: format!("class {shown}"),
                caption,
            };
            grids.extend(
                self.grid(subject, |run| run.classes.iter().find(|(own, _)| *own == class).map(|shown| shown.1))?,
            );
        }
        Ok(grids)
    }

    /// A grid for each caption that cells show.
    fn captions(&self) -> Result<Vec<Drawn>, Error> {
        let mut grids = Vec::new();
        for (number, text) in (1..).zip(self.subjects(|run| &run.captions)) {
            let subject = Subject {
                file: format!("caption-{number}"),
                title: format!("\u{201c}{text}\u{201d}"),
                subtitle: format!("\u{201c}{text}\u{201d}"),
                caption:
                    "The first samples of this caption, not chosen. Images of one column start from the same noise, \
                          under every caption."
                        .to_owned(),
            };
            grids.extend(
                self.grid(subject, |run| run.captions.iter().find(|(own, _)| *own == text).map(|shown| shown.1))?,
            );
        }
        Ok(grids)
    }

    /// What any cell shows samples of, each once.
    fn subjects<T: Clone + PartialEq>(&self, shown: impl Fn(&CellRun) -> &[(T, Key)]) -> Vec<T> {
        let mut subjects = Vec::new();
        for (subject, _) in self.table.cells.iter().flat_map(|cell| &cell.runs).flat_map(shown) {
            if !subjects.contains(subject) {
                subjects.push(subject.clone());
            }
        }
        subjects
    }

    /// A row for each cell that shows a subject, at the first seed at which all of them have samples of it.
    fn grid(&self, subject: Subject, shown: impl Fn(&CellRun) -> Option<Key>) -> Result<Option<Drawn>, Error> {
        let showing: Vec<&PlannedCell> = (self.table.cells.iter())
            .filter(|cell| cell.same_run_as.is_none() && cell.runs.iter().any(|run| shown(run).is_some()))
            .collect();
        let key = |cell: &PlannedCell, seed: u64| shown(cell.runs.iter().find(|run| run.seed == seed)?);
        let complete = |seed: &u64| showing.iter().all(|cell| key(cell, *seed).is_some_and(|key| self.has(key)));
        let Some(seed) = self.table.seeds.iter().copied().find(complete) else { return Ok(None) };
        let (mut rows, mut side) = (Vec::new(), 0);
        for cell in showing {
            let Some(key) = key(cell, seed) else { continue };
            let images;
            (side, images) = self.images(key, side)?;
            rows.push((method_name(&cell.method).to_owned(), images));
        }
        let Subject { file, title, subtitle, caption } = subject;
        let subtitle = format!("{subtitle}, training seed {seed}");
        let grid = samples::Grid { subtitle: &subtitle, side, columns: COLUMNS, rows: &rows };
        let text = samples::draw(&grid).map_err(failed("samples"))?;
        Ok(Some(Drawn::svg(&file, &title, &caption, text)))
    }

    /// Side and pixels of the first images of a stage that samples or decodes, of the same side as others (0 for any).
    fn images(&self, key: Key, side: usize) -> Result<(usize, Vec<samples::Image>), Error> {
        let kind = self.plan.stage(key).map_or("sample", |planned| planned.stage.kind());
        let path = self.store.open_artifact(key, kind, "samples.safetensors")?;
        let bytes = read(&path)?;
        let (shape, pixels) = tensor(&open(&bytes, &path)?, &path, "samples", Dtype::U8)?;
        let &[_, channels @ (1 | 3), height, width] = shape.as_slice() else {
            return Err(odd(&path, "`samples` are not images of one or three channels"));
        };
        if height != width || height == 0 || (side != 0 && side != width) {
            return Err(odd(&path, "`samples` are not square images of one size"));
        }
        let images = pixels.chunks_exact(channels * width * width).take(COLUMNS);
        Ok((width, images.map(|planes| samples::image(planes, channels, width)).collect()))
    }

    fn has(&self, key: Key) -> bool {
        let recorded = |kind: &str| matches!(record(self.store.tree(), key, kind), Ok(Some(_)));
        self.plan.stage(key).is_some_and(|planned| recorded(planned.stage.kind()))
    }
}

/// A class or a caption of which samples are shown.
struct Subject {
    /// Name of the figure's file.
    file: String,
    title: String,
    /// What is said above the images.
    subtitle: String,
    /// What it shows.
    caption: String,
}

/// Trained tensors.
const WEIGHTS: &str = "weights.safetensors";
/// Images in a row.
const COLUMNS: usize = 12;

impl Drawn {
    fn svg(name: &str, title: &str, caption: &str, text: String) -> Self {
        let (file, title, caption) = (format!("{name}.svg"), title.to_owned(), caption.to_owned());
        Self { file, title, caption, bytes: text.into_bytes(), shown: true }
    }
}

/// What a reader calls a method.
fn method_name(method: &Method) -> &'static str {
    match method {
        Method::Pretrained(_) => "baseline",
        Method::Finetune(_) => "fine-tuning",
        Method::PromptTuning(_) => "prompt tuning",
        Method::Lora(_) => "LoRA",
        Method::Dmp(_) => "DMP",
    }
}

/// The first that `of` finds.
fn first<T, U>(items: &[T], of: impl Fn(&T) -> Result<Option<U>, Error>) -> Result<Option<U>, Error> {
    items.iter().find_map(|item| of(item).transpose()).transpose()
}

fn failed<E: ToString>(name: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Figure { name, reason: error.to_string() }
}
