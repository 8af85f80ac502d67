//! The examples of a training run in a machine's memory: batches are taken from there.

use crate::arguments::Examples;
use crate::array::Array;
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision};

/// Examples `scale (mean + deviation noise)` of `elements` numbers each, or `mean` alone.
pub struct Pool<M: Machine> {
    elements: usize,
    scale: f32,
    mean: Array<M>,
    deviation: Option<Array<M>>,
}

impl<M: Machine> Pool<M> {
    /// Room for `count` examples; they are random where a `scale` is given.
    ///
    /// # Errors
    /// [`Error::Memory`] where they do not fit.
    pub fn new(machine: &M, count: usize, elements: usize, scale: Option<f32>) -> Result<Self, Error> {
        let array = || Array::new(machine, Precision::F32, count * elements);
        Ok(Self {
            elements,
            scale: scale.unwrap_or(1.0),
            mean: array()?,
            deviation: scale.map(|_| array()).transpose()?,
        })
    }

    /// Writes the examples from `first` on; `deviation` is read where they are random.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn write(&mut self, machine: &M, first: usize, mean: &[f32], deviation: &[f32]) -> Result<(), Error> {
        self.mean.write_from(machine, first * self.elements, mean)?;
        match &mut self.deviation {
            Some(array) => array.write_from(machine, first * self.elements, deviation),
            None => Ok(()),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.mean.len() / self.elements
    }

    /// Whether they are random: then `noise` is read.
    pub(crate) fn random(&self) -> bool {
        self.deviation.is_some()
    }

    /// `x0 [rows, n]` of the `examples [rows]`.
    pub(crate) fn take(&self, l: Launcher<M>, [examples, noise, x0]: [Address; 3], rows: usize) -> Result<(), Error> {
        let arguments = Examples {
            mean: self.mean.start(),
            deviation: self.deviation.as_ref().map_or(Address::NULL, Array::start),
            noise,
            examples,
            x0,
            scale: self.scale,
            rows: rows as i32,
            n: self.elements as i32,
        };
        // SAFETY: the examples lie in the pool, as whoever wrote their numbers has seen to.
        unsafe { l.examples(&arguments) }
    }
}
