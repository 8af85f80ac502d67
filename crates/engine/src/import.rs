//! The stage `import`: what a method trains, from a file that was made elsewhere, e.g. by the authors' code.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use manifest::denoiser::Denoiser;
use manifest::method::Method;
use manifest::stage;
use models::weights::names::Family;
use models::weights::{self, WeightFile};
use patches::{GATE_NOISE, Initial};

use crate::job::{EngineError, Finished, Job};
use crate::trainables::own_slots;
use crate::{artifact, unet};

/// Names and shapes of tensors.
type Shapes = Vec<(String, Vec<usize>)>;

/// What a file holds.
struct Found {
    file: WeightFile,
    /// What the method trains.
    own: Shapes,
    /// The backbone that it was trained on, where that does not learn and lies in the file too.
    backbone: Option<Shapes>,
}

/// Leaves the tensors that `stage.method` trains, out of the input `trained`.
///
/// # Errors
/// An input is missing or damaged; `trained` holds other tensors, numbers that are not finite, or another backbone than the
/// one that it is put on here.
pub fn import(job: &Job, stage: &stage::Import) -> Result<Finished, EngineError> {
    let path = job.input("trained")?;
    let Found { mut file, own, backbone } = open(path, stage)?;
    if let Some(backbone) = backbone {
        ensure_same_backbone(job, stage, path, &backbone)?;
    }
    let trained = file.keep(&own).and_then(|()| file.read()).map_err(anyhow::Error::from)?;
    weights::check(path, &trained, &own).map_err(anyhow::Error::from)?;
    weights::write(&job.directory.join(artifact::WEIGHTS), &trained).map_err(anyhow::Error::from)?;
    Ok(Finished::completed(artifact::WEIGHTS))
}

/// Whether a file holds exactly what a method trains, or its backbone too. The scale of the noise on a gate's logits may be
/// there: it counts in training alone. No number is read.
///
/// # Errors
/// Names the file, and every tensor that it lacks, has in another shape, or has too many.
pub fn inspect(path: &Path, stage: &stage::Import) -> Result<()> {
    open(path, stage).map(|_| ())
}

fn open(path: &Path, stage: &stage::Import) -> Result<Found> {
    let file = named(path, &stage.denoiser)?;
    let (own, backbone) = shapes(stage)?;
    let is_of = |shapes: &Shapes, name: &str| shapes.iter().any(|(own, _)| own == name);
    let backbone = Some(backbone).filter(|shapes| file.tensors().any(|(name, ..)| is_of(shapes, name)));
    let mut expected: Shapes = own.iter().chain(backbone.iter().flatten()).cloned().collect();
    if matches!(stage.method, Method::Dmp(_)) && !is_of(&own, GATE_NOISE) {
        let noise = file.tensors().filter(|(name, ..)| *name == GATE_NOISE);
        expected.extend(noise.map(|(name, _, shape)| (name.to_owned(), shape.to_vec())));
    }
    let advice = "`trained` is not what the cell's method trains: set what differs (`set`, `--set method.preset=official-code`), or name another file";
    file.check(&expected).context(advice)?;
    Ok(Found { file, own, backbone })
}

/// A file whose tensors have the names that they have here.
fn named(path: &Path, denoiser: &Denoiser) -> Result<WeightFile> {
    let mut file = WeightFile::open(path, None)?;
    file.translate(match denoiser {
        Denoiser::Dit(_) => Family::PatchedDit,
        Denoiser::Unet(_) => Family::Unet,
    });
    Ok(file)
}

/// What the method trains, and the backbone where that does not learn.
fn shapes(stage: &stage::Import) -> Result<(Shapes, Shapes)> {
    let (trainable, backbone) = match &stage.denoiser {
        Denoiser::Dit(dit) => (patches::trainable(&stage.method, dit), models::dit::named_shapes(dit)),
        Denoiser::Unet(unet) => {
            (patches::unet::trainable(&stage.method, &unet.shape)?, models::unet::named_shapes(&unet.shape)?)
        }
    };
    let learns = trainable.iter().any(|tensor| tensor.initial == Initial::Backbone);
    let own: Shapes = own_slots(trainable).map(|(name, shape, _)| (name, shape)).collect();
    // All of a backbone that learns is stored, what does not learn of it too.
    Ok(if learns { (backbone.into_iter().chain(own).collect(), Shapes::new()) } else { (own, backbone) })
}

/// A patch is of no use on another backbone than its own.
fn ensure_same_backbone(job: &Job, stage: &stage::Import, path: &Path, shapes: &Shapes) -> Result<(), EngineError> {
    let ours = match &stage.denoiser {
        Denoiser::Dit(dit) => artifact::backbone(job, &stage.method, dit)?,
        Denoiser::Unet(network) => unet::weights(job, network)?,
    };
    let compare = || -> Result<()> {
        let mut file = named(path, &stage.denoiser)?;
        file.keep(shapes)?;
        let theirs = file.read()?;
        let differing = theirs.iter().filter(|(name, tensor)| ours[*name].values != tensor.values).count();
        let (all, whose) = (theirs.len(), job.inputs.get("backbone").map(|path| path.display().to_string()));
        ensure!(
            differing == 0,
            "{} holds what was trained on another backbone than {}: {differing} of its {all} tensors differ; name the one \
             that it was trained on in the scale (`backbone.weights`)",
            path.display(),
            whose.as_deref().unwrap_or("the one by formula"),
        );
        Ok(())
    };
    Ok(compare()?)
}
