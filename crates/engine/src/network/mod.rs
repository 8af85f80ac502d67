//! A trained network as the sampler sees it: noise prediction at one timestep for a batch. One trunk per engine.

mod fast;
#[cfg(test)]
mod goldens;
mod reference;
mod unet;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diffusion::Denoiser;
use manifest::dit::DitConfig;
use manifest::method::Method;
use manifest::scale::{Engine, Sampler};
use manifest::stage;
use manifest::unet::UnetNetwork;
use models::dit::Guidance;
use models::weights::{self, Weights};
use patches::{Applied, PROMPTS};
use random::{Draws, Stream};

use crate::artifact;
use crate::captions::Captions;
use crate::job::{EngineError, Job};
use crate::sequences::Sequences;

/// Predicts noise for samples with labels.
trait Trunk {
    /// `x` `[B, C, H, W]` at timestep `t` with `labels` `[B]` to `out` `[B, O, H, W]`.
    fn predict(&mut self, x: &[f32], t: usize, labels: &[u32], out: &mut [f32]) -> Result<()>;
}

/// A network that draws samples.
pub struct Network {
    /// Channels of an image, and of a prediction, and its side.
    shape: [usize; 3],
    /// Guidance and the null label.
    guidance: Option<(Guidance, u32)>,
    labels: Vec<u32>,
    trunk: Box<dyn Trunk>,
}

/// What a stage draws samples with.
pub struct SampleInputs {
    /// The network, as it is conditioned.
    pub dit: DitConfig,
    /// The backbone's weights.
    pub backbone: Weights,
    /// What was trained on it, with noise on the prompts if the stage asks for it.
    pub trained: Weights,
    /// The caption of each image of the dataset; none where text does not condition the network.
    pub captions: Vec<u32>,
}

impl SampleInputs {
    /// What the job's inputs hold for a `dit`.
    ///
    /// # Errors
    /// An input is missing, or there are no prompts to put noise on.
    pub fn new(job: &Job, stage: &stage::Sample, dit: &DitConfig) -> Result<Self, EngineError> {
        let (mut backbone, mut trained) = (artifact::backbone(job, &stage.method, dit)?, trained(job, stage)?);
        let (dit, captions) = Captions::resolve(job, dit, [&mut backbone, &mut trained])?;
        Ok(Self { dit, backbone, trained, captions })
    }
}

/// What was trained, with noise on the prompts if the stage asks for it.
fn trained(job: &Job, stage: &stage::Sample) -> Result<Weights, EngineError> {
    let mut trained = match stage.method {
        Method::Pretrained(_) => Weights::new(),
        _ => weights::read(job.input("trained")?).map_err(anyhow::Error::from)?,
    };
    if stage.prompt_noise > 0.0 {
        disturb_prompts(&mut trained, stage.prompt_noise, stage.seed)?;
    }
    Ok(trained)
}

impl Network {
    /// A UNet with what was trained on it, and the caption of each image of the dataset.
    ///
    /// # Errors
    /// An input is missing or does not fit the network.
    pub fn of_unet(job: &Job, stage: &stage::Sample, unet: &UnetNetwork) -> Result<(Self, Vec<u32>), EngineError> {
        let (device, trained) = (job.tensor_device()?, trained(job, stage)?);
        let captions = Sequences::open(job, &unet.shape)?;
        let (null, of_images) = (captions.null(), captions.of_images.clone());
        let backbone = match stage.method {
            Method::Finetune(_) => Weights::new(),
            _ => crate::unet::weights(job, unet)?,
        };
        let trunk = unet::UnetTrunk::new(&unet.shape, &stage.method, backbone, trained, captions, &device)?;
        let guidance = guidance(&stage.sampler).map(|guidance| (guidance, null));
        let shape = [unet.shape.channels, unet.shape.channels, unet.shape.image_size];
        Ok((Self { shape, guidance, labels: Vec::new(), trunk: Box::new(trunk) }, of_images))
    }

    /// The network of a method's `weights`: those of the backbone, and what was trained.
    ///
    /// # Errors
    /// The weights do not fit the network.
    pub fn new(
        dit: &DitConfig,
        method: &Method,
        sampler: &Sampler,
        weights: (&Weights, &Weights),
        engine: Engine,
        device: &Device,
    ) -> Result<Self> {
        let tensors = |weights: &Weights| weights::constants(weights, DType::F32, device);
        let Applied { trunk, patch } = patches::apply(method, dit, &tensors(weights.0)?, &tensors(weights.1)?)?;
        let trunk: Box<dyn Trunk> = match engine {
            Engine::Reference => Box::new(reference::ReferenceTrunk::new(dit, &trunk, patch, device)?),
            Engine::Fast => Box::new(fast::FastTrunk::new(dit, &weights::from_tensors(&trunk)?, patch)?),
        };
        let guidance = guidance(sampler).zip(dit.classes.map(|null| null as u32));
        let shape = [dit.channels, dit.out_channels(), dit.image_size];
        Ok(Self { shape, guidance, labels: Vec::new(), trunk })
    }

    /// Labels of the samples that are drawn next, `[B]`.
    pub fn set_labels(&mut self, labels: Vec<u32>) {
        self.labels = labels;
    }

    fn guided(&mut self, x: &[f32], t: usize, out: &mut [f32]) -> Result<()> {
        self.trunk.predict(x, t, &self.labels, out)?;
        if let Some((guidance, null)) = self.guidance {
            // What is dropped of it (variances, a channel that is not guided) is a share of the last layer alone.
            let mut without = vec![0.0; out.len()];
            self.trunk.predict(x, t, &vec![null; self.labels.len()], &mut without)?;
            let [noise, channels, side] = self.shape;
            let tensor = |v: &[f32]| Tensor::from_slice(v, (self.labels.len(), channels, side, side), &Device::Cpu);
            let combined = guidance.combine(&tensor(out)?, &tensor(&without)?, noise)?;
            out.copy_from_slice(&combined.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }
}

/// The sampler's guidance, where it has one.
pub(crate) fn guidance(sampler: &Sampler) -> Option<Guidance> {
    let guided = sampler.guidance != 1.0;
    guided.then_some(Guidance { scale: sampler.guidance, channels: sampler.guidance_channels })
}

impl Denoiser for Network {
    type Error = EngineError;

    fn denoise(&mut self, x: &[f32], t: usize, out: &mut [f32]) -> Result<(), EngineError> {
        Ok(self.guided(x, t, out)?)
    }
}

/// Adds normal noise to the prompts of all blocks, `strength` times their own root mean square: a change that is known to
/// hurt.
fn disturb_prompts(trained: &mut Weights, strength: f64, seed: u64) -> Result<()> {
    let prompts = trained.iter_mut().filter(|(name, _)| name.starts_with(PROMPTS));
    let mut values: Vec<&mut f32> = prompts.flat_map(|(_, tensor)| &mut tensor.values).collect();
    anyhow::ensure!(!values.is_empty(), "there are no prompts to put noise on");
    let squares: f64 = values.iter().map(|v| f64::from(**v).powi(2)).sum();
    let std = (strength * (squares / values.len() as f64).sqrt()) as f32;
    let mut noise = vec![0.0; values.len()];
    Draws::new(seed, Stream::PromptNoise, 0).fill_normal(0, &mut noise);
    values.iter_mut().zip(noise).for_each(|(value, noise)| **value += std * noise);
    Ok(())
}
