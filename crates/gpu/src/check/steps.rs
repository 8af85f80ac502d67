//! Whole steps of training, one after the other, against the CPU engine's.

use diffusion::{MseWeight, Process, Schedule, TrainingLoss};
use kernels::{
    AdamW, Condition, ContributionGradient, Group, Inputs, Learn, OutsideGradients, Parameters, Plan, Workspace,
};
use random::{Draws, Stream};

use super::gate::GATES;
use super::mixture::{Mixed, contributions};
use super::oracle::{Gradients, Oracle};
use super::trunk::{PREPENDED, SHAPE};
use super::{Bench, Finding};
use crate::arguments::Place;
use crate::gate::{Extent, Gating};
use crate::launch::Launcher;
use crate::machine::{Error, Machine, Precision};
use crate::optimizer::Rates;
use crate::pool::Pool;
use crate::setting::{Method, Prompts, Setting, State};
use crate::step::Step;

const SEED: u64 = 77;
const BATCH: usize = 4;
/// Blocks with prompts: not all.
const BLOCKS: usize = 1;
const EXAMPLES: usize = 6;
const TIMESTEPS: usize = 100;
const RATES: Rates = Rates { learning_rates: [1e-3, 3e-3], weight_decay: 0.01, decay: 0.9 };
/// Steps that the CPU takes too; later ones drift apart by rounding.
const COMPARED: u32 = 3;

/// What is checked: a method, the samples that are done at once, and whether latents are drawn.
pub const CASES: [(Method, usize, bool); 17] = [
    (Method::Everything, BATCH, false),
    (Method::Everything, 2, true),
    (ungated(0), BATCH, false),
    (gated(0, 0), BATCH, false),
    (gated(1, 0), BATCH, true),
    (gated(2, 0), 1, false),
    (gated(0, 0), 2, true),
    (gated(3, 0), BATCH, false),
    (gated(5, 0), 2, false),
    (gated(6, 0), 2, false),
    (gated(7, 0), BATCH, false),
    (gated(8, 0), 2, false),
    (gated(9, 0), BATCH, false),
    (ungated(PREPENDED), 2, false),
    (gated(0, PREPENDED), BATCH, false),
    (gated(6, PREPENDED), BATCH, false),
    (gated(8, PREPENDED), BATCH, false),
];

/// Prompts of weight 1 before some blocks.
const fn ungated(prepended: usize) -> Method {
    Method::Prompts { prompts: Prompts { blocks: BLOCKS, prepended, gate: None }, balance: GATES[0].1 }
}

/// Prompts before all blocks under the gate of a number.
const fn gated(number: usize, prepended: usize) -> Method {
    let (gating, balance) = GATES[number];
    Method::Prompts { prompts: Prompts { blocks: SHAPE.depth, prepended, gate: Some(gating) }, balance }
}

/// A training run on the CPU, with what it starts from.
struct Run {
    method: Method,
    loss: TrainingLoss,
    /// `[EXAMPLES, n]`; deviations are empty where nothing about examples is random.
    examples: [Vec<f32>; 2],
    backbone: Parameters,
    /// What learns, flat.
    values: Vec<f32>,
    average: Vec<f32>,
    adamw: AdamW,
    workspace: Workspace,
    condition: Condition,
}

const SCALE: f32 = 0.5;

impl Run {
    fn new<M: Machine>(bench: &mut Bench<M>, method: Method, latents: bool) -> Self {
        let process = Process::new(Schedule::Cosine, TIMESTEPS).expect("a schedule");
        let mut backbone = Parameters::zeros(SHAPE).expect("a sound shape");
        let weights = bench.numbers(backbone.values().len(), 0.1);
        backbone.values_mut().copy_from_slice(&weights);
        let width = SHAPE.hidden;
        let (learn, prepended, values) = match method {
            Method::Everything => (Learn::Everything, 0, weights),
            Method::Prompts { prompts: mixed, .. } => {
                let (Prompts { blocks, prepended, gate }, count) = (mixed, mixed.count(&SHAPE));
                let mut values = bench.numbers(blocks * count * width, 0.3);
                values.extend(bench.numbers(gate.map_or(0, |gating| gating.len(count, width)), 0.3));
                (Learn::Contributions { from: 0 }, prepended, values)
            }
        };
        let count = EXAMPLES * SHAPE.image();
        let mean = bench.numbers(count, 0.5).iter().map(|v| v.clamp(-1.0, 1.0)).collect();
        let deviation = bench.numbers(if latents { count } else { 0 }, 0.1);
        Self {
            method,
            loss: TrainingLoss::new(process, MseWeight::Constant),
            examples: [mean, deviation],
            backbone,
            average: values.clone(),
            adamw: AdamW::new(values.len()),
            workspace: Workspace::new(Plan { learn, ..Plan::sampling(SHAPE, BATCH, prepended) }),
            condition: Condition::new(SHAPE, BATCH),
            values,
        }
    }

