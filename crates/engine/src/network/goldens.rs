//! Sampling as the authors' code samples (goldens, group b, `dmp_sampling`), by both engines.

use candle_core::Device;
use diffusion::{Denoiser, Kind, Process, Sampler, Schedule, Spacing, Variance};
use goldens::{Array, Golden, relative_distance};
use manifest::dit::DitConfig;
use manifest::method::{Lora, Method};
use manifest::scale::{self, Engine, GuidanceChannels, SamplerKind};
use models::weights::{Tensor, Weights};

use super::Network;
use crate::trunk::released;

/// The samples of one kind (`cond`, `uncond`) under one engine.
struct Case {
    golden: Golden,
    kind: &'static str,
    network: Network,
    /// The initial noise of the samples; the reference carries a second copy for the null label.
    start: Vec<f32>,
    count: usize,
    elements: usize,
}

impl Case {
    fn new(kind: &'static str, engine: Engine) -> Self {
        Self::guided(kind, engine, 1.5, GuidanceChannels::FirstThree)
    }

    fn guided(kind: &'static str, engine: Engine, guidance: f64, guidance_channels: GuidanceChannels) -> Self {
        let golden = Golden::open("dmp_sampling");
        let conditional = kind == "cond";
        let dit = released::dit(golden.config());
        let dit = if conditional { dit } else { DitConfig { classes: None, label_dropout: 0.0, ..dit } };
        let all = golden.group(&format!("{kind}.sd.")).into_iter();
        let tensor = |(name, array): (String, Array)| (name, Tensor { values: array.f32(), shape: array.shape });
        let is_patch = |name: &str| name.starts_with("gate.") || name == "w_noise" || name == patches::PROMPTS;
        let (patch, backbone): (Weights, Weights) = all.map(tensor).partition(|(name, _)| is_patch(name));
        let sampler = scale::Sampler { kind: SamplerKind::Ddpm, steps: 1, clip_x0: false, guidance, guidance_channels };
        let method = released::method(golden.config());
        let mut network = Network::new(&dit, &method, &sampler, (&backbone, &patch), engine, &Device::Cpu).unwrap();
        let (mut start, mut labels) =
            (golden.get(&format!("{kind}.z")).f32(), golden.get(&format!("{kind}.y")).usize());
        let elements = start.len() / labels.len();
        if conditional {
            labels.truncate(labels.len() / 2);
            start.truncate(labels.len() * elements);
        }
        let count = labels.len();
        network.set_labels(labels.into_iter().map(|label| label as u32).collect());
        Self { golden, kind, network, start, count, elements }
    }

    /// Walks the steps `t`, with `noise` per step, and hands every state on.
    fn walk(
        &mut self,
        sampler: &Sampler,
        steps: impl Iterator<Item = usize>,
        noise: &[f32],
        mut see: impl FnMut(usize, &[f32]),
    ) {
        let mut x = self.start.clone();
        let mut output = vec![0.0; 2 * x.len()];
        let per_step = noise.len() / sampler.process().len();
        for (i, t) in steps.enumerate() {
            self.network.denoise(&x, sampler.process().step(t).timestep, &mut output).unwrap();
            for sample in 0..self.count {
                let part = sample * self.elements..(sample + 1) * self.elements;
                let draws = if noise.is_empty() { &[][..] } else { &noise[i * per_step..][part.clone()] };
                sampler.step(t, &mut x[part.clone()], &output[2 * part.start..2 * part.end], draws);
            }
            see(i, &x);
        }
    }

    fn compare(&self, what: &str, ours: &[f32], theirs: &[f64]) {
        let ours: Vec<f64> = ours.iter().map(|&v| f64::from(v)).collect();
        let apart = relative_distance(&ours, &theirs[..ours.len()]);
        assert!(apart <= 1e-4, "{} {what}: {apart:.1e} apart", self.kind);
    }
}

fn sampler(schedule: Schedule, kind: Kind, spacing: &Spacing) -> Sampler {
    let process = Process::new(schedule, 1000).unwrap().respaced(spacing).unwrap();
    // An untrained model stays finite under the cosine schedule only where x0 is clipped.
    Sampler::new(process, kind, Variance::LearnedRange, schedule == Schedule::Cosine)
}

#[test]
fn sampling_follows_the_reference() {
    let steps = Golden::open("dmp_sampling").config()["steps"].as_u64().unwrap() as usize;
    for engine in [Engine::Fast, Engine::Reference] {
        for kind in ["cond", "uncond"] {
            let mut case = Case::new(kind, engine);
            for (name, schedule) in [("linear", Schedule::Linear), ("cosine", Schedule::Cosine)] {
                let get = |case: &Case, what: &str| case.golden.get(&format!("{kind}.{name}.{what}"));
                let (noise, path) = (get(&case, "ddpm.noise").f32(), get(&case, "ddpm.trajectory").values);
                let ddpm = sampler(schedule, Kind::Ddpm, &Spacing::Sections(vec![steps]));
                let mut states = Vec::new();
                case.walk(&ddpm, (0..steps).rev(), &noise, |_, x| states.push(x.to_vec()));
                let per_step = path.len() / steps;
                for (i, state) in states.iter().enumerate() {
                    case.compare(&format!("{name} ddpm {engine:?} step {i}"), state, &path[i * per_step..]);
                }

                let ddim = Kind::Ddim { eta: 0.0 };
                let every = sampler(schedule, ddim, &Spacing::Strided(steps));
                let mut last = Vec::new();
                case.walk(&every, (0..steps).rev(), &[], |_, x| last = x.to_vec());
                case.compare(&format!("{name} ddim {engine:?}"), &last, &get(&case, "ddim_all_steps").values);
                // The released loop strides over its own schedule; the steps themselves are right.
                let fifty = sampler(schedule, ddim, &Spacing::Strided(50));
                case.walk(&fifty, (0..50).rev().step_by(5), &[], |_, x| last = x.to_vec());
                case.compare(
                    &format!("{name} ddim as written {engine:?}"),
                    &last,
                    &get(&case, "ddim_loop_as_written").values,
                );
            }
        }
    }
}

