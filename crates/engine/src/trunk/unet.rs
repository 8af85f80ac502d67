//! A UNet in training: candle tensors and autograd on any device.
//!
//! The images of a batch go through the network few at a time ([`together`]; one of Stable Diffusion's): a batch of 128 at
//! 512x512 has no room anywhere, and the sums over a batch are in the order of its images, whatever the number of threads. Gate
//! and prompts are computed once for the whole batch, since balancing losses look at it; their gradients come from what enters
//! the blocks.

use std::ops::Range;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use diffusion::{SampleLoss, TrainingLoss};
use manifest::method::Method;
use manifest::unet::UnetConfig;
use models::unet::Unet;
use models::weights::{self, Tensors, Weights, gradients};
use models::{Hooks, Unpatched};
use patches::unet::{Entering, UnetMixture, UnetPatch};
use rayon::prelude::*;

use super::TrainingTrunk;
use crate::batch::TrainingBatch;
use crate::loss;
use crate::losses::Losses;
use crate::sequences::Sequences;
use crate::trainables::Layout;
use crate::unet::together;

/// A UNet with a method on it.
pub struct UnetTrunk {
    config: UnetConfig,
    method: Method,
    layout: Layout,
    loss: TrainingLoss,
    captions: Sequences,
    /// The network, unless all of it learns.
    frozen: Option<Unet>,
    /// Images that go through it together.
    together: usize,
    device: Device,
}

/// What some images give: their losses, and gradients of what learns or enters, in a fixed order.
type Share = (Vec<SampleLoss>, Vec<Tensor>);

impl UnetTrunk {
    /// A method on a `backbone`, whose images have `captions`.
    ///
    /// # Errors
    /// The backbone's weights do not fit the network.
    pub fn new(
        config: &UnetConfig,
        method: &Method,
        backbone: Weights,
        layout: &Layout,
        loss: TrainingLoss,
        captions: Sequences,
        device: &Device,
    ) -> Result<Self> {
        let frozen = match method {
            Method::Finetune(_) => None,
            _ => Some(Unet::new(config, &weights::into_constants(backbone, device)?)?),
        };
        let (together, device) = (together(config), device.clone());
        let (config, method, layout) = (config.clone(), method.clone(), layout.clone());
        Ok(Self { config, method, layout, loss, captions, frozen, together, device })
    }

    /// Losses of some images, and gradients of their sum with respect to what is `entering`, or else to all that `learns`.
    fn share(
        &self,
        unet: &Unet,
        batch: &TrainingBatch,
        images: Range<usize>,
        entering: Option<&Entering>,
        learns: &Tensors,
    ) -> Result<Share> {
        let (channels, side) = (self.config.channels, self.config.image_size);
        let (each, shape) = (channels * side * side, (images.len(), channels, side, side));
        let x = Tensor::from_slice(&batch.x_t[images.start * each..images.end * each], shape, &self.device)?;
        let t: Vec<f32> = batch.clean.t[images.clone()].iter().map(|&t| t as f32).collect();
        let context = self.captions.context(&batch.clean.labels[images.clone()], &self.device)?;
        let condition = unet.condition(&Tensor::new(t, &self.device)?, &context)?;
        let hooks = entering.map_or(&Unpatched as &dyn Hooks, |entering| entering);
        let output = unet.forward(&x, &condition, hooks)?;

        // The loss's gradient is known in closed form; autograd goes on from there.
        let said: Vec<f32> = output.flatten_all()?.to_vec1()?;
        let mut d_output = vec![0.0; said.len()];
        let own = said.chunks_exact(each).zip(d_output.chunks_exact_mut(each));
        let loss = |(i, (said, d)): (usize, (&[f32], &mut [f32]))| loss::sample(&self.loss, batch, i, said, d);
        let losses = images.zip(own).map(loss).collect();
        let total = (&output * Tensor::from_vec(d_output, output.shape(), &self.device)?)?.sum_all()?;
        let Some(entering) = entering else {
            return Ok((losses, gradients(&total, learns)?.into_values().collect()));
        };
        let found = total.backward()?;
        let of = |tensor: &Tensor| found.get(tensor).cloned().map_or_else(|| tensor.zeros_like(), Ok);
        Ok((losses, entering.tensors().iter().map(of).collect::<candle_core::Result<_>>()?))
    }

