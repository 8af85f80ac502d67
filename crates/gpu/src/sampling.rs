//! Samples drawn on a machine: noise through all calls of a sampler, without a wait between them.
//!
//! All samples of a call share its timestep. Where nothing else decides, modulations and gates of all calls are made once, a row each, and
//! a call reads its row; where samples have labels, each has a row of its own, made anew at each call. Where they are guided, the network
//! sees each twice, the second time under the null label, whose row all share.

use diffusion::{Coefficients, Multistep};
use kernels::{Parameters, Plan, Shape};
use random::Stream;

use crate::arguments::{Advance, Normals, Reverse, ReverseStep, Spread};
use crate::array::{Array, Numbers, Plain};
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision, Repeated};
use crate::mixture::Mixture;
use crate::setting::Prompts;
use crate::trunk::{Added, Trunk};

/// One call of the network and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// What the network is told, below 1000.
    pub timestep: u32,
    /// The reverse step.
    pub reverse: Coefficients,
    /// What PNDM makes of the predictions before it.
    pub multistep: Option<Multistep>,
}

/// What the network is told of labels.
#[derive(Clone, Copy, Debug)]
pub enum Labels {
    /// Nothing: there are none.
    None,
    /// Each sample's own.
    Own,
    /// Each sample's own, and the null label beside it, away from which the sample is guided.
    Guided(Guidance),
}

/// Classifier-free guidance (Ho & Salimans 2022): `without + scale (with - without)`.
#[derive(Clone, Copy, Debug)]
pub struct Guidance {
    /// Its scale.
    pub scale: f32,
    /// How many channels are guided, from the first on; at least one. Of the others the prediction with the label stays.
    pub channels: usize,
    /// The null label.
    pub null: u32,
}

/// What samples are of.
#[derive(Clone, Copy, Debug)]
pub struct Sampled<'a> {
    /// The network.
    pub shape: Shape,
    /// Prompts; none without.
    pub prompts: Option<Prompts>,
    /// Samples at once.
    pub batch: usize,
    /// The sampler's calls, in order.
    pub calls: &'a [Call],
    /// What it is told beside their timesteps.
    pub labels: Labels,
    /// Seed of the noise.
    pub seed: u64,
}

/// A sampler on a machine.
pub struct Sampling<'m, M: Machine> {
    l: Launcher<'m, M>,
    trunk: Trunk<'m, M>,
    mixture: Option<Mixture<M>>,
    batch: usize,
    labels: Labels,
    learned: bool,
    noisy: bool,
    key: [u32; 2],
    /// What the network is told in each call, here and on the machine.
    told: Vec<u32>,
    /// Number of the call.
    call: Numbers<M>,
    timesteps: Numbers<M>,
    steps: Plain<M>,
    /// Number of the first sample's first value of noise.
    first: Plain<M>,
    noise: Array<M>,
    /// `[4, B, n]` what PNDM remembers; empty with the others.
    history: Array<M>,
    repeated: Repeated<M>,
}

impl<'m, M: Machine> Sampling<'m, M> {
    /// Room for a sampler; its weights are undefined until they are set.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the kernels do not do what is asked for, [`Error::Memory`] where it does not fit.
    pub fn new(machine: &'m M, precision: Precision, sampled: Sampled) -> Result<Self, Error> {
        let Sampled { shape, prompts, batch, calls, labels, seed } = sampled;
        let (rows, seen) = match labels {
            Labels::None => (calls.len(), batch),
            Labels::Own => (batch, batch),
            Labels::Guided(_) => (batch + 1, 2 * batch),
        };
        let (added, prepended) = prompts.map_or((Added::Nothing, 0), |prompts| (prompts.added(), prompts.prepended));
        let mut trunk = Trunk::new(machine, precision, Plan::sampling(shape, seen, prepended), rows, added)?;
        if let Labels::Guided(_) = labels {
            trunk.set_rows(&(0..seen).map(|sample| sample.min(batch) as u32).collect::<Vec<_>>())?;
        }
        let mixture = |prompts| Mixture::new(machine, prompts, &shape, [rows, rows], None);
        let timesteps: Vec<u32> = calls.iter().map(|call| call.timestep).collect();
        let steps: Vec<ReverseStep> = calls.iter().map(reverse_step).collect();
        let remembered = if calls.iter().any(|call| call.multistep.is_some()) { 4 * batch * shape.image() } else { 0 };
        Ok(Self {
            l: Launcher { machine, precision },
            trunk,
            mixture: prompts.map(mixture).transpose()?,
            batch,
            labels,
            learned: shape.out_channels == 2 * shape.channels,
            noisy: calls.iter().any(|call| call.reverse.noisy),
            key: [seed as u32, (seed >> 32) as u32],
            call: Numbers::from(machine, &[0])?,
            told: timesteps.clone(),
            timesteps: Numbers::from(machine, &timesteps)?,
            steps: Plain::from(machine, &steps)?,
            first: Plain::from(machine, &[0_u64])?,
            noise: Array::new(machine, Precision::F32, batch * shape.image())?,
            history: Array::new(machine, Precision::F32, remembered)?,
            repeated: Repeated::New,
        })
    }

