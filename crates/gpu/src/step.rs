//! One whole step of training, from the numbers of its examples to changed parameters, without a wait: examples, noise, noising, the gate,
//! the trunk there and back, the loss, AdamW.
//!
//! The host writes what many steps train on at once ([`Step::write`]), does them ([`Step::run`]; from the third on, a GPU replays one graph a
//! step), and reads their losses together ([`Step::losses`]). A batch may be done in equal parts, whose gradients are summed in their order.

use std::ops::Range;

use kernels::{Learn, Parameters, Plan, Shape};
use random::Stream;

use crate::arguments::{Loss, Normals, Place, QSample};
use crate::array::{Array, Numbers, Plain};
use crate::descent::{Descent, Group, Kept};
use crate::diffusion_table;
use crate::feed::{Feed, StepLosses};
use crate::gate::Gating;
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision, Repeated};
use crate::mixture::Mixture;
use crate::optimizer::Rates;
use crate::pool::Pool;
use crate::setting::{Method, Setting, State};
use crate::trunk::{Added, Trunk};

/// A training run on a machine.
pub struct Step<'m, M: Machine> {
    l: Launcher<'m, M>,
    seed: u64,
    part: usize,
    /// Whether the output has variance values.
    learned: bool,
    trunk: Trunk<'m, M>,
    /// What learns on a frozen trunk; without it all weights do.
    mixture: Option<Mixture<M>>,
    descent: Descent<M>,
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
    /// `[batch, 2]` doubles.
    terms: Plain<M>,
    /// `[batch]` doubles each: importance and load.
    balance: [Plain<M>; 2],
    repeated: Repeated<M>,
}

/// Whether the balance of `setting` can be had in its parts.
fn check(setting: &Setting) -> Result<(), Error> {
    match setting.method {
        Method::Prompts { prompts, balance }
            if balance.importance.together && prompts.gate.is_some_and(Gating::weights) =>
        {
            if setting.part == setting.batch {
                return Ok(());
            }
            let reason = "its mean is over the whole batch: take parts as large as that, or the reference engine";
            Err(Error::Unsupported { what: "a batch's importance loss in parts".into(), reason })
        }
        _ => Ok(()),
    }
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
        check(&setting)?;
        let (learn, added, prepended) = match method {
            Method::Everything => (Learn::Everything, Added::Nothing, 0),
            Method::Prompts { prompts, .. } => (Learn::Contributions { from: 0 }, prompts.added(), prompts.prepended),
        };
        let plan = Plan { learn, ..Plan::sampling(shape, part, prepended) };
        let trunk = Trunk::new(machine, precision, plan, part, added)?;
        let mixture = match method {
            Method::Everything => None,
            Method::Prompts { prompts, balance } => {
                Some(Mixture::new(machine, prompts, &shape, [part, batch], Some(balance))?)
            }
        };
        let kept = Kept {
            counts: groups(&trunk, mixture.as_ref()).map(|group| group.count),
            fixed: if mixture.is_some() { 0..0 } else { positions(shape) },
            parts: part < batch,
            rounded: mixture.is_none() && precision == Precision::Bf16,
            average,
        };
        let wide = |count| Array::zeros(machine, Precision::F32, count);
        let count = part * shape.image();
        let firsts: Vec<u64> = (0..batch / part).map(|i| (i * count) as u64).collect();
        Ok(Self {
            l: Launcher { machine, precision },
            seed,
            part,
            learned: shape.out_channels == 2 * shape.channels,
            trunk,
            mixture,
            descent: Descent::new(machine, kept)?,
            limits: [loss.process().len(), shape.label_rows, pool.count()],
            pool,
            feed: Feed::new(machine, batch)?,
            table: Plain::from(machine, &diffusion_table::timesteps(loss, shape.image()))?,
            firsts: Plain::from(machine, &firsts)?,
            examples: Numbers::from(machine, &vec![0; part])?,
            x0: wide(count)?,
            noise: wide(count)?,
            terms: Plain::new(machine, 16 * batch)?,
            balance: [Plain::new(machine, 8 * batch)?, Plain::new(machine, 8 * batch)?],
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
        match &mut self.mixture {
            Some(mixture) => mixture.set(machine, &mut self.trunk, &state.values)?,
            None => self.trunk.set_values(&state.values)?,
        }
        self.descent.set(machine, state)?;
        self.feed.start(machine, number)
    }

    /// Where training stands. Waits.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    pub fn state(&self) -> Result<State, Error> {
        let machine = self.l.machine;
        self.descent.state(machine, || match &self.mixture {
            Some(mixture) => mixture.values(machine, &self.trunk),
            None => self.trunk.weights(),
        })
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
        let (parts, mixture) = (self.feed.batch() / self.part, self.mixture.as_ref());
        if let Some((out, count @ 1..)) = mixture.map(Mixture::draws) {
            self.normals(Stream::GateNoise, 0, out, count)?;
        }
        let groups = groups(&self.trunk, mixture);
        for part in 0..parts {
            self.launch_part(part)?;
            self.descent.accumulate(self.l, groups, part == 0)?;
        }
        self.descent.step(self.l, groups, &self.feed)?;
        let balanced = mixture.map_or([false; 2], Mixture::balanced);
        let losses = std::array::from_fn(|i| if balanced[i] { self.balance[i].start() } else { Address::NULL });
        self.feed.finish(self.l, self.terms.start(), losses)
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
        if let Some(mixture) = &self.mixture {
            mixture.forward(l, &self.trunk, first)?;
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
        match &self.mixture {
            Some(mixture) => {
                let losses = self.balance.each_ref().map(|losses| losses.at(8 * first));
                mixture.backward(l, &self.trunk, losses, first)
            }
            None => Ok(()),
        }
    }
}

/// What learns, with its gradients: all weights, or the prompts and their gate.
fn groups<M: Machine>(trunk: &Trunk<M>, mixture: Option<&Mixture<M>>) -> [Group; 2] {
    mixture.map_or_else(|| [trunk.trained(), Group::default()], |mixture| mixture.groups(trunk))
}

/// Places of the positions among all weights: they do not learn.
fn positions(shape: Shape) -> Range<usize> {
    let segments = Parameters::zeros(shape).expect("a sound shape").segments();
    segments.into_iter().find(|segment| segment.name == "pos_embed").expect("a DiT has positions").range
}
