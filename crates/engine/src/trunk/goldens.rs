//! Five optimizer steps of the authors' training loop (goldens, group d), by both engines.

use candle_core::Device;
use diffusion::{MseWeight, Process, Schedule, TrainingLoss};
use goldens::{Array, Golden, assert_close, distance};
use kernels::{AdamW, Group};
use manifest::dit::DitConfig;
use manifest::method::{Backbone, Dmp, Method};
use manifest::scale::{DeviceKind, Dtype, Engine, Numerics};
use models::weights::{Tensor, Weights};

use super::released::{dit, method};
use super::{Setting, TrainingTrunk, fast, training_trunk};
use crate::batch::{Batcher, TrainingBatch};
use crate::trainables::{Layout, own_slots};

const ENGINES: [Engine; 2] = [Engine::Fast, Engine::Reference];

fn weights(tensors: Vec<(String, Array)>) -> Weights {
    let tensor = |(name, array): (String, Array)| (name, Tensor { values: array.f32(), shape: array.shape });
    tensors.into_iter().map(tensor).collect()
}

/// The recorded inputs of one step; labels are dropped where the recorded draw says so.
fn batch(golden: &Golden, step: usize, dit: &DitConfig, process: &Process) -> TrainingBatch {
    let get = |name: &str| golden.get(&format!("step{step}.{name}"));
    let t = get("t").usize();
    let gate_noise = golden.find(&format!("step{step}.gate_noise")).map_or(Vec::new(), |noise| noise.f32());
    let mut batch = Batcher::empty(t.len(), dit, 0);
    batch.clean.x0 = get("x0").f32();
    batch.clean.noise = get("noise").f32();
    batch.clean.labels = get("y").usize().into_iter().map(|label| label as u32).collect();
    if let Some(draws) = golden.find(&format!("step{step}.drop_uniform")) {
        for (label, draw) in batch.clean.labels.iter_mut().zip(draws.values) {
            if draw < dit.label_dropout {
                *label = dit.classes.expect("dropped labels have classes") as u32;
            }
        }
    }
    let elements = batch.clean.x0.len() / t.len();
    for (i, &t) in t.iter().enumerate() {
        let image = i * elements..(i + 1) * elements;
        process.q_sample(t, &batch.clean.x0[image.clone()], &batch.clean.noise[image.clone()], &mut batch.x_t[image]);
    }
    batch.clean.t = t;
    batch.gate_noise = gate_noise;
    batch
}

/// One run under one engine.
struct Run {
    name: String,
    engine: Engine,
    golden: Golden,
    dit: DitConfig,
    process: Process,
    layout: Layout,
    values: Vec<f32>,
    gradient: Vec<f32>,
    adamw: AdamW,
    trunk: Box<dyn TrainingTrunk>,
}

impl Run {
    fn new(name: &str, engine: Engine) -> Self {
        let golden = Golden::open(name);
        let config = golden.config();
        let (dit, method) = (dit(config), method(config));
        let backbone = if dit.classes.is_some() { "train_backbone_cond" } else { "train_backbone_uncond" };
        let backbone = weights(Golden::open(backbone).group("sd."));
        let schedule = if config["sched"] == "cosine" { Schedule::Cosine } else { Schedule::Linear };
        let process = Process::new(schedule, 1000).unwrap();
        let (layout, start) = match method {
            Method::Finetune(_) => (Layout::new(fast::full_slots(&dit).unwrap()), backbone.clone()),
            _ => {
                let layout = Layout::new(own_slots(patches::trainable(&method, &dit)));
                (layout, weights(golden.group("init.")))
            }
        };
        let setting = Setting {
            dit: &dit,
            method: &method,
            backbone: &backbone,
            layout: &layout,
            loss: TrainingLoss::new(process.clone(), MseWeight::Constant),
            batch: config["batch"].as_u64().unwrap() as usize,
        };
        let numerics = Numerics { engine, device: DeviceKind::Cpu, dtype: Dtype::F32 };
        let trunk = training_trunk(setting, &numerics, &Device::Cpu).unwrap();
        let values = layout.flatten(&start).unwrap();
        let (gradient, adamw) = (vec![0.0; values.len()], AdamW::new(values.len()));
        Self { name: name.to_owned(), engine, golden, dit, process, layout, values, gradient, adamw, trunk }
    }