    /// The same on a machine.
    fn on<'m, M: Machine>(&self, machine: &'m M, precision: Precision, part: usize) -> Result<Step<'m, M>, Error> {
        let [mean, deviation] = &self.examples;
        let scale = (!deviation.is_empty()).then_some(SCALE);
        let mut pool = Pool::new(machine, EXAMPLES, SHAPE.image(), scale)?;
        pool.write(machine, 0, mean, deviation)?;
        let average = self.method == Method::Everything;
        let setting =
            Setting { shape: SHAPE, method: self.method, batch: BATCH, part, loss: &self.loss, average, seed: SEED };
        let mut step = Step::new(machine, precision, setting, pool)?;
        step.set_backbone(&self.backbone)?;
        let (first, second) = (vec![0.0; self.values.len()], vec![0.0; self.values.len()]);
        let average = if average { self.average.clone() } else { Vec::new() };
        step.set_state(0, &State { values: self.values.clone(), first, second, average })?;
        Ok(step)
    }

    /// Normals of this run.
    fn normals(stream: Stream, step: u32, count: usize) -> Vec<f32> {
        let mut normals = vec![0.0; count];
        Draws::new(SEED, stream, u64::from(step)).fill_normal(0, &mut normals);
        normals
    }

    fn clean(&self, step: u32, places: &[Place]) -> Vec<f32> {
        let (n, [mean, deviation]) = (SHAPE.image(), &self.examples);
        let noise = Self::normals(Stream::LatentNoise, step, BATCH * n);
        let value = |i: usize| {
            let from = places[i / n].example as usize * n + i % n;
            match deviation.get(from) {
                Some(deviation) => SCALE * (mean[from] + deviation * noise[i]),
                None => mean[from],
            }
        };
        (0..BATCH * n).map(value).collect()
    }

    /// One step; returns the losses: the network's, importance and load.
    fn step(&mut self, number: u32, places: &[Place]) -> [f64; 3] {
        let n = SHAPE.image();
        let (x0, noise) = (self.clean(number, places), Self::normals(Stream::TrainNoise, number, BATCH * n));
        let mut x_t = vec![0.0; x0.len()];
        for (sample, place) in places.iter().enumerate() {
            let at = sample * n..(sample + 1) * n;
            self.loss.process().q_sample(place.timestep as usize, &x0[at.clone()], &noise[at.clone()], &mut x_t[at]);
        }
        if self.method == Method::Everything {
            self.backbone.values_mut().copy_from_slice(&self.values);
        }
        let told: Vec<f32> = places.iter().map(|place| place.timestep as f32).collect();
        let labels: Vec<u32> = places.iter().map(|place| place.label).collect();
        self.condition.compute(&self.backbone, &told, &labels);

        let (spec, balance) = match self.method {
            Method::Everything => (Prompts { blocks: 0, prepended: 0, gate: None }, GATES[0].1),
            Method::Prompts { prompts, balance } => (prompts, balance),
        };
        let (Prompts { blocks, prepended, gate }, count, width) = (spec, spec.count(&SHAPE), SHAPE.hidden);
        let (prompts, of_gate) = self.values.split_at(blocks * count * width);
        let (t, label) = (self.condition.t_emb(), self.condition.label());
        let embedding: Vec<f32> = match gate {
            Some(Gating { with_label: true, .. }) => t.iter().zip(label).map(|(t, label)| t + label).collect(),
            _ => t.to_vec(),
        };
        let draws = match gate {
            Some(Gating { noisy: true, .. }) => Self::normals(Stream::GateNoise, number, blocks * BATCH * count),
            _ => Vec::new(),
        };
        let oracle = gate.map(|gating| Oracle {
            gating,
            balance,
            extent: Extent { blocks, prompts: count, width, rows: BATCH, all: BATCH },
            values: of_gate,
            prompts,
            embedding: &embedding[..BATCH * width],
            draws: &draws,
        });
        let mixed = match &oracle {
            Some(oracle) => oracle.mixed(),
            None => Mixed::Weights(vec![1.0; blocks * BATCH * count]),
        };
        let contributions = contributions([blocks, prepended], &mixed, prompts);
        let rows: Vec<u32> = (0..BATCH as u32).collect();
        let inputs = Inputs {
            parameters: &self.backbone,
            condition: &self.condition,
            rows: &rows,
            contributions: &contributions,
        };
        let loss = &self.loss;
        let terms = self.workspace.step(&inputs, &x_t, |sample, output, d_output| {
            let at = sample * n..(sample + 1) * n;
            let (x0, x_t, noise) = (&x0[at.clone()], &x_t[at.clone()], &noise[at]);
            let t = places[sample].timestep as usize;
            loss.sample_loss(t, x0, x_t, noise, output, Some(d_output), 1.0 / BATCH as f64)
        });
        let denoising = terms.iter().map(|term| term.total()).sum::<f64>() / BATCH as f64;
        let (gradient, balance) = match self.method {
            Method::Everything => {
                self.workspace.condition_backward(&inputs, OutsideGradients::default());
                let gradients = self.workspace.gradients().parameters.as_ref();
                (gradients.expect("weights learn").values().to_vec(), [0.0; 2])
            }
            Method::Prompts { .. } => {
                let (mut gradient, mut d_mixed) = (Vec::new(), Vec::new());
                for part in &self.workspace.gradients().contributions {
                    match part {
                        ContributionGradient::None => {}
                        ContributionGradient::Prompts { weights, prompts } => {
                            gradient.extend(prompts);
                            d_mixed.extend(weights);
                        }
                        ContributionGradient::Vectors(vectors) => d_mixed.extend(vectors),
                    }
                }
                // where vectors stand in their place, prompts have none
                gradient.resize(prompts.len(), 0.0);
                let of_gate = oracle.map(|oracle| oracle.backward(&d_mixed));
                let balance = of_gate.as_ref().map_or([0.0; 2], |of_gate| [of_gate.importance, of_gate.load]);
                if let Some(Gradients { values, prompts, .. }) = of_gate {
                    gradient.iter_mut().zip(prompts).for_each(|(sum, more)| *sum += more);
                    gradient.extend(values);
                }
                (gradient, balance)
            }
        };
        let prompts = prompts.len();
        let [rate, of_gate] = RATES.learning_rates;
        let group = |range, learning_rate| Group { range, learning_rate, weight_decay: RATES.weight_decay };
        let groups = match self.method {
            Method::Everything => {
                let position =
                    self.backbone.segments().into_iter().find(|s| s.name == "pos_embed").expect("positions").range;
                [group(0..position.start, rate), group(position.end..self.values.len(), rate)]
            }
            Method::Prompts { .. } => [group(0..prompts, rate), group(prompts..self.values.len(), of_gate)],
        };
        self.adamw.step(&mut self.values, &gradient, &groups);
        kernels::average(&mut self.average, &self.values, RATES.decay);
        [denoising, balance[0], balance[1]]
    }
}

