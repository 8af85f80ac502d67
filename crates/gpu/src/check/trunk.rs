//! Whole passes of the schedule against the CPU engine: sampling, prompts and vectors on a frozen trunk, all weights.

use kernels::{
    Condition, Contribution, ContributionGradient, Inputs, Learn, OutsideGradients, Parameters, Plan, Shape, Workspace,
};

use super::Bench;
use crate::machine::{Error, Machine, Precision};
use crate::trunk::{Added, Trunk};

/// 36 tokens, heads 16 wide.
pub(super) const SHAPE: Shape =
    Shape { image_size: 12, channels: 3, patch: 2, hidden: 32, depth: 2, heads: 2, label_rows: 5, out_channels: 6 };
pub(super) const BATCH: usize = 3;
/// Blocks that have something added: not all.
const BLOCKS: usize = 1;

/// Weights and a batch.
struct Problem {
    parameters: Parameters,
    timesteps: Vec<u32>,
    labels: Vec<u32>,
    rows: Vec<u32>,
    images: Vec<f32>,
    d_output: Vec<f32>,
    weights: Vec<f32>,
    prompts: Vec<f32>,
    vectors: Vec<f32>,
}

impl Problem {
    /// `rows` rows of the condition; samples read them backwards unless all weights learn.
    fn new<M: Machine>(bench: &mut Bench<M>, rows: usize, learn: Learn) -> Self {
        let mut parameters = Parameters::zeros(SHAPE).expect("a sound shape");
        let values = bench.numbers(parameters.values().len(), 0.15);
        parameters.values_mut().copy_from_slice(&values);
        let (t, d) = (SHAPE.tokens(), SHAPE.hidden);
        Self {
            parameters,
            timesteps: (0..rows as u32).map(|row| row * 331 + 5).collect(),
            labels: (0..rows as u32).map(|row| (row * 2 + 1) % 5).collect(),
            rows: match learn {
                Learn::Everything => (0..BATCH as u32).collect(),
                _ => (0..BATCH as u32).rev().map(|sample| sample % rows as u32).collect(),
            },
            images: bench.numbers(BATCH * SHAPE.image(), 1.0),
            d_output: bench.numbers(BATCH * SHAPE.output(), 1.0),
            weights: bench.numbers(BLOCKS * rows * t, 1.0),
            prompts: bench.numbers(BLOCKS * t * d, 1.0),
            vectors: bench.numbers(BLOCKS * rows * d, 1.0),
        }
    }

    fn condition(&self) -> Condition {
        let mut condition = Condition::new(SHAPE, self.timesteps.len());
        let timesteps: Vec<f32> = self.timesteps.iter().map(|&t| t as f32).collect();
        condition.compute(&self.parameters, &timesteps, &self.labels);
        condition
    }

    fn contributions(&self, added: Added) -> Vec<Contribution<'_>> {
        let contribution = |level: usize| match added {
            Added::Prompts { blocks } if level < blocks => {
                Contribution::Weighted { weights: &self.weights, prompts: &self.prompts }
            }
            Added::Vectors { blocks } if level < blocks => Contribution::Broadcast { vectors: &self.vectors },
            _ => Contribution::None,
        };
        (0..SHAPE.depth).map(contribution).collect()
    }

    fn inputs<'a>(&'a self, condition: &'a Condition, contributions: &'a [Contribution<'a>]) -> Inputs<'a> {
        Inputs { parameters: &self.parameters, condition, rows: &self.rows, contributions }
    }

    /// The same on the machine.
    fn trunk<'m, M: Machine>(&self, bench: &Bench<'m, M>, learn: Learn, added: Added) -> Result<Trunk<'m, M>, Error> {
        let plan = Plan { learn, ..Plan::sampling(SHAPE, BATCH, 0) };
        let machine = bench.launcher.machine;
        let mut trunk = Trunk::new(machine, bench.launcher.precision, plan, self.timesteps.len(), added)?;
        trunk.set_weights(&self.parameters)?;
        trunk.set_condition(&self.timesteps, &self.labels)?;
        if learn != Learn::Everything {
            trunk.set_rows(&self.rows)?;
        }
        trunk.set_images(&self.images)?;
        match added {
            Added::Nothing => {}
            Added::Prompts { .. } => {
                trunk.patch_mut().weights.write(machine, &self.weights)?;
                trunk.patch_mut().values.write(machine, &self.prompts)?;
            }
            Added::Vectors { .. } => trunk.patch_mut().values.write(machine, &self.vectors)?,
        }
        Ok(trunk)
    }
}