    /// One step; returns the losses by the golden file's names, per batch.
    fn step(&mut self, step: usize) -> [(&'static str, f64); 5] {
        let batch = batch(&self.golden, step, &self.dit, &self.process);
        let losses = self.trunk.gradient(&batch, &self.values, &mut self.gradient).unwrap();
        let learning_rate = self.golden.config()["lr"].as_f64().unwrap();
        let groups = self.layout.segments().into_iter().map(|(range, factor)| Group {
            range,
            learning_rate: learning_rate * factor,
            weight_decay: 0.0,
        });
        self.adamw.step(&mut self.values, &self.gradient, &groups.collect::<Vec<_>>());
        [
            ("mse", losses.mse),
            ("vb", losses.vb),
            ("importance", losses.importance),
            ("load", losses.load),
            ("total", losses.total),
        ]
    }

    fn compare_gradients(&mut self, what: &str, step: usize) {
        let mut values = self.values.clone();
        for slot in &self.layout.slots {
            if let Some(recorded) =
                step.checked_sub(1).and_then(|s| self.golden.find(&format!("step{s}.after.{}", slot.name)))
            {
                values[slot.range.clone()].copy_from_slice(&recorded.f32());
            }
        }
        let batch = batch(&self.golden, step, &self.dit, &self.process);
        self.trunk.gradient(&batch, &values, &mut self.gradient).unwrap();
        for slot in &self.layout.slots {
            if let Some(theirs) = self.golden.find(&format!("step{step}.grad.{}", slot.name)) {
                let ours = &self.gradient[slot.range.clone()];
                let of_the_gate = self.name == "train_dmp_topk" && slot.name != patches::PROMPTS;
                let tolerance = match (of_the_gate, step) {
                    // The exception that the goldens' README makes.
                    (true, 4) => 1e-3,
                    // A learned deviation near its floor divides the logits' rounding: at step 2 the recorded gradient
                    // itself lies 1.5e-5 from the same formula in f64. The fast engine stays within 1e-5.
                    (true, 2) if self.engine == Engine::Reference => 2e-5,
                    _ => 1e-5,
                };
                assert_close(&format!("{what} step {step} {} gradient", slot.name), ours, &theirs, tolerance);
            }
        }
    }

    /// Mean of a recorded loss over the batch, if the run has it.
    fn recorded(&self, step: usize, name: &str) -> Option<f64> {
        let array = self.golden.find(&format!("step{step}.{name}"))?;
        Some(array.values.iter().sum::<f64>() / array.values.len() as f64)
    }
}

/// Losses and values along our own trajectory; gradients at the recorded values of each step, since Adam turns the
/// rounding of a vanishing gradient into a whole step, which the next gradient would show.
fn follow(name: &str) {
    for engine in ENGINES {
        let mut run = Run::new(name, engine);
        for step in 0..run.golden.config()["steps"].as_u64().unwrap() as usize {
            run.compare_gradients(&format!("{name} {engine:?}"), step);
            for (loss, ours) in run.step(step) {
                if let Some(theirs) = run.recorded(step, loss) {
                    let apart = distance(&[ours], &[theirs]);
                    assert!(
                        apart <= 3e-6,
                        "{name} {engine:?} step {step} {loss}: {ours} not {theirs}, {apart:.1e} apart"
                    );
                }
            }
            for slot in &run.layout.slots {
                if let Some(theirs) = run.golden.find(&format!("step{step}.after.{}", slot.name)) {
                    let what = format!("{name} {engine:?} step {step} {} after", slot.name);
                    assert_close(&what, &run.values[slot.range.clone()], &theirs, 2e-6);
                }
            }
        }
    }
}

#[test]
fn train_dmp_from_zero() {
    follow("train_dmp_zero");
}

#[test]
fn train_dmp_from_random_with_label_dropout() {
    follow("train_dmp_random");
}

#[test]
fn train_dmp_top_k_with_load_loss() {
    follow("train_dmp_topk");
}

#[test]
fn train_prompt_tuning_cosine() {
    follow("train_pt");
}

#[test]
fn train_full_fine_tuning() {
    follow("train_ft");
    for engine in ENGINES {
        let mut run = Run::new("train_ft", engine);
        (0..5).for_each(|step| _ = run.step(step));
        for slot in &run.layout.slots {
            let theirs = run.golden.get(&format!("final.{}", slot.name));
            let mut ours = run.values[slot.range.clone()].to_vec();
            if slot.name.ends_with("qkv.bias") {
                // The key's bias has a gradient of exactly zero; Adam turns its rounding noise into whole steps.
                let d = run.dit.hidden;
                ours[d..2 * d].copy_from_slice(&theirs.f32()[d..2 * d]);
            }
            assert_close(&format!("train_ft {engine:?} final {}", slot.name), &ours, &theirs, 2e-5);
        }
    }
}

/// At `t = 0` the decoder's likelihood is ill-conditioned in 32 bits: 5% on what it enters.
#[test]
fn train_dmp_with_a_first_timestep() {
    for engine in ENGINES {
        let mut run = Run::new("train_dmp_t0", engine);
        for (loss, ours) in run.step(0) {
            let theirs = run.recorded(0, loss).unwrap();
            let tolerance =
                if matches!(loss, "vb" | "total") { 0.05 * theirs.abs() } else { 3e-6 * theirs.abs().max(1.0) };
            assert!((ours - theirs).abs() <= tolerance, "{engine:?} {loss}: {ours} not {theirs}");
        }
    }
}

/// A backbone that learns together with its patch: both engines agree on every gradient, and the patch's own are those of
/// the authors' code, where the backbone is frozen.
#[test]
fn a_backbone_learns_together_with_its_patch() {
    let golden = Golden::open("train_dmp_random");
    let config = golden.config();
    let (dit, Method::Dmp(released)) = (dit(config), method(config)) else { panic!("the run is DMP") };
    let method = Method::Dmp(Dmp { backbone: Backbone::FromScratch, ..released });
    let mut weights = weights(Golden::open("train_backbone_cond").group("sd."));
    weights.extend(self::weights(golden.group("init.")));
    let own = own_slots(patches::trainable(&method, &dit));
    let layout = Layout::new(fast::full_slots(&dit).unwrap().into_iter().chain(own));
    let process = Process::new(Schedule::Linear, 1000).unwrap();
    let values = layout.flatten(&weights).unwrap();
    let of = |engine: Engine| {
        let setting = Setting {
            dit: &dit,
            method: &method,
            backbone: &Weights::new(),
            layout: &layout,
            loss: TrainingLoss::new(process.clone(), MseWeight::Constant),
            batch: config["batch"].as_u64().unwrap() as usize,
        };
        let numerics = Numerics { engine, device: DeviceKind::Cpu, dtype: Dtype::F32 };
        let mut trunk = training_trunk(setting, &numerics, &Device::Cpu).unwrap();
        let mut gradient = vec![0.0; values.len()];
        let losses = trunk.gradient(&batch(&golden, 0, &dit, &process), &values, &mut gradient).unwrap();
        (losses.total, gradient)
    };
    let ((fast_loss, fast), (reference_loss, reference)) = (of(Engine::Fast), of(Engine::Reference));
    assert!(distance(&[fast_loss], &[reference_loss]) <= 3e-6, "{fast_loss} {reference_loss}");
    let double = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    for slot in layout.slots.iter().filter(|slot| slot.learning_rate_factor > 0.0) {
        let (ours, theirs) = (&fast[slot.range.clone()], &reference[slot.range.clone()]);
        let apart = distance(&double(ours), &double(theirs));
        assert!(apart <= 1e-5, "{}: {apart:.1e} apart", slot.name);
        if let Some(recorded) = golden.find(&format!("step0.grad.{}", slot.name)) {
            assert_close(&slot.name, ours, &recorded, 1e-5);
        }
        assert!(ours.iter().any(|&slope| slope != 0.0), "{} learns", slot.name);
    }
}
