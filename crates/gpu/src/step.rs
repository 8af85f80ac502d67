//! One step of training from clean images to changed parameters, without a wait: noise, noising, the trunk there and back, the loss, AdamW.
//!
//! What the host does between steps is to write the batch, the step's number and AdamW's factors. A GPU captures [`Step::launch`] once as a
//! graph and replays it.
//!
//! The gate of a mixture of prompts lies outside, as with the CPU engine: a step reads the weights of the prompts, trains the prompts, and
//! leaves the gradient of the weights.

use std::ops::Range;

use diffusion::TrainingLoss;
use kernels::{Group, Learn, Parameters, Plan};
use random::Stream;

use crate::arguments::{AdamW, Loss, Normals, QSample};
use crate::array::{Array, Numbers, Plain};
use crate::diffusion_table;
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision};
use crate::optimizer::factors;
use crate::trunk::{Added, Trunk};

/// A training step's buffers.
pub struct Step<'m, M: Machine> {
    l: Launcher<'m, M>,
    trunk: Trunk<'m, M>,
    plan: Plan,
    /// Whether the output has variance values.
    learned: bool,
    key: [u32; 2],
    table: Plain<M>,
    timesteps: Numbers<M>,
    /// Number of the step.
    number: Numbers<M>,
    x0: Array<M>,
    noise: Array<M>,
    /// `[B, 2]` doubles.
    terms: Plain<M>,
    /// `f32` values of weights that learn, where the products read others.
    master: Option<Array<M>>,
    /// Parts of the trained values that learn: all but positions.
    learning: [Range<usize>; 2],
    first: Array<M>,
    second: Array<M>,
    factors: Array<M>,
}

impl<'m, M: Machine> Step<'m, M> {
    /// Room for steps of `plan`, whose samples have a row of the condition each.
    ///
    /// # Errors
    /// As [`Trunk::new`].
    pub fn new(
        machine: &'m M,
        precision: Precision,
        plan: Plan,
        added: Added,
        parameters: &Parameters,
        loss: &TrainingLoss,
        seed: u64,
    ) -> Result<Self, Error> {
        let (shape, batch) = (plan.shape, plan.batch);
        let mut trunk = Trunk::new(machine, precision, plan, batch, added)?;
        trunk.set_weights(parameters)?;
        let everything = plan.learn == Learn::Everything;
        let learning = if everything {
            let mut segments = parameters.segments().into_iter();
            let position = segments.find(|s| s.name == "pos_embed").expect("a DiT has positions").range;
            [0..position.start, position.end..parameters.values().len()]
        } else {
            let values = trunk.patch().values.len();
            [0..values, values..values]
        };
        let trained = learning[1].end;
        let master = (everything && precision == Precision::Bf16)
            .then(|| Array::from(machine, Precision::F32, parameters.values()))
            .transpose()?;
        let table = diffusion_table::timesteps(loss, shape.image());
        let bytes = diffusion_table::bytes(&table);
        let mut on_machine = Plain::new(machine, bytes.len())?;
        on_machine.write(machine, bytes)?;
        let wide = |count| Array::zeros(machine, Precision::F32, count);
        Ok(Self {
            l: Launcher { machine, precision },
            trunk,
            plan,
            learned: shape.out_channels == 2 * shape.channels,
            key: [seed as u32, (seed >> 32) as u32],
            table: on_machine,
            timesteps: Numbers::from(machine, &vec![0; batch])?,
            number: Numbers::from(machine, &[0])?,
            x0: wide(batch * shape.image())?,
            noise: wide(batch * shape.image())?,
            terms: Plain::new(machine, 16 * batch)?,
            master,
            learning,
            first: wide(trained)?,
            second: wide(trained)?,
            factors: wide(3)?,
        })
    }

    /// Writes what step `number`, counted from 0, trains on. `timesteps` index the process; `told` is what the network is told of them.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If a length does not fit, or a number lies outside its table.
    pub fn set(
        &mut self,
        number: u32,
        x0: &[f32],
        [timesteps, told, labels]: [&[u32]; 3],
        learning_rate: f64,
        weight_decay: f64,
    ) -> Result<(), Error> {
        let machine = self.l.machine;
        self.number.write(machine, &[number])?;
        self.x0.write(machine, x0)?;
        self.timesteps.write(machine, timesteps)?;
        self.trunk.set_condition(told, labels)?;
        let group = Group { range: 0..0, learning_rate, weight_decay };
        self.factors.write(machine, &factors(&group, u64::from(number) + 1))
    }

    /// Does the step. Only launches.
    ///
    /// # Errors
    /// Those of the launches.
    pub fn launch(&self) -> Result<(), Error> {
        let (l, shape, count) = (self.l, &self.plan.shape, self.plan.batch * self.plan.shape.image());
        let (batch, n) = (self.plan.batch as i32, shape.image() as i32);
        let (images, output, d_output) = self.trunk.ends();
        // SAFETY: every array was made for this shape and batch.
        unsafe {
            l.normals(&Normals {
                step: self.number.start(),
                out: self.noise.start(),
                count,
                key: self.key,
                stream: Stream::TrainNoise as u32,
            })?;
            l.q_sample(&QSample {
                x0: self.x0.start(),
                noise: self.noise.start(),
                timesteps: self.timesteps.start(),
                table: self.table.start(),
                x_t: images,
                batch,
                n,
            })?;
        }
        self.trunk.forward()?;
        // SAFETY: as above.
        unsafe {
            l.loss(&Loss {
                x0: self.x0.start(),
                x_t: images,
                noise: self.noise.start(),
                output,
                timesteps: self.timesteps.start(),
                table: self.table.start(),
                d_output,
                terms: self.terms.start(),
                batch,
                n,
                learned: i32::from(self.learned),
            })?;
        }
        self.trunk.backward()?;
        self.descend()
    }

    /// AdamW over what learns.
    fn descend(&self) -> Result<(), Error> {
        let (weights, gradient) = self.trunk.trained();
        let (values, copy) = match &self.master {
            Some(master) => (master.start(), Some(weights)),
            None => (weights, None),
        };
        for Range { start, end } in self.learning.iter().filter(|range| !range.is_empty()).cloned() {
            let wide = start * Precision::F32.bytes();
            let arguments = AdamW {
                p: values.offset(wide),
                m: self.first.at(start),
                v: self.second.at(start),
                g: gradient.offset(wide),
                copy: copy.map_or(Address::NULL, |copy| copy.offset(start * self.l.precision.bytes())),
                factors: self.factors.start(),
                count: end - start,
            };
            // SAFETY: the ranges lie in the trained values.
            unsafe { self.l.adamw(&arguments)? };
        }
        Ok(())
    }

    /// Weighted squared error and variational bound of each sample of the latest step. Waits for it.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    pub fn terms(&self) -> Result<Vec<[f64; 2]>, Error> {
        Ok(self.terms.doubles(self.l.machine, 2 * self.plan.batch)?.as_chunks().0.to_vec())
    }

    /// The trunk: its patch's values are what a frozen trunk trains.
    pub fn trunk(&self) -> &Trunk<'m, M> {
        &self.trunk
    }

    /// The same, to be set.
    pub fn trunk_mut(&mut self) -> &mut Trunk<'m, M> {
        &mut self.trunk
    }

    /// What was trained: all weights, or the patch's values. Waits.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    pub fn values(&self) -> Result<Vec<f32>, Error> {
        match (&self.master, self.plan.learn) {
            (Some(master), _) => master.read(self.l.machine),
            (None, Learn::Everything) => self.trunk.weights(),
            (None, _) => self.trunk.patch().values.read(self.l.machine),
        }
    }
}
