//! What `runner bench` times: whole steps as the stages do them, beside the floor that the machine's own matrix products
//! set.
//!
//! A [`Work`] is one step of DMP on a frozen backbone, one of full fine-tuning, one batch of samples, one Frechet
//! distance, or precision and recall. [`measure`] runs it through the code of the stages: batch, gate, trunk, loss and AdamW as in `train`,
//! the loop of `sample`, the distance of `metrics`, the whole of `coverage`.

mod clock;
mod count;
mod coverage;
mod distance;
mod inputs;
mod memory;
mod on_gpu;
mod sampling;
mod step;
mod work;

use kernels::Peak;
use manifest::scale::Engine;
use serde::{Deserialize, Serialize};

use crate::job::{Device, EngineError};

pub use count::Count;
#[cfg(test)]
pub(crate) use inputs::random_weights;
pub use work::{Network, UnknownWork, Work};

/// How a work is measured.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Which implementation of the trunk computes.
    pub engine: Engine,
    /// Where its tensors live.
    pub device: Device,
    /// Threads to use.
    pub threads: usize,
    /// The work is repeated for so long, at least once after the first.
    pub seconds: f64,
}

/// Medians over the repetitions of one work, and what they are to be compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The work's name.
    pub work: String,
    /// What it does, with its shape.
    pub title: String,
    /// Which implementation computed.
    pub engine: Engine,
    /// Threads that it used.
    pub threads: usize,
    /// How often it was timed.
    pub repetitions: usize,
    /// Milliseconds of one repetition: a step, a batch of samples, a distance.
    pub step_ms: f64,
    /// The fastest repetition.
    pub least_ms: f64,
    /// Images trained on, or drawn, a second; none for a distance.
    pub images_per_s: Option<f64>,
    /// Operations of one repetition, in 10^9: see [`Count`].
    pub gflop: f64,
    /// Operations a second.
    pub gflop_per_s: f64,
    /// The machine's matrix products, measured around each repetition in the precision of the work.
    pub peak_gflop_per_s: f64,
    /// `gflop_per_s / peak_gflop_per_s`, of each repetition with the peak around it.
    pub share_of_peak: f64,
    /// Milliseconds of the counted operations at the peak: no implementation of this algorithm is faster.
    pub floor_ms: f64,
    /// Most memory that the process held.
    pub peak_bytes: Option<u64>,
    /// Most memory that the repetitions took, beyond the weights and the images: activations, gradients, moments, scratch.
    pub step_bytes: Option<u64>,
    /// What a frozen step of the whole batch at once keeps for its backward pass.
    pub activation_bytes: Option<u64>,
}

/// Something that can be done again and again.
trait Repeat {
    /// A first, short run after which all buffers are there.
    fn warm_up(&mut self) -> Result<(), EngineError>;

    /// Once.
    fn run(&mut self) -> Result<(), EngineError>;
}

/// Times `work` on the threads of `setting`.
///
/// # Errors
/// The device is missing, or the engine failed.
pub fn measure(work: Work, setting: &Setting) -> Result<Measurement, EngineError> {
    if let (Engine::Fast, Device::Cuda(number)) = (setting.engine, setting.device) {
        return on_gpu::measure(work, setting, &crate::on_gpu::open(number)?);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(setting.threads).build().map_err(anyhow::Error::from)?;
    pool.install(|| match work {
        Work::Dmp(network) | Work::Full(network) => {
            let inputs = inputs::Inputs::new(work, network);
            let make = || step::Step::new(&inputs, setting);
            clock::time(work, setting, Peak::<f32>::new(), inputs.weight_bytes(), make)
        }
        Work::Sample(network) => {
            let inputs = inputs::Inputs::new(work, network);
            let make = || sampling::Samples::new(&inputs, setting);
            clock::time(work, setting, Peak::<f32>::new(), inputs.weight_bytes(), make)
        }
        Work::Distance => {
            let distance = distance::Distance::new()?;
            clock::time(work, setting, Peak::<f64>::new(), 0, || Ok(distance))
        }
        Work::Coverage => {
            let features = coverage::Features::new(setting)?;
            clock::time(work, setting, Peak::<f32>::new(), 0, || Ok(features))
        }
    })
}
