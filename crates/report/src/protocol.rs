//! How a table was measured, in one line: whoever has the same line has comparable numbers.

use manifest::dataset::Dataset;
use manifest::denoiser::Denoiser;
use manifest::digest::Key;
use manifest::extractor::WeightsFrom;
use manifest::method::Method;
use manifest::plan::{Input, Plan, PlannedCell, Table};
use manifest::recipe::Space;
use manifest::reference::ReferenceFrom;
use manifest::scale::{DeviceKind, Dtype, Extractor, SamplerKind};
use manifest::stage::Stage;
use manifest::unet::UnetNetwork;

use crate::judged::Judged;
use crate::markdown::{code, escape};

/// Name of the metric: `fd_<extractor>`, or `fid`.
pub(crate) fn metric(plan: &Plan, table: &Table) -> String {
    let run = table.cells.first().and_then(|cell| cell.runs.first());
    match run.and_then(|run| plan.stage(run.metrics)).map(|planned| &planned.stage) {
        Some(Stage::Metrics(metrics)) => metrics.name.clone(),
        _ => "distance".to_owned(),
    }
}

/// The protocol line: Markdown.
pub(crate) fn line(plan: &Plan, table: &Table, judged: &Judged) -> String {
    let scale = &table.scale;
    let (train, sample) = (&scale.train, &scale.sample);
    let mut parts = vec![
        format!("scale {}", code(&table.scale_name)),
        format!("images: {}", dataset(&scale.data)),
        format!(
            "backbone {} ({}{})",
            code(&scale.backbone.recipe),
            match &table.denoiser {
                Denoiser::Unet(UnetNetwork { weights: WeightsFrom::Formula, .. }) => "weights by formula".to_owned(),
                _ => input(plan, first_key(table, |run| run.sample), "backbone"),
            },
            backbone_learning_rates(plan, table)
        ),
        format!("preset {}", code(&table.preset)),
        format!("{} further iterations", train.iterations),
        format!("batch {}", train.batch),
        format!(
            "AdamW, learning rate {:e} x {} = {:e}",
            train.learning_rate,
            train.learning_rate_multiplier,
            learning_rate(table)
        ),
        format!(
            "{} with {} of {} steps{}{}",
            match sample.sampler.kind {
                SamplerKind::Ddpm => "DDPM",
                SamplerKind::Ddim => "DDIM",
                SamplerKind::Pndm => "PNDM",
            },
            sample.sampler.steps,
            table.diffusion.timesteps,
            if sample.sampler.clip_x0 { ", x0 clipped" } else { "" },
            if sample.sampler.guidance == 1.0 {
                String::new()
            } else {
                format!(", guidance {}", sample.sampler.guidance)
            }
        ),
        format!("{} samples per run", sample.count),
        format!("reference: {}", reference(table, judged)),
        format!(
            "metric {} ({})",
            code(&metric(plan, table)),
            match &scale.extractor {
                Extractor::Cnn(network) => format!(
                    "features of {}, {}",
                    code(&network.recipe),
                    input(plan, first_key(table, |run| run.features), "extractor")
                ),
                Extractor::Inception(_) =>
                    format!("Inception v3, {}", input(plan, first_key(table, |run| run.features), "extractor")),
                Extractor::InceptionFormula(_) => "Inception v3 with weights by formula".to_owned(),
            }
        ),
        format!("training seeds {}", list(&table.seeds)),
        format!("sampling seeds {} + training seed", sample.seed),
        format!(
            "engine {}, {}, {}",
            table.denoiser.numerics(&scale.numerics).version(),
            match scale.numerics.device {
                DeviceKind::Cpu => "cpu",
                DeviceKind::Cuda => "cuda",
            },
            match scale.numerics.dtype {
                Dtype::F32 => "f32",
                Dtype::Bf16 => "bf16",
            }
        ),
    ];
    if let Space::Latents(latents) = &table.space {
        let weights = match latents.autoencoder.weights() {
            Some(weights) => code(&weights.file),
            None => "weights by formula".to_owned(),
        };
        parts.insert(2, format!("latents of an autoencoder ({weights}) x {}", latents.scale_factor));
    }
    if let Some(images) = &scale.evaluation.coverage {
        parts.push(format!("precision and recall against {}", dataset(images)));
    }
    if !table.overrides.is_empty() {
        let overrides: Vec<String> = table.overrides.iter().map(|text| code(text)).collect();
        parts.push(format!("**with overrides** {}", overrides.join(", ")));
    }
    parts.join(" · ")
}

/// Learning rate of the paper's further training.
pub(crate) const PAPER_LEARNING_RATE: f64 = 1e-4;
/// Above this multiple of it, fine-tuning is another experiment than the paper's.
const FAR_FROM_THE_PAPER: f64 = 10.0;

/// The learning rate of the further training, to six digits: a product of decimals is seldom one.
fn learning_rate(table: &Table) -> f64 {
    let product = table.scale.train.learning_rate * table.scale.train.learning_rate_multiplier;
    format!("{product:.5e}").parse().unwrap_or(product)
}