    /// What the images of the batch give, in their order, handed to `take` as soon as it is their turn.
    fn shares(
        &self,
        unet: &Unet,
        batch: &TrainingBatch,
        mixture: Option<&UnetMixture>,
        learns: &Tensors,
        mut take: impl FnMut(Vec<Tensor>) -> Result<()>,
    ) -> Result<Vec<SampleLoss>> {
        let (count, together) = (batch.clean.t.len(), self.together);
        let one = |first: usize| {
            let images = first..(first + together).min(count);
            let entering = mixture.map(|mixture| mixture.entering().of_samples(images.clone())).transpose()?;
            self.share(unet, batch, images, entering.as_ref(), learns)
        };
        // On the processor each thread takes images of its own.
        let at_once = if self.device.is_cpu() { rayon::current_num_threads() } else { 1 };
        let (firsts, mut losses) = ((0..count).step_by(together).collect::<Vec<_>>(), Vec::new());
        for firsts in firsts.chunks(at_once) {
            for share in firsts.par_iter().map(|&first| one(first)).collect::<Result<Vec<Share>>>()? {
                losses.extend(share.0);
                take(share.1)?;
            }
        }
        Ok(losses)
    }
}

impl TrainingTrunk for UnetTrunk {
    fn gradient(&mut self, batch: &TrainingBatch, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        let learned = weights::variables(&self.layout.unflatten(values), DType::F32, &self.device)?;
        let (losses, found) = match &self.frozen {
            None => self.finetune(batch, &learned)?,
            Some(unet) => self.patch(unet, batch, &learned)?,
        };
        gradient.copy_from_slice(&self.layout.flatten(&weights::from_tensors(&found)?)?);
        Ok(losses)
    }
}

impl UnetTrunk {
    /// Losses, and gradients of all weights.
    fn finetune(&self, batch: &TrainingBatch, learned: &Tensors) -> Result<(Losses, Tensors)> {
        let unet = Unet::new(&self.config, learned)?;
        let mut sums: Vec<Tensor> = Vec::new();
        let losses = self.shares(&unet, batch, None, learned, |share| {
            let add = |(sum, own): (Tensor, Tensor)| sum + own;
            sums = match sums.is_empty() {
                true => share,
                false => std::mem::take(&mut sums).into_iter().zip(share).map(add).collect::<Result<_, _>>()?,
            };
            Ok(())
        })?;
        Ok((loss::mean(&losses), learned.keys().cloned().zip(sums).collect()))
    }

