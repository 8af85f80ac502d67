//! Prompts with their gate on a machine, between a trunk's embeddings and its patch: the same for training and for sampling.

use kernels::Shape;

use crate::array::Array;
use crate::descent::Group;
use crate::gate::{Balance, Extent, Gate};
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision};
use crate::setting::Prompts;
use crate::trunk::Trunk;

/// What is mixed into the tokens. The prompts lie in the trunk's patch, unless the gate's vectors do.
pub(crate) struct Mixture<M: Machine> {
    gate: Option<Gate<M>>,
    /// Prompts that nothing reads, and a gradient of zeros: they change by weight decay alone.
    idle: Option<[Array<M>; 2]>,
}

impl<M: Machine> Mixture<M> {
    /// Room for `prompts` of `rows` rows of the condition, a part of `all` of a step; with `balance`, for training.
    pub(crate) fn new(
        machine: &M,
        prompts: Prompts,
        shape: &Shape,
        [rows, all]: [usize; 2],
        balance: Option<Balance>,
    ) -> Result<Self, Error> {
        let (blocks, count, width) = (prompts.blocks, prompts.count(shape), shape.hidden);
        let extent = Extent { blocks, prompts: count, width, rows, all };
        let gate = prompts.gate.map(|gating| Gate::new(machine, gating, extent, balance)).transpose()?;
        let zeros = || Array::zeros(machine, Precision::F32, blocks * count * width);
        let idle = if prompts.enter() { None } else { Some([zeros()?, zeros()?]) };
        Ok(Self { gate, idle })
    }

    /// The prompts.
    fn prompts<'a>(&'a self, trunk: &'a Trunk<M>) -> &'a Array<M> {
        self.idle.as_ref().map_or(&trunk.patch().values, |[prompts, _]| prompts)
    }

    /// Sets the prompts, and behind them the gate's values.
    ///
    /// # Panics
    /// If the length does not fit.
    pub(crate) fn set(&mut self, machine: &M, trunk: &mut Trunk<M>, values: &[f32]) -> Result<(), Error> {
        let (of_prompts, of_gate) = values.split_at(self.prompts(trunk).len());
        let patch = trunk.patch_mut();
        let prompts = self.idle.as_mut().map_or(&mut patch.values, |[prompts, _]| prompts);
        prompts.write(machine, of_prompts)?;
        match &mut self.gate {
            Some(gate) => gate.values_mut().write(machine, of_gate),
            None => {
                assert!(of_gate.is_empty(), "there is no gate");
                let ones = vec![1.0; patch.weights.len()];
                patch.weights.write(machine, &ones)
            }
        }
    }

    /// The prompts, and behind them the gate's values. Waits.
    pub(crate) fn values(&self, machine: &M, trunk: &Trunk<M>) -> Result<Vec<f32>, Error> {
        let mut values = self.prompts(trunk).read(machine)?;
        if let Some(gate) = &self.gate {
            values.extend(gate.values().read(machine)?);
        }
        Ok(values)
    }

    /// What learns, prompts and gate, each at a rate of its own.
    pub(crate) fn groups(&self, trunk: &Trunk<M>) -> [Group; 2] {
        let group = |values: &Array<M>, gradient: &Array<M>| Group {
            values: values.start(),
            gradient: gradient.start(),
            count: values.len(),
        };
        let d_prompts = self.idle.as_ref().map_or(&trunk.patch().d_values, |[_, zeros]| zeros);
        let gate = self.gate.as_ref().map_or(Group::default(), |gate| group(gate.values(), gate.gradient()));
        [group(self.prompts(trunk), d_prompts), gate]
    }

    /// Where the normals of the gate's noise go, and how many there are; none where there is no noise.
    pub(crate) fn draws(&self) -> (Address, usize) {
        self.gate.as_ref().map_or((Address::NULL, 0), Gate::draws)
    }

    /// Which of the balancing losses there are, importance and load.
    pub(crate) fn balanced(&self) -> [bool; 2] {
        self.gate.as_ref().map_or([false; 2], Gate::balanced)
    }

    /// From the trunk's embeddings to what enters before its blocks. In training, the rows are the samples `first, ..` of the step.
    pub(crate) fn forward(&self, l: Launcher<M>, trunk: &Trunk<M>, first: usize) -> Result<(), Error> {
        let Some(gate) = &self.gate else { return Ok(()) };
        // SAFETY: the gate was made for the trunk's rows, its patch for the same blocks and prompts.
        unsafe { gate.forward(l, trunk.embeddings(), trunk.patch().given(), first) }
    }

    /// From the gradients of what entered to the gate's. Each row's balancing losses go to `losses [R]`, importance and load.
    pub(crate) fn backward(
        &self,
        l: Launcher<M>,
        trunk: &Trunk<M>,
        losses: [Address; 2],
        first: usize,
    ) -> Result<(), Error> {
        let Some(gate) = &self.gate else { return Ok(()) };
        // SAFETY: as above.
        unsafe { gate.backward(l, trunk.patch().given(), losses, first) }
    }
}
