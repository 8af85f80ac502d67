//! One whole step of training, from the numbers of its examples to changed parameters, without a wait: examples, noise, noising, the gate,
//! the trunk there and back, the loss, AdamW.
//!
//! The host writes what many steps train on at once ([`Step::write`]), does them ([`Step::run`]; from the third on, a GPU replays one graph a
//! step), and reads their losses together ([`Step::losses`]). A batch may be done in equal parts, whose gradients are summed in their order.

use std::ops::Range;

use diffusion::TrainingLoss;
use kernels::{Learn, Parameters, Plan, Shape};
use random::Stream;

use crate::arguments::{Accumulate, AdamW, Average, Loss, Normals, Place, QSample};
use crate::array::{Array, Numbers, Plain};
use crate::diffusion_table;
use crate::feed::{Feed, StepLosses};
use crate::gate::{Extent, Gate, Gating, Importance};
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision, Repeated};
use crate::optimizer::Rates;
use crate::pool::Pool;
use crate::trunk::{Added, Trunk};

/// What learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// All weights but the positions.
    Everything,
    /// Prompts before the first blocks of a frozen trunk.
    Prompts {
        /// How many blocks.
        blocks: usize,
        /// What weights them; without a gate each counts 1.
        gate: Option<(Gating, Importance)>,
    },
}

/// What steps are of.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The network.
    pub shape: Shape,
    /// What learns.
    pub method: Method,
    /// Samples of a step.
    pub batch: usize,
    /// Samples that are done at once; they divide the batch.
    pub part: usize,
    /// The loss.
    pub loss: &'a TrainingLoss,
    /// Whether a running average of the weights is kept.
    pub average: bool,
    /// Seed of the noise.
    pub seed: u64,
}

/// Where training stands: values, moments and, where one is kept, the average, each flat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// All weights, or the prompts and behind them the gate's values.
    pub values: Vec<f32>,
    /// AdamW's first moment.
    pub first: Vec<f32>,
    /// AdamW's second moment.
    pub second: Vec<f32>,
    /// The running average; empty where none is kept.
    pub average: Vec<f32>,
}

/// A training run on a machine.
pub struct Step<'m, M: Machine> {
    l: Launcher<'m, M>,
    method: Method,
    seed: u64,
    part: usize,
    /// Whether the output has variance values.
    learned: bool,
    trunk: Trunk<'m, M>,
    gate: Option<Gate<M>>,
    pool: Pool<M>,
    feed: Feed<M>,
    table: Plain<M>,
    /// Timesteps of the process, rows of the label table, examples: what places may not exceed.
    limits: [usize; 3],
    /// Number of each part's first value of noise; of the gate's noise it is 0.
    firsts: Plain<M>,
    examples: Numbers<M>,
    x0: Array<M>,
    noise: Array<M>,
    /// `[batch, 2]` and `[batch]` doubles.
    terms: Plain<M>,
    importance: Plain<M>,
    /// `f32` values of weights that learn, where the products read others.
    master: Option<Array<M>>,
    /// Sums of the parts' gradients, of the trunk's and of the gate's; none where a step has one part.
    sums: [Option<Array<M>>; 2],
    first: Array<M>,
    second: Array<M>,
    average: Option<Array<M>>,
    /// Weights before and behind the positions, which do not learn; unused where prompts learn.
    weights: [Range<usize>; 2],
    repeated: Repeated<M>,
}

