//! What works read: a network with random weights, random images, and the settings that stages have.

use data::Images;
use manifest::method::Method;
use manifest::scale::{DeviceKind, Diffusion, Dtype, Engine, Numerics, Schedule};
use models::weights::{Tensor, Weights};
use random::{Draws, Stream};

use super::Setting;
use super::work::{Network, Work};
use crate::job::Device;

/// Images in memory that batches are taken from.
const IMAGES: usize = 1024;

/// Spread of the weights: large enough that no value vanishes on its way.
const SPREAD: f32 = 0.05;

/// The diffusion of all works: its schedule decides no cost.
pub const DIFFUSION: Diffusion = Diffusion { schedule: Schedule::Cosine, timesteps: 1000 };

/// What training and sampling read. It is made before memory is counted.
pub struct Inputs {
    /// The network, and the images of a step.
    pub network: Network,
    /// What learns, or was trained.
    pub method: Method,
    /// Training images.
    pub images: Images,
    /// The network's weights.
    pub backbone: Weights,
}

impl Inputs {
    /// Random weights and images for a network.
    pub fn new(work: Work, network: Network) -> Self {
        let backbone = random_weights(models::dit::named_shapes(&network.dit()));
        Self { network, method: work.method(), images: images(network), backbone }
    }

    /// Bytes of the backbone's weights: a trunk has them in an order of its own.
    pub fn weight_bytes(&self) -> u64 {
        self.backbone.values().map(|tensor| size_of_val(&tensor.values[..]) as u64).sum()
    }
}

/// Normal values for tensors by name and shape.
pub fn random_weights(shapes: Vec<(String, Vec<usize>)>) -> Weights {
    let tensor = |(number, (name, shape)): (usize, (String, Vec<usize>))| {
        let mut values = vec![0.0; shape.iter().product()];
        Draws::new(0, Stream::Init, number as u64).fill_normal(0, &mut values);
        values.iter_mut().for_each(|value| *value *= SPREAD);
        (name, Tensor { shape, values })
    };
    shapes.into_iter().enumerate().map(tensor).collect()
}

/// Random images, with labels where the network has classes.
fn images(network: Network) -> Images {
    let dit = network.dit();
    let draws = Draws::new(0, Stream::Factors, 0);
    let pixels = IMAGES * dit.channels * dit.image_size * dit.image_size;
    let labels = dit.classes.map(|classes| (0..IMAGES).map(|i| (i % classes) as u32).collect());
    let pixels = (0..pixels as u64).map(|i| draws.bits(i) as u8).collect();
    Images { labels, ..Images::new(dit.channels, dit.image_size, pixels) }
}

/// Engine, precision and device as a stage has them: the fast engine's on a GPU is bf16, the others' is f32.
pub fn numerics(setting: &Setting) -> Numerics {
    let device = if setting.device == Device::Cpu { DeviceKind::Cpu } else { DeviceKind::Cuda };
    let dtype = match (setting.engine, device) {
        (Engine::Fast, DeviceKind::Cuda) => Dtype::Bf16,
        _ => Dtype::F32,
    };
    Numerics { engine: setting.engine, device, dtype }
}
