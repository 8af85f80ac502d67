//! Prompts with their gate on a machine, between a trunk's embeddings and its patch: the same for training and for sampling.

use kernels::Shape;

use crate::array::Array;
use crate::descent::Group;
use crate::gate::{Extent, Gate, Importance};
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine};
use crate::setting::Prompts;
use crate::trunk::Trunk;

/// What is mixed into the tokens. The prompts lie in the trunk's patch.
pub(crate) struct Mixture<M: Machine> {
    gate: Option<Gate<M>>,
}

impl<M: Machine> Mixture<M> {
    /// Room for `prompts` of `rows` rows of the condition, a part of `all` of a step; with `importance`, for training.
    pub(crate) fn new(
        machine: &M,
        prompts: Prompts,
        shape: &Shape,
        [rows, all]: [usize; 2],
        importance: Option<Importance>,
    ) -> Result<Self, Error> {
        let extent = Extent { blocks: prompts.blocks, prompts: prompts.count(shape), width: shape.hidden, rows, all };
        let gate = prompts.gate.map(|gating| Gate::new(machine, gating, extent, importance)).transpose()?;
        Ok(Self { gate })
    }

    /// Sets the prompts, and behind them the gate's values.
    ///
    /// # Panics
    /// If the length does not fit.
    pub(crate) fn set(&mut self, machine: &M, trunk: &mut Trunk<M>, values: &[f32]) -> Result<(), Error> {
        let patch = trunk.patch_mut();
        let (of_prompts, of_gate) = values.split_at(patch.values.len());
        patch.values.write(machine, of_prompts)?;
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
        let mut values = trunk.patch().values.read(machine)?;
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
        let (patch, gate) = (trunk.patch(), self.gate.as_ref());
        [
            group(&patch.values, &patch.d_values),
            gate.map_or(Group::default(), |gate| group(gate.values(), gate.gradient())),
        ]
    }

    /// Where the normals of the gate's noise go, and how many there are; none where there is no noise.
    pub(crate) fn draws(&self) -> (Address, usize) {
        self.gate.as_ref().map_or((Address::NULL, 0), Gate::draws)
    }

    /// Whether there is a gate to be balanced.
    pub(crate) fn gated(&self) -> bool {
        self.gate.is_some()
    }

    /// From the trunk's embeddings to what enters before its blocks. In training, the rows are the samples `first, ..` of the step.
    pub(crate) fn forward(&self, l: Launcher<M>, trunk: &Trunk<M>, first: usize) -> Result<(), Error> {
        let Some(gate) = &self.gate else { return Ok(()) };
        // SAFETY: the gate was made for the trunk's rows, its patch for the same blocks and prompts.
        unsafe { gate.forward(l, trunk.embeddings(), trunk.patch().weights.start(), first) }
    }

    /// From the gradients of what entered to the gate's. Each row's importance loss goes to `importance [R]`.
    pub(crate) fn backward(
        &self,
        l: Launcher<M>,
        trunk: &Trunk<M>,
        importance: Address,
        first: usize,
    ) -> Result<(), Error> {
        let (Some(gate), patch) = (&self.gate, trunk.patch()) else { return Ok(()) };
        // SAFETY: as above.
        unsafe { gate.backward(l, [patch.weights.start(), patch.d_weights.start()], importance, first) }
    }
}