/// How far a whole pass may be: its kernels' errors add up.
fn bound(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 2e-5,
        Precision::Bf16 => 5e-2,
    }
}

pub(super) fn check<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    sampling(bench)?;
    training(bench, Learn::Contributions { from: 0 }, Added::Prompts { blocks: BLOCKS })?;
    training(bench, Learn::Contributions { from: 0 }, Added::Vectors { blocks: BLOCKS })?;
    training(bench, Learn::Everything, Added::Prompts { blocks: BLOCKS })
}

/// Two samples share a row.
fn sampling<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    let problem = Problem::new(bench, BATCH - 1, Learn::Nothing);
    let added = Added::Prompts { blocks: BLOCKS };
    let trunk = problem.trunk(bench, Learn::Nothing, added)?;
    trunk.forward()?;
    let (condition, contributions) = (problem.condition(), problem.contributions(added));
    let inputs = problem.inputs(&condition, &contributions);
    let mut want = vec![0.0; BATCH * SHAPE.output()];
    Workspace::new(Plan::sampling(SHAPE, BATCH, 0)).forward(&inputs, &problem.images, &mut want);
    bench.find("trunk: sampling", &trunk.output()?, &want, bound(bench.launcher.precision));
    Ok(())
}

fn training<M: Machine>(bench: &mut Bench<M>, learn: Learn, added: Added) -> Result<(), Error> {
    let (problem, machine, bound) =
        (Problem::new(bench, BATCH, learn), bench.launcher.machine, bound(bench.launcher.precision));
    let mut trunk = problem.trunk(bench, learn, added)?;
    trunk.set_output_gradient(&problem.d_output)?;
    trunk.forward()?;
    trunk.backward()?;

    let (condition, contributions) = (problem.condition(), problem.contributions(added));
    let inputs = problem.inputs(&condition, &contributions);
    let mut workspace = Workspace::new(Plan { learn, ..Plan::sampling(SHAPE, BATCH, 0) });
    let want: Vec<Vec<f32>> = workspace.step(&inputs, &problem.images, |sample, output, d_output| {
        d_output.copy_from_slice(&problem.d_output[sample * d_output.len()..][..d_output.len()]);
        output.to_vec()
    });
    let name = format!("trunk: {learn:?}, {added:?}");
    bench.find(&format!("{name}: output"), &trunk.output()?, &want.concat(), bound);
    match &workspace.gradients().contributions[0] {
        ContributionGradient::None => {}
        ContributionGradient::Prompts { weights, prompts } => {
            let ours = [trunk.patch().d_weights.read(machine)?, trunk.patch().d_values.read(machine)?];
            bench.find(&format!("{name}: gradient of the gate"), &ours[0], weights, bound);
            bench.find(&format!("{name}: gradient of prompts"), &ours[1], prompts, bound);
        }
        ContributionGradient::Vectors(vectors) => {
            let ours = trunk.patch().d_values.read(machine)?;
            bench.find(&format!("{name}: gradient of vectors"), &ours, vectors, bound);
        }
    }
    if learn == Learn::Everything {
        workspace.condition_backward(&inputs, OutsideGradients::default());
        let want = workspace.gradients().parameters.as_ref().expect("weights learn");
        let ours = trunk.gradient()?.expect("weights learn");
        for (segment, want) in want.tensors() {
            bench.find(&format!("{name}: gradient of {}", segment.name), &ours[segment.range], want, bound);
        }
    }
    Ok(())
}
