//! The tensors that a method trains: names, shapes, initial values, learning rates.

use models::dit::xavier_uniform;
use models::unet::kaiming_uniform;
use models::weights::{Tensor, Tensors, Weights};
use random::{Draws, Stream};

/// One tensor that is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Trainable {
    /// Its name in the weight file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How it starts.
    pub initial: Initial,
    /// Its learning rate over that of the run.
    pub learning_rate_factor: f64,
}

/// How a trained tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// All zeros.
    Zero,
    /// Independent normal draws.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform draws by fan-in and fan-out (Glorot & Bengio 2010).
    XavierUniform,
    /// Uniform draws from `[-a, a)`, `a = 1 / sqrt(fan-in)`: Kaiming's with a slope of `sqrt 5`, as LoRA's authors released it.
    KaimingUniform,
    /// The backbone's own value.
    Backbone,
}

impl Trainable {
    pub(crate) fn new(name: &str, shape: &[usize], initial: Initial, learning_rate_factor: f64) -> Self {
        Self { name: name.to_owned(), shape: shape.to_vec(), initial, learning_rate_factor }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Tensors that are not those of a method.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// Names or shapes differ.
    #[error("the trained tensors do not fit the method: {}", faults.join("; "))]
    Unfit {
        /// Every missing, mis-shaped or unexpected tensor.
        faults: Vec<String>,
    },
    /// They cannot be put together.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// An error unless `tensors` are exactly those of `trainable`.
pub(crate) fn check(trainable: &[Trainable], tensors: &Tensors) -> Result<(), PatchError> {
    let mut faults = Vec::new();
    for Trainable { name, shape, .. } in trainable {
        match tensors.get(name) {
            None => faults.push(format!("missing {name} {shape:?}")),
            Some(found) if found.dims() != shape => {
                faults.push(format!("{name} has shape {:?}, expected {shape:?}", found.dims()));
            }
            Some(_) => {}
        }
    }
    let unexpected = tensors.keys().filter(|name| trainable.iter().all(|t| t.name != **name));
    faults.extend(unexpected.map(|name| format!("unexpected {name}")));
    if faults.is_empty() { Ok(()) } else { Err(PatchError::Unfit { faults }) }
}

/// Initial values; tensor number `n` takes its draws from step `n` of [`Stream::Init`].
///
/// # Panics
/// A tensor starts from the backbone's value, and `backbone` has none of that name.
pub fn initial_weights(tensors: &[Trainable], backbone: &Weights, seed: u64) -> Weights {
    let start = |(number, tensor): (usize, &Trainable)| {
        let draws = Draws::new(seed, Stream::Init, number as u64);
        let mut values = vec![0.0; tensor.elements()];
        match tensor.initial {
            Initial::Zero => {}
            Initial::Normal { std } => {
                draws.fill_normal(0, &mut values);
                values.iter_mut().for_each(|v| *v *= std as f32);
            }
            Initial::XavierUniform => {
                let out = tensor.shape[0];
                values = xavier_uniform(out, tensor.elements() / out, draws);
            }
            Initial::KaimingUniform => {
                values = kaiming_uniform(tensor.elements(), tensor.elements() / tensor.shape[0], draws);
            }
            Initial::Backbone => values.clone_from(&backbone[&tensor.name].values),
        }
        (tensor.name.clone(), Tensor { shape: tensor.shape.clone(), values })
    };
    tensors.iter().enumerate().map(start).collect()
}
