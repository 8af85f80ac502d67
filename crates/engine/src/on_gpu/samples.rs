//! Samples on a machine: a batch goes through all calls of the sampler before the host sees it.

use anyhow::Result;
use diffusion::Sampler;
use gpu::{Call, Labels, Machine, Sampled, Sampling};
use manifest::dit::DitConfig;
use manifest::method::Method;
use manifest::scale::Dtype;
use models::dit::Guidance;
use models::weights::Weights;

use super::method;
use super::{precision, said};
use crate::job::EngineError;
use crate::trainables::{Layout, own_slots};
use crate::trunk::fast;

/// What is drawn with.
pub struct SamplerSetting<'a> {
    /// The network, as it is conditioned.
    pub dit: &'a DitConfig,
    /// What was trained.
    pub method: &'a Method,
    /// The trunk's weights with what a method made of them, and the trained tensors.
    pub weights: (&'a Weights, &'a Weights),
    /// The sampler.
    pub sampler: &'a Sampler,
    /// What samples with labels are guided by.
    pub guidance: Option<Guidance>,
    /// Samples at once.
    pub batch: usize,
    /// Seed of their noise.
    pub seed: u64,
    /// Precision.
    pub dtype: Dtype,
}

/// Draws samples on a machine.
pub struct MachineSampler<'m, M: Machine> {
    sampling: Sampling<'m, M>,
    batch: usize,
    elements: usize,
}

impl<'m, M: Machine> MachineSampler<'m, M> {
    /// # Errors
    /// The kernels do not do what is asked for, or it does not fit the machine's memory: said before anything is allocated.
    pub fn new(machine: &'m M, setting: &SamplerSetting) -> Result<Self> {
        let SamplerSetting { dit, method, weights: (trunk, trained), sampler, guidance, batch, seed, dtype } = *setting;
        let labels = match (dit.classes, guidance) {
            (None, _) => Labels::None,
            (Some(_), None) => Labels::Own,
            (Some(null), Some(guidance)) => Labels::Guided(gpu::Guidance {
                scale: guidance.scale as f32,
                channels: guidance.guided(dit.channels),
                null: null as u32,
            }),
        };
        let call = |call: usize| Call {
            timestep: sampler.timestep(call) as u32,
            reverse: sampler.coefficients(call),
            multistep: sampler.multistep(call),
        };
        let calls: Vec<Call> = (0..sampler.calls()).map(call).collect();
        let prompts = method::prompts(method, dit)?;
        let (shape, precision) = (fast::shape(dit), precision(dtype));
        let sampled = Sampled { shape, prompts, batch, calls: &calls, labels, seed };
        let (wanted, free) = (gpu::sampling_bytes(precision, sampled).map_err(said)?, machine.free()?);
        if wanted > free {
            let advice = "free the GPU of other programs, or take a larger one".to_owned();
            return Err(gpu::Error::Memory { wanted, free, advice }.into());
        }
        let own = match prompts {
            Some(_) => Layout::new(own_slots(patches::trainable(method, dit))).flatten(trained)?,
            None => Vec::new(),
        };
        let mut sampling = Sampling::new(machine, precision, sampled).map_err(said)?;
        sampling.set_weights(&fast::parameters(dit, trunk)?, &own)?;
        Ok(Self { sampling, batch, elements: shape.image() })
    }

    /// The samples from number `first` on, one for each of `labels`, whose noise `x` holds. `stopping` is asked between calls.
    ///
    /// # Errors
    /// [`EngineError::Interrupted`], and those of the machine.
    pub fn draw(
        &mut self,
        first: usize,
        mut x: Vec<f32>,
        mut labels: Vec<u32>,
        stopping: impl Fn() -> bool,
    ) -> Result<Vec<f32>, EngineError> {
        let count = labels.len();
        // A last batch that is shorter is filled with samples that nobody sees.
        labels.resize(self.batch, labels[count - 1]);
        x.resize(self.batch * self.elements, 0.0);
        let begun = self.sampling.begin(first as u64, &x, &labels);
        begun.map_err(anyhow::Error::from)?;
        for _ in 0..self.sampling.calls() {
            if stopping() {
                return Err(EngineError::Interrupted);
            }
            self.sampling.run().map_err(anyhow::Error::from)?;
        }
        let mut samples = self.sampling.samples().map_err(anyhow::Error::from)?;
        samples.truncate(count * self.elements);
        Ok(samples)
    }
}