/// What step `number` trains on.
fn places(number: u32) -> Vec<Place> {
    let draws = Draws::new(SEED, Stream::Timestep, u64::from(number));
    let place = |i: u32| Place {
        example: (number * BATCH as u32 + i) % EXAMPLES as u32,
        label: (i + number) % SHAPE.label_rows as u32,
        timestep: draws.below(u64::from(i), TIMESTEPS as u32),
    };
    (0..BATCH as u32).map(place).collect()
}

/// Trains `count` steps of a case. The losses of the first and, where there are no more, what was trained are held against the CPU's; all
/// that was trained is told by its bits. The state goes to the host and back after the second step: what goes on from there is what would
/// have gone on anyway.
///
/// # Errors
/// The machine cannot run a step at all.
pub fn steps<M: Machine>(
    machine: &M,
    precision: Precision,
    (method, part, latents): (Method, usize, bool),
    count: u32,
) -> Result<Vec<Finding>, Error> {
    let mut bench = Bench { launcher: Launcher { machine, precision }, findings: Vec::new(), seed: 200 };
    let mut cpu = Run::new(&mut bench, method, latents);
    let mut step = cpu.on(machine, precision, part)?;
    let name = format!("{method:?}, {part} of {BATCH} at once, latents {latents}");
    let bound = match precision {
        Precision::F32 => 1e-4,
        Precision::Bf16 => 5e-2,
    };
    for number in 0..count {
        if number == 2 {
            let state = step.state()?;
            step = cpu.on(machine, precision, part)?;
            step.set_state(number, &state)?;
            if method != Method::Everything {
                step.set_backbone(&cpu.backbone)?;
            }
        }
        step.write(number, &places(number), &RATES)?;
        step.run()?;
        if number < COMPARED {
            let want = cpu.step(number, &places(number));
            let ours = step.losses(number, 1)?[0];
            let ours = [ours.mse + ours.vb, ours.importance, ours.load];
            for ((loss, ours), want) in ["loss", "importance", "load"].iter().zip(ours).zip(want) {
                if want != 0.0 || ours != 0.0 {
                    bench.find(&format!("{name}: {loss} of step {number}"), &[ours as f32], &[want as f32], bound);
                }
            }
        }
    }
    let state = step.state()?;
    // Where a gradient is near zero AdamW's first steps go either way, by the whole rate.
    let compared = count <= COMPARED;
    let (bound, want) = if compared { (2e-2, &cpu.values) } else { (0.0, &state.values) };
    bench.find(&format!("{name}: trained values after {count} steps"), &state.values, want, bound);
    if method == Method::Everything {
        let want = if compared { &cpu.average } else { &state.average };
        bench.find(&format!("{name}: their average"), &state.average, want, bound);
    }
    Ok(bench.findings)
}
