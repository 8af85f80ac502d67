//! Whole passes of the schedule against the CPU engine: sampling, prompts and vectors on a frozen trunk, added to the tokens or in front of
//! them, all weights.

use kernels::{
    Condition, Contribution, ContributionGradient, Inputs, Learn, OutsideGradients, Parameters, Plan, Shape, Workspace,
};

use super::Bench;
use super::mixture::{Mixed, contributions};
use crate::machine::{Error, Machine, Precision};
use crate::trunk::{Added, Trunk};

/// 36 tokens, heads 16 wide.
pub(super) const SHAPE: Shape =
    Shape { image_size: 12, channels: 3, patch: 2, hidden: 32, depth: 2, heads: 2, label_rows: 5, out_channels: 6 };
pub(super) const BATCH: usize = 3;
/// Prompts in front: with the image's tokens, no multiple of anything.
pub(super) const PREPENDED: usize = 7;

/// Weights and a batch.
struct Problem {
    added: Added,
    prepended: usize,
    parameters: Parameters,
    timesteps: Vec<u32>,
    labels: Vec<u32>,
    rows: Vec<u32>,
    images: Vec<f32>,
    d_output: Vec<f32>,
    mixed: Mixed,
    prompts: Vec<f32>,
}

impl Problem {
    /// `rows` rows of the condition; samples read them backwards unless all weights learn.
    fn new<M: Machine>(bench: &mut Bench<M>, rows: usize, learn: Learn, (added, prepended): (Added, usize)) -> Self {
        let mut parameters = Parameters::zeros(SHAPE).expect("a sound shape");
        let values = bench.numbers(parameters.values().len(), 0.15);
        parameters.values_mut().copy_from_slice(&values);
        let (places, d) = (if prepended > 0 { prepended } else { SHAPE.tokens() }, SHAPE.hidden);
        // In front, as small as LayerNorm's epsilon lets them be seen: it hides the size of others, and the gradient of their weights is zero.
        let size = if prepended > 0 { 1e-3 } else { 1.0 };
        let blocks = added.blocks();
        Self {
            added,
            prepended,
            parameters,
            timesteps: (0..rows as u32).map(|row| row * 331 + 5).collect(),
            labels: (0..rows as u32).map(|row| (row * 2 + 1) % 5).collect(),
            rows: match learn {
                Learn::Everything => (0..BATCH as u32).collect(),
                _ => (0..BATCH as u32).rev().map(|sample| sample % rows as u32).collect(),
            },
            images: bench.numbers(BATCH * SHAPE.image(), 1.0),
            d_output: bench.numbers(BATCH * SHAPE.output(), 1.0),
            mixed: match added {
                Added::Vectors { .. } => Mixed::Vectors(bench.numbers(blocks * rows * d, size)),
                Added::Nothing | Added::Prompts { .. } => Mixed::Weights(bench.numbers(blocks * rows * places, 1.0)),
            },
            prompts: bench.numbers(blocks * places * d, size),
        }
    }

    fn condition(&self) -> Condition {
        let mut condition = Condition::new(SHAPE, self.timesteps.len());
        let timesteps: Vec<f32> = self.timesteps.iter().map(|&t| t as f32).collect();
        condition.compute(&self.parameters, &timesteps, &self.labels);
        condition
    }

    fn plan(&self, learn: Learn) -> Plan {
        Plan { learn, ..Plan::sampling(SHAPE, BATCH, self.prepended) }
    }

