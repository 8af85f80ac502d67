//! Grids of samples.

use manifest::digest::Key;
use manifest::method::Method;
use manifest::plan::{CellRun, PlannedCell};
use safetensors::Dtype;

use super::{Drawn, Sources, failed, method_name};
use crate::artifact::{odd, open, read, tensor};
use crate::error::Error;
use crate::figures::{png, samples};

/// Images in a row.
const COLUMNS: usize = 12;

impl Sources<'_, '_> {
    /// Baseline, prompt tuning and the default method from the same noise, at the first seed at which all have samples; from scratch,
    /// the same training without the method stands for prompt tuning.
    pub(super) fn samples(&self) -> Result<Vec<Drawn>, Error> {
        let default = self.default_cell();
        let from_scratch = default.is_some_and(|cell| cell.method.from_scratch());
        let beside = |cell: &&PlannedCell| match &cell.method {
            Method::PromptTuning(_) => true,
            Method::Finetune(_) => from_scratch && cell.method.from_scratch() && cell.share == 1.0,
            _ => false,
        };
        let cells = &self.table.cells;
        let chosen: Vec<&PlannedCell> =
            cells.first().into_iter().chain(cells.iter().find(beside)).chain(default).collect();
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
        let mut caption = "The first samples, not chosen. Images of one column start from the same noise.".to_owned();
        // Networks that were trained apart have nothing to subtract.
        if let ([(first, baseline), .., (last, patched)], Some(_), false) = (rows.as_slice(), default, from_scratch) {
            let (factor, images) = samples::differences(patched, baseline);
            let name = format!("{last} \u{2212} {first}, x {factor}");
            rows.push((name, images));
            caption.push_str(" Last row: what the method changes, around grey and amplified by the factor beside it.");
        }
        let sampling = self.table.scale.sample.seed.wrapping_add(seed);
        let subtitle = format!("training seed {seed}, sampling seed {sampling}, samples 0 to {}", COLUMNS - 1);
        let grid = samples::Grid { subtitle: &subtitle, side, columns: COLUMNS, rows: &rows };
        let text = samples::draw(&grid).map_err(failed("samples"))?;
        let (width, height, rgb) = samples::enlarged(&grid);
        let title = "Samples";
        Ok(vec![
            Drawn::svg("samples", title, &caption, text),
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
    pub(super) fn classes(&self) -> Result<Vec<Drawn>, Error> {
        let mut grids = Vec::new();
        for class in self.subjects(|run| &run.classes) {
            let shown = self.table.denoiser.classes().map_or(class, |classes| class % classes as u32);
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
    pub(super) fn captions(&self) -> Result<Vec<Drawn>, Error> {
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
