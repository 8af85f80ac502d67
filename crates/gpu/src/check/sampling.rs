//! Samples against the CPU engine's trunk and sampler.

use diffusion::{History, Kind, Process, Sampler, Schedule, Spacing, Variance};
use kernels::{Condition, Inputs, Parameters, Plan, Workspace};
use random::{Draws, Stream};

use super::gate::GATES;
use super::mixture::{Mixed, contributions};
use super::oracle::Oracle;
use super::trunk::{PREPENDED, SHAPE};
use super::{Bench, Finding};
use crate::gate::{Extent, Gating, Selection};
use crate::launch::Launcher;
use crate::machine::{Error, Machine, Precision};
use crate::sampling::{Call, Guidance, Labels, Sampled, Sampling};
use crate::setting::Prompts;

const SEED: u64 = 5;
const BATCH: usize = 3;
/// So many that PNDM has all its terms.
const STEPS: usize = 6;
/// The first batch is samples 0, 1, .. and the next begins here.
const NEXT: u64 = 3;

/// Two of the three channels.
const GUIDANCE: Guidance = Guidance { scale: 1.5, channels: 2, null: SHAPE.label_rows as u32 - 1 };

/// What is checked: kind, labels, prompts in front, and the gate.
const CASES: [(Kind, Labels, usize, Option<Gating>); 10] = [
    (Kind::Ddpm, Labels::None, 0, Some(GATES[0].0)),
    (Kind::Ddpm, Labels::Own, 0, Some(GATES[1].0)),
    (Kind::Ddim { eta: 0.0 }, Labels::None, 0, None),
    (Kind::Ddpm, Labels::None, PREPENDED, Some(GATES[0].0)),
    (Kind::Ddpm, Labels::None, 0, Some(GATES[6].0)),
    // soft: in bf16 the highest prompts change places where two are near
    (Kind::Ddpm, Labels::Own, 0, Some(Gating { selection: Selection::Soft, ..GATES[7].0 })),
    (Kind::Ddpm, Labels::Own, PREPENDED, Some(GATES[9].0)),
    (Kind::Ddpm, Labels::Guided(GUIDANCE), 0, Some(GATES[0].0)),
    (Kind::Ddpm, Labels::Guided(GUIDANCE), PREPENDED, Some(GATES[1].0)),
    (Kind::Pndm, Labels::Guided(Guidance { channels: SHAPE.channels, ..GUIDANCE }), 0, None),
];

/// Two batches of samples of each case.
///
/// # Errors
/// The machine cannot draw samples at all.
pub fn samples<M: Machine>(machine: &M, precision: Precision) -> Result<Vec<Finding>, Error> {
    let mut bench = Bench { launcher: Launcher { machine, precision }, findings: Vec::new(), seed: 300 };
    for (kind, labels, prepended, gate) in CASES {
        case(&mut bench, kind, labels, Prompts { blocks: SHAPE.depth, prepended, gate })?;
    }
    Ok(bench.findings)
}