    /// Losses, balancing ones among them, and gradients of the patch.
    fn patch(&self, unet: &Unet, batch: &TrainingBatch, learned: &Tensors) -> Result<(Losses, Tensors)> {
        let patch = UnetPatch::build(&self.method, &self.config, learned)?;
        let Some(patch) = patch else { anyhow::bail!("this method trains nothing") };
        let t: Vec<f32> = batch.clean.t.iter().map(|&t| t as f32).collect();
        let noise = UnetPatch::noise_shape(&self.method, &self.config, t.len())?;
        ensure!(
            batch.gate_noise.len() == noise.iter().product::<usize>(),
            "noise of another shape than the gate's {noise:?}"
        );
        let noise = match batch.gate_noise.as_slice() {
            [] => None,
            draws => Some(Tensor::from_slice(draws, &noise, &self.device)?),
        };
        let mixture = patch.mix(&unet.embed(&Tensor::new(t, &self.device)?)?, noise.as_ref())?;
        let mut shares: Vec<Vec<Tensor>> = vec![Vec::new(); mixture.entering().tensors().len()];
        let losses = self.shares(unet, batch, Some(&mixture), learned, |share| {
            shares.iter_mut().zip(share).for_each(|(block, own)| block.push(own));
            Ok(())
        })?;
        let d_entering = shares.iter().map(|block| Tensor::cat(block, 0)).collect::<Result<Vec<_>, _>>()?;
        let mut losses = loss::mean(&losses);
        if let Some(balance) = mixture.balance()? {
            losses.add_balance(&balance)?;
        }
        Ok((losses, mixture.backward_from(&d_entering)?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicBool;

    use diffusion::{MseWeight, Process, Schedule};
    use manifest::method::{Add, Backbone, Depth, Dmp, Finetune, Init, Position, PromptTuning, Prompts, Zero};
    use manifest::plan::Plan;
    use manifest::stage::Stage;
    use manifest::{Request, Workspace};
    use models::formula::FORMULA_SEED;
    use models::unet::formula_weights;
    use patches::Initial;
    use random::{Draws, Stream};
    use safetensors::Dtype;

    use super::*;
    use crate::artifact;
    use crate::batch::Batcher;
    use crate::job::Job;

    fn normals(count: usize, number: u64) -> Vec<f32> {
        let mut values = vec![0.0; count];
        Draws::new(7, Stream::Init, number).fill_normal(0, &mut values);
        values
    }

    fn plan() -> Plan {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let request = Request { scale: "smoke".to_owned(), overrides: Vec::new(), seeds: Some(vec![0]) };
        Workspace::open(root).unwrap().load_artifact("table2", &request).unwrap()
    }

    /// Along a random direction in each tensor that learns, against differences of the total loss: where all weights learn,
    /// prompts alone, and a gate with its balancing losses; images with captions that repeat, and the null caption.
    #[test]
    fn gradients_are_slopes_of_the_loss() {
        let config = UnetConfig {
            image_size: 4,
            channels: 2,
            widths: vec![4, 8],
            attending: vec![true, false],
            depth: 1,
            context: 6,
            heads: 2,
            groups: 2,
            label_dropout: 0.1,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(artifact::EMBEDDINGS);
        let embeddings = normals(3 * 5 * 6, 0).iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensors =
            [("embeddings", Dtype::F32, vec![3, 5, 6], embeddings), ("captions", Dtype::I64, vec![0], vec![])];
        artifact::write(&path, &tensors).unwrap();
        let plan = plan();
        let dmp: Dmp = plan
            .stages
            .iter()
            .find_map(|planned| match &planned.stage {
                Stage::Train(train) => match &train.method {
                    Method::Dmp(dmp) if train.denoiser.dit().is_none() => Some(dmp.clone()),
                    _ => None,
                },
                _ => None,
            })
            .unwrap();
        let prompts = Prompts { position: Position::Add(Add {}), depth: Depth::All, init: Init::Zero(Zero {}) };
        let methods = [
            Method::Finetune(Finetune { backbone: Backbone::Pretrained }),
            Method::PromptTuning(PromptTuning { prompts }),
            Method::Dmp(dmp),
        ];
        let backbone = formula_weights(&config, FORMULA_SEED).unwrap();
        let mut batch = Batcher::empty(3, 2 * 16, 0);
        (batch.x_t, batch.clean.noise) = (normals(3 * 32, 1), normals(3 * 32, 2));
        (batch.clean.labels, batch.clean.t) = (vec![1, 2, 1], vec![10, 400, 900]);
        for method in methods {
            let learns = patches::unet::trainable(&method, &config).unwrap();
            let layout = Layout::new(learns.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone(), 1.0)));
            let values = match learns[0].initial {
                Initial::Backbone => layout.flatten(&backbone).unwrap(),
                _ => normals(layout.len(), 3),
            };
            let (stop, progress) = (AtomicBool::new(false), |_| {});
            let job = Job {
                stage: &plan.stages[0].stage,
                inputs: BTreeMap::from([("embeddings".to_owned(), path.clone())]),
                directory: folder.path(),
                threads: 2,
                device: crate::Device::Cpu,
                progress: &progress,
                stop: &stop,
            };
            let captions = Sequences::open(&job, &config).unwrap();
            let loss = TrainingLoss::new(Process::new(Schedule::ScaledLinear, 1000).unwrap(), MseWeight::Constant);
            let device = Device::Cpu;
            let trunk = UnetTrunk::new(&config, &method, backbone.clone(), &layout, loss, captions, &device);
            let mut trunk = trunk.unwrap();
            let mut of_shares = |together: usize, threads: usize| {
                trunk.together = together;
                let mut gradient = vec![0.0; layout.len()];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| trunk.gradient(&batch, &values, &mut gradient)).unwrap();
                gradient
            };
            let whole = of_shares(3, 2);
            // Two shares, the last of one image; three, on threads of their own or not.
            for together in [1, 2] {
                let gradient = of_shares(together, 1);
                let apart = gradient.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let largest = whole.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
                assert!(apart < 1e-5 * largest, "{method:?}, {together} together: {apart} of {largest}");
                for threads in [2, 3] {
                    assert_eq!(of_shares(together, threads), gradient, "{method:?}, {together} on {threads} threads");
                }
            }
            let gradient = of_shares(2, 2);
            let (mut worst, mut steepest) = (0.0_f64, 0.0_f64);
            for slot in &layout.slots {
                let direction = normals(slot.range.len(), 4);
                let mut at = |step: f32| {
                    let mut moved = values.clone();
                    moved[slot.range.clone()].iter_mut().zip(&direction).for_each(|(v, d)| *v += step * d);
                    trunk.gradient(&batch, &moved, &mut vec![0.0; layout.len()]).unwrap().total
                };
                // Of fourth order: the loss bends.
                let slope = (8.0 * (at(3e-4) - at(-3e-4)) - (at(6e-4) - at(-6e-4))) / (12.0 * 3e-4);
                let ours = gradient[slot.range.clone()].iter().zip(&direction).map(|(g, d)| f64::from(g * d));
                worst = worst.max((ours.sum::<f64>() - slope).abs());
                steepest = steepest.max(slope.abs());
            }
            assert!(steepest > 1e-2 && worst < 2e-3 * steepest.max(1.0), "{method:?}: off by {worst} of {steepest}");
        }
    }
}