    fn contributions(&self) -> Vec<Contribution<'_>> {
        contributions([self.added.blocks(), self.prepended], &self.mixed, &self.prompts)
    }

    fn inputs<'a>(&'a self, condition: &'a Condition, contributions: &'a [Contribution<'a>]) -> Inputs<'a> {
        Inputs { parameters: &self.parameters, condition, rows: &self.rows, contributions }
    }

    /// The same on the machine.
    fn trunk<'m, M: Machine>(&self, bench: &Bench<'m, M>, learn: Learn) -> Result<Trunk<'m, M>, Error> {
        let (machine, rows) = (bench.launcher.machine, self.timesteps.len());
        let mut trunk = Trunk::new(machine, bench.launcher.precision, self.plan(learn), rows, self.added)?;
        trunk.set_weights(&self.parameters)?;
        trunk.set_condition(&self.timesteps, &self.labels)?;
        if learn != Learn::Everything {
            trunk.set_rows(&self.rows)?;
        }
        trunk.set_images(&self.images)?;
        let patch = trunk.patch_mut();
        match &self.mixed {
            Mixed::Weights(weights) => {
                patch.weights.write(machine, weights)?;
                patch.values.write(machine, &self.prompts)?;
            }
            Mixed::Vectors(vectors) => patch.values.write(machine, vectors)?,
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
    let (frozen, prompts, vectors) =
        (Learn::Contributions { from: 0 }, Added::Prompts { blocks: 1 }, Added::Vectors { blocks: 1 });
    for prepended in [0, PREPENDED] {
        sampling(bench, (prompts, prepended))?;
        training(bench, frozen, (prompts, prepended))?;
        training(bench, frozen, (vectors, prepended))?;
    }
    // replaced before the second block
    sampling(bench, (Added::Prompts { blocks: 2 }, PREPENDED))?;
    training(bench, frozen, (Added::Prompts { blocks: 2 }, PREPENDED))?;
    training(bench, frozen, (Added::Vectors { blocks: 2 }, PREPENDED))?;
    training(bench, Learn::Everything, (prompts, 0))
}

/// Two samples share a row.
fn sampling<M: Machine>(bench: &mut Bench<M>, added: (Added, usize)) -> Result<(), Error> {
    let problem = Problem::new(bench, BATCH - 1, Learn::Nothing, added);
    let trunk = problem.trunk(bench, Learn::Nothing)?;
    trunk.forward()?;
    let (condition, contributions) = (problem.condition(), problem.contributions());
    let inputs = problem.inputs(&condition, &contributions);
    let mut want = vec![0.0; BATCH * SHAPE.output()];
    Workspace::new(problem.plan(Learn::Nothing)).forward(&inputs, &problem.images, &mut want);
    let name = format!("trunk: sampling, {} in front: {:?}", added.1, added.0);
    bench.find(&name, &trunk.output()?, &want, bound(bench.launcher.precision));
    Ok(())
}

fn training<M: Machine>(bench: &mut Bench<M>, learn: Learn, added: (Added, usize)) -> Result<(), Error> {
    let (problem, machine, bound) =
        (Problem::new(bench, BATCH, learn, added), bench.launcher.machine, bound(bench.launcher.precision));
    let mut trunk = problem.trunk(bench, learn)?;
    trunk.set_output_gradient(&problem.d_output)?;
    trunk.forward()?;
    trunk.backward()?;

    let (condition, contributions) = (problem.condition(), problem.contributions());
    let inputs = problem.inputs(&condition, &contributions);
    let mut workspace = Workspace::new(problem.plan(learn));
    let want: Vec<Vec<f32>> = workspace.step(&inputs, &problem.images, |sample, output, d_output| {
        d_output.copy_from_slice(&problem.d_output[sample * d_output.len()..][..d_output.len()]);
        output.to_vec()
    });
    let name = format!("trunk: {learn:?}, {} in front: {:?}", added.1, added.0);
    bench.find(&format!("{name}: output"), &trunk.output()?, &want.concat(), bound);
    let (mut d_weights, mut d_values) = (Vec::new(), Vec::new());
    for gradient in &workspace.gradients().contributions {
        match gradient {
            ContributionGradient::None => {}
            ContributionGradient::Prompts { weights, prompts } => {
                d_weights.extend(weights);
                d_values.extend(prompts);
            }
            ContributionGradient::Vectors(vectors) => d_values.extend(vectors),
        }
    }
    bench.find(&format!("{name}: gradient of the gate"), &trunk.patch().d_weights.read(machine)?, &d_weights, bound);
    bench.find(&format!("{name}: gradient of the values"), &trunk.patch().d_values.read(machine)?, &d_values, bound);
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