impl<'m, M: Machine> Step<'m, M> {
    /// Room for steps of `setting` over the examples of `pool`. Backbone and state are undefined until they are set.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the kernels do not do what is asked for, [`Error::Memory`] where it does not fit.
    ///
    /// # Panics
    /// If the parts do not divide the batch, or the shape is unsound.
    pub fn new(machine: &'m M, precision: Precision, setting: Setting, pool: Pool<M>) -> Result<Self, Error> {
        let Setting { shape, method, batch, part, loss, average, seed } = setting;
        assert!(part > 0 && batch.is_multiple_of(part), "parts of {part} do not divide a batch of {batch}");
        let (learn, added) = match method {
            Method::Everything => (Learn::Everything, Added::Nothing),
            Method::Prompts { blocks, .. } => (Learn::Contributions { from: 0 }, Added::Prompts { blocks }),
        };
        let plan = Plan { learn, ..Plan::sampling(shape, part, 0) };
        let mut trunk = Trunk::new(machine, precision, plan, part, added)?;
        let gate = match method {
            Method::Prompts { blocks, gate: Some((gating, importance)) } => {
                if importance.together && part < batch {
                    let reason =
                        "its mean is over the whole batch: take parts as large as that, or the reference engine";
                    return Err(Error::Unsupported { what: "a batch's importance loss in parts".into(), reason });
                }
                let (prompts, width) = (shape.tokens(), shape.hidden);
                let extent = Extent { blocks, prompts, width, rows: part, all: batch };
                Some(Gate::new(machine, gating, extent, Some(importance))?)
            }
            _ => None,
        };
        if gate.is_none() {
            let ones = vec![1.0; trunk.patch().weights.len()];
            trunk.patch_mut().weights.write(machine, &ones)?;
        }
        let weights = match method {
            Method::Everything => {
                let zeros = Parameters::zeros(shape).expect("a sound shape");
                let mut segments = zeros.segments().into_iter();
                let position = segments.find(|s| s.name == "pos_embed").expect("a DiT has positions").range;
                [0..position.start, position.end..zeros.values().len()]
            }
            Method::Prompts { .. } => [0..0, 0..0],
        };
        let wide = |count| Array::zeros(machine, Precision::F32, count);
        let (of_trunk, of_gate) = match &gate {
            _ if method == Method::Everything => (weights[1].end, 0),
            Some(gate) => (trunk.patch().values.len(), gate.values().len()),
            None => (trunk.patch().values.len(), 0),
        };
        let sum = |count: usize| (part < batch && count > 0).then(|| wide(count)).transpose();
        let trained = of_trunk + of_gate;
        let bf16_weights = method == Method::Everything && precision == Precision::Bf16;
        let count = part * shape.image();
        let firsts: Vec<u64> = (0..batch / part).map(|i| (i * count) as u64).collect();
        Ok(Self {
            l: Launcher { machine, precision },
            method,
            seed,
            part,
            learned: shape.out_channels == 2 * shape.channels,
            trunk,
            gate,
            limits: [loss.process().len(), shape.label_rows, pool.count()],
            pool,
            feed: Feed::new(machine, batch)?,
            table: Plain::from(machine, &diffusion_table::timesteps(loss, shape.image()))?,
            firsts: Plain::from(machine, &firsts)?,
            examples: Numbers::from(machine, &vec![0; part])?,
            x0: wide(count)?,
            noise: wide(count)?,
            terms: Plain::new(machine, 16 * batch)?,
            importance: Plain::new(machine, 8 * batch)?,
            master: bf16_weights.then(|| wide(of_trunk)).transpose()?,
            sums: [sum(of_trunk)?, sum(of_gate)?],
            first: wide(trained)?,
            second: wide(trained)?,
            average: average.then(|| wide(trained)).transpose()?,
            weights,
            repeated: Repeated::New,
        })
    }

