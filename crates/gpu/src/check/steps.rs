//! Steps of training, one after the other, against the CPU engine's.

use diffusion::{MseWeight, Process, Schedule, TrainingLoss};
use kernels::{AdamW, Condition, Contribution, Group, Inputs, Learn, OutsideGradients, Parameters, Plan, Workspace};
use random::{Draws, Stream};

use super::trunk::{BATCH, SHAPE};
use super::{Bench, Finding};
use crate::launch::Launcher;
use crate::machine::{Error, Machine, Precision};
use crate::step::Step;
use crate::trunk::Added;

const SEED: u64 = 77;
const RATE: f64 = 1e-3;
const DECAY: f64 = 0.01;
/// Steps that the CPU takes too; later ones drift apart by rounding.
const COMPARED: u32 = 3;

/// The batch of a step: images, timesteps, labels.
fn batch(step: u32) -> (Vec<f32>, Vec<u32>, Vec<u32>) {
    let mut x0 = vec![0.0; BATCH * SHAPE.image()];
    Draws::new(SEED, Stream::Factors, u64::from(step)).fill_normal(0, &mut x0);
    x0.iter_mut().for_each(|v| *v = (0.5 * *v).clamp(-1.0, 1.0));
    let times = Draws::new(SEED, Stream::Timestep, u64::from(step));
    let sample = |i: usize| (times.below(i as u64, 100), (i as u32 + step) % SHAPE.label_rows as u32);
    let (timesteps, labels) = (0..BATCH).map(sample).unzip();
    (x0, timesteps, labels)
}

/// Trains `count` steps; `launch` does one, on its own or as a graph. The losses of the first are held against the CPU's; what was trained
/// is told by its bits.
///
/// # Errors
/// The machine cannot run a step at all.
pub fn steps<M: Machine>(
    machine: &M,
    precision: Precision,
    learn: Learn,
    count: u32,
    mut launch: impl FnMut(&Step<M>) -> Result<(), Error>,
) -> Result<Vec<Finding>, Error> {
    let mut bench = Bench { launcher: Launcher { machine, precision }, findings: Vec::new(), seed: 200 };
    let process = Process::new(Schedule::Cosine, 100).expect("a schedule of 100 steps");
    let loss = TrainingLoss::new(process, MseWeight::Constant);
    let mut parameters = Parameters::zeros(SHAPE).expect("a sound shape");
    let values = bench.numbers(parameters.values().len(), 0.1);
    parameters.values_mut().copy_from_slice(&values);
    let weights = bench.numbers(SHAPE.depth * BATCH * SHAPE.tokens(), 1.0);
    let mut prompts = bench.numbers(SHAPE.depth * SHAPE.tokens() * SHAPE.hidden, 0.3);

    let plan = Plan { learn, ..Plan::sampling(SHAPE, BATCH, 0) };
    let added = Added::Prompts { blocks: SHAPE.depth };
    let mut step = Step::new(machine, precision, plan, added, &parameters, &loss, SEED)?;
    step.trunk_mut().patch_mut().weights.write(machine, &weights)?;
    step.trunk_mut().patch_mut().values.write(machine, &prompts)?;
    let mut workspace = Workspace::new(plan);
    let mut condition = Condition::new(SHAPE, BATCH);
    let trained = if learn == Learn::Everything { values.len() } else { prompts.len() };
    let mut adamw = AdamW::new(trained);
    let bound = match precision {
        Precision::F32 => 1e-4,
        Precision::Bf16 => 5e-2,
    };
    for number in 0..count {
        let (x0, timesteps, labels) = batch(number);
        step.set(number, &x0, [&timesteps, &timesteps, &labels], RATE, DECAY)?;
        launch(&step)?;
        if number >= COMPARED {
            continue;
        }
        let n = SHAPE.image();
        let (mut noise, mut x_t) = (vec![0.0; x0.len()], vec![0.0; x0.len()]);
        Draws::new(SEED, Stream::TrainNoise, u64::from(number)).fill_normal(0, &mut noise);
        for (sample, t) in timesteps.iter().enumerate() {
            let at = sample * n..(sample + 1) * n;
            loss.process().q_sample(*t as usize, &x0[at.clone()], &noise[at.clone()], &mut x_t[at]);
        }
        let told: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        condition.compute(&parameters, &told, &labels);
        let contributions: Vec<Contribution> = weights
            .chunks_exact(BATCH * SHAPE.tokens())
            .zip(prompts.chunks_exact(SHAPE.tokens() * SHAPE.hidden))
            .map(|(weights, prompts)| Contribution::Weighted { weights, prompts })
            .collect();
        let rows: Vec<u32> = (0..BATCH as u32).collect();
        let inputs =
            Inputs { parameters: &parameters, condition: &condition, rows: &rows, contributions: &contributions };
        let terms = workspace.step(&inputs, &x_t, |sample, output, d_output| {
            let at = sample * n..(sample + 1) * n;
            let (x0, x_t, noise) = (&x0[at.clone()], &x_t[at.clone()], &noise[at]);
            loss.sample_loss(timesteps[sample] as usize, x0, x_t, noise, output, Some(d_output), 1.0 / BATCH as f64)
        });
        let want: Vec<f32> = terms.iter().map(|term| term.total() as f32).collect();
        let ours: Vec<f32> = step.terms()?.iter().map(|[mse, vb]| (mse + vb) as f32).collect();
        bench.find(&format!("step {number}, {learn:?}: losses"), &ours, &want, bound);
        let group = |range| Group { range, learning_rate: RATE, weight_decay: DECAY };
        if learn == Learn::Everything {
            workspace.condition_backward(&inputs, OutsideGradients::default());
            let gradient = workspace.gradients().parameters.as_ref().expect("weights learn").values();
            let position = parameters.segments().into_iter().find(|s| s.name == "pos_embed").expect("positions").range;
            let groups = [group(0..position.start), group(position.end..values.len())];
            adamw.step(parameters.values_mut(), gradient, &groups);
        } else {
            let parts = workspace.gradients().contributions.iter().map(|part| match part {
                kernels::ContributionGradient::Prompts { prompts, .. } => prompts.as_slice(),
                _ => &[],
            });
            let gradient: Vec<f32> = parts.flatten().copied().collect();
            let range = 0..prompts.len();
            adamw.step(&mut prompts, &gradient, &[group(range)]);
        }
    }
    // Where a gradient is near zero AdamW's first steps go either way, by the whole rate.
    let values = step.values()?;
    if count <= COMPARED {
        let want = if learn == Learn::Everything { parameters.values() } else { &prompts };
        bench.find(&format!("{count} steps, {learn:?}: trained values"), &values, want, 2e-2);
    } else {
        bench.find(&format!("{count} steps, {learn:?}: trained values"), &values, &values, 0.0);
    }
    Ok(bench.findings)
}