    /// Sets the weights, and what was `trained`: the prompts, and behind them the gate's values.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If a length does not fit, or a timestep is beyond the last.
    pub fn set_weights(&mut self, parameters: &Parameters, trained: &[f32]) -> Result<(), Error> {
        let machine = self.l.machine;
        self.trunk.set_weights(parameters)?;
        match &mut self.mixture {
            Some(mixture) => mixture.set(machine, &mut self.trunk, trained)?,
            None => assert!(trained.is_empty(), "there are no prompts"),
        }
        if self.each_has_a_row() {
            return Ok(());
        }
        self.trunk.set_condition(&self.told, &vec![0; self.told.len()])?;
        embed(self.l, &self.trunk, self.mixture.as_ref())
    }

    /// Whether rows belong to samples, and not to calls.
    fn each_has_a_row(&self) -> bool {
        !matches!(self.labels, Labels::None)
    }

    /// How often the network is called for a batch.
    pub fn calls(&self) -> usize {
        self.told.len()
    }

    /// Begins a batch: the samples from number `first_sample` on, whose noise is `x [B, C, size, size]`, under `labels [B]`, which are not
    /// read where samples have none.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn begin(&mut self, first_sample: u64, x: &[f32], labels: &[u32]) -> Result<(), Error> {
        let machine = self.l.machine;
        match self.labels {
            Labels::None => self.trunk.set_images(x)?,
            Labels::Own => {
                self.trunk.set_condition(&vec![0; self.batch], labels)?;
                self.trunk.set_images(x)?;
            }
            Labels::Guided(Guidance { null, .. }) => {
                self.trunk.set_condition(&vec![0; self.batch + 1], &[labels, &[null]].concat())?;
                self.trunk.set_images(&x.repeat(2))?;
            }
        }
        self.first.write(machine, 0, &[first_sample * (x.len() / self.batch) as u64])?;
        self.call.write(machine, &[0])
    }

    /// Does the next call. Does not wait.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn run(&mut self) -> Result<(), Error> {
        let mut repeated = std::mem::replace(&mut self.repeated, Repeated::New);
        let done = repeated.run(self.l.machine, &|| self.launch());
        self.repeated = repeated;
        done
    }

    /// The samples, as far as they are. Waits.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    pub fn samples(&self) -> Result<Vec<f32>, Error> {
        let mut samples = self.trunk.images()?;
        samples.truncate(self.batch * self.trunk.shape().image());
        Ok(samples)
    }

    /// Everything that a call launches.
    fn launch(&self) -> Result<(), Error> {
        let (l, call, n) = (self.l, self.call.start(), self.trunk.shape().image());
        let (x, output, _) = self.trunk.ends();
        let (timesteps, _) = self.trunk.told();
        let (values, out, count) = match self.labels {
            Labels::None => (Address::NULL, self.trunk.places_of_rows(), self.batch),
            Labels::Own => (self.timesteps.start(), timesteps, self.batch),
            Labels::Guided(_) => (self.timesteps.start(), timesteps, self.batch + 1),
        };
        let (guided, scale) = match self.labels {
            Labels::None | Labels::Own => (0, 1.0),
            Labels::Guided(Guidance { scale, channels, .. }) => (channels * n / self.trunk.shape().channels, scale),
        };
        let noise = self.noise.start();
        // SAFETY: every array was made for this shape and batch; every call has its row and its coefficients.
        unsafe { l.spread(&Spread { number: call, values, out, count: count as i32 })? };
        if self.each_has_a_row() {
            embed(l, &self.trunk, self.mixture.as_ref())?;
        }
        self.trunk.through()?;
        // SAFETY: as above.
        unsafe {
            if self.noisy {
                l.normals(&Normals {
                    step: call,
                    first: self.first.start(),
                    out: noise,
                    count: self.batch * n,
                    key: self.key,
                    stream: Stream::SampleNoise as u32,
                })?;
            }
            l.reverse(&Reverse {
                call,
                steps: self.steps.start(),
                output,
                noise,
                x,
                history: self.history.start(),
                batch: self.batch as i32,
                n: n as i32,
                learned: i32::from(self.learned),
                guided: guided as i32,
                scale,
            })?;
            l.advance(&Advance { number: call })
        }
    }
}

/// Modulations, and the weights of the prompts, of all rows.
fn embed<M: Machine>(l: Launcher<M>, trunk: &Trunk<M>, mixture: Option<&Mixture<M>>) -> Result<(), Error> {
    trunk.embed()?;
    mixture.map_or(Ok(()), |mixture| mixture.forward(l, trunk, 0))
}

/// As the kernel has them.
fn reverse_step(Call { reverse: c, multistep, .. }: &Call) -> ReverseStep {
    let (weights, restarts) = multistep.map_or((&[][..], false), |multistep| (multistep.weights, multistep.restarts));
    ReverseStep {
        recip: c.recip,
        recipm1: c.recipm1,
        limit: c.limit,
        mean_x0: c.mean_x0,
        mean_xt: c.mean_xt,
        middle: c.middle,
        half_range: c.half_range,
        signal: c.signal,
        spread: c.spread,
        sigma: c.sigma,
        ddim: u32::from(c.ddim),
        noisy: u32::from(c.noisy),
        weights: std::array::from_fn(|i| weights.get(i).copied().unwrap_or_default()),
        terms: weights.len() as u32,
        restarts: u32::from(restarts),
    }
}