/// What must be known of a cell's training: that it was made elsewhere, or moves the backbone's weights much faster than the
/// paper's; `None` where there is nothing to know.
pub(crate) fn training_note(table: &Table, cell: &PlannedCell) -> Option<String> {
    let Some(Input::File { sha256, path }) = &cell.trained else { return multiplied_rate(table, &cell.method) };
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    Some(format!("trained elsewhere ({}, sha256 {})", code(&file), code(&sha256.short())))
}

/// The same of a training here alone.
fn multiplied_rate(table: &Table, method: &Method) -> Option<String> {
    let multiple = learning_rate(table) / PAPER_LEARNING_RATE;
    let backbone = matches!(method, Method::Finetune(_)) || method.from_scratch();
    let far = backbone && multiple > FAR_FROM_THE_PAPER;
    far.then(|| format!("at {multiple:.0} times the paper's learning rate"))
}

/// Peak and last learning rate of a backbone that is trained by a stage of the plan; nothing of shipped weights.
fn backbone_learning_rates(plan: &Plan, table: &Table) -> String {
    let sample = first_key(table, |run| run.sample).and_then(|key| plan.stage(key));
    let Some(Input::Stage(key)) = sample.and_then(|planned| planned.inputs.get("backbone")) else {
        return String::new();
    };
    match plan.stage(*key).map(|planned| &planned.stage) {
        Some(Stage::Pretrain(pretrain)) => {
            let optimisation = &pretrain.optimisation;
            let (peak, last) = (optimisation.learning_rate, optimisation.final_learning_rate);
            format!(" at learning rate {peak:e}, {last:e} at its end")
        }
        _ => String::new(),
    }
}

/// Numbers in a list.
pub(crate) fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The command that runs a cell again, also where it has records.
pub(crate) fn command(plan: &Plan, table: &Table, cell: &str) -> String {
    format!("runner run {} --cell {cell} --mode force{}", plan.file.display(), options(table))
}

/// The command that runs what is missing of a table and writes its report.
pub(crate) fn reproduce(plan: &Plan, table: &Table) -> String {
    format!("runner reproduce {}{}", plan.artifact, options(table))
}

/// The options that lead to a table.
fn options(table: &Table) -> String {
    let mut options = format!(" --scale {}", table.scale_name);
    for text in &table.overrides {
        options.push_str(&format!(" --set '{text}'"));
    }
    if table.seeds != table.scale.seeds {
        options.push_str(&format!(" --seeds {}", list(&table.seeds).replace(' ', "")));
    }
    options
}

fn first_key(table: &Table, of: fn(&manifest::plan::CellRun) -> Key) -> Option<Key> {
    table.cells.first().and_then(|cell| cell.runs.first()).map(of)
}

/// Where an input comes from, by content.
fn input(plan: &Plan, key: Option<Key>, role: &str) -> String {
    match key.and_then(|key| plan.stage(key)).and_then(|planned| planned.inputs.get(role)) {
        Some(Input::File { sha256, .. }) => format!("sha256 {}", code(&sha256.short())),
        Some(Input::Stage(key)) => format!("trained by stage {}", code(&key.short())),
        None => "unknown".to_owned(),
    }
}

fn reference(table: &Table, judged: &Judged) -> String {
    let counted =
        judged.cells.iter().flat_map(|cell| cell.cell.measured()).find_map(|(_, measured)| measured.reference);
    let images = match &table.scale.evaluation.reference {
        ReferenceFrom::Images(images) => dataset(images),
        ReferenceFrom::Statistics(file) => format!("published statistics, {}", escape(&file.file)),
    };
    counted.map_or(images.clone(), |count| format!("{count} real images ({images})"))
}

fn dataset(dataset: &Dataset) -> String {
    match dataset {
        Dataset::Faces(faces) => {
            let last = faces.first + faces.count as u64 - 1;
            format!("faces {} to {last} at {s} x {s}", faces.first, s = faces.image_size)
        }
        Dataset::Idx(idx) => {
            let last = idx.first + idx.count as u64 - 1;
            format!("{} {} to {last} at {s} x {s}", escape(&idx.images), idx.first, s = idx.image_size)
        }
        Dataset::ImageFolder(folder) | Dataset::ClassFolders(folder) => {
            let first = folder.count.map_or(String::new(), |count| format!("the first {count} of "));
            format!("{first}{} at {s} x {s}", escape(&folder.folder), s = folder.image_size)
        }
        Dataset::Captions(captions) => {
            let (file, folder, s) = (escape(&captions.captions), escape(&captions.folder), captions.image_size);
            format!("{folder} with {file} at {s} x {s}")
        }
        Dataset::WebDataset(shards) => format!("{} at {s} x {s}", escape(&shards.shards), s = shards.image_size),
        Dataset::Npz(npz) => format!("{} at {s} x {s}", escape(&npz.archive), s = npz.image_size),
    }
}