    /// Sets the weights of a frozen trunk.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn set_backbone(&mut self, parameters: &Parameters) -> Result<(), Error> {
        self.trunk.set_weights(parameters)
    }

    /// Sets where training stands before step `number`, counted from 0.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn set_state(&mut self, number: u32, state: &State) -> Result<(), Error> {
        let machine = self.l.machine;
        match self.method {
            Method::Everything => {
                self.trunk.set_values(&state.values)?;
                if let Some(master) = &mut self.master {
                    master.write(machine, &state.values)?;
                }
            }
            Method::Prompts { .. } => {
                let prompts = &mut self.trunk.patch_mut().values;
                let (of_prompts, of_gate) = state.values.split_at(prompts.len());
                prompts.write(machine, of_prompts)?;
                match &mut self.gate {
                    Some(gate) => gate.values_mut().write(machine, of_gate)?,
                    None => assert!(of_gate.is_empty(), "there is no gate"),
                }
            }
        }
        self.first.write(machine, &state.first)?;
        self.second.write(machine, &state.second)?;
        if let Some(average) = &mut self.average {
            average.write(machine, &state.average)?;
        }
        self.feed.start(machine, number)
    }

    /// Where training stands. Waits.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    pub fn state(&self) -> Result<State, Error> {
        let machine = self.l.machine;
        let values = match (&self.master, self.method) {
            (Some(master), _) => master.read(machine)?,
            (None, Method::Everything) => self.trunk.weights()?,
            (None, Method::Prompts { .. }) => {
                let mut values = self.trunk.patch().values.read(machine)?;
                if let Some(gate) = &self.gate {
                    values.extend(gate.values().read(machine)?);
                }
                values
            }
        };
        let average = self.average.as_ref().map_or(Ok(Vec::new()), |average| average.read(machine))?;
        Ok(State { values, first: self.first.read(machine)?, second: self.second.read(machine)?, average })
    }

    /// Writes what step `number` trains on; at most [`crate::SLOTS`] steps may be written and not done.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If there are not as many places as a batch has, or a number lies outside its table.
    pub fn write(&mut self, number: u32, places: &[Place], rates: &Rates) -> Result<(), Error> {
        let [timesteps, labels, examples] = self.limits;
        let inside = |place: &Place| {
            (place.timestep as usize) < timesteps.min(1000)
                && (place.label as usize) < labels
                && (place.example as usize) < examples
        };
        assert!(places.iter().all(inside), "a place outside the process, the label table or the examples");
        self.feed.write(self.l.machine, number, places, rates)
    }

    /// Does the next step. Does not wait.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn run(&mut self) -> Result<(), Error> {
        let mut repeated = std::mem::replace(&mut self.repeated, Repeated::New);
        let done = repeated.run(self.l.machine, &|| self.launch());
        self.repeated = repeated;
        done
    }

    /// The losses of the steps `first..first + count`, which were done last. Waits.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    ///
    /// # Panics
    /// If there are more than [`crate::SLOTS`].
    pub fn losses(&self, first: u32, count: usize) -> Result<Vec<StepLosses>, Error> {
        self.feed.losses(self.l.machine, first, count)
    }

    /// Everything that a step launches.
    fn launch(&self) -> Result<(), Error> {
        let parts = self.feed.batch() / self.part;
        if let Some(gate) = &self.gate
            && let (out, count @ 1..) = gate.draws()
        {
            self.normals(Stream::GateNoise, 0, out, count)?;
        }
        for part in 0..parts {
            self.launch_part(part)?;
            self.accumulate(part)?;
        }
        self.descend()?;
        let importance = if self.gate.is_some() { self.importance.start() } else { Address::NULL };
        self.feed.finish(self.l, self.terms.start(), importance)
    }

    /// Normals of a stream at this step, those of part `part` where it is noise of images.
    fn normals(&self, stream: Stream, part: usize, out: Address, count: usize) -> Result<(), Error> {
        let arguments = Normals {
            step: self.feed.number(),
            first: self.firsts.at(8 * part),
            out,
            count,
            key: [self.seed as u32, (self.seed >> 32) as u32],
            stream: stream as u32,
        };
        // SAFETY: the caller has room for as many.
        unsafe { self.l.normals(&arguments) }
    }

    /// From the numbers of a part's examples to the gradients of its losses.
    fn launch_part(&self, part: usize) -> Result<(), Error> {
        let (l, shape, first) = (self.l, self.trunk.shape(), part * self.part);
        let (batch, n, count) = (self.part as i32, shape.image() as i32, self.part * shape.image());
        let (images, output, d_output) = self.trunk.ends();
        let (timesteps, labels) = self.trunk.told();
        let (x0, noise, table) = (self.x0.start(), self.noise.start(), self.table.start());
        self.feed.begin(l, [self.examples.start(), labels, timesteps], first, self.part)?;
        if self.pool.random() {
            self.normals(Stream::LatentNoise, part, noise, count)?;
        }
        self.pool.take(l, [self.examples.start(), noise, x0], self.part)?;
        self.normals(Stream::TrainNoise, part, noise, count)?;
        // SAFETY: every array was made for this shape and batch.
        unsafe { l.q_sample(&QSample { x0, noise, timesteps, table, x_t: images, batch, n })? };
        self.trunk.embed()?;
        let patch = self.trunk.patch();
        if let Some(gate) = &self.gate {
            // SAFETY: as above; the trunk's patch was made for the same blocks and tokens.
            unsafe { gate.forward(l, self.trunk.embeddings(), patch.weights.start(), first)? };
        }
        self.trunk.through()?;
        let loss = Loss {
            x0,
            x_t: images,
            noise,
            output,
            timesteps,
            table,
            d_output,
            terms: self.terms.at(16 * first),
            batch,
            n,
            learned: i32::from(self.learned),
            all: self.feed.batch() as i32,
        };
        // SAFETY: as above.
        unsafe { l.loss(&loss)? };
        self.trunk.backward()?;
        if let Some(gate) = &self.gate {
            let weights = [patch.weights.start(), patch.d_weights.start()];
            // SAFETY: as above.
            unsafe { gate.backward(l, weights, self.importance.at(8 * first), first)? };
        }
        Ok(())
    }

    /// Gradients of the trunk's part of what learns, and of the gate's.
    fn gradients(&self) -> [Address; 2] {
        let (_, of_trunk) = self.trunk.trained();
        [of_trunk, self.gate.as_ref().map_or(Address::NULL, |gate| gate.gradient().start())]
    }

    /// Adds the gradients of part `part` to those of the parts before.
    fn accumulate(&self, part: usize) -> Result<(), Error> {
        for (sum, values) in self.sums.iter().zip(self.gradients()) {
            if let Some(sum) = sum {
                let (count, sum, fresh) = (sum.len(), sum.start(), i32::from(part == 0));
                // SAFETY: a sum is as long as what it sums.
                unsafe { self.l.accumulate(&Accumulate { sum, values, count, fresh })? };
            }
        }
        Ok(())
    }

    /// AdamW over what learns, and the running average.
    fn descend(&self) -> Result<(), Error> {
        let [of_trunk, of_gate] = self.gradients();
        let sum = |i: usize, single| self.sums[i].as_ref().map_or(single, Array::start);
        let (of_trunk, of_gate) = (sum(0, of_trunk), sum(1, of_gate));
        let (weights, _) = self.trunk.trained();
        match self.method {
            Method::Everything => {
                let (values, copy) = match &self.master {
                    Some(master) => (master.start(), Some(weights)),
                    None => (weights, None),
                };
                for range in self.weights.iter().filter(|range| !range.is_empty()) {
                    self.adamw(values, copy, of_trunk, range.clone(), 0, 0)?;
                }
                let Some(average) = &self.average else { return Ok(()) };
                let (average, count, decay) = (average.start(), average.len(), self.feed.decay());
                // SAFETY: the average is as long as the values.
                unsafe { self.l.average(&Average { average, values, decay, count }) }
            }
            Method::Prompts { .. } => {
                let prompts = self.trunk.patch().values.len();
                self.adamw(weights, None, of_trunk, 0..prompts, 0, 0)?;
                let Some(gate) = &self.gate else { return Ok(()) };
                self.adamw(gate.values().start(), None, of_gate, 0..gate.values().len(), prompts, 1)
            }
        }
    }

    /// One step over `range` of `values`, whose moments lie `behind` further on, at the rate of `group`.
    fn adamw(
        &self,
        values: Address,
        copy: Option<Address>,
        gradient: Address,
        range: Range<usize>,
        behind: usize,
        group: usize,
    ) -> Result<(), Error> {
        let Range { start, end } = range;
        let wide = start * Precision::F32.bytes();
        let precision = if copy.is_some() { self.l.precision } else { Precision::F32 };
        let arguments = AdamW {
            p: values.offset(wide),
            m: self.first.at(behind + start),
            v: self.second.at(behind + start),
            g: gradient.offset(wide),
            copy: copy.map_or(Address::NULL, |copy| copy.offset(start * precision.bytes())),
            factors: self.feed.factors(group),
            count: end - start,
        };
        // SAFETY: the ranges lie in the trained values.
        unsafe { Launcher { precision, ..self.l }.adamw(&arguments) }
    }
}
