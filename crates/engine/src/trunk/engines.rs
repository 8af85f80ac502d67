//! Both engines beside each other, for every method and variant, at random values: no gradient is hidden behind a zero, and
//! none behind Adam, which forgets every factor.

use std::ops::Range;

use candle_core::Device;
use diffusion::{Denoiser, MseWeight, Process, Schedule, TrainingLoss};
use goldens::{assert_within, relative_distance};
use kernels::{AdamW, Group};
use manifest::dit::DitConfig;
use manifest::method::{
    Add, Backbone, Depth, Dmp, Finetune, Init, Lora, Method, Position, Prepend, PromptTuning, Prompts, Zero,
};
use manifest::scale::{DeviceKind, Dtype, Engine, GuidanceChannels, Numerics, Sampler, SamplerKind};
use models::dit::named_shapes;
use models::weights::Weights;
use patches::{Initial, Patch};
use random::{Draws, Stream};

use super::{Setting, TrainingTrunk, fast, training_trunk};
use crate::batch::{Batcher, TrainingBatch};
use crate::losses::Losses;
use crate::network::Network;
use crate::trainables::{Layout, own_slots};

#[path = "../../../patches/tests/gated/mod.rs"]
mod gated;

const BATCH: usize = 5;

/// What outputs and losses of two engines may be apart, relative to the largest.
const TOLERANCE: f64 = 1e-5;

/// The same of gradients, relative to the largest element of a tensor, or to a tenth of the largest in all, if that is more: what is
/// left of larger terms has their rounding. Of some 30,000 tensors all but a hundred lie within 1e-5.
const GRADIENTS: f64 = 1e-4;

fn network() -> DitConfig {
    DitConfig {
        image_size: 8,
        channels: 2,
        patch: 2,
        hidden: 16,
        depth: 4,
        heads: 2,
        classes: Some(3),
        text_width: None,
        label_dropout: 0.1,
        learn_sigma: true,
    }
}

fn normals(count: usize, number: u64, std: f32) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Draws::new(3, Stream::Init, number).fill_normal(0, &mut values);
    values.iter_mut().for_each(|value| *value *= std);
    values
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Everything that trains.
fn methods() -> Vec<Method> {
    let gated = gated::gated_variants();
    let scratch = gated.iter().map(|dmp| Dmp { backbone: Backbone::FromScratch, ..dmp.clone() });
    let mut methods: Vec<Method> = scratch.chain(gated.iter().cloned()).map(Method::Dmp).collect();
    for position in [Position::Add(Add {}), Position::Prepend(Prepend { per_256_tokens: 192 })] {
        for depth in [Depth::First, Depth::Half, Depth::All] {
            let prompts = Prompts { position: position.clone(), depth, init: Init::Zero(Zero {}) };
            methods.push(Method::PromptTuning(PromptTuning { prompts }));
        }
    }
    methods.push(Method::Lora(Lora { rank: 3, alpha: 2.0 }));
    methods
        .extend([Backbone::Pretrained, Backbone::FromScratch].map(|backbone| Method::Finetune(Finetune { backbone })));
    methods
}

/// A method with random values on a random network.
struct Case {
    dit: DitConfig,
    method: Method,
    backbone: Weights,
    layout: Layout,
    values: Vec<f32>,
}

impl Case {
    fn new(dit: DitConfig, method: Method) -> Self {
        let shapes = named_shapes(&dit).into_iter().map(|(name, shape)| (name, shape, 1.0));
        let whole = Layout::new(shapes);
        // As wide as it is, a layer keeps its values' size.
        let std = 0.8 / (dit.hidden as f32).sqrt();
        let backbone = whole.unflatten(&normals(whole.len(), 0, std));
        let tensors = patches::trainable(&method, &dit);
        let learns = tensors.iter().any(|tensor| tensor.initial == Initial::Backbone);
        let all = if learns { fast::full_slots(&dit).unwrap() } else { Vec::new() };
        let layout = Layout::new(all.into_iter().chain(own_slots(tensors)));
        let mut values = normals(layout.len(), 1, std);
        // Weighted they are as large as other tokens: LayerNorm magnifies the rounding of smaller ones in front.
        let prompts = layout.slots.iter().find(|slot| slot.name == patches::PROMPTS);
        prompts.into_iter().for_each(|slot| values[slot.range.clone()].iter_mut().for_each(|value| *value *= 10.0));
        Self { dit, method, backbone, layout, values }
    }

    /// Timesteps over the process, and among the labels one that is dropped.
    fn batch(&self, step: u64) -> TrainingBatch {
        let draws = Patch::size(&self.method, &self.dit).map_or(0, |(blocks, prompts)| blocks * BATCH * prompts);
        let mut batch = Batcher::empty(BATCH, self.dit.elements(), draws);
        let elements = batch.x_t.len();
        (batch.clean.labels, batch.clean.t) = (vec![0, 3, 2, 1, 0], vec![1, 130, 400, 700, 999]);
        batch.clean.x0 = normals(elements, 10 * step + 2, 0.5);
        batch.clean.noise = normals(elements, 10 * step + 3, 1.0);
        batch.x_t = normals(elements, 10 * step + 4, 1.0);
        batch.gate_noise = normals(draws, 10 * step + 5, 1.0);
        batch
    }