/// Group i: a network with adapters as the sampler runs it, by both engines.
#[test]
fn adapters_predict_as_the_reference_does() {
    let (golden, base) = (Golden::open("lora_dit"), Golden::open("dit_strong"));
    let dit = released::dit(base.config());
    let weights = |golden: &Golden, prefix: &str, keep: &str| -> Weights {
        let tensors = golden.group(prefix).into_iter();
        let tensor = |(name, array): (String, Array)| {
            (format!("{keep}{name}"), Tensor { values: array.f32(), shape: array.shape })
        };
        tensors.map(tensor).collect()
    };
    let (backbone, adapters) = (weights(&base, "sd.", ""), weights(&golden, "lora.", "lora."));
    let sampler = scale::Sampler {
        kind: SamplerKind::Ddpm,
        steps: 1,
        clip_x0: false,
        guidance: 1.0,
        guidance_channels: GuidanceChannels::All,
    };
    let (x, t, labels) = (golden.get("in.x").f32(), golden.get("in.t").usize(), golden.get("in.y").usize());
    let elements = x.len() / t.len();
    for alpha in [4.0, 8.0] {
        let method = Method::Lora(Lora { rank: 4, alpha });
        let theirs = golden.get(&format!("r4_alpha{alpha}.out"));
        for engine in [Engine::Fast, Engine::Reference] {
            let mut network =
                Network::new(&dit, &method, &sampler, (&backbone, &adapters), engine, &Device::Cpu).unwrap();
            let mut ours = vec![0.0; theirs.values.len()];
            let outputs = ours.chunks_exact_mut(theirs.values.len() / t.len());
            for (i, (output, x)) in outputs.zip(x.chunks_exact(elements)).enumerate() {
                network.set_labels(vec![labels[i] as u32]);
                network.denoise(x, t[i], output).unwrap();
            }
            goldens::assert_close(&format!("alpha {alpha} {engine:?}"), &ours, &theirs, 1e-5);
        }
    }
}

/// Guidance of the first three of four channels, and of all, under every sampler: each call is the combination of the two
/// predictions, and the last channel differs where it is guided too.
#[test]
fn guidance_of_three_channels_or_all_with_every_sampler() {
    let steps = 5;
    for (kind, spacing, clip) in [
        (Kind::Ddpm, Spacing::Sections(vec![steps]), true),
        (Kind::Ddim { eta: 0.0 }, Spacing::Strided(steps), true),
        (Kind::Pndm, Spacing::Leading(steps), false),
    ] {
        let process = Process::new(Schedule::ScaledLinear, 1000).unwrap().respaced(&spacing).unwrap();
        let sampler = Sampler::new(process, kind, Variance::LearnedRange, clip);
        for engine in [Engine::Fast, Engine::Reference] {
            let sample = |guidance: f64, guidance_channels: GuidanceChannels| {
                let mut case = Case::guided("cond", engine, guidance, guidance_channels);
                let mut x = case.start.clone();
                let elements = case.elements;
                sampler.sample(&mut case.network, &mut x, elements, 0, 4, |_| Ok(())).unwrap();
                assert!(x.iter().all(|value| value.is_finite()), "{kind:?} {engine:?}");
                x
            };
            let (three, all) = (sample(1.5, GuidanceChannels::FirstThree), sample(1.5, GuidanceChannels::All));
            let none = sample(1.0, GuidanceChannels::All);
            assert_ne!(three, all);
            assert_ne!(three, none);

            let predict = |guidance: f64, channels: GuidanceChannels| {
                let mut case = Case::guided("cond", engine, guidance, channels);
                let mut out = vec![0.0; 2 * case.start.len()];
                let start = case.start.clone();
                case.network.denoise(&start, sampler.timestep(0), &mut out).unwrap();
                (out, case.elements)
            };
            let ((three, elements), (all, _)) =
                (predict(1.5, GuidanceChannels::FirstThree), predict(1.5, GuidanceChannels::All));
            let (none, channel) = (predict(1.0, GuidanceChannels::All).0, elements / 4);
            for (i, ((three, all), none)) in
                three.chunks(channel).zip(all.chunks(channel)).zip(none.chunks(channel)).enumerate()
            {
                match i % 8 {
                    0..3 => assert!(three == all && three != none, "guided by both"),
                    3 => assert!(three == none && all != none, "guided by one"),
                    _ => assert!(three == none && all == none, "the variance is not guided"),
                }
            }
        }
    }
}