fn case<M: Machine>(bench: &mut Bench<M>, kind: Kind, told: Labels, spec: Prompts) -> Result<(), Error> {
    let Launcher { machine, precision } = bench.launcher;
    let process = Process::new(Schedule::Cosine, 100).expect("a schedule");
    // away from the last timesteps, where the error of a predicted noise counts a hundredfold
    let spacing = Spacing::Strided(STEPS);
    let sampler = Sampler::new(process.respaced(&spacing).expect("a spacing"), kind, Variance::LearnedRange, true);
    let mut parameters = Parameters::zeros(SHAPE).expect("a sound shape");
    let values = bench.numbers(parameters.values().len(), 0.1);
    parameters.values_mut().copy_from_slice(&values);
    let Prompts { blocks, prepended, gate: gating } = spec;
    let (count, width) = (spec.count(&SHAPE), SHAPE.hidden);
    let prompts = bench.numbers(blocks * count * width, 0.3);
    let gate = bench.numbers(gating.map_or(0, |gating| gating.len(count, width)), 0.3);

    let calls: Vec<Call> = (0..sampler.calls())
        .map(|call| Call {
            timestep: sampler.timestep(call) as u32,
            reverse: sampler.coefficients(call),
            multistep: sampler.multistep(call),
        })
        .collect();
    let sampled = Sampled { shape: SHAPE, prompts: Some(spec), batch: BATCH, calls: &calls, labels: told, seed: SEED };
    let mut ours = Sampling::new(machine, precision, sampled)?;
    ours.set_weights(&parameters, &[&prompts[..], &gate].concat())?;
    let bound = match precision {
        Precision::F32 => 1e-4,
        Precision::Bf16 => 5e-2,
    };
    for first in [0, NEXT] {
        let labelled = !matches!(told, Labels::None);
        let labels: Vec<u32> = (0..BATCH as u32).map(|i| if labelled { (i + first as u32) % 5 } else { 0 }).collect();
        let mut x = vec![0.0; BATCH * SHAPE.image()];
        Draws::new(SEED, Stream::InitialNoise, 0).fill_normal(first * SHAPE.image() as u64, &mut x);
        ours.begin(first, &x, &labels)?;
        for _ in 0..ours.calls() {
            ours.run()?;
        }
        let mut histories = vec![History::default(); BATCH];
        let mut output = vec![0.0; BATCH * SHAPE.output()];
        let mut workspace = Workspace::new(Plan::sampling(SHAPE, BATCH, prepended));
        let mut predict = |call: usize, x: &[f32], labels: &[u32], output: &mut [f32]| {
            let mut condition = Condition::new(SHAPE, BATCH);
            condition.compute(&parameters, &[sampler.timestep(call) as f32; BATCH], labels);
            let (t, label) = (condition.t_emb(), condition.label());
            let embedding: Vec<f32> = match gating {
                Some(Gating { with_label: true, .. }) => t.iter().zip(label).map(|(t, label)| t + label).collect(),
                _ => t.to_vec(),
            };
            let mixed = match gating {
                None => Mixed::Weights(vec![1.0; blocks * BATCH * count]),
                Some(gating) => Oracle {
                    gating,
                    balance: GATES[0].1,
                    extent: Extent { blocks, prompts: count, width, rows: BATCH, all: BATCH },
                    values: &gate,
                    prompts: &prompts,
                    embedding: &embedding[..BATCH * width],
                    draws: &[],
                }
                .mixed(),
            };
            let contributions = contributions([blocks, prepended], &mixed, &prompts);
            let rows: Vec<u32> = (0..BATCH as u32).collect();
            let inputs =
                Inputs { parameters: &parameters, condition: &condition, rows: &rows, contributions: &contributions };
            workspace.forward(&inputs, x, output);
        };
        for call in 0..sampler.calls() {
            predict(call, &x, &labels, &mut output);
            if let Labels::Guided(Guidance { scale, channels, null }) = told {
                let mut without = vec![0.0; output.len()];
                predict(call, &x, &[null; BATCH], &mut without);
                let (each, channel) = (SHAPE.output(), SHAPE.image() / SHAPE.channels);
                let places = (0..output.len()).filter(|place| place % each < channels * channel);
                places.for_each(|i| output[i] = without[i] + scale * (output[i] - without[i]));
            }
            let each = x.len() / BATCH;
            let samples = x.chunks_exact_mut(each).zip(output.chunks_exact(output.len() / BATCH)).zip(&mut histories);
            for (number, ((x, output), history)) in (first..).zip(samples) {
                sampler.advance(call, x, output, history, number, SEED);
            }
        }
        let what = format!("{kind:?}, {told:?}, {spec:?}: samples from {first} on");
        bench.find(&what, &ours.samples()?, &x, bound);
    }
    Ok(())
}