    fn trunk(&self, engine: Engine) -> Box<dyn TrainingTrunk> {
        let Self { dit, method, backbone, layout, .. } = self;
        let loss = TrainingLoss::new(Process::new(Schedule::Linear, 1000).unwrap(), MseWeight::Constant);
        let numerics = Numerics { engine, device: DeviceKind::Cpu, dtype: Dtype::F32 };
        let setting = Setting { dit, method, backbone, layout, loss, batch: BATCH };
        training_trunk(setting, &numerics, &Device::Cpu).unwrap()
    }

    /// What learns by name. The keys' biases have a gradient of exactly zero, which rounding hides: they are left out.
    fn learning(&self) -> Vec<(&str, Range<usize>)> {
        let learn = self.layout.slots.iter().filter(|slot| slot.learning_rate_factor > 0.0);
        let parts = learn.flat_map(|slot| {
            let Range { start, end } = slot.range.clone();
            let third = (end - start) / 3;
            match slot.name.ends_with("qkv.bias") {
                true => vec![(slot.name.as_str(), start..start + third), (&slot.name, end - third..end)],
                false => vec![(slot.name.as_str(), start..end)],
            }
        });
        parts.collect()
    }

    /// What the network predicts under guidance.
    fn output(&self, engine: Engine) -> Vec<f32> {
        let trained = self.layout.unflatten(&self.values);
        let none = Weights::new();
        let backbone = if self.method.from_scratch() { &none } else { &self.backbone };
        let sampler = Sampler {
            kind: SamplerKind::Ddpm,
            steps: 10,
            clip_x0: false,
            guidance: 1.5,
            guidance_channels: GuidanceChannels::All,
        };
        let weights = (backbone, &trained);
        let mut network = Network::new(&self.dit, &self.method, &sampler, weights, engine, &Device::Cpu).unwrap();
        network.set_labels(vec![0, 2, 2, 1, 0]);
        let x = self.batch(0).x_t;
        let mut output = vec![0.0; 2 * x.len()];
        network.denoise(&x, 321, &mut output).unwrap();
        output
    }
}

/// Outputs of both engines, then losses and gradients along `steps` of training, each tensor relative to its own largest element.
fn compare(case: &Case, steps: u64) {
    let what = |part: &str| format!("{part} of {:?}", case.method);
    let [fast, reference] = [Engine::Fast, Engine::Reference].map(|engine| doubles(&case.output(engine)));
    assert_within(&what("output"), relative_distance(&fast, &reference), TOLERANCE);

    let mut trunks = [Engine::Fast, Engine::Reference].map(|engine| case.trunk(engine));
    let (mut values, mut adamw) = (case.values.clone(), AdamW::new(case.values.len()));
    let segments = case.layout.segments().into_iter();
    let group = |(range, factor)| Group { range, learning_rate: 1e-4 * factor, weight_decay: 0.0 };
    let groups: Vec<Group> = segments.map(group).collect();
    for step in 0..steps {
        let batch = case.batch(step);
        let [(losses, fast), (theirs, reference)] = trunks.each_mut().map(|trunk| {
            let mut gradient = vec![0.0; values.len()];
            (trunk.gradient(&batch, &values, &mut gradient).unwrap(), gradient)
        });
        for (name, (a, b)) in Losses::NAMES.into_iter().zip(losses.values().into_iter().zip(theirs.values())) {
            assert!((a - b).abs() <= TOLERANCE * b.abs(), "step {step}, {}: {a} and {b}", what(name));
        }
        let least = 0.1 * reference.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
        for (name, range) in case.learning() {
            let pairs = fast[range.clone()].iter().zip(&reference[range.clone()]);
            let apart = pairs.fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
            let size = reference[range].iter().fold(least, |most, value| most.max(value.abs()));
            assert_within(&what(&format!("step {step}, {name}")), f64::from(apart / size), GRADIENTS);
        }
        assert!(fast.iter().all(|value| value.is_finite()));
        adamw.step(&mut values, &fast, &groups);
    }
}

#[test]
fn every_method_agrees_in_ten_steps() {
    methods().into_iter().for_each(|method| compare(&Case::new(network(), method), 10));
}

/// Of the published widths, whose weights are not copied, and are multiplied where they lie: DiT-S's and DiT-B's.
#[test]
fn wide_trunks_agree_on_any_number_of_threads() {
    let dmp = gated::gated_variants().into_iter().map(Method::Dmp).next().unwrap();
    let full = Method::Finetune(Finetune { backbone: Backbone::Pretrained });
    for (hidden, heads) in [(384, 6), (768, 12)] {
        let dit = DitConfig { hidden, heads, depth: 1, ..network() };
        for method in [dmp.clone(), full.clone(), Method::Lora(Lora { rank: 3, alpha: 2.0 })] {
            let case = Case::new(dit.clone(), method);
            compare(&case, 1);
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut gradient = vec![0.0; case.layout.len()];
                    case.trunk(Engine::Fast).gradient(&case.batch(0), &case.values, &mut gradient).unwrap();
                    (gradient, case.output(Engine::Fast))
                })
            };
            assert!(on(1) == on(3), "threads change {:?} at width {hidden}", case.method);
        }
    }
}
